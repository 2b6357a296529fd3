"""Batch after batch for one thread: what a Subscriber and a Consumer iterate over.

A class and not a generator: a generator that two threads enter ends for both, and in a chain it takes the interpreter along.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, Self, TypeVar

from patterns.io import context
from patterns.wire.errors import LocalProtocolError

T = TypeVar("T")


class Arriving(Generic[T], Iterator[T]):
    """Takes until there is nothing more.

    Args:
        what: the name of the role, for the error.
        take: waits for the next; None: it is over.
        over: called at the end, whatever ended it.
    """

    def __init__(self, what: str, take: Callable[[], T | None], over: Callable[[], None]) -> None:
        self._what = what
        self._take = take
        self._over = over
        self._is_waiting = False
        self._given: T | None = None  # a chain goes through it
        context.watch(self)

    def check(self) -> None:
        """Raises LocalProtocolError when another thread waits here."""
        if self._is_waiting:
            raise LocalProtocolError(f"a {self._what} belongs to one thread, and another one waits for its messages")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        self.check()
        try:
            self._is_waiting = True
            found = self._take()
        except BaseException:  # Ctrl-C, or an error of the session: a chain ends with it, the next loop makes another
            self._over()
            raise
        finally:
            self._is_waiting = False
        if found is None:
            self._over()
            raise StopIteration
        self._given = found
        return found

    def let_go(self) -> None:
        """As context.Iteration's: a chain that is in the midst of a batch asks for the next one."""
        given, self._given = self._given, None
        if isinstance(given, Iterator):
            with suppress(ValueError):  # a generator in which another thread was; it is not here
                deque(given, maxlen=0)
