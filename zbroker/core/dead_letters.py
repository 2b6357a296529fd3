"""Moves what is doomed to dead-letter streams: one record is the dead letter, and says that its group is done with the message.

So neither is there without the other, whatever a crash leaves. What cannot be copied now, for want of space, stays where it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import google_crc32c

from patterns.wire.errors import StreamFull
from patterns.wire.settled import merged
from zbroker.core import letters
from zbroker.core.tail import UNREADABLE, Batch, Stored

if TYPE_CHECKING:
    from zbroker.core.catalog import Catalog, Recorder
    from zbroker.core.doomed import Taken, Verdict
    from zbroker.core.groups import Group
    from zbroker.core.intake import Intake
    from zbroker.core.log import StreamLog
    from zbroker.core.readback import ReadBack
    from zbroker.core.retention import Retention
    from zbroker.core.tail import Key, Tail
    from zbroker.core.timers import Timers

REDRIVE: Final = "redrive"  # the group of a dead-letter stream to which belongs what nobody has sent back
TURN_BYTES: Final = 1 << 20  # written in one turn; then others have theirs
AHEAD_BYTES: Final = 4 << 20  # written and not durable: as much as one producer may have
LETTERS_MAX: Final = 256  # in one record: with their headers some 64 KiB
_OVERHEAD: Final = 512  # of a record


class Mover:
    """Puts the broker's own batches into streams, so many bytes a turn, as long as the storage takes them.

    Shared by all that moves messages from stream to stream.
    """

    def __init__(
        self,
        catalog: Catalog,
        recorder: Recorder,
        intake: Intake,
        retention: Retention,
        tail: Tail,
        readback: ReadBack,
    ) -> None:
        self.catalog = catalog
        self._recorder = recorder
        self._retention = retention
        self.intake = intake
        self.tail = tail
        self.readback = readback
        self._unsynced: deque[tuple[int, int]] = deque()
        self._ahead = 0

    @property
    def hindrance(self) -> str:
        """Why nothing can be stored; "" when it can."""
        if self._recorder.failed:
            return "the broker's disk failed; nothing is stored until it is started again"
        return "the broker's disk is full" if self.intake.full else ""

    @property
    def last_index(self) -> int:
        """Of the last record written."""
        return self._recorder.last_index

    @property
    def is_behind(self) -> bool:
        """Whether so much is not durable that more must wait."""
        return self._ahead >= AHEAD_BYTES

    def check_room(self, log: StreamLog, letter: letters.Letter, now: int) -> None:
        """Raise StreamFull when the stream has no room for it."""
        self._retention.check_room(log, len(letter.columns) + len(letter.payload), now)

    def write(
        self, log: StreamLog, batch: Batch, letter: letters.Letter, now: int, **fields: object
    ) -> tuple[int, int]:
        """Store a letter; returns the record's index and the bytes that it takes. `fields` are of Stored."""
        crc: int = google_crc32c.extend(google_crc32c.value(letter.columns), letter.payload)
        stored = Stored(0, 0, 0, 0, crc, batch.codec, batch.topic, 0, letter.columns)
        for name, value in fields.items():
            setattr(stored, name, value)
        index, _ = self.intake.store(log, stored, letter.payload, letter.count, now)
        size = len(letter.columns) + len(letter.payload) + _OVERHEAD
        self._unsynced.append((index, size))
        self._ahead += size
        return index, size

    def persisted(self, index: int) -> None:
        """Everything up to index is on disk."""
        while self._unsynced and self._unsynced[0][0] <= index:
            self._ahead -= self._unsynced.popleft()[1]

    def redrive_group(self, log: StreamLog) -> Group:
        """The group of a dead-letter stream that keeps its messages until somebody sends them back."""
        return log.groups.get(REDRIVE) or self.catalog.group(log, REDRIVE, log.first_offset)


