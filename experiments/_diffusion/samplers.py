"""Processes, grids and samplers by the names that a configuration gives them."""

from collections.abc import Callable

from experiments._diffusion.config import DiffusionConfig, SamplerConfig
from jaxpar import InputError
from jaxpar.diffusion import (
    EDM,
    FlowMatching,
    Grid,
    Process,
    Sampler,
    VarianceExploding,
    VariancePreserving,
    accelerated_ddim,
    accelerated_ddpm,
    ancestral_euler,
    ddim,
    ddpm,
    deis,
    dpm_solver,
    dpm_solver_2s,
    edm_stochastic,
    euler,
    evenly,
    exponential,
    exponential_sde,
    ghvb,
    heun,
    karras,
    plms,
    pndm,
    shifted,
    unipc,
)

PROCESSES: dict[str, Callable[[DiffusionConfig], Process]] = {
    "preserving": lambda config: VariancePreserving(config.timesteps, config.schedule, config.rescale_betas_zero_snr),
    "exploding": lambda config: VarianceExploding(),
    "edm": lambda config: EDM(),
    "flow": lambda config: FlowMatching(),
}

GRIDS: dict[str, Callable[[Process, int, SamplerConfig], Grid]] = {
    "trailing": lambda process, steps, config: evenly(process, steps, spacing="trailing", end=config.end),
    "leading": lambda process, steps, config: evenly(process, steps, spacing="leading", end=config.end),
    "linspace": lambda process, steps, config: evenly(process, steps, spacing="linspace", end=config.end),
    "karras": lambda process, steps, config: karras(process, steps, end=config.end),
    "exponential": lambda process, steps, config: exponential(process, steps, end=config.end),
    "shifted": lambda process, steps, config: shifted(process, steps, shift=config.shift, end=config.end),
}

SAMPLERS: dict[str, Callable[[Grid, SamplerConfig], Sampler]] = {
    "ddim": lambda grid, config: ddim(grid, eta=config.eta),
    "ddpm": lambda grid, config: ddpm(grid, variance=config.variance),
    "euler": lambda grid, config: euler(grid),
    "ancestral-euler": lambda grid, config: ancestral_euler(grid),
    "exponential-sde": lambda grid, config: exponential_sde(grid),
    "heun": lambda grid, config: heun(grid),
    "edm": lambda grid, config: edm_stochastic(grid, s_churn=config.churn),
    "dpm": lambda grid, config: dpm_solver(grid, order=config.order),
    "sde-dpm": lambda grid, config: dpm_solver(grid, order=config.order, sde=True),
    "dpm-2s": lambda grid, config: dpm_solver_2s(grid),
    "unipc": lambda grid, config: unipc(grid, order=config.order),
    "deis": lambda grid, config: deis(grid, order=config.order),
    "plms": lambda grid, config: plms(grid),
    "pndm": lambda grid, config: pndm(grid),
    "ghvb": lambda grid, config: ghvb(grid, order=config.order, momentum=config.momentum),
    "accelerated-ddim": lambda grid, config: accelerated_ddim(grid),
    "accelerated-ddpm": lambda grid, config: accelerated_ddpm(grid),
}


def build_process(config: DiffusionConfig) -> Process:
    """The process of a configuration."""
    return PROCESSES[config.process](config)


def build_sampler(config: SamplerConfig, process: Process, steps: int) -> Sampler:
    """The sampler of a configuration, with so many steps."""
    return SAMPLERS[config.kind](GRIDS[config.spacing](process, steps, config), config)


def build_trained_process(config: DiffusionConfig) -> Process:
    """The process of a model that is trained here; raises InputError for one that these models are not made for."""
    if config.process == "edm":
        raise InputError(
            "diffusion.process=edm is for networks behind EDM's preconditioning (jaxpar.diffusion.preconditioned), "
            "which the models trained here are not; take preserving, exploding or flow"
        )
    return build_process(config)


def schedule_of(config: DiffusionConfig, process: Process) -> str:
    """A trained process in words, by which checkpoints tell theirs from others."""
    if isinstance(process, VarianceExploding):  # in words that older checkpoints have too
        return f"VarianceExploding(lowest={process.sigma_min}, highest={process.sigma_max})"
    if config.process != "preserving":
        return str(process)
    return f"{config.schedule} of {config.timesteps}" + ", no signal left" * config.rescale_betas_zero_snr
