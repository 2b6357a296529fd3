"""Every public name says what it is: help() is where people look first."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType, ModuleType

import pytest

import patterns
import patterns.aio
import patterns.sync
from patterns.wire import errors
from patterns.wire.errors import ZbrokerError


def errors_of(root: type[ZbrokerError]) -> Iterator[type[ZbrokerError]]:
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from errors_of(child)


def members_of(kind: type) -> Iterator[tuple[str, str | None]]:
    """Public methods and properties, with what they say."""
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if not name.startswith("_") and isinstance(member, FunctionType | property | classmethod | staticmethod):
            yield name, inspect.getdoc(member)


@pytest.mark.parametrize("shell", [patterns.sync, patterns.aio])
def test_each_public_class_and_each_of_its_members_says_what_it_is(shell: ModuleType) -> None:
    silent = []
    for name in shell.__all__:
        kind = getattr(shell, name)
        if not vars(kind).get("__doc__"):
            silent.append(name)
        silent += [f"{name}.{member}" for member, text in members_of(kind) if not text]
    assert silent == []


@pytest.mark.parametrize("module", [patterns, patterns.sync, patterns.aio, errors])
def test_each_public_module_says_what_it_is(module: ModuleType) -> None:
    assert module.__doc__


def test_each_error_says_when_it_comes() -> None:
    found = list(errors_of(ZbrokerError))
    assert len(found) > 40
    assert [kind.__name__ for kind in found if not vars(kind).get("__doc__")] == []


def test_an_error_that_may_pass_does_not_say_that_asking_again_is_in_vain() -> None:
    for kind in errors_of(ZbrokerError):
        if kind.retryable:
            assert "does not help" not in (kind.__doc__ or ""), kind.__name__
