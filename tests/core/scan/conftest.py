"""`jaxpar.scan` by each of its solvers, for the tests that take its place beside `lax.scan`."""

import pytest

import jaxpar
from tests.core.scan.drop_in import SLOW, SOLVERS


@pytest.fixture(params=["picard", "default", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def scan(request):
    """`jaxpar.scan` with one of the solvers."""

    def scan(*arguments, **keywords):
        return jaxpar.scan(*arguments, **SOLVERS[request.param], **keywords)

    scan.name = request.param
    return scan
