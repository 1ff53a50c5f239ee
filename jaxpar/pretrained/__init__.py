"""Published checkpoints, read from safetensors onto a mesh."""

from jaxpar.pretrained.load import load

__all__ = ["load"]
