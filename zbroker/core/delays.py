"""A group's messages that wait for their time. Milliseconds on the engine's clock; a million take a few megabytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import islice

from zbroker.core.column import BLOCK, Block, pack
from zbroker.core.heap import PackedHeap
from zbroker.core.leases import Piece


class Delays:
    """Pieces, the one that is due first before the others.

    Attributes:
        messages: in all pieces.
    """

    __slots__ = ("_heap", "messages")

    def __init__(self) -> None:
        self._heap = PackedHeap()  # due, first offset, how many follow it, the whole delay, attempts
        self.messages = 0

    def add(self, piece: Piece, due: int, delay: int) -> None:
        """It waits until `due`; `delay` is how long it was to wait when that was said."""
        self._heap.push((due, piece.first, piece.last - piece.first, delay, piece.tries))
        self.messages += piece.last - piece.first + 1

    @property
    def next_due(self) -> int | None:
        """When the first one is."""
        return self._heap.first[0] if self._heap else None

    def pop(self) -> Piece:
        """Take the first one; there is one."""
        _, first, more, _, tries = self._heap.pop()
        self.messages -= more + 1
        return Piece(first, first + more, tries)

    def blocks(self, ahead: int) -> Iterator[list[Block]]:
        """Columns, as they are at the call though they may be told later: first, count less one, due, delay, attempts.

        Args:
            ahead: is added to each instant.
        """
        return _packed(self._heap.rows(), ahead)


def _packed(rows: Iterator[tuple[int, ...]], ahead: int) -> Iterator[list[Block]]:
    while some := list(islice(rows, BLOCK)):
        dues, *columns, delays, tries = zip(*some, strict=True)
        yield [pack(array("Q", column)) for column in (*columns, [max(due + ahead, 0) for due in dues], delays, tries)]
