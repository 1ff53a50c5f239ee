"""Configurations that declare what their settings may be."""

import re
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import pytest

from jaxpar import InputError
from jaxpar.settings import FileName, FilePath, OneOf, Range, Share, check_settings, settings


@dataclass
class Inner:
    count: Annotated[int, Range(1, 9)] = 3
    rate: Annotated[float, Range(above=0, below=1)] = 0.5
    share: Share = 0.5

    def check(self, name):
        if self.count > 5 and self.rate > 0.5:
            raise InputError(f"{name}.count and {name}.rate are too large together")


@dataclass
class Outer:
    kind: Annotated[str, OneOf("one", "two")] = "one"
    sizes: Annotated[tuple[Annotated[int, Range(1)], ...], Range(1, 3)] = (1,)
    classes: Annotated[int, Range(1)] | None = None
    fast: bool = False
    name: FileName = "run"
    path: FilePath = ""
    inner: Inner = field(default_factory=Inner)


def changed(**values):
    config = Outer()
    for name, value in values.items():
        setattr(config.inner if hasattr(config.inner, name) else config, name, value)
    return config


def test_settings_are_named_and_plain_numbers_are_made_of_others():
    assert [setting.name for setting in settings(Outer(), "run")] == [
        "run.kind", "run.sizes", "run.classes", "run.fast", "run.name", "run.path", "run.inner.count", "run.inner.rate",
        "run.inner.share",
    ]  # fmt: skip
    config = changed(sizes=[np.int64(2), 3], classes=np.uint8(4), rate=np.float32(0.25), share=1, path="a/b")
    check_settings(config)
    assert config == changed(sizes=(2, 3), classes=4, rate=0.25, share=1.0, path="a/b")
    assert [type(value) for value in (*config.sizes, config.classes, config.inner.rate, config.inner.share)] == [
        int, int, int, float, float,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "run.inner.count is 0; it must be a whole number, 1 or more and 9 or less"),
        ({"count": 10}, "run.inner.count is 10"),
        ({"count": 2.0}, "run.inner.count is 2.0"),
        ({"count": True}, "run.inner.count is True"),
        ({"count": "3"}, "run.inner.count is '3'"),
        ({"count": 10**10000}, "run.inner.count is a whole number of 33220 bits"),
        ({"rate": 1}, "run.inner.rate is 1; it must be a finite number, greater than 0.0 and less than 1.0"),
        ({"rate": float("nan")}, "run.inner.rate is nan"),
        ({"rate": None}, "run.inner.rate is None"),
        ({"rate": 0.5j}, "run.inner.rate is 0.5j"),
        ({"rate": np.str_("0.5")}, "run.inner.rate is 0.5"),
        ({"share": -0.1}, "run.inner.share is -0.1"),
        ({"count": 6, "rate": 0.9}, "run.inner.count and run.inner.rate are too large together"),
        ({"kind": "three"}, "unknown run.kind 'three'; take one of one, two"),
        ({"kind": 1}, "run.kind is 1; it must be a text"),
        ({"sizes": ()}, "the length of run.sizes is 0"),
        ({"sizes": (1, 2, 3, 4)}, "the length of run.sizes is 4"),
        ({"sizes": (1, 0)}, "run.sizes[1] is 0"),
        ({"sizes": 3}, "run.sizes is 3; it must be several, separated by commas"),
        ({"classes": 0}, "run.classes is 0"),
        ({"fast": 1}, "run.fast is 1; it must be true or false"),
        ({"name": "a/b"}, "run.name is 'a/b'; it must be a name that a folder can have"),
        ({"name": ".."}, "run.name is '..'"),
        ({"name": ""}, "run.name is ''"),
        ({"path": "x" * 256}, "run.path is a str of 256 characters; no file can have that name"),
        ({"path": "a\0b"}, "no file can have that name"),
        ({"path": "\udc80"}, "run.path is no text"),
        ({"inner": None}, "run.inner is None; it must be a Inner"),
        ({"iner": Inner()}, "there is no setting run.iner; the nearest is run.inner"),
    ],
)
def test_what_is_not_as_declared_is_named(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_settings(changed(**values), "run")
