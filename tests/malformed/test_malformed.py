"""Every malformed input is refused by one line and status 2, and nothing is written or changed."""

import runpy
import sys

import pytest

from tests.malformed.case import all_cases, contents, fault
from tests.malformed.programs import help_megabytes, laid_out, tried
from tests.programs import module

CASES = {case.name: case for case in all_cases()}


def test_names_are_unique():
    assert len(CASES) == len(all_cases())


@pytest.mark.parametrize("name", CASES)
def test_malformed_input_is_refused(name, tmp_path, monkeypatch, capfd):
    """In this process, as `python -m experiments.VERB` begins: the program's module is run anew as the main one."""
    case = CASES[name]
    folder, here = laid_out(case, tmp_path)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", [case.verb, *case.command(folder)])
    before = contents(tmp_path)
    capfd.readouterr()
    status = None
    try:
        runpy.run_module(module(case.verb), run_name="__main__", alter_sys=False)
    except SystemExit as ended:
        status = ended.code
    wrong = fault(before, contents(tmp_path), status, capfd.readouterr().err, case)
    assert not wrong, wrong


REAL = [*CASES][:: max(len(CASES) // 12, 1)][:12]
"""Some of all, evenly spread."""


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_programs_refuse_soon_and_without_much_memory(name):
    case = CASES[name]
    ended = tried(case)
    assert not ended.fault, ended.fault
    assert min(ended.seconds, ended.processor) < 10  # where others keep the cores busy, its own seconds count
    assert ended.megabytes < help_megabytes(case.verb) + 300
