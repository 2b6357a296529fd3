"""What of a group waits to become a dead letter: pieces in order of offset, why each is one, and who waits until it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from zbroker.core.heap import PackedHeap
from zbroker.core.leases import Piece

MAX_DELIVERIES: Final = "max_deliveries"  # the reason of who was not rejected
REASON_BYTES_MAX: Final = 1_024  # of UTF-8; what is longer is cut: it becomes a header of each message
_REASONS_MAX: Final = 1_024  # that differ and wait at once; a megabyte, where a million messages may wait
_TOO_MANY: Final = "rejected, for one of too many reasons at once"


class Doom(NamedTuple):
    """A piece that was delivered `tries` times and is not to be delivered again; `why` is 0, or the number of a reason."""

    first: int
    last: int
    why: int
    tries: int


class Taken(NamedTuple):
    """What leaves the queue: messages side by side, why they are doomed, and whom to tell that this was the last of a verdict."""

    first: int
    last: int
    tries: int
    reason: str
    verdict: Verdict | None


class Verdict:
    """One reject: its reason, and whose call is made when all of it was moved.

    Attributes:
        left: messages that were not.
        call: to be set by who waits; is given the index of the record that moved the last of them, None: the next OPS.
    """

    __slots__ = ("call", "is_awaited", "left", "reason")

    def __init__(self, reason: str, *, is_awaited: bool) -> None:
        self.reason = reason
        self.is_awaited = is_awaited
        self.left = 0
        self.call: Callable[[int | None], None] | None = None


class Doomed:
    """One group's. A million pieces take a few megabytes, as elsewhere in a group."""

    __slots__ = ("_awaited", "_heap", "_numbers", "_reasons", "count")

    def __init__(self) -> None:
        self.count = 0
        self._heap = PackedHeap()
        self._reasons = [MAX_DELIVERIES]
        self._numbers: dict[str, int] = {}
        self._awaited: dict[int, Verdict] = {}  # by the first offset of a piece

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, piece: Piece, verdict: Verdict | None) -> None:
        """A piece of this verdict; of none, because it was delivered often enough."""
        count = piece.last - piece.first + 1
        self.count += count
        self._heap.push(Doom(piece.first, piece.last, self._why(verdict), piece.tries))
        if verdict is not None and verdict.is_awaited:
            verdict.left += count
            self._awaited[piece.first] = verdict

    def _why(self, verdict: Verdict | None) -> int:
        if verdict is None:
            return 0
        reason = _cut(verdict.reason) or "rejected"
        known = self._numbers.get(reason)
        if known is None:
            reason = reason if len(self._reasons) < _REASONS_MAX else _TOO_MANY
            known = self._numbers.setdefault(reason, len(self._reasons))
            if known == len(self._reasons):
                self._reasons.append(reason)
        return known

    @property
    def first(self) -> Doom:
        """The one with the lowest offset; there is one."""
        return Doom._make(self._heap.first)

    def peek(self, end: int, count_max: int) -> list[Taken]:
        """What lies at the front and below an offset, at most so many messages; it stays here."""
        rows, found = [], []
        while self._heap and count_max > 0 and self._heap.first[0] < end:
            doom = Doom._make(self._heap.pop())
            rows.append(doom)
            last = min(doom.last, end - 1, doom.first + count_max - 1)
            found.append(Taken(doom.first, last, doom.tries, self._reasons[doom.why], None))
            count_max -= last - doom.first + 1
        for row in rows:
            self._heap.push(row)
        return found

    def take(self, last: int) -> Taken:
        """Remove the beginning of the first one, up to `last`."""
        doom = Doom._make(self._heap.pop())
        rest = doom._replace(first=last + 1)
        last, reason = min(last, doom.last), self._reasons[doom.why]
        verdict = self._awaited.pop(doom.first, None)
        if rest.first <= rest.last:
            self._heap.push(rest)
            if verdict is not None:
                self._awaited[rest.first] = verdict
        count = last - doom.first + 1
        self.count -= count
        if not self.count:
            self._forget_reasons()
        if verdict is not None:
            verdict.left -= count
        return Taken(doom.first, last, doom.tries, reason, verdict if verdict and not verdict.left else None)

    def _forget_reasons(self) -> None:
        del self._reasons[1:]
        self._numbers.clear()

    def take_all(self) -> Iterator[Verdict]:
        """Forget everything; who waited for it."""
        while self.count:
            taken = self.take(self.first.last)
            if taken.verdict is not None:
                yield taken.verdict

    def attempts(self, least: int) -> Iterator[Piece]:
        """Those delivered at least so often. As they are at the call."""
        return (Piece(first, last, tries) for first, last, _, tries in self._heap.rows(least))


def _cut(reason: str) -> str:
    encoded = reason.encode(errors="replace")
    return reason if len(encoded) <= REASON_BYTES_MAX else encoded[:REASON_BYTES_MAX].decode(errors="ignore")
