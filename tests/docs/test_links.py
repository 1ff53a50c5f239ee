"""Links between pages, to headings, to files of the repository; and the picture of speeds, whose numbers are told."""

import re
import runpy

import pytest

from tests.docs.pages import FENCE, PAGES, ROOT, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """Of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links(page):
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_in_the_table_of_contents_and_in_the_readme():
    contents, readme = ((ROOT / name).read_text() for name in ("docs/index.md", "README.md"))
    for page in (ROOT / "docs").glob("*.md"):
        if page.stem != "index":
            assert re.search(rf"^{page.stem}$", contents, re.MULTILINE), page
            assert f"docs/{page.name}" in readme, page


def test_what_the_architecture_names_is_there():
    """Each file and folder, by its path or the end of it."""
    paths = [f"/{folder}/" for folder in ("docs", "configs", "experiments")]
    for folder in ("jaxpar", "experiments", "configs", "docs", "tests"):
        paths += [f"/{path.relative_to(ROOT)}{'/' * path.is_dir()}" for path in (ROOT / folder).rglob("*")]
    for name in re.findall(r"[\w/]+(?:\.py\b|/(?=[`\s]))", (ROOT / "docs/architecture.md").read_text()):
        assert any(path.endswith(f"/{name}") for path in paths), name


def test_the_picture_of_speeds_shows_what_was_measured():
    bars = runpy.run_path(str(ROOT / "docs/pictures/speed.py"))["BARS"]
    results = (ROOT / "docs/results.md").read_text()
    for name, written, speed in bars:
        assert written in results, name
        assert float(re.match(r"[\d.]+", written)[0]) == speed, name
