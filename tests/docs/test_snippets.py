"""Every Python block of the manual runs, those of a page one after the other in one namespace."""

import pytest

from tests.docs.pages import PAGES, blocks

SNIPPETS = {page: [block for block in blocks(page) if block.language == "python"] for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if SNIPPETS[page]], ids=lambda page: page.stem)
def test_snippets(page, as_users_have_it):
    names = {"__name__": "snippet"}
    for block in SNIPPETS[page]:
        if block.reason is None:
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec", dont_inherit=True)
            exec(code, names)


def test_what_is_not_run_says_what_it_would_need():
    reasons = {block.reason for page in PAGES for block in blocks(page) if block.reason}
    assert all(reason.startswith(("needs the network", "a file of a folder")) for reason in reasons)