class DeadLetters:
    """All groups that have something to move.

    Args:
        touched: hears of a group that is done with something.
        offered: hears of a group that has something to give again.
    """

    def __init__(
        self, mover: Mover, timers: Timers, touched: Callable[[Group], None], offered: Callable[[Group], None]
    ) -> None:
        self._mover = mover
        self._catalog = mover.catalog
        self._timers = timers
        self._touched = touched
        self._offered = offered
        self._parked: dict[Group, None] = {}  # their dead-letter stream is full; a timer asks again

    @property
    def has_more(self) -> bool:
        """Whether run() would move something."""
        return bool(self._catalog.dooming) and self._may_write

    @property
    def _may_write(self) -> bool:
        return not (self._mover.is_behind or self._mover.hindrance)

    def run(self, now: int) -> None:
        """A record for each group that has something to move, round and round, until nothing is left or the turn is full."""
        dooming, left = self._catalog.dooming, TURN_BYTES
        while dooming and left > 0 and self._may_write:
            group = next(iter(dooming))
            del dooming[group]
            size = self._move(group, now)
            if size is not None and group.doomed:
                dooming[group] = None  # behind the others
            left -= size or 0

    def configured(self, group: Group) -> None:
        """It names a dead-letter stream, so that is there from now on."""
        if group.config.dead_letter:
            self._mover.redrive_group(self._catalog.stream(group.config.dead_letter))

    def _wake(self, group: Group) -> None:
        if group.doomed:
            self._catalog.dooming[group] = None

    def _unpark(self, group: Group) -> None:
        del self._parked[group]
        self._wake(group)

    def _move(self, group: Group, now: int) -> int | None:
        """Bytes written; None when it waits for a batch, or has nothing."""
        if self._catalog.groups.get((group.stream_id, group.id)) is not group:
            for verdict in group.doomed.take_all():  # its account is closed
                _tell(verdict, self._mover.last_index)
            return None
        if not group.doomed or group in self._parked:
            return None
        if not group.config.dead_letter:
            self._let_go(group)
            return 0
        log, doom = self._catalog.by_id[group.stream_id], group.doomed.first
        number = log.find(doom.first)
        missing = self._mover.readback.missing(log, number, doom.first, doom.last, group.name)
        if missing is not None:
            is_lost, last = self._mover.readback.fate(log, number, doom.first, missing)
            self._drop(group, last, "lost" if is_lost else "expired")
            return 0
        batch = self._mover.tail.get((log.id, number))
        if batch is None:
            self._mover.readback.fetch((self._wake, group), log, number, group.settled)
            return None
        return self._bury(group, log, (log.id, number), batch, now)

    def _bury(self, group: Group, log: StreamLog, key: Key, batch: Batch, now: int) -> int | None:
        """One record for what of the batch is doomed, as much of it as fits; None: its stream is full, and is asked again."""
        _, end, _ = batch.run(group.doomed.first.first - batch.base)
        found = group.doomed.peek(batch.base + end + 1, LETTERS_MAX)
        try:
            split = self._mover.tail.split(key, batch)
            letter = letters.died(split, found, log.name, group.name)
            while letter is None:
                found = _half(found)
                letter = letters.died(split, found, log.name, group.name)
        except UNREADABLE:  # told like what the disk has damaged, as in deliveries
            self._mover.tail.unreadable()
            self._mover.readback.damaged.add(key)
            return 0
        target = self._catalog.stream(group.config.dead_letter)
        try:
            self._mover.check_room(target, letter, now)
        except StreamFull as error:
            self._parked[group] = None
            self._timers.at(now + error.retry_after_ms * 1_000, lambda _: self._unpark(group))
            return None
        self._mover.redrive_group(target)
        ranges = merged([(one.first, one.last) for one in found])
        index, size = self._mover.write(
            target, batch, letter, now, operations=[["dead", group.stream_id, group.id, ranges]]
        )
        for one in found:
            verdict = group.bury(one.last).verdict
            if verdict is not None:
                _tell(verdict, index)
        self._touched(group)
        self._offered(group)  # it may have waited for room below unsettled_max, and nothing else wakes it
        return size

    def _let_go(self, group: Group) -> None:
        """The group has no dead-letter stream any more: what was rejected is dead without a letter, the rest is offered again."""
        if group.doomed.first.why:
            self._drop(group, group.doomed.first.last, "dead")
        else:
            group.spare()
            self._offered(group)

    def _drop(self, group: Group, last: int, what: str) -> None:
        taken = group.bury(last, what)
        self._touched(group)
        self._offered(group)
        if taken.verdict is not None:
            _tell(taken.verdict, None)


def _half(found: list[Taken]) -> list[Taken]:
    """The first half of these messages."""
    left = sum(one.last - one.first + 1 for one in found) // 2
    half: list[Taken] = []
    for one in found:
        last = min(one.last, one.first + left - 1)
        half.append(one._replace(last=last))
        left -= last - one.first + 1
        if not left:
            break
    return half


def _tell(verdict: Verdict, index: int | None) -> None:
    """All of it is where it should be once the record of that index is on disk; None: the next OPS."""
    if verdict.call is not None:
        verdict.call(index)
