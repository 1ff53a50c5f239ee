"""Published checkpoints, read from safetensors onto a mesh."""

from jaxpar.pretrained.load import load, without_weights
from jaxpar.pretrained.tokenizer import end_tokens, load_tokenizer

__all__ = ["end_tokens", "load", "load_tokenizer", "without_weights"]
