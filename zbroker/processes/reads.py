"""Reading old records beside the turns: what the carrier asks of whoever reads, and the simplest that does.

The broker's own is reading.py, a thread; tests/simulation has one that takes time on the virtual clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from patterns.io.journal import Reader
from patterns.wire.records import Record
from zbroker.core.effects import Read

Answer = tuple[Read, Sequence[Record | Exception]]


class Reads(Protocol):
    """Serves Read effects in the order in which they were asked."""

    def ask(self, read: Read) -> None:
        """Never waits."""
        ...

    def fileno(self) -> int:
        """Readable as long as there are answers; -1 when there is no such descriptor."""
        ...

    @property
    def is_answered(self) -> bool:
        """Whether answers() would return any."""
        ...

    def answers(self) -> list[Answer]:
        """Some of what is read by now, oldest first: records in the order of positions, errors of the store among them."""
        ...

    def complaint(self) -> str:
        """What is wrong with the reading; empty when nothing is."""
        ...

    def status(self) -> dict[str, object]:
        """For people and metrics."""
        ...


class ImmediateReads:
    """Reads while it is asked: for tests, and where nothing else waits."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._answers: deque[Answer] = deque()

    def ask(self, read: Read) -> None:
        self._answers.append((read, self._reader.read(read.positions)))

    def fileno(self) -> int:
        return -1

    @property
    def is_answered(self) -> bool:
        return bool(self._answers)

    def answers(self) -> list[Answer]:
        answers = list(self._answers)
        self._answers.clear()
        return answers

    def complaint(self) -> str:
        return ""

    def status(self) -> dict[str, object]:
        return self._reader.status()
