"""Packages that a part of jaxpar needs and the whole does not, and which extra brings them.

    with extra("train", "jaxpar.models"):
        import flax

Whoever lacks one reads in one line what to install.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxpar.errors import InputError


class MissingPackage(InputError, ImportError):
    """A package that is not installed; the message is one line that names the extra which brings it."""


@contextmanager
def extra(name: str, part: str) -> Iterator[None]:
    """Imports of what the extra `name` brings, for the sake of `part`, such as "jaxpar.models".

    Raises MissingPackage for a package that is not there. One that is there and fails keeps its own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(f"{part} needs {error.name}, which is missing: pip install 'jaxpar[{name}]'") from error
