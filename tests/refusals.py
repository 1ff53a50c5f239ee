"""What the library says of arguments that will not do, called as its users call it."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import jaxtyping
import pytest

from jaxpar import InputError


def refusal(call: Callable[[], Any]) -> str:
    """The line by which a call is refused, without the checks of annotations that the tests add to the library."""
    with mock.patch.object(jaxtyping.config, "jaxtyping_disable", True), pytest.raises(InputError) as refused:
        call()
    message = str(refused.value)
    assert "\n" not in message
    return message
