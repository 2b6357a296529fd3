"""One stream as the broker sees it: where each batch begins and lies. Numbers in arrays, for there may be millions."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from patterns.wire.records import Position
from patterns.wire.settled import Range, Settled, merged

if TYPE_CHECKING:
    from zbroker.core.groups import Group


COLUMNS: Final = "QIQQQI"  # bases, counts, published, segments, places, sizes: of StreamLog.columns()
_TRIM_BATCHES: Final = 4_096
_GENERATION_SHIFT: Final = 48  # of a place: a byte below, the generation of the segment's file above


class StreamLog:
    """The batches of a stream in order of offset.

    Attributes:
        next_offset: what the next accepted message gets.
        durable_next: everything below it is on disk, or lost; what lies above is delivered to nobody.
        lost: what damage took, in order.
        last_index: of its last APPEND record.
        groups: by name.
        placed: how many of the first batches have a place; the journal has yet to tell where the others lie.
        given_up: what nobody was owed any more, and was too much.
    """

    def __init__(self, id: int, name: str) -> None:
        self.id = id
        self.name = name
        self.next_offset = 0
        self.durable_next = 0
        self.last_index = id
        self.bytes = 0
        self.messages = 0
        self.published_at = 0
        self.given_up = Settled()
        self.lost: list[Range] = []
        self.groups: dict[str, Group] = {}
        self._bases = array("Q")
        self._counts = array("I")
        self._published = array("Q")
        self._segments = array("Q")
        self._places = array("Q")
        self._sizes = array("I")
        self._trimmed = 0  # batches that were the first ones once, and are forgotten: numbers go on
        self.placed = 0

    @property
    def batches(self) -> int:
        """The number after the last batch's."""
        return self._trimmed + len(self._bases)

    @property
    def stored(self) -> int:
        """How many batches are known, a few that are gone included."""
        return len(self._bases)

    @property
    def first_offset(self) -> int:
        """Of the oldest batch kept."""
        return max(self._bases[0] if self._bases else self.next_offset, self.given_up.floor)

    def append(self, index: int, count: int, size: int, published_at: int) -> int:
        """Take a batch at the end; returns its number. Its position follows with place(), in order."""
        self._bases.append(self.next_offset)
        self._counts.append(count)
        self._published.append(published_at)
        self._segments.append(0)
        self._places.append(0)
        self._sizes.append(0)
        self.next_offset += count
        self.last_index = index
        self.bytes += size
        self.messages += count
        self.published_at = published_at
        return self.batches - 1

    def place(self, number: int, position: Position) -> None:
        """Where the batch's record lies, or will lie."""
        self.placed = max(self.placed, number + 1)
        at = number - self._trimmed
        self._segments[at] = position.segment
        self._places[at] = _place_of(position)
        self._sizes[at] = position.size

    def move(self, base: int, position: Position | None) -> tuple[int, int]:
        """The batch with this first offset lies elsewhere; None: nobody wanted it, and it is gone.

        Returns:
            The batch's number, and by how much its record has grown.
        """
        number = self.find(base)
        if number >= self.placed or self.base(number) != base or self.is_gone(number):
            return number, 0
        before = self.size(number)
        if position is None:
            self._drop(number)
        else:
            self.place(number, position)
        return number, self.size(number) - before

    def give_up(self, first: int, last: int) -> None:
        """Nobody is owed these any more: batches that lie wholly among them are gone."""
        for number in range(self.find(first), self.find(last + 1)):
            if first <= self.base(number):
                self._drop(number)
        self._trim()

    def _drop(self, number: int) -> None:
        at = number - self._trimmed
        self._places[at] = self._sizes[at] = 0

    def _trim(self) -> None:
        """Forget the oldest batches that are gone, many at a time: all that come after them are moved."""
        if len(self._sizes) < _TRIM_BATCHES or self._sizes[_TRIM_BATCHES - 1]:
            return
        end = min(self.placed - self._trimmed, len(self._sizes) - 1)  # never the last one: it says where offsets go on
        gone = next((at for at in range(end) if self._sizes[at]), end)
        if gone >= _TRIM_BATCHES:
            for column in self._columns:
                del column[:gone]
            self._trimmed += gone

    def is_gone(self, number: int) -> bool:
        """Whether the batch is not stored any more."""
        return number < self.placed and not self.size(number)

    def position(self, number: int) -> Position:
        """Where the batch's record lies; nowhere, with a size of 0, when it is gone."""
        at = number - self._trimmed
        if at < 0:
            return Position(0, 0, 0)
        generation, offset = divmod(self._places[at], 1 << _GENERATION_SHIFT)
        return Position(self._segments[at], offset, self._sizes[at], generation)

    def size(self, number: int) -> int:
        """Bytes of the batch's record on disk; 0 when it is gone, or has no place yet."""
        at = number - self._trimmed
        return self._sizes[at] if at >= 0 else 0

    def find(self, offset: int) -> int:
        """Number of the batch with this offset, or of the first one after it; `batches` when there is none."""
        at = bisect_right(self._bases, offset) - 1
        is_in = at >= 0 and offset < self._bases[at] + self._counts[at]
        return self._trimmed + at + (not is_in)

    def published_since(self, instant: int) -> int:
        """Offset of the first message kept that was published at or after an instant, ms since 1970; else the next one."""
        at = bisect_left(self._published, instant)
        return max(self._bases[at] if at < len(self._bases) else self.next_offset, self.first_offset)

    def base(self, number: int) -> int:
        """First offset of a batch that is not forgotten."""
        return self._bases[number - self._trimmed]

    def end(self, number: int) -> int:
        """Offset after the last of a batch that is not forgotten."""
        at = number - self._trimmed
        return self._bases[at] + self._counts[at]

    # -- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> tuple[array[int], ...]:
        return self._bases, self._counts, self._published, self._segments, self._places, self._sizes

    def span(self, first: int, below: int) -> tuple[int, int]:
        """Numbers of the batches that lie in segments `first` up to, and without, `below`, of those that are placed."""
        end = self.placed - self._trimmed
        begin, stop = (bisect_left(self._segments, segment, 0, end) for segment in (first, below))
        return self._trimmed + begin, self._trimmed + stop

    def columns(self, begin: int, end: int) -> list[array[int]]:
        """What is known of batches that are stored, column by column, as COLUMNS says; copies."""
        first, last = max(begin - self._trimmed, 0), max(end - self._trimmed, 0)
        if 0 not in self._sizes[first:last]:
            return [column[first:last] for column in self._columns]
        stored = [at for at in range(first, last) if self._sizes[at]]
        return [array(column.typecode, [column[at] for at in stored]) for column in self._columns]

    def restore(self, columns: list[array[int]]) -> None:
        """Put back batches that the restored offsets cover, in order; those that are there already are passed over."""
        known = self._bases[-1] + 1 if self._bases else 0
        begin = bisect_left(columns[0], known)
        for column, more in zip(self._columns, columns, strict=True):
            column.extend(more[begin:])
        self.placed = self.batches

    def reindex(self, base: int, count: int, published_at: int, position: Position) -> None:
        """The same for one batch, from its record."""
        values = (base, count, published_at, position.segment, _place_of(position), position.size)
        self.restore([array(code, [value]) for code, value in zip(COLUMNS, values, strict=True)])

    # -- damage -------------------------------------------------------------------------------------------------------

    def fate(self, first: int, last: int) -> tuple[bool, int]:
        """Of offsets without a batch: whether damage took the first one, else it was given up; and up to which that holds."""
        place = bisect_right(self.lost, first, key=lambda lost: lost[0])
        if place and first <= self.lost[place - 1][1]:
            return True, min(last, self.lost[place - 1][1])
        return False, min(last, self.lost[place][0] - 1) if place < len(self.lost) else last

    def lose_missing(self, segments: set[int]) -> None:
        """Batches that lie in none of these segments are lost: their file is gone."""
        begin = 0
        while begin < len(self._segments):
            segment = self._segments[begin]
            end = bisect_right(self._segments, segment, begin)
            if segment not in segments:
                self._lose_batches(self._trimmed + begin, self._trimmed + end)
            begin = end

    def _lose_batches(self, begin: int, end: int) -> None:
        for number in range(begin, end):
            if self.size(number):
                self._drop(number)
                self.lose(self.base(number), self.end(number) - 1)

    def lose_gaps(self) -> None:
        """Something was damaged: offsets without a batch that were not given up are lost."""
        end = self.given_up.floor
        gaps: list[Range] = []
        for base, count in zip(self._bases, self._counts, strict=True):
            if base > end:
                gaps += self.given_up.missing(end, base - 1)
            end = max(end, base + count)
        gaps += self.given_up.missing(end, self.next_offset - 1)
        for first, last in gaps:
            self.lose(first, last)

    def lose(self, first: int, last: int) -> None:
        """Damage took these offsets. Those at the end are jumped over: an offset never holds two values."""
        self.lost = merged([*self.lost, (first, last)])
        self.next_offset = max(self.next_offset, last + 1)
        for group in self.groups.values():
            group.lose(first, last)


def _place_of(position: Position) -> int:
    return position.generation << _GENERATION_SHIFT | position.offset
