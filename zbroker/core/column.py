"""Many integers in little memory: a column of numbered values, packed block by block. No meaning, no I/O.

A backlog of millions is made of such columns. Neighbours are alike in all of them (offsets that follow one another, places in the
same segment), so a block holds its least value once and of the others what they lie above it, as narrow as that allows; a
block whose values rise by equal steps holds nothing more.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

BLOCK: Final = 1_024  # values: what a block costs by itself, about 100 bytes, is a tenth of a byte for each
VALUE_MAX: Final = 2**64 - 1
_CODES: Final = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))
_CODE_OF: Final = {array(code).itemsize: code for _, code in _CODES}


class Block(msgspec.Struct, frozen=True, gc=False):
    """Packed values: number n is low + n * step, or low + above[n]."""

    count: int
    low: int
    step: int
    above: array[int] | None = None

    def __getitem__(self, at: int) -> int:
        return self.low + (at * self.step if self.above is None else self.above[at])

    @property
    def high(self) -> int:
        """The greatest value."""
        return self.low + (self.step * (self.count - 1) if self.above is None else max(self.above))

    def values(self, begin: int, end: int) -> Sequence[int]:
        """Those from `begin` up to, and without, `end`."""
        low, step = self.low, self.step
        if self.above is not None:
            return [low + above for above in self.above[begin:end]] if low else self.above[begin:end]
        return range(low + begin * step, low + end * step, step) if step else [low] * (end - begin)

    def total(self, begin: int, end: int) -> int:
        """The sum of these."""
        if self.above is not None:
            return self.low * (end - begin) + sum(self.above[begin:end])
        return sum(self.values(begin, end))

    def find(self, value: int) -> int:
        """How many are at most so large; the values rise."""
        over = value - self.low
        if over < 0:
            return 0
        if self.above is not None:
            return bisect_right(self.above, over)
        return min(self.count, over // self.step + 1) if self.step else self.count

    # -- as bytes -----------------------------------------------------------------------------------------------------

    def encoded(self) -> list[int | bytes]:
        """As decode_block() takes it: count, low, step, and what lies above, big-endian."""
        if self.above is None:
            return [self.count, self.low, self.step, b""]
        return [self.count, self.low, self.step, _swapped(self.above[:]).tobytes()]


def decode_block(count: int, low: int, step: int, data: bytes) -> Block:
    """What encoded() made. Raises ValueError, TypeError, KeyError when that cannot have been."""
    if min(count - 1, low, step) < 0 or low + step * (count - 1) > VALUE_MAX or len(data) % count:
        raise ValueError(f"{count} values from {low} by {step}, with {len(data)} bytes")
    if not data:
        return Block(count, low, step)
    above = array(_CODE_OF[len(data) // count])
    above.frombytes(data)
    block = Block(count, low, 0, _swapped(above))
    if above.itemsize == array("Q").itemsize and block.high > VALUE_MAX:
        raise ValueError(f"{count} values from {low} above {VALUE_MAX}")
    return block


def widened(code: str, data: bytes) -> array[int]:
    """Big-endian integers of an array's type as values of eight bytes. Raises ValueError."""
    values = array(code)
    values.frombytes(data)
    return array("Q", _swapped(values))


def _swapped(column: array[int]) -> array[int]:
    if sys.byteorder == "little":
        column.byteswap()
    return column


