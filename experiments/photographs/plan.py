"""What an exact inverse will take on a TPU that is not here: pixel by pixel, and in wavefronts."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
from jaxtyping import Array

from experiments._frame.loops import Loop, Way, whole
from experiments._frame.plan import one_chip, plan_loops
from experiments.photographs.config import Deblurring
from experiments.photographs.deblur import pixel_by_pixel
from jaxpar.models import inverse_convolution


def main(config: Deblurring, workdir: Path) -> None:
    mesh, pixels = one_chip("an image's inverse"), config.edge**2

    def way(method: Callable[[Array, Array], Array], channels: int) -> Way:
        shapes = jnp.zeros((config.edge, config.edge, channels)), jnp.zeros((3, 3, channels, channels))
        return Way(method, whole(mesh, shapes), pixels)

    loops = [
        Loop(
            f"{config.edge}x{config.edge}x{channels} pixels",
            pixels,
            way(pixel_by_pixel, channels),
            {"wavefronts": way(inverse_convolution, channels)},
        )
        for channels in config.channels
    ]
    plan_loops(config.name, loops, mesh, workdir)
