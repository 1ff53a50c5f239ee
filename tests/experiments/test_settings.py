"""Every setting of every program declares what it may be, in agreement with what the programs make of it."""

import types
from typing import Annotated, Union, get_args, get_origin

import pytest

from experiments._diffusion import config as diffusion
from experiments._diffusion import samplers, solvers
from experiments._frame import config_files
from experiments.engine.config import Suite
from experiments.flow.config import Flow
from experiments.generation import config as generation
from experiments.generation import drafters
from experiments.images import distill
from experiments.images.config import Experiment
from experiments.numerals.config import Translating
from experiments.photographs.config import Deblurring
from experiments.policy.config import Policy
from experiments.published.config import Published
from experiments.text.config import Language
from jaxpar import InputError
from jaxpar.models.layers import POLICIES
from jaxpar.settings import OneOf, Range, check_settings, checked, settings
from jaxpar.sharding.attention import WAYS

KINDS = (Experiment, Policy, Language, Published, Suite, Flow, generation.Generation, Translating, Deblurring)


def rules(hint):
    """All that an annotation declares, of what is in it too."""
    if get_origin(hint) is Annotated:
        return [hint.__metadata__[0], *rules(hint.__origin__)]
    inner = get_args(hint) if get_origin(hint) in (tuple, Union, types.UnionType) else ()
    return [rule for each in inner for rule in rules(each)]


def innermost(hint):
    """The type of what it holds, of a tuple that of its items."""
    inner = get_args(hint)
    return innermost(inner[0]) if inner else hint


def find(made, name):
    (setting,) = (setting for setting in settings(made, "c") if setting.name == name)
    return setting


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_right_and_numbers_have_bounds_on_both_sides(kind):
    made = kind()
    check_settings(made, "c")
    assert made == kind()
    for setting in settings(made, "c"):
        if innermost(setting.hint) in (int, float):
            last = [rule for rule in rules(setting.hint) if isinstance(rule, Range)][-1]
            assert (last.least, last.above) != (None, None), setting.name
            assert (last.most, last.below) != (None, None), setting.name


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_cannot_be_are_refused_everywhere(kind):
    """Each number changed to each of what no setting can be."""
    numbers = [setting for setting in settings(kind(), "c") if innermost(setting.hint) in (int, float)]
    assert numbers
    for setting in numbers:
        for value in (float("nan"), float("inf"), -float("inf"), 2**63, -(2**63), 1e300, "1", True, 1j):
            several = (value,) if isinstance(setting.value, tuple) else value
            with pytest.raises(InputError) as refused:
                checked(setting.name, several, setting.hint)
            assert setting.name in str(refused.value)
            assert "\n" not in str(refused.value)


def named(kind, name):
    (rule,) = (rule for rule in rules(find(kind(), name).hint) if isinstance(rule, OneOf))
    return set(rule.names)


def test_names_are_those_that_there_are():
    assert named(Experiment, "c.sampler.kind") == samplers.SAMPLERS.keys()
    assert named(Experiment, "c.sampler.spacing") == samplers.GRIDS.keys()
    assert named(Experiment, "c.diffusion.process") == samplers.PROCESSES.keys()
    assert named(Experiment, "c.compute.remat") == POLICIES.keys()
    assert named(Experiment, "c.mesh.attention") == set(WAYS)
    assert named(Experiment, "c.distill.method") == distill.METHODS.keys()
    assert named(generation.Generation, "c.drafter.kind") == {"auto", "self", *drafters.ALONE, *drafters.DRAFTED}
    made = Experiment()
    sampler = samplers.build_sampler(made.sampler, samplers.build_process(made.diffusion), 10)
    for field in ("refine", "window", "guess", "scale", "norm"):
        for name in named(Experiment, f"c.solver.{field}"):
            solvers.build_solver(diffusion.SolverConfig(**{field: name}), sampler)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("12", "c.loop.steps", 12),
        ("+12", "c.loop.steps", 12),
        ("1_000", "c.loop.steps", 1000),
        ("1e-4", "c.optimizer.learning_rate", 1e-4),
        ("3", "c.loop.stall", 3.0),
        ("TRUE", "c.mesh.derive", True),
        ("0", "c.mesh.derive", False),
        ("5,6", "c.gallery.steps", (5, 6)),
        ("(5, 6)", "c.gallery.steps", (5, 6)),
        ("5,", "c.gallery.steps", (5,)),
        ("", "c.data.path", ""),
        ("none", "c.data.path", "none"),
    ],
)
def test_texts_mean_values(text, name, value):
    made = Experiment()
    setting = find(made, name)
    setting.assign(config_files.meant(text, setting.hint))
    check_settings(made, "c")
    assert setting.value == value
    assert type(setting.value) is type(value)


def test_a_file_is_run_once_and_the_last_of_two_changes_counts(tmp_path):
    file = tmp_path / "mine:own.py"
    file.write_text(
        "from pathlib import Path\nfrom experiments.images.config import Experiment\n"
        f"with Path({str(tmp_path / 'runs')!r}).open('a') as runs:\n    runs.write('run')\n"
        "def get_config(variant=''):\n    return Experiment(name=variant or 'plain')\n"
    )
    changes = [("loop.steps", "3"), ("loop.steps", "4"), ("data.path", "x=y")]
    made = config_files.configured(f"{file}:own", changes)
    assert (made.name, made.loop.steps, made.data.path) == ("own", 4, "x=y")
    assert (tmp_path / "runs").read_text() == "run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine:own.py", "runs"]
    assert config_files.configured(str(file), []).name == "plain"
