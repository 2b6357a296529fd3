"""Batches that somebody needs and memory does not hold: read from the disk, some ahead, none twice, so many bytes at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import msgspec

from patterns.wire.records import Position, Record
from patterns.wire.settled import Settled
from zbroker.core.effects import MOVED, Effect, Moved, Read
from zbroker.core.log import StreamLog
from zbroker.core.tail import BATCH_OVERHEAD, Batch, Key, Tail, batch_of
from zbroker.core.timers import Timers

AHEAD_BYTES: Final = 256 << 10  # read ahead of a cursor in old batches: hides the reader's round trip
AHEAD_BATCHES: Final = 128  # looked at, of which some may be settled
READING_BYTES: Final = 8 << 20  # asked for and not here yet; half of what the tail keeps of it: none is read twice
MOVED_AGAIN_US: Final = 100_000  # a file is gone, and we do not know of another place yet
MOVED_TIMES_MAX: Final = 300  # half a minute of looking, stalls not counted; then it was deleted under us

_Waiter = tuple[Callable[[Any], None], Any]  # a call and its argument; who waits twice is woken once


class ReadBack:
    """Asks for batches, and wakes those who wait for them; they look into the tail then, and ask again if need be.

    Attributes:
        damaged: batches whose records are none.
    """

    def __init__(self, effects: list[Effect], tail: Tail, timers: Timers) -> None:
        self._effects = effects
        self._tail = tail
        self._timers = timers
        self.damaged: set[Key] = set()
        self._waiting: dict[Key, dict[_Waiter, None]] = {}
        self._reads: dict[int, tuple[list[Key], Read]] = {}
        self._reading_bytes = 0
        # What is read ahead must still be there when its turn comes: else the first of it makes room for the last.
        self._ahead_bytes = min(AHEAD_BYTES, tail.loaded_max // 2)
        self._reading_max = min(READING_BYTES, tail.loaded_max // 2)
        self._queued: dict[_Waiter, None] = {}  # they ask when others have got what they asked for
        self._in_flight: set[Key] = set()
        self._moved: Counter[Key] = Counter()  # how often each was looked for in vain
        self._logs: dict[int, StreamLog] = {}
        self._token = 0

    def missing(self, log: StreamLog, number: int, first: int, last: int, group: str | None = None) -> int | None:
        """Up to which of these offsets the beginning does not exist, for this group; None when it does, or nobody knows yet.

        Args:
            number: of the batch with the first one, or of the next after it.
        """
        if number == log.batches:
            return last
        if log.base(number) > first:
            return min(log.base(number) - 1, last)
        if (
            first < log.given_up.floor
        ):  # of a batch that stays for its end: what a purge has taken of it is on disk, for now
            return min(log.given_up.floor - 1, last)
        key = (log.id, number)
        if key in self.damaged or log.is_gone(number):
            return min(log.end(number) - 1, last)
        batch = self._tail.get(key)
        if batch is None:
            return None
        if batch.group is not None and group not in (None, batch.group):
            return min(batch.base + batch.count - 1, last)
        if batch.kept is None:
            return None
        there = batch.base + batch.run(first - batch.base)[0]
        return min(there - 1, last) if there > first else None

    def is_anothers(self, log: StreamLog, number: int, first: int, group: str) -> bool:
        """Whether what missing() has told of is there, for another group."""
        batch = self._tail.get((log.id, number))
        if batch is None or batch.base > first or log.is_gone(number):
            return False
        return batch.group not in (None, group)

    def fate(self, log: StreamLog, number: int, first: int, last: int) -> tuple[bool, int]:
        """Of offsets that are missing: whether damage took the first one, else it was given up; and up to which that holds."""
        return (True, last) if (log.id, number) in self.damaged else log.fate(first, last)

    def fetch(self, waiter: _Waiter, log: StreamLog, number: int, settled: Settled | None = None) -> None:
        """Ask for a batch, and for those after it.

        Args:
            waiter: a call and its argument, made when the batch is here, or damaged, or it is time to ask again.
            settled: what need not be read ahead.
        """
        key = (log.id, number)
        if key in self._in_flight:
            self._waiting.setdefault(key, {})[waiter] = None
            return
        if self._reading_bytes and self._reading_bytes + log.size(number) > self._reading_max:
            self._queued[waiter] = None
            return
        self._waiting[key] = {waiter: None}
        self._logs[log.id] = log
        keys, positions = self._ahead(log, number, settled)
        self._token += 1
        read = Read(self._token, positions)
        self._reads[self._token] = keys, read
        self._reading_bytes += _size(read)
        self._in_flight.update(keys)
        self._effects.append(read)

    def _ahead(self, log: StreamLog, number: int, settled: Settled | None) -> tuple[list[Key], list[Position]]:
        """A batch, and after it what will be wanted next and is not here; what is settled is passed over."""
        keys: list[Key] = []
        positions: list[Position] = []
        size = 0
        for at, base, end, position in log.places(number, number + AHEAD_BATCHES):
            if end > log.durable_next or not position.size:
                break  # it is not safe yet; or it is gone, and nobody wants it
            if keys and settled is not None and base in settled and settled.count(base, end - 1) == end - base:
                continue
            key = (log.id, at)
            size += position.size + BATCH_OVERHEAD
            if keys and (size > self._ahead_bytes or key in self._in_flight or self._tail.get(key) is not None):
                break
            keys.append(key)
            positions.append(position)
        return keys, positions

    def loaded(self, token: int, records: list[Record | Moved | None], now: int) -> None:
        """What was asked for is here; None for what is damaged, MOVED for what lies elsewhere. An unknown token is nobody's."""
        asked = self._reads.pop(token, None)
        if asked is None:
            return
        keys, read = asked
        self._reading_bytes -= _size(read)
        woken, self._queued = self._queued, {}
        for key, position, record in zip(keys, read.positions, records, strict=True):
            if record is MOVED and self._look_again(key, position, now):
                continue
            self._in_flight.discard(key)
            self._moved.pop(key, None)
            if self._logs[key[0]].is_gone(key[1]):  # given up meanwhile
                woken |= self._waiting.pop(key, {})
                continue
            batch = self._verified(key, None if record is MOVED else record)
            if batch is None:
                self.damaged.add(key)
            else:
                self._tail.keep(key, batch)
            woken |= self._waiting.pop(key, {})
        _wake(woken)

    def _look_again(self, key: Key, position: Position, now: int) -> bool:
        """Wake who waits for it when its place is known; False when it was looked for often enough."""
        self._moved[key] += 1
        if self._moved[key] > MOVED_TIMES_MAX:
            return False
        is_known = self._logs[key[0]].position(key[1]) != position
        self._timers.at(now if is_known else now + MOVED_AGAIN_US, lambda _: self._wake_waiting(key))
        return True

    def _wake_waiting(self, key: Key) -> None:
        self._in_flight.discard(key)
        _wake(self._waiting.pop(key, {}))

    def _verified(self, key: Key, record: Record | None) -> Batch | None:
        """The batch, if the record is the one that should lie there."""
        if record is None:
            return None
        log = self._logs[key[0]]
        try:
            batch = batch_of(record)
        except msgspec.MsgspecError:
            return None
        return batch if (record.stream_id, batch.base) == (key[0], log.base(key[1])) else None


def _wake(waiters: dict[_Waiter, None]) -> None:
    for call, argument in waiters:
        call(argument)


def _size(read: Read) -> int:
    return sum(position.size for position in read.positions)
