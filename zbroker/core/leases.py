"""What one member of a group was lent, by lease id: the newest as objects, older ones packed, for it may hold a million."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple

from patterns.wire.settled import Range, runs
from zbroker.core.column import BLOCK, Block, pack

if TYPE_CHECKING:
    from zbroker.core.groups import Group

YOUNG_MAX: Final = 2 * BLOCK  # who settles as fast as messages come has no others
_SPARSE: Final = 8  # a pack of which fewer than one in so many are left is packed again


class Piece(NamedTuple):
    """Messages side by side that were delivered equally often: `tries` counted attempts so far."""

    first: int
    last: int
    tries: int


class Lease:
    """A piece lent to one member; `held` has a bit for each message that it still holds."""

    __slots__ = ("attempt", "count", "first", "group", "held", "id", "until")

    def __init__(self, id: int, group: Group, piece: Piece, until: int) -> None:
        self.id = id
        self.group = group
        self.first = piece.first
        self.attempt = piece.tries + 1
        self.count = piece.last - piece.first + 1
        self.held = (1 << self.count) - 1
        self.until = until

    def take(self, ranges: list[Range]) -> tuple[list[Range], int]:
        """Let go of these offsets, of everything when there are none; returns what was held of them, and how many."""
        if not ranges:
            taken = self.held
        elif len(ranges) == 1:
            taken = self._mask(*ranges[0]) & self.held
        else:
            taken = self._mask_of(ranges) & self.held
        self.held ^= taken
        count = taken.bit_count()
        if count == self.count:
            return [(self.first, self.first + count - 1)], count
        return list(runs(taken, self.first)), count

    def _mask_of(self, ranges: list[Range]) -> int:
        """All of them at once; an integer as long as the lease for each of 10,000 ranges takes 50 ms."""
        bits = bytearray((self.count + 7) // 8)
        for first, last in ranges:
            low, high = max(first - self.first, 0), min(last - self.first, self.count - 1)
            if low == high:
                bits[low >> 3] |= 1 << (low & 7)
            elif low < high:
                begin, end = low >> 3, (high >> 3) + 1
                mask = ((1 << (high - low + 1)) - 1) << (low & 7)
                bits[begin:end] = (int.from_bytes(bits[begin:end], "little") | mask).to_bytes(end - begin, "little")
        return int.from_bytes(bits, "little")

    def _mask(self, first: int, last: int) -> int:
        low = max(first - self.first, 0)
        high = min(last - self.first, self.count - 1)
        return ((1 << (high - low + 1)) - 1) << low if low <= high else 0


class _Pack:
    """Leases in order of id, column by column; `live` has a bit for each that is not over."""

    __slots__ = ("attempts", "counts", "firsts", "ids", "live", "untils")

    def __init__(self, rows: list[tuple[int, ...]]) -> None:
        columns: list[Block] = [pack(array("Q", column)) for column in zip(*rows, strict=True)]
        self.ids, self.firsts, self.counts, self.attempts, self.untils = columns
        self.live = (1 << len(rows)) - 1

    def place(self, id: int) -> int:
        """Of the lease with this id; -1 when it has none, or one that is over."""
        at = self.ids.find(id) - 1
        return at if at >= 0 and self.ids[at] == id and self.live >> at & 1 else -1

    def row(self, at: int) -> tuple[int, ...]:
        """Id, first offset, count, attempt and until."""
        return self.ids[at], self.firsts[at], self.counts[at], self.attempts[at], self.untils[at]

    def rows(self) -> list[tuple[int, ...]]:
        """Those that are not over."""
        return [self.row(at) for first, last in runs(self.live, 0) for at in range(first, last + 1)]


class Leases:
    """Of one member. Ids rise, as they are given; a lease that was got from here and has changed is given back with keep()."""

    __slots__ = ("_group", "_heads", "_packs", "_partly", "_young")

    def __init__(self, group: Group | None) -> None:
        self._group = group  # None: a reader's, who is lent nothing
        self._young: dict[int, Lease] = {}
        self._packs: list[_Pack] = []
        self._heads = array("Q")  # the first id of each
        self._partly: dict[int, int] = {}  # of packed ones that hold only some of their messages: which

    def __len__(self) -> int:
        return len(self._young) + sum(packed.live.bit_count() for packed in self._packs)

    def __iter__(self) -> Iterator[Lease]:
        """In order of id. The one that was told last may be changed meanwhile, and no other."""
        for packed in self._packs.copy():
            for row in packed.rows():
                yield self._lease(row)
        yield from list(self._young.values())

    def add(self, lease: Lease) -> None:
        """One that was just lent."""
        lease.group.holders[self] = None
        self._young[lease.id] = lease
        if len(self._young) > YOUNG_MAX:
            oldest = list(islice(self._young.values(), YOUNG_MAX // 2))
            for lease in oldest:
                del self._young[lease.id]
                if lease.held.bit_count() < lease.count:
                    self._partly[lease.id] = lease.held
            self._packs.append(_Pack([(one.id, one.first, one.count, one.attempt, one.until) for one in oldest]))
            self._heads.append(oldest[0].id)

    def get(self, id: int) -> Lease | None:
        """The lease of that id, if it is not over."""
        lease = self._young.get(id)
        place = -1 if lease is not None else bisect_right(self._heads, id) - 1
        if place < 0:
            return lease
        packed = self._packs[place]
        at = packed.place(id)
        return self._lease(packed.row(at)) if at >= 0 else None

    def _lease(self, row: tuple[int, ...]) -> Lease:
        id, first, count, attempt, until = row
        assert self._group is not None
        lease = Lease(id, self._group, Piece(first, first + count - 1, attempt - 1), until)
        lease.held = self._partly.get(id, lease.held)
        return lease

    def keep(self, lease: Lease) -> None:
        """It has changed; one that holds nothing any more is over."""
        if lease.id in self._young:
            if not lease.held:
                del self._young[lease.id]
        else:
            self._keep_packed(lease, bisect_right(self._heads, lease.id) - 1)
        if not self._young and not self._packs:
            lease.group.holders.pop(self, None)

    def _keep_packed(self, lease: Lease, place: int) -> None:
        packed = self._packs[place]
        at = packed.place(lease.id)
        assert at >= 0, f"lease {lease.id} is over"
        if lease.held:
            if lease.held.bit_count() < lease.count:
                self._partly[lease.id] = lease.held
            if lease.until != packed.untils[at]:
                rows = [(*row[:-1], lease.until) if row[0] == lease.id else row for row in packed.rows()]
                self._packs[place] = _Pack(rows)
            return
        self._partly.pop(lease.id, None)
        packed.live ^= 1 << at
        if not packed.live:
            del self._packs[place], self._heads[place]
        elif packed.live.bit_count() * _SPARSE <= packed.ids.count:
            self._packs[place] = _Pack(packed.rows())

    def take_all(self) -> Iterator[Lease]:
        """All of them, which are over with that; a few at a time are objects."""
        if self._group is not None:
            self._group.holders.pop(self, None)
        while self._packs:
            packed = self._packs.pop(0)
            del self._heads[0]
            for row in packed.rows():
                yield self._lease(row)
        young, self._young = self._young, {}
        yield from young.values()
        self._partly.clear()

    def retried(self) -> Iterator[Piece]:
        """What is held of messages that were delivered before, and how often they are delivered with that. As it is at the call."""
        packs = [(packed, packed.live) for packed in self._packs if packed.attempts.high > 1]
        young = [(one.first, one.held, one.attempt) for one in self._young.values() if one.attempt > 1]
        partly = self._partly.copy()
        packed = chain.from_iterable(_pieces(pack, live, partly) for pack, live in packs)
        return chain(packed, (piece for held in young for piece in _held(*held)))


def _pieces(packed: _Pack, live: int, partly: dict[int, int]) -> Iterator[Piece]:
    for begin, end in runs(live, 0):
        for at in range(begin, end + 1):
            id, first, count, attempt, _ = packed.row(at)
            if attempt > 1:
                yield from _held(first, partly.get(id, (1 << count) - 1), attempt)


def _held(first: int, held: int, attempt: int) -> Iterator[Piece]:
    return (Piece(begin, end, attempt) for begin, end in runs(held, first))
