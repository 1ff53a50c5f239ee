"""The manual's pages as tests read them: blocks of code, and why some of them are not run."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- not run: ([^\n]+) -->\n)?```(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` says why it cannot be run, if it cannot."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """Of a page, in their order."""
    whole = page.read_text()
    return [
        Block(page, whole.count("\n", 0, found.start(3)) + 1, found[2], found[3], found[1])
        for found in FENCE.finditer(whole)
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", page.read_text())


def definitions(page: Path) -> dict[str, Any]:
    """What the Python blocks of a page import and define: its classes and functions, not what it does with them."""
    names = {"__name__": "snippet"}
    for block in blocks(page):
        if block.language == "python" and block.reason is None:
            whole = ast.parse("\n" * (block.line - 1) + block.text, str(page))
            kinds = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
            whole.body = [statement for statement in whole.body if isinstance(statement, kinds)]
            exec(compile(whole, str(page), "exec", dont_inherit=True), names)
    return names


OWN = definitions(ROOT / "docs" / "extend.md")
"""A guess, a refinement, an acceptance, a window, a sampler and a drafter as users are taught to write them."""
