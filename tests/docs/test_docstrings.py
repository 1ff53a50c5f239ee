"""The examples in docstrings of public names print what they say."""

import doctest
import importlib

import jax
import jax.numpy as jnp
import pytest

import jaxpar

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
PACKAGES = ("jaxpar", "jaxpar.diffusion", "jaxpar.decoding", "jaxpar.flows", "jaxpar.quality")
"""Of which every public name has an example, but for constants."""


def explained(module):
    """Public names that have a docstring of their own."""
    return [name for name in module.__all__ if not isinstance(getattr(module, name), int | str | tuple | dict)]


def examples(package):
    """(name, example) of every public name that has one."""
    module, parser = importlib.import_module(package), doctest.DocTestParser()
    known = {"jax": jax, "jnp": jnp, "jaxpar": jaxpar} | {name: getattr(module, name) for name in module.__all__}
    for name in explained(module):
        text = getattr(module, name).__doc__ or ""
        if ">>>" in text:
            yield name, parser.get_doctest(text, dict(known), f"{package}.{name}", None, 0)


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_examples(package, as_users_have_it):
    said = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for _, example in examples(package):
        runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_one(package):
    assert {name for name, _ in examples(package)} == set(explained(importlib.import_module(package)))
