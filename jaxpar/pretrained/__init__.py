"""Published checkpoints, read from safetensors onto a mesh."""

from jaxpar.extras import extra

with extra("train", "jaxpar.pretrained"):
    import flax  # noqa: F401
    import safetensors  # noqa: F401

from jaxpar.pretrained.chat import chat_text
from jaxpar.pretrained.load import load, without_weights
from jaxpar.pretrained.tokenizer import end_tokens, load_tokenizer

__all__ = ["chat_text", "end_tokens", "load", "load_tokenizer", "without_weights"]
