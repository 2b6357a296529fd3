"""One stream as the broker sees it: where each batch begins and lies. Numbers in packed columns, for there may be millions."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from patterns.wire.configs import StreamConfig
from patterns.wire.records import Position
from patterns.wire.settled import Range, Settled, merged
from zbroker.core.column import Block, Column, pack

if TYPE_CHECKING:
    from zbroker.core.groups import Group
    from zbroker.core.message_ids import MessageIds


_TRIM_BATCHES: Final = 4_096
_GENERATION_SHIFT: Final = 48  # of a place: a byte below, the generation of the segment's file above
_STEP: Final = 1_024  # batches that are looked at together


class StreamLog:
    """The batches of a stream in order of offset.

    Attributes:
        next_offset: what the next accepted message gets.
        durable_next: everything below it is on disk, or lost; what lies above is delivered to nobody.
        lost: what damage took, in order.
        last_index: of its last APPEND record.
        groups: by name.
        given_up: what nobody was owed any more, and was too much.
        config: what it was told to be.
        ids: the newest message ids; None until there are any.
        unplaced_bytes: of batches that have no place yet.
        is_deleted: it is no stream any more; another one may have its name.
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
        self.config = StreamConfig(name)
        self.ids: MessageIds | None = None
        self.unplaced_bytes = 0
        self.is_deleted = False
        self._bases = Column()
        self._counts = Column()
        self._published = Column()  # ms; they rise
        self._segments = Column()
        self._places = Column()
        self._sizes = Column()  # 0: it is gone
        self._unplaced: deque[int] = deque()  # payload bytes of those that have no place yet
        self._first = 0  # batches below are forgotten; numbers go on

    @property
    def batches(self) -> int:
        """The number after the last batch's."""
        return self._bases.end

    @property
    def placed(self) -> int:
        """How many of the first batches have a place; the journal has yet to tell where the others lie."""
        return self._sizes.end

    @property
    def stored(self) -> int:
        """How many batches are known, a few that are gone included."""
        return self._bases.end - self._first

    @property
    def first_offset(self) -> int:
        """Of the oldest batch kept."""
        return max(self._bases[self._first] if self.stored else self.next_offset, self.given_up.floor)

    def append(self, index: int, count: int, size: int, published_at: int) -> int:
        """Take a batch at the end; returns its number. Its position follows with place(), in order."""
        self._bases.append(self.next_offset)
        self._counts.append(count)
        self._published.append(published_at)
        self.next_offset += count
        self.last_index = index
        self.bytes += size
        self.messages += count
        self.published_at = published_at
        self._unplaced.append(size)
        self.unplaced_bytes += size
        return self.batches - 1

    def place(self, number: int, position: Position) -> None:
        """Where the batch's record lies, or will lie."""
        assert number == self._sizes.end, f"a place for batch {number}, the next without one is {self._sizes.end}"
        self._segments.append(position.segment)
        self._places.append(_place_of(position))
        self._sizes.append(position.size)
        self.unplaced_bytes -= self._unplaced.popleft()

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
            self._segments[number] = position.segment
            self._places[number] = _place_of(position)
            self._sizes[number] = position.size
        return number, self.size(number) - before

    def give_up(self, first: int, last: int) -> None:
        """Nobody is owed these any more: batches that lie wholly among them are gone."""
        for number in range(self.find(first), self.find(last + 1)):
            if first <= self.base(number):
                self._drop(number)
        self._trim()

    def _drop(self, number: int) -> None:
        self._places[number] = self._sizes[number] = 0

    def _trim(self) -> None:
        """Forget the oldest batches that are gone, many at a time; never the last one: it says where offsets go on."""
        end, until = min(self.placed, self.batches - 1), self._first + _TRIM_BATCHES
        if until > end or self._sizes[until - 1] or self._sizes.total(self._first, until):
            return
        while until < end and not self._sizes.total(until, min(until + _STEP, end)):
            until = min(until + _STEP, end)
        gone = (at for at, size in enumerate(self._sizes.values(until, min(until + _STEP, end))) if size)
        self._first = until + next(gone, 0)
        for column in self._columns:
            column.forget(self._first)

    def purge(self, below: int) -> int:
        """All below this offset, which is durable, is given up, wanted or not; returns how many messages that were."""
        lost = sum(
            end + 1 - begin
            for first, last in self.lost
            for begin, end in self.given_up.missing(first, min(last, below - 1))
        )
        gone = self.given_up.add(0, below - 1)
        self.cut()
        return gone - lost

    def cut(self) -> None:
        """Forget what lies below the floor of what was given up; but the last batch, which says where offsets go on."""
        if not self.stored:
            return
        below = self.find(self.given_up.floor)
        first = min(below, self.placed, self.batches - 1)
        if first > self._first:
            self._first = first
            for column in self._columns:
                column.forget(first)
        if first < min(below, self.placed):
            self._drop(first)

    def is_gone(self, number: int) -> bool:
        """Whether the batch is not stored any more."""
        return number < self.placed and not self.size(number)

    def position(self, number: int) -> Position:
        """Where the batch's record lies; nowhere, with a size of 0, when it is gone."""
        if not self._first <= number < self.placed:
            return Position(0, 0, 0)
        generation, offset = divmod(self._places[number], 1 << _GENERATION_SHIFT)
        return Position(self._segments[number], offset, self._sizes[number], generation)

    def places(self, begin: int, end: int) -> Iterator[tuple[int, int, int, Position]]:
        """Number, first offset, the offset after the last, and position of these batches, as far as they are placed; as size()."""
        begin, end = max(begin, self._first), min(end, self.placed)
        columns = (self._bases, self._counts, self._segments, self._places, self._sizes)
        rows = zip(*(column.values(begin, end) for column in columns), strict=True)
        for number, (base, count, segment, place, size) in enumerate(rows, begin):
            generation, offset = divmod(place, 1 << _GENERATION_SHIFT)
            yield number, base, base + count, Position(segment, offset, size, generation)

    def size(self, number: int) -> int:
        """Bytes of the batch's record on disk; 0 when it is gone, or has no place yet."""
        return self._sizes[number] if self._first <= number < self.placed else 0

    def sizes(self, begin: int, end: int) -> list[int]:
        """Of these batches, of which none is forgotten."""
        return self._sizes.values(begin, end)

    def messages_in(self, begin: int, end: int) -> int:
        """How many messages these batches were stored with."""
        return self._counts.total(begin, end)

    def find(self, offset: int) -> int:
        """Number of the batch with this offset, or of the first one after it; `batches` when there is none."""
        number = self._bases.find(offset) - 1
        if number < self._first:
            return self._first
        return number + (offset >= self._bases[number] + self._counts[number])

    def published_since(self, instant: int) -> int:
        """Offset of the first message kept that was published at or after an instant, ms since 1970; else the next one."""
        number = max(self._published.find(instant - 1), self._first)
        return max(self._bases[number] if number < self.batches else self.next_offset, self.first_offset)

    def published_of(self, offset: int) -> int:
        """When the message with this offset was published, or the next one that is kept; ms since 1970."""
        number = self.find(offset)
        return self._published[number] if number < self.batches else self.published_at

    def published(self, number: int) -> int:
        """When a batch that is not forgotten was published; ms since 1970."""
        return self._published[number]

    def base(self, number: int) -> int:
        """First offset of a batch that is not forgotten."""
        return self._bases[number]

    def end(self, number: int) -> int:
        """Offset after the last of a batch that is not forgotten."""
        return self._bases[number] + self._counts[number]

    # -- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> tuple[Column, ...]:
        return self._bases, self._counts, self._published, self._segments, self._places, self._sizes

    def span(self, first: int, below: int) -> tuple[int, int]:
        """Numbers of the batches that lie in segments `first` up to, and without, `below`, of those that are placed."""
        begin, end = (max(self._segments.find(segment - 1), self._first) for segment in (first, below))
        return begin, end

    def blocks(self, begin: int, end: int) -> list[Block]:
        """What is known of batches that have places, a block for each column: bases, counts, published, segments, places, sizes.

        Of those that are stored; empty when none is.
        """
        begin = max(begin, self._first)
        columns = [column.values(begin, end) for column in self._columns]
        if 0 in columns[-1]:
            stored = [at for at, size in enumerate(columns[-1]) if size]
            columns = [[column[at] for at in stored] for column in columns]
        return [pack(array("Q", column)) for column in columns if column]

    def restore(self, blocks: Sequence[Block]) -> None:
        """Put back what blocks() told, in order; batches that are there already are passed over."""
        known = self._bases[self.batches - 1] if self.stored else -1
        begin = blocks[0].find(known) if blocks[0][0] <= known else 0
        for column, block in zip(self._columns, blocks, strict=True):
            if not begin:
                column.take(block)
            else:
                column.extend(block.values(begin, block.count))

    def reindex(self, base: int, count: int, published_at: int, position: Position) -> None:
        """The same for one batch, from its record."""
        values = (base, count, published_at, position.segment, _place_of(position), position.size)
        self.restore([Block(1, value, 0) for value in values])

    # -- damage -------------------------------------------------------------------------------------------------------

    def fate(self, first: int, last: int) -> tuple[bool, int]:
        """Of offsets without a batch: whether damage took the first one, else it was given up; and up to which that holds."""
        place = bisect_right(self.lost, first, key=lambda lost: lost[0])
        if place and first <= self.lost[place - 1][1]:
            return True, min(last, self.lost[place - 1][1])
        return False, min(last, self.lost[place][0] - 1) if place < len(self.lost) else last

    def lose_missing(self, segments: set[int]) -> None:
        """Batches that lie in none of these segments are lost: their file is gone."""
        begin = self._first
        while begin < self.placed:
            segment = self._segments[begin]
            end = self._segments.find(segment)
            if segment not in segments:
                self._lose_batches(begin, end)
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
        for base, count in self.extents(self._first, self.batches):
            if base > end:
                gaps += self.given_up.missing(end, base - 1)
            end = max(end, base + count)
        gaps += self.given_up.missing(end, self.next_offset - 1)
        for first, last in gaps:
            self.lose(first, last)

    def extents(self, begin: int, end: int) -> Iterable[tuple[int, int]]:
        """First offset and count of these batches, of which none is forgotten."""
        for at in range(begin, end, _STEP):
            until = min(at + _STEP, end)
            yield from zip(self._bases.values(at, until), self._counts.values(at, until), strict=True)

    def lose(self, first: int, last: int) -> None:
        """Damage took these offsets. Those at the end are jumped over: an offset never holds two values."""
        self.lost = merged([*self.lost, (first, last)])
        self.next_offset = max(self.next_offset, last + 1)
        for group in self.groups.values():
            group.lose(first, last)


def _place_of(position: Position) -> int:
    return position.generation << _GENERATION_SHIFT | position.offset
