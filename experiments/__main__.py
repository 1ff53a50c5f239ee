"""Lists the programs, the workloads and their configs: python -m experiments."""

import ast
import sys
from pathlib import Path

from experiments._frame.programs import verbs

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs"


def first_line(path: Path) -> str:
    """Of the docstring of a file."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def listing() -> str:
    """Every program, workload and config, each in one line."""
    workloads = sorted(path.parent for path in HERE.glob("[a-z]*/config.py"))
    lines = ["Programs: python -m experiments.VERB --config=FILE [--config.SETTING=VALUE] [--workdir=DIR]", ""]
    lines += [f"  {verb:<14}{first_line(HERE / f'{verb}.py')}" for verb in verbs()]
    lines += ["", "Workloads: folders of experiments/", ""]
    lines += [f"  {folder.name:<14}{first_line(folder / '__init__.py')}" for folder in workloads]
    lines += ["", "Configs", ""]
    lines += [f"  configs/{path.name:<18}{first_line(path)}" for path in sorted(CONFIGS.glob("*.py"))]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1:] != ["--help"]:
        print(f"error: python -m experiments {sys.argv[1]} is no program; there is python -m experiments.VERB with "
              f"{', '.join(verbs())}", file=sys.stderr)  # fmt: skip
        sys.exit(2)
    print(listing())
