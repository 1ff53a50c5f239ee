"""What the tests of training allow, these need as well."""

from tests.training.conftest import standard_promotion  # noqa: F401
