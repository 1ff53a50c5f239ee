"""The manual is built without a warning, offline, and its reference has every public name."""

import html
import importlib
import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

EXTRA = ("sphinx", "furo", "myst_parser")
PACKAGES = (
    "jaxpar", "jaxpar.diffusion", "jaxpar.decoding", "jaxpar.flows", "jaxpar.models", "jaxpar.sharding",
    "jaxpar.training", "jaxpar.pretrained", "jaxpar.quality",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of pages."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is missing: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("manual")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "docs", str(folder)]
    nowhere = {"http_proxy": "http://localhost:9", "https_proxy": "http://localhost:9"}
    environment = os.environ | {"JAX_PLATFORMS": "cpu"} | nowhere
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(built):
    for package in PACKAGES:
        page = (built / "reference" / f"{package.partition('.')[2] or 'core'}.html").read_text()
        for name in importlib.import_module(package).__all__:
            assert f'id="{package}.{name}"' in page, f"{package}.{name}"


@pytest.mark.slow
def test_docstrings_are_read_as_they_are_meant(built):
    """Arguments with their names, formulas to the letter, public names as links, protocols without a call."""
    page = (built / "reference" / "core.html").read_text()
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert re.search(r"Args:\s+f\s*the step; anything that vmap can map", text)
    assert "s'[t+1] = update(s'[t], drift(s[t]))" in text
    assert "|step(states[t-1]) - states[t]|" in text
    assert 'href="#jaxpar.Sliding"' in page
    assert re.search(r"class jaxpar\.Accept\[source\]", text)
    assert "Alias for field number" not in text
