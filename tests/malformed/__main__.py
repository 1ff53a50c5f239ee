"""Runs every case as a real program and prints a table: python -m tests.malformed [PART OF A NAME]."""

import sys
from functools import cache
from pathlib import Path

from tests.malformed.case import all_cases
from tests.malformed.programs import measured, tried


@cache
def help_megabytes(verb: str) -> float:
    return measured(verb, ["--help"], Path.cwd()).megabytes


def main(part: str = "") -> int:
    """The number of cases that went wrong."""
    wrong = 0
    print(f"{'case':<60} {'verb':<10} status  seconds  MB above --help  line")
    for case in all_cases():
        if part not in case.name:
            continue
        ended = tried(case)
        wrong += bool(ended.fault)
        above = ended.megabytes - help_megabytes(case.verb)
        line = f"WRONG: {ended.fault}" if ended.fault else ended.error.strip()
        print(
            f"{case.name:<60} {case.verb:<10} {ended.status:>6}  {ended.seconds:7.1f}  {above:15.0f}  {line}",
            flush=True,
        )
    print(f"{wrong} went wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(*sys.argv[1:2]), 1))
