"""What the schedulers of diffusers can be told, their defaults, and which of it can be honoured here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxpar.checks import of_kind
from jaxpar.core import InputError
from jaxpar.documents import quoted, read_object

FILE = "scheduler_config.json"

_BETAS = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon", "steps_offset": 0,
}  # fmt: skip
_SPACED = {
    "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False,
}  # fmt: skip
_MULTISTEP = {
    **_BETAS, **_SPACED, "solver_order": 2, "thresholding": False, "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0, "lower_order_final": True, "use_flow_sigmas": False, "timestep_spacing": "linspace",
    "use_dynamic_shifting": False, "flow_shift": 1.0, "time_shift_type": "exponential",
}  # fmt: skip
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "DDIMScheduler": {
        **_BETAS, "clip_sample": True, "set_alpha_to_one": True, "thresholding": False, "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
    },
    "DDPMScheduler": {
        **_BETAS, "variance_type": "fixed_small", "clip_sample": True, "thresholding": False, "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
    },
    "DPMSolverMultistepScheduler": {
        **_MULTISTEP, "algorithm_type": "dpmsolver++", "solver_type": "midpoint", "euler_at_final": False,
        "use_lu_lambdas": False, "final_sigmas_type": "zero", "lambda_min_clipped": float("-inf"),
        "variance_type": None, "rescale_betas_zero_snr": False,
    },
    "UniPCMultistepScheduler": {
        **_MULTISTEP, "predict_x0": True, "solver_type": "bh2", "disable_corrector": [], "solver_p": None,
        "final_sigmas_type": "zero", "rescale_betas_zero_snr": False, "sigma_min": None, "sigma_max": None,
        "shift_terminal": None,
    },
    "DEISMultistepScheduler": {**_MULTISTEP, "algorithm_type": "deis", "solver_type": "logrho"},
    "PNDMScheduler": {
        **_BETAS, "skip_prk_steps": False, "set_alpha_to_one": False, "timestep_spacing": "leading",
    },
    "EulerDiscreteScheduler": {
        **_BETAS, **_SPACED, "interpolation_type": "linear", "sigma_min": None, "sigma_max": None,
        "timestep_spacing": "linspace", "timestep_type": "discrete", "rescale_betas_zero_snr": False,
        "final_sigmas_type": "zero",
    },
    "EulerAncestralDiscreteScheduler": {**_BETAS, "timestep_spacing": "linspace", "rescale_betas_zero_snr": False},
    "HeunDiscreteScheduler": {
        **_BETAS, **_SPACED, "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False, "clip_sample_range": 1.0,
        "timestep_spacing": "linspace",
    },
    "FlowMatchEulerDiscreteScheduler": {
        **_SPACED, "num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False, "base_shift": 0.5,
        "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096, "invert_sigmas": False,
        "shift_terminal": None, "time_shift_type": "exponential", "stochastic_sampling": False,
    },
}  # fmt: skip
"""Of each scheduler, as in diffusers 0.42."""

_ABSENT = {
    "rescale_betas_zero_snr": False, "use_karras_sigmas": False, "use_exponential_sigmas": False, "sigma_min": None,
    "sigma_max": None, "thresholding": False, "clip_sample": False, "lambda_min_clipped": float("-inf"),
    "final_sigmas_type": "sigma_min",
}  # fmt: skip
"""What holds for schedulers that have no such setting."""

_HONOURED: Mapping[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"), "trained_betas": (None,),
    "prediction_type": ("epsilon", "sample", "v_prediction"), "timestep_spacing": ("leading", "trailing", "linspace"),
    "final_sigmas_type": ("zero", "sigma_min"), "use_beta_sigmas": (False,), "use_lu_lambdas": (False,),
    "use_flow_sigmas": (False,), "use_dynamic_shifting": (False,), "predict_x0": (True,), "disable_corrector": ([],),
    "solver_p": (None,), "shift_terminal": (None,), "interpolation_type": ("linear",),
    "timestep_type": ("discrete",), "invert_sigmas": (False,), "stochastic_sampling": (False,),
}  # fmt: skip
"""The values of a setting that can be honoured, where not all can."""
_HONOURED_OF: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    # Clipped there is the clean image alone, and not the noise that goes with it: two predictions, not one.
    "DDIMScheduler": {"clip_sample": (False,), "thresholding": (False,)},
    "DDPMScheduler": {"variance_type": ("fixed_small", "fixed_small_log", "fixed_large")},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ("dpmsolver++", "sde-dpmsolver++", "deis"), "variance_type": (None,),
        "solver_type": ("midpoint", "logrho", "bh1", "bh2"), "use_exponential_sigmas": (False,),
    },
    "UniPCMultistepScheduler": {
        "solver_type": ("bh2", "midpoint", "heun", "logrho"), "use_exponential_sigmas": (False,),
    },
    "DEISMultistepScheduler": {
        "algorithm_type": ("deis", "dpmsolver", "dpmsolver++"), "use_exponential_sigmas": (False,),
        "solver_type": ("logrho", "midpoint", "heun", "bh1", "bh2"),
    },
    # Averaged there is what the model says, before it is made a noise of: the same for noise alone.
    "PNDMScheduler": {"prediction_type": ("epsilon",)},
    # Its image would be x / signal where some noise is left.
    "EulerDiscreteScheduler": {"final_sigmas_type": ("zero",)},
    "EulerAncestralDiscreteScheduler": {"prediction_type": ("epsilon", "v_prediction")},
}  # fmt: skip
"""The same of single schedulers. Names of another's algorithm are those that diffusers takes for its own."""


@dataclass(frozen=True)
class Settings:
    """A scheduler's settings, each of which can be honoured.

    Attributes:
      name: of its class in diffusers.
      values: by their names; those not set have diffusers' defaults.
    """

    name: str
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def flag(self, name: str) -> bool:
        return of_kind(name, self.values[name], bool, "it must be true or false")


def read_settings(config: Mapping[str, Any] | str | Path) -> Settings:
    """The settings of a file, a folder that has it, or a dictionary; raises InputError for what cannot be honoured."""
    if isinstance(config, str | Path):
        path = Path(config)
        config = read_object(path / FILE if path.is_dir() else path, infinite=True)
    of_kind("config", config, Mapping, f"it must be a dictionary of settings, or the path of a {FILE}")
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in DEFAULTS:
        raise InputError(f"_class_name is {quoted(name)}; of diffusers' schedulers take one of {', '.join(DEFAULTS)}")
    settings = {setting for defaults in DEFAULTS.values() for setting in defaults}
    for setting in config:
        if setting not in settings and not str(setting).startswith("_"):
            raise InputError(f"{name} has a setting {quoted(setting)}, which is not known here; leave it out")
    values = {**DEFAULTS[name], **{key: value for key, value in config.items() if key in DEFAULTS[name]}}
    for setting, honoured in {**_HONOURED, **_HONOURED_OF.get(name, {})}.items():
        if setting in values and not any(type(values[setting]) is type(one) and values[setting] == one
                                         for one in honoured):  # fmt: skip
            raise InputError(
                f"{setting} of {name} is {quoted(values[setting])}, which cannot be honoured; it must be "
                + " or ".join(map(repr, honoured))
            )
    return Settings(name, {**_ABSENT, **values})
