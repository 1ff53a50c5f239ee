"""What the manual tells to type exists: programs, config files, settings with their values, extras, files."""

import importlib.util
import re
import tomllib

import pytest

from experiments._frame import programs
from experiments._frame.config_files import configured
from experiments._frame.launch import read
from jaxpar import InputError
from tests.docs.pages import PAGES, ROOT

WORD = r'--[\w.]+=(?:"[^"]*"|[^\s"&;|`)]*)'
COMMAND = re.compile(rf"python -m ([\w.]+)((?:\s+(?:\\\n\s*)?{WORD})*)")
SETTING = re.compile(r'`--config\.([\w.]+)=("[^"]*"|[^`\s]*)')
PYTHON_FILE = re.compile(r"python (\S+\.py)\b")
EXTRA = re.compile(r"(?:\.|jaxpar)\[([\w,]+)\]")
CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").glob("*.py"))


def commands(page):
    """(module, words) of every Python program in a page, blocks and prose alike; no words where it is only named."""
    text = page.read_text()
    return [
        (found[1], [word.replace('"', "") for word in re.findall(WORD, found[2])]) for found in COMMAND.finditer(text)
    ]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "migration"], ids=lambda page: page.stem)
def test_commands(page):
    for module, words in commands(page):
        verb = module.removeprefix("experiments.")
        if verb == "VERB":
            continue
        assert importlib.util.find_spec(module) is not None, f"{page.name}: there is no {module}"
        if verb not in programs.verbs() or not words:
            continue
        told = read(words)
        assert told.flags.get("config"), f"{page.name}: {module} is told no config"
        config = configured(told.flags["config"], told.changes)
        programs.program(config, verb)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_told_alone_are_some_configs(page):
    for name, value in SETTING.findall(page.read_text()):
        assert any(_takes(config, name, value.strip('"')) for config in CONFIGS), (
            f"{page.name}: --config.{name}={value}"
        )


def _takes(config, name, value):
    """Whether a config has a setting that can be so; without a value, whether it has the setting."""
    try:
        configured(config, [(name, value)])
    except InputError as error:
        return not value and "there is no setting" not in str(error)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_extras_and_files(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    text = page.read_text()
    assert {name for names in EXTRA.findall(text) for name in names.split(",")} <= extras.keys()
    assert all((ROOT / file).is_file() for file in PYTHON_FILE.findall(text))


def test_the_tests_command_is_alone_on_its_line():
    """It is read from there, and run in a fresh environment."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert lines.count('pip install ".[test]" && pytest') == 1
    assert sum("experiments.sample --config=configs/digits.py --workdir=runs/digits" in line for line in lines) == 1
    assert len(lines) <= 180
