"""What streams give up: beyond a number of bytes, the oldest messages that every group has settled. No I/O, no record.

Streams made by first use keep so much for replay; what a group has not settled stays, however much that is. After a restart
the journal is told again: of offsets without a batch, which were given up before, or lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from patterns.wire.settled import Range, merged
from zbroker.core.policy import STREAM_BYTES

if TYPE_CHECKING:
    from zbroker.core.log import StreamLog

STEP: Final = 1_024  # batches that are looked at in one go: a millisecond
_AGAIN_PARTS: Final = (
    8  # so large a part of what is kept must have been settled before the pinned ones are looked at again
)


class _Account:
    """One stream's: which batches were counted, which were looked at, what was given up."""

    __slots__ = ("bytes", "counted", "end", "gone", "log", "looked", "settled_then")

    def __init__(self, log: StreamLog) -> None:
        self.log = log
        self.bytes = 0  # of the records that are kept, of those that were counted
        self.counted = 0
        self.end = 0  # the offset after the last one that was counted
        self.looked = 0
        self.gone = 0  # messages that were given up
        self.settled_then = 0  # by all groups together, when the pinned ones were looked at last

    def count(self, left: int) -> list[Range]:
        """Take in batches that have come since, at most so many; returns what of them, and between them, was given up before."""
        log, gone = self.log, []
        end = min(log.placed, self.counted + left)
        if self._count_whole(end):
            return []
        for number in range(self.counted, end):
            self.counted = number + 1
            if log.is_gone(number):
                continue  # as good as none
            first, following = log.base(number), log.end(number)
            if first > self.end:
                gone.append((self.end, first - 1))
                log.given_up.add(self.end, first - 1)
                self.gone += first - self.end
            self.end = following
            known = log.given_up.count(first, following - 1)
            self.gone += known
            if known:
                gone += _between(first, following - 1, list(log.given_up.missing(first, following - 1)))
            if known < following - first:
                self.bytes += log.size(number)
        return gone

    def _count_whole(self, end: int) -> bool:
        """Take in batches up to a number at once, if nothing is missing among them; after a start there may be millions."""
        log, begin = self.log, self.counted
        if begin >= end or log.is_gone(begin):
            return False
        first, following, sizes = log.base(begin), log.end(end - 1), log.sizes(begin, end)
        is_whole = first <= self.end and following - first == log.messages_in(begin, end)
        if not is_whole or 0 in sizes or log.given_up.count(first, following - 1):
            return False
        self.counted, self.end = end, following
        self.bytes += sum(sizes)
        return True

    def give_up(self, bytes_max: int, left: int) -> list[Range]:
        """Of the oldest batches what nobody is owed, until bytes_max is kept or so many were looked at."""
        log, found = self.log, []
        end = min(self.counted, self.looked + left)
        while self.looked < end and self.bytes > bytes_max:
            if log.end(self.looked) > log.durable_next:
                break  # confirms of it are still to come
            found += self._give_up(self.looked)
            self.looked += 1
        return found

    def _give_up(self, number: int) -> list[Range]:
        """What nobody is owed of one batch. Its bytes count until all of it is, or the journal has cut the rest out."""
        log = self.log
        first, last = log.base(number), log.end(number) - 1
        kept = last - first + 1 - self.log.given_up.count(first, last)
        owed = merged([gap for group in log.groups.values() for gap in group.settled.missing(first, last)])
        free = list(_between(first, last, owed))
        gone = sum(self.log.given_up.add(*run) for run in free)
        if not gone:
            return []
        self.gone += gone
        if gone == kept:
            self.bytes -= log.size(number)
            return [(first, last)]  # whole, so that it is known to be gone
        return free

    def is_done(self, bytes_max: int) -> bool:
        """Whether there is nothing more to do until something is added or settled."""
        if self.counted < self.log.placed:
            return False
        if self.bytes <= bytes_max:
            return True
        if self.looked < self.counted and self.log.base(self.looked) < self.log.durable_next:
            return False
        return not self._begins_again()

    def _begins_again(self) -> bool:
        """All were looked at and too much is kept: those that somebody was owed may have been settled since."""
        settled = sum(group.acked + group.dead + group.expired + group.lost for group in self.log.groups.values())
        kept = self.log.next_offset - self.gone
        if settled - self.settled_then < max(1, kept // _AGAIN_PARTS):
            return False
        self.settled_then = settled
        self.looked = self.log.find(self.log.given_up.floor)
        return True


class Retention:
    """All streams of a broker.

    Args:
        bytes_max: of records that a stream keeps beyond what its groups are owed.
    """

    def __init__(self, bytes_max: int = STREAM_BYTES) -> None:
        self._bytes_max = bytes_max
        self._accounts: dict[int, _Account] = {}
        self._due: dict[StreamLog, None] = {}

    def touch(self, log: StreamLog) -> None:
        """Something was added to it, or settled in it."""
        self._due[log] = None

    @property
    def has_more(self) -> bool:
        """Whether there is something to look at."""
        return bool(self._due)

    def sweep(self) -> list[tuple[int, int, int]]:
        """Ranges (stream id, first, last) that nobody is owed and that are too much; a bounded piece of the work."""
        found: list[tuple[int, int, int]] = []
        left = STEP
        while self._due and left > 0:
            log = next(iter(self._due))
            account = self._accounts.get(log.id)
            if account is None:
                account = self._accounts[log.id] = _Account(log)
            counted, looked = account.counted, account.looked
            gone = account.count(left)
            left -= account.counted - counted
            gone += account.give_up(self._bytes_max, left)
            left -= account.looked - looked + 1
            found += [(log.id, first, last) for first, last in merged(gone)]
            if account.is_done(self._bytes_max):
                del self._due[log]
        return found

    def resized(self, log: StreamLog, number: int, by: int) -> None:
        """The journal has written a batch anew, so many bytes larger; or it is gone."""
        account = self._accounts.get(log.id)
        if account is not None and number < account.counted:
            account.bytes += by

    def kept_bytes(self, log: StreamLog) -> int:
        """Of records that are kept, as far as they were counted: soon after a start, or a burst, it is behind."""
        account = self._accounts.get(log.id)
        return account.bytes if account is not None else 0


def _between(first: int, last: int, gaps: list[Range]) -> Iterator[Range]:
    """What is left of first to last without the gaps, which are in order."""
    for gap_first, gap_last in gaps:
        if first < gap_first:
            yield first, gap_first - 1
        first = gap_last + 1
    if first <= last:
        yield first, last
