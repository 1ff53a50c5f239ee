"""Every notebook runs from top to bottom and draws its pictures, and so does the example of the README."""

import re
from pathlib import Path

import jax
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["causal", "quickstart", "samplers"])
def test_notebook(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 2


def test_every_notebook_is_run():
    names = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert names == {"causal", "quickstart", "samplers"}


def test_the_readme_example_runs(capsys):
    """And prints what the README says it prints."""
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    with jax.numpy_dtype_promotion("standard"):
        exec(compile(code, "README.md", "exec"), {})
    pattern = r"CONVERGED after (\d+) rounds: 1000 of 1000 steps final, residual (\S+)"
    printed = re.fullmatch(pattern, capsys.readouterr().out.strip())
    said = re.search(f"prints `{pattern}`", text)
    assert printed.group(1) == said.group(1)
    assert float(printed.group(2)) <= 1e-6
