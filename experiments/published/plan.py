"""What drawing with a published shape will take on TPUs that are not here: a step, and a round of each window.

    python -m experiments.plan --config=configs/dit_xl.py --target=v5e:2x4 --config.mesh.time=8

By the TPU's own compiler; nothing is run and no weight is made.
"""

from functools import partial
from pathlib import Path

import jax

from experiments._diffusion.chains import chain_loop
from experiments._diffusion.solvers import build_solver, time_axis
from experiments._frame.loops import whole
from experiments._frame.plan import check_target, plan_loops
from experiments._frame.workload import check_single_process
from experiments.published.config import Published
from experiments.published.denoisers import abstract_denoiser
from experiments.published.windows import plan
from jaxpar import InputError


def main(config: Published, workdir: Path) -> None:
    check_single_process()
    check_target("drawing")
    if config.weights.path:
        raise InputError("weights.path is for drawing; a plan needs the shape alone, which random.kind names")
    planned, denoiser = plan(config), abstract_denoiser(config)
    mesh, axis = denoiser.partition.mesh, time_axis(config.mesh)
    arguments = (denoiser.params, *whole(mesh, (jax.random.key(0), denoiser.labels[0])))
    loops = [
        chain_loop(
            sampler,
            partial(denoiser.drawing, sampler, guidance=config.sampler.guidance),
            [build_solver(each, sampler, axis=axis) for each in planned.solvers[steps].values()],
            arguments,
        )
        for steps, sampler in planned.samplers.items()
    ]
    plan_loops(denoiser.name, loops, mesh, workdir)
