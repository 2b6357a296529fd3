"""What a group delivered before a restart and nobody has settled: where it waits, and how often it was delivered, as the journal tells.

Nothing of it is a list: it is what is not settled below the group's cursor. Beside it stands what differs from "delivered once".
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

from patterns.wire.settled import Settled
from zbroker.core.heap import PackedHeap
from zbroker.core.leases import Piece

_TRIES: Final = 64  # offsets in one array of attempts: what is delivered again comes alone, or with many beside it
_ONCE: Final = [1] * _TRIES
_DELAYED: Final = 1 << 31  # beside the attempts of what waits for its time
_TRIES_MAX: Final = _DELAYED - 1
_ELSEWHERE: Final = 2**32 - 1  # instead of attempts: it is not here any more
_ALL_ELSEWHERE: Final = array("I", [_ELSEWHERE] * _TRIES)

Delay = tuple[int, int, int, int, int]  # first and last offset, when it is due, how long it was to wait, attempts


class Recovered:
    """Of one group. First the journal's operations in order, then open(), then pieces in order of offset.

    Attributes:
        next: the first piece that waits here, once release() was called.
    """

    def __init__(self, start: int) -> None:
        self._begin = self._end = start
        self._settled = Settled(start)
        self._tries: dict[int, array[int]] = {}  # what is not 1: _TRIES offsets in each
        self._delays = PackedHeap()  # may tell of messages that do not wait any more: their attempts say so
        self._pieces: Iterator[Piece] = iter(())
        self._is_wanted: Callable[[Piece], bool] = lambda _: True
        self.next: Piece | None = None

    # -- what the journal tells -----------------------------------------------------------------------------------

    def tried(self, first: int, last: int, tries: int) -> None:
        """These were delivered so often; 0: what began was taken back, or has not begun."""
        self._put(first, last, min(tries, _TRIES_MAX))

    def delayed(self, first: int, last: int, due: int, delay: int, tries: int) -> None:
        """These wait until they are due; whatever is told of them later undoes it. At the same attempts it is due at the same time."""
        tries = min(tries, _TRIES_MAX - 1)
        self._put(first, last, _DELAYED | tries)
        self._delays.push((first, last, due, delay, tries))

    def _put(self, first: int, last: int, value: int) -> None:
        for offset in range(first, last + 1):
            known = self._tries.get(offset // _TRIES)
            if known is None:
                if value == 1:
                    continue
                known = self._tries[offset // _TRIES] = array("I", _ONCE)
            known[offset % _TRIES] = value

    # -- what is made of it ---------------------------------------------------------------------------------------

    def open(self, settled: Settled, end: int) -> None:
        """All is told. What waits here lies from the settled offsets' floor up to, and without, `end`."""
        self._settled, self._begin, self._end = settled, settled.floor, end

    def take_delayed(self) -> Iterator[Delay]:
        """What waits for its time; it does not wait here any more."""
        rows, self._delays = self._delays.rows(), PackedHeap()
        for first, last, due, delay, tries in rows:
            for begin, end in self._take(first, last, _DELAYED | tries):
                yield begin, end, due, delay, tries

    def take_unbegun(self) -> Iterator[Piece]:
        """What nobody has begun with; it does not wait here any more."""
        for number in sorted(number for number, known in self._tries.items() if 0 in known):
            for begin, end in self._take(number * _TRIES, number * _TRIES + _TRIES - 1, 0):
                yield Piece(begin, end, 0)

    def _take(self, first: int, last: int, value: int) -> Iterator[tuple[int, int]]:
        """Ranges of these offsets that wait here, with this beside them."""
        if first == last:  # as most do, where there are many
            if self._begin <= first < self._end and self._beside(first) == value and first not in self._settled:
                self._put(first, last, _ELSEWHERE)
                yield first, last
            return
        for begin, end in self._settled.missing(max(first, self._begin), min(last, self._end - 1)):
            for run, offsets in groupby(range(begin, end + 1), lambda offset: self._beside(offset) == value):
                if run:
                    found = list(offsets)
                    self._put(found[0], found[-1], _ELSEWHERE)
                    yield found[0], found[-1]

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """What waits here of these offsets, in order. Once released, nothing of it is settled before it is taken."""
        for begin, end in self._settled.missing(max(first, self._begin), min(last, self._end - 1)):
            if not self._tries:
                yield Piece(begin, end, 1)
                continue
            piece: Piece | None = None
            for run in self._runs(begin, end):
                if piece is not None and piece.tries == run.tries:
                    piece = Piece(piece.first, run.last, run.tries)
                    continue
                if piece is not None and piece.tries != _ELSEWHERE:
                    yield piece
                piece = run
            if piece is not None and piece.tries != _ELSEWHERE:
                yield piece

    def _runs(self, first: int, last: int) -> Iterator[Piece]:
        """The same, cut where an array of attempts ends; what is elsewhere too."""
        while first <= last:
            known, at = self._tries.get(first // _TRIES), first
            end = min(last, first // _TRIES * _TRIES + _TRIES - 1)
            if known is None or known == _ALL_ELSEWHERE:
                at = end
            else:
                while at < end and known[(at + 1) % _TRIES] == known[first % _TRIES]:
                    at += 1
            yield Piece(first, at, self._beside(first))
            first = at + 1

    def _beside(self, offset: int) -> int:
        known = self._tries.get(offset // _TRIES)
        return known[offset % _TRIES] if known is not None else 1

    def release(self, is_wanted: Callable[[Piece], bool]) -> None:
        """From now on these pieces of it may be delivered again; the others are elsewhere."""
        self._is_wanted = is_wanted
        self._pieces = filter(is_wanted, self.pieces(self._begin, self._end - 1))
        self.take_next(None)

    def pass_over(self, floor: int) -> None:
        """All below this offset is settled, though it may wait here."""
        if self.next is None:
            self._begin = max(self._begin, floor)
        elif self.next.first < floor:
            self._begin = floor
            self.release(self._is_wanted)

    def take_next(self, rest: Piece | None) -> None:
        """The next piece is taken; what is left of it."""
        self.next = rest or next(self._pieces, None)
        if self.next is None:
            self._tries.clear()
            self._begin = self._end
        else:
            self._begin = self.next.first

    def attempts(self) -> Iterator[Piece]:
        """What was not delivered once, of this moment; some of it may be settled, or delivered again since the restart."""
        return _told([(number, known) for number, known in self._tries.items() if number >= self._begin // _TRIES])


def _told(tries: list[tuple[int, array[int]]]) -> Iterator[Piece]:
    for number, known in tries:
        for count, places in groupby(range(_TRIES), known.__getitem__):
            if 1 < count < _DELAYED:
                first, *more = places
                yield Piece(number * _TRIES + first, number * _TRIES + first + len(more), count)
