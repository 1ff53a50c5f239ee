"""Everything that a diffusion policy can be told, with its default."""

from dataclasses import dataclass, field
from typing import Annotated

from experiments._diffusion.config import DiffusionConfig, SamplerConfig, SolverConfig
from experiments._frame.config import Repeats, Training
from experiments.policy.demonstrations import DemonstrationConfig
from experiments.policy.obstacle import TaskConfig
from jaxpar import InputError
from jaxpar.models import MLPConfig
from jaxpar.settings import FileName, Range, Seed

MOST_ACTIONS = 10**9
"""That a policy learns from: eight gigabytes of them."""


@dataclass
class PlanningConfig:
    """How a policy goes on: it plans, executes the beginning of the plan, and plans again."""

    horizon: Annotated[int, Range(1, 1000)] = 16  # actions in a plan
    executed: Annotated[int, Range(1, 1000)] = 8  # of them before it plans again
    expect: bool = False  # whether a parallel solver starts from what is left of the plan before

    def check(self, name: str) -> None:
        if self.executed > self.horizon:
            raise InputError(f"{name}.executed is {self.executed}; it must be at most {name}.horizon, {self.horizon}")


@dataclass
class PolicyReportConfig:
    """What a policy is judged by."""

    episodes: Annotated[int, Range(2, 10**5)] = 256  # of each way to act
    repeats: Repeats = 20  # timed plans, after a warm-up; medians are reported


@dataclass
class Policy(Training):
    """A diffusion model of actions, and how it acts."""

    name: FileName = "policy"
    episode_seed: Seed = 1  # of the episodes that it acts in
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DemonstrationConfig = field(default_factory=DemonstrationConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    model: MLPConfig = field(default_factory=MLPConfig)
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    report: PolicyReportConfig = field(default_factory=PolicyReportConfig)

    def check(self, name: str) -> None:
        if self.task.steps % self.planning.executed:
            raise InputError(
                f"{name}.task.steps is {self.task.steps}; it must be a multiple of {name}.planning.executed, "
                f"{self.planning.executed}"
            )
        actions = self.data.episodes * self.task.steps * self.planning.horizon
        if actions > MOST_ACTIONS:
            raise InputError(
                f"{name}.data.episodes, {name}.task.steps and {name}.planning.horizon make {actions} actions to learn "
                f"from; {MOST_ACTIONS} are the most"
            )
