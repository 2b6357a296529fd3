"""Reading old records beside the turns: what the carrier asks of whoever reads; the broker's own is reading.py, a thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
