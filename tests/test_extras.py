"""What an installation needs: the solvers little, each other part what its extra brings, and says so in one line."""

import importlib
import re
import subprocess
import sys
import tomllib

import pytest

from jaxpar import InputError
from jaxpar.extras import MissingPackage, extra
from tests.programs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_FOR_SOLVERS = ("flax", "optax", "orbax", "grain", "absl", "chex", "matplotlib", "PIL", "sklearn", "safetensors",
                   "tokenizers", "huggingface_hub", "jinja2")  # fmt: skip
DISTRIBUTIONS = {"absl": "absl-py", "orbax.checkpoint": "orbax-checkpoint"}


def packages(name: str) -> set[str]:
    """What an extra brings, by way of others too."""
    found = set()
    for line in PROJECT["optional-dependencies"][name]:
        inner = re.match(r"jaxpar\[(.*)\]", line)
        found |= set().union(*map(packages, inner[1].split(","))) if inner else {re.split(r"[>=\[; ]", line)[0]}
    return found


@pytest.fixture
def without(monkeypatch):
    """Makes packages missing, and jaxpar's parts anew where they are imported next; all as before afterwards."""
    before = dict(sys.modules)

    def missing(*names: str) -> None:
        for module in [module for module in sys.modules if re.match(r"jaxpar\.(?!core|errors|extras)", module)]:
            del sys.modules[module]
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    yield missing
    monkeypatch.undo()
    sys.modules.clear()
    sys.modules.update(before)


def test_solvers_load_nothing_that_only_models_need():
    code = f"import sys, jaxpar; print([name for name in {NOT_FOR_SOLVERS} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_solvers_need_four_packages():
    assert {re.split("[>=]", line)[0] for line in PROJECT["dependencies"]} == {"jax", "numpy", "jaxtyping", "tqdm"}


@pytest.mark.parametrize(
    ("part", "package", "name"),
    [
        ("models", "flax", "train"),
        ("sharding", "flax", "train"),
        ("diffusion", "optax", "train"),
        ("training", "absl", "train"),
        ("training", "flax", "train"),
        ("training", "grain", "train"),
        ("training", "optax", "train"),
        ("training", "orbax.checkpoint", "train"),
        ("pretrained", "safetensors", "train"),
        ("plots", "matplotlib", "plots"),
    ],
)
def test_a_part_without_its_packages_names_the_extra(part, package, name, without):
    without(package)
    with pytest.raises(ImportError) as refused:
        importlib.import_module(f"jaxpar.{part}")
    assert isinstance(refused.value, MissingPackage)
    line = f"jaxpar.{part} needs {package}, which is missing: pip install 'jaxpar[{name}]'"
    assert str(refused.value) == line
    assert DISTRIBUTIONS.get(package, package) in packages(name)


@pytest.mark.parametrize("part", ["decoding", "flows"])
def test_what_stands_on_models_says_what_they_lack(part, without):
    without("flax")
    with pytest.raises(MissingPackage, match=r"^jaxpar\.models needs flax, which is missing"):
        importlib.import_module(f"jaxpar.{part}")


def test_every_extra_that_is_named_is_one():
    named = {
        match for file in (ROOT / "jaxpar").rglob("*.py") for match in re.findall(r'\bextra\("(\w+)"', file.read_text())
    }
    assert {"train", "plots", "hub"} <= named
    assert named <= set(PROJECT["optional-dependencies"])


def test_what_is_there_and_fails_keeps_its_own_error():
    with pytest.raises(ZeroDivisionError), extra("train", "a part"):
        _ = 1 / 0
    with pytest.raises(ImportError, match="cannot import name") as refused, extra("train", "a part"):
        from json import no_such_name  # noqa: F401
    assert not isinstance(refused.value, InputError)


def test_programs_without_their_packages_end_in_one_line():
    code = "import sys, runpy; sys.modules['flax'] = None; sys.argv = ['sample']; "
    code += "runpy.run_module('experiments.sample', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: jaxpar\.\w+ needs flax, which is missing: pip install 'jaxpar\[train\]'\n", done.stderr
    )


def test_readme_installs_what_its_commands_need():
    readme = (ROOT / "README.md").read_text()
    assert 'pip install ".[train]" && python -m experiments.sample' in readme
    assert packages("train") >= {"flax", "optax", "orbax-checkpoint", "absl-py", "grain", "safetensors", "scikit-learn",
                                 "matplotlib", "pillow"}  # fmt: skip
    assert packages("test") >= packages("train") | packages("hub") | packages("notebooks") | {"chex", "diffrax"}
