"""A wait as data: roles are written once, as steps that yield where they wait, and each shell waits in its own way."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

import msgspec

_T = TypeVar("_T")


class Wait(msgspec.Struct):
    """Until done(), or the deadline on the engines' clock; the answer is whether it is done.

    done() is cheap, changes nothing, and is asked under the driver's lock.
    """

    done: Callable[[], bool]
    deadline: int | None
    fresh: bool = False  # look at the sockets before the first answer: a connection may be gone and nobody has looked


Steps = Generator[Wait, bool, _T]


def no_steps(timeout_s: float) -> Steps[None]:
    """Waits for nothing."""
    return
    yield
