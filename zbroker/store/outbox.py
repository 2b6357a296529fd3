"""A journal for one Producer: batches that wait on its own disk until a broker has them. FORMAT.md 10.

The log, its checkpoints and its compaction are the broker's (FileJournal); what its records say here is this file's. It serves
patterns.io.outbox.Outbox: for one thread at a time, but for what its attributes say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from patterns.wire.errors import BadArgument, Damaged, StorageFailed, StorageFull, ZbrokerError
from patterns.wire.limits import PRODUCER_BATCHES_REMEMBERED
from patterns.wire.parcel import Parcel, Sender, Unsendable
from patterns.wire.records import Damage, Position, Record, RecordKind
from patterns.wire.words import counted
from zbroker.store.disk import Disk
from zbroker.store.faults import JournalError, JournalFull, RecordUnreadable
from zbroker.store.journal import FileJournal
from zbroker.store.outbox_state import ROOM_BYTES, STREAM_ID, Place, State, head_of, parcel_of, said
from zbroker.store.reader import RecordReader
from zbroker.store.record import padded
from zbroker.store.refused import Refused
from zbroker.store.segment import SEGMENT_BYTES_MIN, segment_name

SEGMENT_BYTES: Final = 8 << 20  # a folder takes three at least: the one that is written to, the next, and the ballast
BYTES_MIN: Final = 1 << 20  # of bytes_max: a largest batch must have room
_UNSAID_MAX: Final = PRODUCER_BATCHES_REMEMBERED // 4  # settled batches that a restart would send again
_SAY_US: Final = 100_000  # ... or for so long
_SEGMENTS: Final = 4  # begun since the last checkpoint: it gives back the space of what is settled
_KEPT_SEGMENTS: Final = 2  # of a journal in which nothing waits ..
_LET_GO_US: Final = 2_000_000  # so often files are opened anew: one that is gone takes its space as long as it is open
_IDLE_CHECKPOINTS: Final = 2  # .. after as many checkpoints: a segment goes when two in a row did not need it


class FileOutbox:
    """See patterns.io.outbox.Outbox. Made by zbroker.store.open_journal().

    Raises:
        StorageFull, StorageFailed: the folder is another process's, or not to be had; see the text.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        *,
        bytes_max: int,
        random_bytes: Callable[[int], bytes],
        wall_ms: Callable[[], int],
        segment_bytes: int = SEGMENT_BYTES,
        network_allowed: bool = False,
    ) -> None:
        assert segment_bytes >= SEGMENT_BYTES_MIN
        self.folder = folder
        self.bytes_max = bytes_max
        self._disk = disk
        self._random_bytes = random_bytes
        self._journal = FileJournal(
            disk,
            folder,
            random_bytes=random_bytes,
            wall_ms=wall_ms,
            segment_bytes=segment_bytes,
            network_allowed=network_allowed,
            is_producers=True,
        )
        self._state = State()
        self._failed: StorageFailed | None = None
        self._is_closed = self._is_begun = False
        self._stuck = False  # something that was taken has no room yet
        try:
            opened = self._journal.open(self._state.visit, self._state)
            self._refused = Refused(disk, folder, wall_ms)
        except (JournalError, OSError, msgspec.MsgspecError) as error:
            self._journal.close()
            raise told(error) from error
        self.damage = [_words(one) for one in opened.damage]
        self._index = opened.next_index - 1
        self._reader = RecordReader(disk, folder)
        state = self._state
        self._said = state.settled
        self._unsaid, self._say_at, self._let_go_at = 0, 0, 0
        self._unread: deque[int] = deque(state.places)
        self._idle_checkpoints = _IDLE_CHECKPOINTS
        self.safe = self.last_number
        self.waiting_messages = sum(place.count for place in state.places.values())
        self.used_bytes = self._refused.bytes + sum(place.room for place in state.places.values())
        self.refused_messages = self._refused.messages
        if state.settled:
            self._journal.forget([(STREAM_ID, 1, state.settled)])

    # -- state ----------------------------------------------------------------------------------------

    @property
    def trouble(self) -> ZbrokerError | None:
        """See the protocol."""
        if self._failed is not None:
            return self._failed
        if self._journal.full or self._stuck:
            return StorageFull(
                f"the disk under the producer's journal in {self.folder} is full; free space there, it goes on by itself"
            )
        return None

    @property
    def last_number(self) -> int:
        """Of the newest message that was ever taken; also of those that damage took."""
        return self._state.next_number - 1

    @property
    def has_more(self) -> bool:
        """See the protocol."""
        return self._room_at_broker > 0 and bool(self._unread) and self._unread[0] <= self.safe

    @property
    def _room_at_broker(self) -> int:
        """So many batches more may be handed out: it remembers no more than 64, which a restart must be able to send again."""
        handed_out = len(self._state.places) - len(self._unread)
        return PRODUCER_BATCHES_REMEMBERED - handed_out - self._unsaid

    # -- whose ----------------------------------------------------------------------------------------

    def begin(self, stream: str) -> Sender:
        """See the protocol: a journal is of one stream as long as anything waits in it."""
        state = self._state
        if self._is_closed:
            raise BadArgument(f"the journal in {self.folder} was closed, as with its Producer: open it anew")
        if self._is_begun:
            raise BadArgument(f"the journal in {self.folder} belongs to another Producer: each has a folder of its own")
        self._is_begun = True
        if state.sender is None or state.stream != stream:
            if state.places:
                self._is_begun = False
                raise BadArgument(
                    f"the journal in {self.folder} holds {counted(self.waiting_messages, 'message')} for stream "
                    f"{state.stream!r}, not {stream!r}: forward those first, or give each stream a folder of its own"
                )
            return self._become(stream)
        return state.sender

    def renew(self) -> Sender:
        """See the protocol."""
        return self._become(self._state.stream)

    def _become(self, stream: str) -> Sender:
        sender = Sender(f"journal-{self._random_bytes(12).hex()}", self._random_bytes(16))
        try:
            self._append(RecordKind.CATALOG, said((stream, sender)))
            self._journal.commit(0)
        except JournalError as error:
            raise self._told(error) from error
        self._state.sender, self._state.stream = sender, stream
        return sender

    # -- writing --------------------------------------------------------------------------------------

    def _append(self, kind: int, payload: bytes, columns: bytes = b"", number: int = 0, count: int = 0) -> Position:
        stream_id = STREAM_ID if count else 0
        record = Record(self._index + 1, kind, stream_id, number, count, columns, payload)
        position = self._journal.append(record)
        self._index += 1
        return position

    def keep(self, parcels: Sequence[Parcel], now: int) -> int:
        """See the protocol. One write and one sync for all."""
        if self._failed is not None:
            raise self._failed
        if self.trouble is not None:
            return 0
        taken, self._idle_checkpoints = 0, _IDLE_CHECKPOINTS
        try:
            self._say()
            for parcel in parcels:
                self._keep_one(parcel)
                taken += 1
        except JournalFull:
            pass  # what was taken is written; the rest comes again when there is room
        except JournalError as error:
            raise self._told(error) from error
        self._commit(now)
        return taken

    def _keep_one(self, parcel: Parcel) -> None:
        state = self._state
        parcel.number = state.next_number
        position = self._append(RecordKind.APPEND, parcel.payload, head_of(parcel), parcel.number, parcel.count)
        place = Place(parcel.count, padded(position.size, ROOM_BYTES), position)
        state.add(parcel.number, place)
        self._unread.append(parcel.number)
        self.used_bytes += place.room
        self.waiting_messages += parcel.count

    def _say(self) -> None:
        """What is settled, in front of what is kept; it costs no sync of its own then."""
        if self._unsaid:
            self._append(RecordKind.OPS, said(self._state.settled))
            self._unsaid = 0

    def _commit(self, now: int) -> None:
        try:
            durable = self._journal.commit(now)
        except JournalError as error:
            raise self._told(error) from error
        self._written(durable)

    def _written(self, durable: int) -> None:
        self._stuck = durable < self._index
        if self._stuck:
            return  # for want of space: tend() goes on
        self.safe = self.last_number
        if not self._unsaid and self._state.settled > self._said:
            self._journal.forget([(STREAM_ID, self._said + 1, self._state.settled)])
            self._said = self._state.settled

    # -- forwarding -----------------------------------------------------------------------------------

    def hand_out(self, fresh: Sequence[Parcel], bytes_max: int) -> list[Parcel | Unsendable]:
        """See the protocol."""
        numbers = list(self._admitted(bytes_max))
        if not numbers:
            return []
        known = {parcel.number: parcel for parcel in fresh}
        found: list[Parcel | Unsendable] = []
        if numbers[0] in known:
            found.extend(known[number] for number in numbers if number in known)
        else:
            found.extend(self._read([number for number in numbers if number not in known]))
        for _ in found:
            self._unread.popleft()
        return found

    def _admitted(self, bytes_max: int) -> Iterator[int]:
        """Numbers of the next batches that a broker may be told of."""
        places, size = self._state.places, 0
        for number in islice(self._unread, max(0, self._room_at_broker)):
            if number > self.safe or size >= bytes_max:
                return
            size += places[number].position.size
            yield number

    def _read(self, numbers: Sequence[int]) -> Iterator[Parcel | Unsendable]:
        places = self._state.places
        records = self._reader.read([places[number].position for number in numbers])
        for number, record in zip(numbers, records, strict=True):
            if isinstance(record, RecordUnreadable):
                return  # a passing want of handles: the next call tries again
            if isinstance(record, Record) and record.base_offset == number:
                yield parcel_of(record)
            else:
                why = str(record) if isinstance(record, Exception) else "another record lies in its place"
                yield Unsendable(number, places[number].count, Damaged(f"a batch of the producer's own journal: {why}"))

    def settle(self, last: int) -> None:
        """See the protocol."""
        state = self._state
        for number in state.settle(last):
            place = state.places.pop(number)
            self.used_bytes -= place.room
            self.waiting_messages -= place.count
            self._unsaid += 1

    def refuse(self, number: int, error: ZbrokerError) -> None:
        """See the protocol."""
        place = self._state.places[number]
        before = self._refused.bytes
        try:
            parcel = next(self._read([number]), None)
            self._refused.add(
                self._state.stream, number, place.count, parcel if isinstance(parcel, Parcel) else None, error
            )
        except OSError as fault:
            raise told(fault) from fault
        self.used_bytes += self._refused.bytes - before
        self.refused_messages = self._refused.messages

    # -- time -----------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """See the protocol."""
        if self._failed is not None:
            return None
        due = [self._journal.next_timeout(), self._journal.tidy_at]
        if self._unsaid:
            due.append(0 if self._unsaid >= _UNSAID_MAX else self._say_at)
        return min((at for at in due if at is not None), default=None)

    def tend(self, now: int) -> None:
        """See the protocol."""
        if self._failed is not None:
            return
        if now >= self._let_go_at:
            self._reader.close()
            self._let_go_at = now + _LET_GO_US
        journal = self._journal
        try:
            if not self._unsaid:
                self._say_at = now + _SAY_US
            elif (self._unsaid >= _UNSAID_MAX or now >= self._say_at) and not self._stuck:
                self._say_alone(now)
            journal.handle_timeout(now)
            self._written(journal.durable_index)
            self._checkpoint_if_due()
            for move in journal.tidy(now):
                self._state.move(move)
        except JournalError as error:
            raise self._told(error) from error

    def _say_alone(self, now: int) -> None:
        try:
            self._say()
        except JournalFull:
            self._say_at = now + _SAY_US
            return
        self._commit(now)

    def _checkpoint_if_due(self) -> None:
        """Space is given back by checkpoints alone: after some segments, or when nothing waits any more."""
        journal, number = self._journal, self._journal.number
        if self._stuck or self._unsaid or not journal.may_checkpoint:
            return
        is_idle = not self._state.places and journal.segments > _KEPT_SEGMENTS and self._idle_checkpoints
        if is_idle or journal.checkpoint_due or number - self._state.segment >= _SEGMENTS:
            self._idle_checkpoints -= bool(is_idle)
            self._state.segment = number
            full, current = journal.begin_checkpoint()
            by_segment = self._state.by_segment()
            for segment in full:
                for chunk in by_segment.get(segment, [b"\x90"]):
                    journal.put_checkpoint(chunk, segment)
            journal.put_checkpoint(self._state.told(), 0)
            for chunk in by_segment.get(current, []):
                journal.put_checkpoint(chunk, current)
            journal.end_checkpoint(self._index)

    # -- the end --------------------------------------------------------------------------------------

    def _told(self, error: Exception) -> ZbrokerError:
        fault = told(error)
        if isinstance(fault, StorageFailed):
            self._failed = fault
        return fault

    def close(self) -> None:
        """See the protocol. What was settled and cannot be said is sent again by the next life, and stored once all the same."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._failed is None and not self._stuck:
                self._say()
        except JournalError:
            pass
        try:
            self._journal.close()
        except JournalError as error:
            raise told(error) from error
        finally:
            self._reader.close()
            self._refused.close()

    def __enter__(self) -> FileOutbox:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _words(damage: Damage) -> str:
    lost = sum(one.count for one in damage.ranges if one.stream_id == STREAM_ID)
    more = ", perhaps more" if damage.lost_bytes else ""
    return f"{counted(lost, 'message')}{more} ({damage.reason}, {segment_name(damage.segment)} from byte {damage.offset} on)"


def told(error: Exception) -> ZbrokerError:
    """A fault of the store as the tree of errors has it."""
    if isinstance(error, JournalFull):
        return StorageFull(str(error))
    return StorageFailed(f"the producer's own journal: {error}")
