"""A heap of things by order, ties by ticket, whose stale entries its owner recognises and drops."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Schedule(Generic[_T]):
    """Smallest order first, ties by the smallest ticket, then by age."""

    __slots__ = ("_ages", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, _T]] = []
        self._ages = count()  # unique, so that things themselves are never compared

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, order: int, ticket: int, thing: _T) -> None:
        """Add an entry; earlier ones of the same thing stay, and are the owner's to recognise."""
        heappush(self._heap, (order, ticket, next(self._ages), thing))

    def first(self) -> tuple[int, _T]:
        """Ticket and thing of the entry that pop() would take."""
        _, ticket, _, thing = self._heap[0]
        return ticket, thing

    def pop(self) -> tuple[int, _T]:
        """Take the first entry."""
        _, ticket, _, thing = heappop(self._heap)
        return ticket, thing

    def keep(self, is_valid: Callable[[int, _T], bool]) -> None:
        """Drop every entry that is stale, by (ticket, thing); for a heap that has grown beyond what is alive."""
        self._heap = [entry for entry in self._heap if is_valid(entry[1], entry[3])]
        heapify(self._heap)