def pack(values: array[int]) -> Block:
    """Values of eight bytes as a block; at least one."""
    count, first = len(values), values[0]
    step, rest = divmod(values[-1] - first, count - 1) if count > 1 else (0, 0)
    if not rest and step >= 0 and values[count // 2] == first + step * (count // 2):  # it may be a row of equal steps
        block = Block(count, first, step)
        if values == array("Q", block.values(0, count)):
            return block
    low = min(values)
    span = max(values) - low
    code = next(code for limit, code in _CODES if span < limit)
    return Block(count, low, 0, array(code, [value - low for value in values] if low else values))


class Column:
    """Values with numbers that rise and stay, whatever is forgotten of the first ones.

    The newest, less than a block, are held as they are. So is the block that was changed last: changes come side by side.

    Attributes:
        end: the number after the last value's.
    """

    __slots__ = (
        "_blocks",
        "_heads",
        "_loose",
        "_near",
        "_near_begin",
        "_near_end",
        "_open",
        "_open_begin",
        "_starts",
        "end",
    )

    def __init__(self) -> None:
        self.end = 0
        self._blocks: list[Block] = []
        self._starts = array("Q")  # the number of the first value in each
        self._heads = array("Q")  # that value
        self._loose: int | None = None  # of the blocks: one that holds eight bytes a value, so that it may be changed
        self._open = array("Q")
        self._open_begin = 0
        self._near: Block | None = None  # what was read last, for it is read again
        self._near_begin = self._near_end = 0

    @property
    def first(self) -> int:
        """The number of the oldest value that is held; `end` when none is."""
        return self._starts[0] if self._starts else self._open_begin

    def append(self, value: int) -> None:
        """One more at the end."""
        self._open.append(value)
        self.end += 1
        if len(self._open) >= BLOCK:
            self._seal()

    def extend(self, values: Iterable[int]) -> None:
        """Many more."""
        for value in values:
            self.append(value)

    def take(self, block: Block) -> None:
        """A packed block at the end; small ones grow together."""
        if len(self._open) + block.count < BLOCK and (self._open or block.count < BLOCK // 2):
            self._open.extend(array("Q", block.values(0, block.count)))
        else:
            self._seal()
            self._add(block)
        self.end += block.count

    def _seal(self) -> None:
        if self._open:
            self._add(pack(self._open))
            self._open = array("Q")

    def _add(self, block: Block) -> None:
        self._blocks.append(block)
        self._starts.append(self._open_begin)
        self._heads.append(block[0])
        self._open_begin += block.count

    # -- read ---------------------------------------------------------------------------------------------------------

    def __getitem__(self, number: int) -> int:
        """The value of that number, which is none that was forgotten."""
        at = number - self._open_begin
        if at >= 0:
            return self._open[at]
        if not self._near_begin <= number < self._near_end:
            self._go_near(number)
        near = self._near
        assert near is not None
        at = number - self._near_begin
        above = near.above
        return near.low + (at * near.step if above is None else above[at])

    def _go_near(self, number: int) -> None:
        place = bisect_right(self._starts, number) - 1
        if place < 0:
            raise IndexError(f"{number} of a column that begins with {self.first}")
        self._near = self._blocks[place]
        self._near_begin = self._starts[place]
        self._near_end = self._near_begin + self._near.count

    def values(self, begin: int, end: int) -> list[int]:
        """Those with numbers from `begin` up to, and without, `end`."""
        found: list[int] = []
        for block, first in self._parts(begin, min(end, self._open_begin)):
            found += block.values(max(begin - first, 0), min(end - first, block.count))
        if end > self._open_begin:
            found += self._open[max(begin - self._open_begin, 0) : end - self._open_begin]
        return found

    def total(self, begin: int, end: int) -> int:
        """Their sum."""
        found = sum(
            block.total(max(begin - first, 0), min(end - first, block.count))
            for block, first in self._parts(begin, min(end, self._open_begin))
        )
        if end > self._open_begin:
            found += sum(self._open[max(begin - self._open_begin, 0) : end - self._open_begin])
        return found

    def _parts(self, begin: int, end: int) -> Iterable[tuple[Block, int]]:
        """Blocks with one of these numbers, each with that of its first value."""
        place = max(bisect_right(self._starts, begin) - 1, 0)
        while begin < end and place < len(self._blocks) and self._starts[place] < end:
            yield self._blocks[place], self._starts[place]
            place += 1

    def find(self, value: int) -> int:
        """The number of the first one above it; of a column whose values rise."""
        if self._open and self._open[0] <= value:
            return self._open_begin + bisect_right(self._open, value)
        place = bisect_right(self._heads, value) - 1
        return self._starts[place] + self._blocks[place].find(value) if place >= 0 else self.first

    # -- change -------------------------------------------------------------------------------------------------------

    def __setitem__(self, number: int, value: int) -> None:
        at = number - self._open_begin
        if at >= 0:
            self._open[at] = value
            return
        if self[number] == value:
            return
        place = bisect_right(self._starts, number) - 1
        self._loosen(place)
        loose = self._blocks[place].above
        assert loose is not None
        loose[number - self._starts[place]] = value
        if number == self._starts[place]:
            self._heads[place] = value

    def _loosen(self, place: int) -> None:
        if self._loose == place:
            return
        self._tighten()
        block = self._blocks[place]
        self._blocks[place] = Block(block.count, 0, 0, array("Q", block.values(0, block.count)))
        self._loose, self._near_end = place, 0

    def _tighten(self) -> None:
        if self._loose is not None:
            loose = self._blocks[self._loose].above
            assert loose is not None
            self._blocks[self._loose] = pack(loose)
            self._loose, self._near_end = None, 0

    def forget(self, below: int) -> None:
        """Let go of values with lower numbers, as far as whole blocks have no others."""
        count = bisect_right(self._starts, below) - 1
        if count < len(self._blocks) and below >= self._open_begin:
            count = len(self._blocks)
        if count > 0:
            self._tighten()
            del self._blocks[:count], self._starts[:count], self._heads[:count]
            self._near_end = 0
