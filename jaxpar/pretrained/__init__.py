"""Published checkpoints, read from safetensors onto a mesh."""

from jaxpar.pretrained.load import load, without_weights

__all__ = ["load", "without_weights"]
