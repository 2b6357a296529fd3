"""A heap of rows of integers of which only the newest are objects: a million messages that wait take a few megabytes.

Rows that are too many to be objects are sorted and packed into runs, column by column; a run is read from its front.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from itertools import chain
from typing import Final

from zbroker.core.column import BLOCK, Block, pack

YOUNG_MAX: Final = 2 * BLOCK  # as many as two runs: who settles as fast as messages come never has one

Row = tuple[int, ...]


class PackedHeap:
    """Equally long rows of integers from 0 up, the smallest first."""

    __slots__ = ("_count", "_fronts", "_runs", "_young")

    def __init__(self) -> None:
        self._count = 0
        self._young: list[Row] = []  # a heap
        self._fronts: list[
            tuple[Row, int, int]
        ] = []  # a heap: the next row of each run, the run's key, where the row stands
        self._runs: dict[int, list[Block]] = {}

    def __len__(self) -> int:
        return self._count

    def rows(self, least: int = 0) -> Iterator[Row]:
        """Those whose last integer is at least so large, in no order. As they are at the call, though they may be told later."""
        young = [row for row in self._young if row[-1] >= least]
        runs = [(self._runs[key], at) for _, key, at in self._fronts if self._runs[key][-1].high >= least]
        packed = chain.from_iterable(_rows(run, at) for run, at in runs)
        return chain(young, (row for row in packed if row[-1] >= least))

    @property
    def first(self) -> Row:
        """The smallest; there is one."""
        if not self._fronts:
            return self._young[0]
        front = self._fronts[0][0]
        return min(self._young[0], front) if self._young else front

    def push(self, row: Row) -> None:
        """One more."""
        self._count += 1
        heappush(self._young, row)
        if len(self._young) > YOUNG_MAX:
            self._pack()

    def pop(self) -> Row:
        """Take the smallest; there is one."""
        self._count -= 1
        if not self._fronts or (self._young and self._young[0] <= self._fronts[0][0]):
            return heappop(self._young)
        row, key, at = self._fronts[0]
        run = self._runs[key]
        if at + 1 < run[0].count:
            heapreplace(self._fronts, (tuple([column[at + 1] for column in run]), key, at + 1))
        else:
            heappop(self._fronts)
            del self._runs[key]
        return row

    def _pack(self) -> None:
        rows, size = sorted(self._young), YOUNG_MAX // 2
        self._young = rows[2 * size :]
        for begin in range(0, 2 * size, size):
            run = [pack(array("Q", column)) for column in zip(*rows[begin : begin + size], strict=True)]
            key = max(self._runs, default=0) + 1
            self._runs[key] = run
            heappush(self._fronts, (tuple(rows[begin]), key, 0))


def _rows(run: list[Block], begin: int) -> Iterator[Row]:
    return zip(*(column.values(begin, column.count) for column in run), strict=True)
