"""Where programs run: the mesh that they find, and what the memory of its devices does not hold."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from jax.sharding import Mesh


def on_mesh(mesh: Mesh) -> AbstractContextManager:
    """The context to draw in: its mesh is the one whose `time` axis a window is spread over."""
    return jax.set_mesh(mesh) if mesh.size > 1 else nullcontext()


def within_memory(action: Callable[..., Any], *given: Any) -> Any:
    """What `action` returns of what it is given, or None where the device's memory does not suffice."""
    try:
        return jax.block_until_ready(action(*given))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
