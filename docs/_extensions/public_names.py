"""The API reference: `.. public-names:: PACKAGE` documents whatever a package exports, from its docstrings.

Those are plain sentences with names in backticks, formulas that are indented, and sections such as `Args:`. Here they
become what Sphinx reads: a public name links to where it is explained, anything else in backticks is code, and what
only Sphinx would take for markup is kept from it.
"""

import importlib
import inspect
import re
import textwrap
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGES = (
    "jaxpar", "jaxpar.diffusion", "jaxpar.decoding", "jaxpar.flows", "jaxpar.models", "jaxpar.sharding",
    "jaxpar.training", "jaxpar.pretrained", "jaxpar.quality",
)  # fmt: skip
SECTION = re.compile(r"(Args|Attributes|Returns|Raises):$")
ITEM = re.compile(r"  (\S[^:]*): (.*)")
MARKUP = re.compile(r"([*|\\]|(?<=\w)_(?!\w))")


class PublicNames(SphinxDirective):
    """Every name of a package's `__all__`: classes, functions, then constants."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        package = importlib.import_module(name)
        kinds: dict[str, list[str]] = {"Classes": [], "Functions": [], "Constants": [], "Modules": []}
        for public in sorted(package.__all__, key=str.lower):
            kinds[_kind(getattr(package, public))].append(public)
        lines = [f".. py:module:: {name}", "", _inline((package.__doc__ or "").partition("\n\n")[0], set()), ""]
        for heading, names in kinds.items():
            lines += [heading, "-" * len(heading), ""] if names else []
            for public in names:
                lines += _entry(name, public, getattr(package, public))
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _kind(value: Any) -> str:
    if isinstance(value, ModuleType):
        return "Modules"
    if inspect.isclass(value):
        return "Classes"
    return "Functions" if callable(value) else "Constants"


def _entry(package: str, name: str, value: Any) -> list[str]:
    """How Sphinx is asked for one name."""
    full = f"{package}.{name}"
    if isinstance(value, ModuleType):
        shown = [f".. automodule:: {value.__name__}", "   :members:", "   :noindex:", ""]
        return [f".. py:data:: {name}", "", *shown]
    if inspect.isclass(value):
        home = _home(package, name, value)
        if home:  # Sphinx takes one description of a class
            return [f".. py:class:: {name}", "", f"   :py:obj:`{home}.{name}`.", ""]
        return [f".. autoclass:: {full}", "   :members:", ""]
    if callable(value):
        return [f".. autofunction:: {full}", ""]
    return [f".. py:data:: {name}", f"   :value: {_short(value)}", ""]


def _home(package: str, name: str, value: type) -> str | None:
    """The other package that a class is of, where that exports it too."""
    others = (each for each in PACKAGES if each != package and name in importlib.import_module(each).__all__)
    return next((each for each in others if value.__module__.startswith(f"{each}.")), None)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."


def as_markup(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Rewrites a docstring in place, paragraph by paragraph."""
    names, written, section = _public(name), [], False
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        first, *rest = paragraph.splitlines()
        section = bool(SECTION.match(first)) or (section and first.startswith(" "))
        if SECTION.match(first):
            written.append(_section(first, rest, names))
        elif first.startswith("  ") and not section:
            written.append(f".. code-block:: text\n\n{paragraph}")  # a formula, or a piece of a program
        elif first.lstrip().startswith(">>>"):
            written.append(paragraph)
        else:
            written.append(_inline(paragraph, names))
    lines[:] = "\n\n".join(written).splitlines()


def _section(heading: str, lines: list[str], names: set[str]) -> str:
    """A field; what it lists has names before colons."""
    if heading == "Returns:":
        return f":{heading}\n{_indented(textwrap.dedent(chr(10).join(lines)), names)}"
    items: list[list[str]] = []
    for line in lines:
        if item := ITEM.fullmatch(line):
            items.append([item[1], item[2]])
        elif items:
            items[-1][1] += f"\n{line.strip()}"
    terms = "\n".join(f"    ``{name}``\n{textwrap.indent(_indented(text, names), '    ')}" for name, text in items)
    return f":{heading}\n{terms}"


def _indented(text: str, names: set[str]) -> str:
    return textwrap.indent(_inline(text, names), "    ")


def _public(name: str) -> set[str]:
    """Public names that a docstring of `name` may mean: those of its package, and of jaxpar itself."""
    package = next((each for each in reversed(PACKAGES) if name.startswith(f"{each}.")), "jaxpar")
    return {f"{each}.{public}" for each in {package, "jaxpar"} for public in importlib.import_module(each).__all__}


def _inline(text: str, names: set[str]) -> str:
    parts = text.split("`")
    return "".join(_code(part, names) if index % 2 else MARKUP.sub(r"\\\1", part) for index, part in enumerate(parts))


def _code(text: str, names: set[str]) -> str:
    bare = text.removesuffix("()").removeprefix("jaxpar.")
    full = next((name for name in sorted(names) if name.rpartition(".")[2] == bare), None)
    return f":py:obj:`{text} <{full}>`" if full else f"``{text}``" if text else "``"


def short_signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Arrays by the name that users write, and none for protocols, which nobody calls."""
    if signature is None:
        return None
    if getattr(value, "_is_protocol", False):
        return "", None
    short = [
        part and re.sub(r"(~?jaxlib\._jax\.|<function \S*?(?=<lambda>))", "", part) for part in (signature, returns)
    ]
    return str(short[0]).replace("<lambda>>", "<lambda>"), short[1]


def skip_aliases(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a named tuple are explained in its docstring."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public-names", PublicNames)
    app.connect("autodoc-process-docstring", as_markup)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-skip-member", skip_aliases)
    return {"parallel_read_safe": True}
