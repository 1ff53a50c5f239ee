"""What training the denoiser of images will need, and what drawing with it will take."""

from functools import partial
from pathlib import Path

from experiments._diffusion.chains import chain_loop
from experiments._frame.loops import Loop, whole
from experiments._frame.plan import plan_training, stand_in
from experiments.images.assembly import Assembly, assemble
from experiments.images.config import Experiment
from experiments.images.sample import drawing, keys_and_labels


def main(config: Experiment, workdir: Path) -> None:
    stand_in(config.mesh)
    parts = assemble(config)
    plan_training(parts.workload, partial(chain_loops, parts), workdir)


def chain_loops(parts: Assembly) -> list[Loop]:
    """The chains that are timed, each with all its windows."""
    keys, labels = keys_and_labels(parts, 1)
    arguments = (parts.trainer.abstract.params, *whole(parts.trainer.mesh, (keys[0], labels[0])))
    return [
        chain_loop(chain.sampler, partial(drawing, parts, chain.sampler), chain.solvers, arguments)
        for chain in parts.timed
    ]
