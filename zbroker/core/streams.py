"""The durable half of the broker's engine: streams, producers, groups behind one door. Effects out; no I/O, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from patterns.wire.errors import UnknownCommand, WrongRole
from patterns.wire.frames import Message
from patterns.wire.messages import Admin, Append, Codec, Hello, Join, Leave, Ready, Role, Settle
from patterns.wire.messages import Credit as CreditHeader
from patterns.wire.records import Move, Position, Record, RecordKind
from patterns.wire.server import Session, Sessions
from zbroker.core import checkpoint
from zbroker.core.accounts import Accounts
from zbroker.core.administration import Administration
from zbroker.core.captures import Captures
from zbroker.core.catalog import Catalog, Recorder, decode_operations, encode_operations, operations_of
from zbroker.core.consumers import Consumers
from zbroker.core.dead_letters import DeadLetters, Mover
from zbroker.core.deliveries import Deliveries
from zbroker.core.effects import Checkpoint, CheckpointEnd, Effect, Moved
from zbroker.core.events import Event
from zbroker.core.groups import Group
from zbroker.core.intake import Intake
from zbroker.core.log import StreamLog
from zbroker.core.policy import DEFAULT_POLICY, Policy
from zbroker.core.producers import Accepted
from zbroker.core.readback import ReadBack
from zbroker.core.redrives import Redrives
from zbroker.core.removal import Removal
from zbroker.core.retention import Retention
from zbroker.core.tail import IDS, TAIL_BYTES, Tail, stored_of
from zbroker.core.timers import Timers
from zbroker.core.topics import Topics
from zbroker.core.translate import Translate, translate

_UNREADABLE: Final = (
    msgspec.MsgspecError,
    UnicodeError,
    RecursionError,
)  # a string that is no UTF-8 is not msgspec's error
OPERATIONS_AHEAD: Final = (
    1_024  # OPS records that are not durable; more wait, merged, so that a journal that stands still fills no memory
)
_NOTHING: Final = (
    b"\x90"  # of operations: behind a checkpoint of a broker that idles, so that the next one begins elsewhere
)
LAZY_US: Final = 10_000  # "delivered" and attempts alone wait so long for a record that goes to disk anyway


class Streams:
    """All streams of a broker. The order of calls is: recover.., opened, then anything.

    Args:
        sessions: shared with the rest of the broker's engine.
        effects: where Append, Read and Send go; shared too.
        wall_ms: the broker's own clock in ms at an instant of the engine's; stands in `published_at`.
        tail_bytes: bound of the cache of batches.
        translate: how a batch gets into another codec.
        policy: what is done where a stream's own configuration says nothing.
    """

    def __init__(
        self,
        sessions: Sessions,
        effects: list[Effect],
        wall_ms: Callable[[int], int],
        tail_bytes: int = TAIL_BYTES,
        translate: Translate = translate,
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        self._sessions = sessions
        self._effects = effects
        self._cut: Iterator[tuple[bytes, int]] | None = None
        self._is_cut_waiting = False  # for the place of a record
        self._cut_index = 0  # the last record's when the cut began
        self._recorder = Recorder(effects)
        self._timers = Timers()
        self._tail = Tail(tail_bytes, sessions.counters, translate)
        self._dirty: dict[Group, None] = {}
        self._operations: deque[int] = deque()  # indexes of OPS records that are not durable
        self._promises: deque[tuple[int, Callable[[], None]]] = deque()
        self._promises_of_turn: list[Callable[[], None]] = []
        self._wall_ms = wall_ms
        self._lazy_due: int | None = None
        self._now = 0  # as of this turn
        self._ahead = 0  # how far the broker's own clock is ahead of the engine's, in ms; as of this turn
        self._turn_began_at = 0  # last index when the turn began
        self._anomalies = 0
        self._retention = Retention(policy, self._expire)
        self._catalog = Catalog(self._recorder)
        self._intake = Intake(sessions, self._catalog, self._recorder, self._tail, wall_ms, policy, self._retention)
        self._captures = Captures(sessions, self._intake.capture, sessions.counters, self._timers)
        self._readback = ReadBack(effects, self._tail, self._timers)
        self._deliveries = Deliveries(sessions, self._tail, self._readback, self._timers, self._dirty, wall_ms)
        self._consumers = Consumers(
            sessions, self._catalog, self._recorder, self._deliveries, self._timers, self._dirty, self._promise, policy
        )
        self._removal = Removal(
            self._catalog, self._recorder, self._retention, self._consumers, self._timers, effects, self._flush, policy
        )
        self._mover = Mover(self._catalog, self._recorder, self._intake, self._retention, self._tail, self._readback)
        self._dead_letters = DeadLetters(self._mover, self._timers, self._touched, self._consumers.wake)
        self._accounts = Accounts(self._intake, self._consumers, self._retention)
        self._administration = Administration(
            sessions,
            self._catalog,
            self._recorder,
            self._consumers,
            self._accounts,
            self._promise,
            self._configured,
            self._group_configured,
            wall_ms,
        )
        self._removal.add_verbs(self._administration)
        self._redrives = Redrives(self._mover, self._administration, self._touched)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def begin_checkpoint(self, full: list[int], current: int) -> None:
        """Cut a checkpoint from now on, a piece each turn; see checkpoint.cut()."""
        self._cut = checkpoint.cut(self._catalog, self._intake.producers, full, current, lambda: self._ahead)
        self._cut_index = self._recorder.last_index
        self._is_cut_waiting = False

    def _cut_piece(self) -> None:
        """At the end of a turn everything settled has its record, so a piece reflects no more than last_index."""
        if self._recorder.failed:
            self._cut = None  # half of one is none
        if self._cut is None or self._is_cut_waiting:
            return
        piece = next(self._cut, None)
        if piece is checkpoint.WAIT:
            self._is_cut_waiting = True
        elif piece is not None:
            self._effects.append(Checkpoint(*piece))
        else:
            self._cut = None
            self._effects.append(CheckpointEnd(self._recorder.last_index))
            if self._cut_index == self._recorder.last_index:
                self._operations.append(self._recorder.write(RecordKind.OPS, _NOTHING))

    def restore(self, chunks: Iterable[bytes]) -> bool:
        """Take over a checkpoint, before anything else; False, and as new, if it cannot be understood."""
        try:
            checkpoint.restore(chunks, self._catalog, self._intake.producers)
        except checkpoint.NOT_OURS:
            self._catalog.clear()
            self._intake.producers.clear()
            return False
        return True

    def index(self, chunk: bytes) -> bool:
        """Take over where batches lie; False if it cannot be understood."""
        try:
            checkpoint.index(chunk, self._catalog)
        except checkpoint.NOT_OURS:
            return False
        return True

    def reindex(self, record: Record, position: Position) -> None:
        """Where a batch lies that the checkpoint knows of."""
        log = self._catalog.by_id.get(record.stream_id)
        try:
            if log is not None and record.base_offset < log.next_offset:
                log.reindex(record.base_offset, record.count, stored_of(record).published_at, position)
        except _UNREADABLE:
            self._anomalies += 1

    # -- recovery -------------------------------------------------------------------------------------------------

    def recover(self, record: Record, position: Position) -> None:
        """A record of the journal, in order of index. Nothing in it stops the broker: what is wrong is counted."""
        try:
            match record.kind:
                case RecordKind.CATALOG:
                    of_producers = self._catalog.recover(record.index, record.payload)
                    if of_producers is not None:
                        self._intake.producers.recover_entry(record.index, of_producers)
                case RecordKind.APPEND:
                    self._recover_batch(record, position)
                case RecordKind.OPS:
                    self._catalog.recover_operations(decode_operations(record.payload))
                case RecordKind.LOST:
                    self._catalog.recover_lost(record)
        except _UNREADABLE:
            self._anomalies += 1

    def _recover_batch(self, record: Record, position: Position) -> None:
        stored = stored_of(record)
        if record.stream_id in self._catalog.deleted:
            self._catalog.recover_operations(operations_of(stored))
            return
        log = self._catalog.known(record.stream_id)
        if stored.marks & IDS:
            self._intake.recover_ids(log, stored, record.base_offset, record.count)
        if record.base_offset < log.next_offset and record.index <= log.last_index:
            self._catalog.recover_operations(operations_of(stored))  # once more: no harm, whatever was cut first
            return  # a checkpoint told of it
        if record.base_offset < log.next_offset:
            self._anomalies += 1  # an offset never holds two values; the first one counts
            return
        if record.base_offset > log.next_offset:
            log.lose(log.next_offset, record.base_offset - 1)
        self._catalog.recover_operations(operations_of(stored))
        number = log.append(record.index, record.count, len(record.payload), stored.published_at)
        log.place(number, position)
        batch = Accepted(stored.sequence, record.base_offset, stored.crc, record.index, None, stored.repeats)
        self._intake.producers.recover_batch(stored.producer, stored.epoch, batch)

    def opened(
        self, epoch: int, next_index: int, now: int, segments: Sequence[int] = (), is_damaged: bool = False
    ) -> None:
        """Recovery is over: everything seen is on disk, and indexes go on from next_index.

        Args:
            segments: that are there; empty when nobody says.
            is_damaged: the log has holes.
        """
        self._recorder.next_index = next_index
        self._turn_began_at = next_index - 1
        self._intake.durable_index = self._intake.placed_index = next_index - 1
        self._intake.producers.opened(epoch)
        self._deliveries.opened(epoch)
        for log in self._catalog.by_id.values():
            if segments:
                log.lose_missing(set(segments))
            if is_damaged:
                log.lose_gaps()
            if log.ids is not None:
                log.ids.opened(log.config, log.published_at, log.lost)
            self._captures.configured(log)
            log.durable_next = log.next_offset
            log.cut()
            self._retention.touch(log)
        for group in self._catalog.groups.values():
            group.opened(self._catalog.by_id[group.stream_id].next_offset, now, self._wall_ms(now) - now // 1_000)
        self._consumers.opened(next_index, now)
        self._removal.opened(now, self._wall_ms(now) - now // 1_000)

    # -- sessions -------------------------------------------------------------------------------------------------

    def admit(self, session: Session, hello: Hello, ready: Ready, now: int) -> None:
        """Fill READY for a producer or consumer.

        Raises:
            ZbrokerError: refuses the session: Fenced, BadName.
        """
        if session.role is Role.PRODUCER:
            self._intake.admit(session, hello, ready, now)
        elif session.role is Role.CONSUMER:
            self._consumers.admit(session, hello, ready, now)

    def receive(self, session: Session, message: Message, now: int) -> None:
        """A message of a producer or consumer session: A J K L, or C after credit was raised."""
        header = message.header
        match header:
            case Append() if session.role is Role.PRODUCER:
                self._intake.append(session, message, now)
            case Join() if session.role is Role.CONSUMER:
                self._consumers.join(session, header)
            case Settle() if session.role is Role.CONSUMER:
                self._consumers.settle(session, header, now)
            case Leave() if session.role is Role.CONSUMER:
                self._consumers.leave(session, header, now)
            case CreditHeader():
                self._consumers.credit(session)
            case Append() | Join() | Settle() | Leave():
                error = WrongRole(f"kind {message.kind.decode()!r} is not for a {session.role}")
                self._sessions.refuse(session, error)
            case _:
                error_unknown = UnknownCommand(f"kind {message.kind.decode()!r} is not for streams")
                self._sessions.refuse(session, error_unknown)

    def ended(self, session: Session, reason: str, now: int) -> None:
        """A session is over: what it held goes back, counting an attempt if it was lost ("expired", "disconnected")."""
        if session.role is Role.PRODUCER:
            self._intake.ended(session, reason)
        else:
            self._consumers.ended(session, reason, now)

    def administer(self, session: Session, header: Admin, now: int) -> None:
        """A verb about streams or groups."""
        self._administration.ask(session, header, now)

    def _touched(self, group: Group) -> None:
        """It is done with something: the journal may have to hear of it, and what nobody is owed may go."""
        if self._catalog.groups.get((group.stream_id, group.id)) is group:  # else it was deleted, or reset
            self._dirty[group] = None
            self._retention.touch(self._catalog.by_id[group.stream_id])

    def _configured(self, log: StreamLog) -> None:
        """A stream is to be something else than before."""
        self._retention.configured(log)
        self._captures.configured(log)

    def _expire(self, log: StreamLog, below: int) -> None:
        self._removal.expire(log, below)

    def listen(self, warn: Callable[[str, str], None], note: Callable[[Event], None]) -> None:
        """Who is told of warnings, an empty text ending one, and of events."""
        self._removal.warn, self._removal.note = warn, note
        self._captures.warn = warn

    def join(self, topics: Topics, nonce: bytes) -> None:
        """Where what has topics is published, in the broker's name, and whence live messages come to be stored."""
        topics.captures = self._captures
        self._intake.relays.join(topics.forward, topics.is_heard, nonce)

    def _group_configured(self, group: Group) -> None:
        """A group is to be something else than before."""
        self._dead_letters.configured(group)
        self._consumers.configured(group)
        if group.config.idle_expiry_s:
            self._removal.watch(self._now)

    def adopt(
        self,
        stream: str,
        codec: Codec,
        topic: str | None,
        published_at: int,
        columns: bytes,
        payload: bytes,
        count: int,
    ) -> None:
        """Store a batch that no producer sends; see Intake.adopt()."""
        self._intake.adopt(stream, codec, topic, published_at, columns, payload, count)

    # -- turns ----------------------------------------------------------------------------------------------------

    def turn(self, now: int) -> None:
        """The end of a loop turn, before the journal commits: deliver, then one OPS record for all that changed."""
        self._now = now
        self._ahead = self._wall_ms(now) - now // 1_000
        self._deliveries.run(now)
        self._intake.confirm()
        if self._is_far_ahead:
            return  # the journal is far behind: what is settled stays in the groups, and is recorded together
        self._dead_letters.run(now)
        self._redrives.run(now)
        index = self._record_operations(now)
        promises, self._promises_of_turn = self._promises_of_turn, []
        for call in promises:
            if index is None:
                call()  # nothing of it needed the disk
            else:
                self._promises.append((index, call))
        if not self._dirty and not self._recorder.failed:
            self._removal.sweep(now // 1_000 + self._ahead, self._ahead, self._intake.durable_index)
        self._turn_began_at = self._recorder.last_index
        self._cut_piece()

    def _record_operations(self, now: int) -> int | None:
        """Write what is dirty, if it should not wait; returns the index of the last record written."""
        if not self._dirty or self._recorder.failed:
            return None
        self._set_lazy_due(now)
        goes_anyway = self._recorder.last_index > self._turn_began_at
        if not goes_anyway and now < (self._lazy_due or 0) and not any(group.dirty.settles for group in self._dirty):
            return None
        return self._write_operations()

    def _write_operations(self) -> int:
        for group in self._dirty:
            self._retention.touch(self._catalog.by_id[group.stream_id])
        for payload in encode_operations(self._dirty, self._ahead):
            self._operations.append(self._recorder.write(RecordKind.OPS, payload))
        self._dirty.clear()
        self._lazy_due = None
        return self._recorder.last_index

    def _flush(self) -> None:
        """Write what is dirty now, so that what is written next comes later."""
        if self._dirty and not self._recorder.failed:
            index = self._write_operations()
            self._promises += [(index, call) for call in self._promises_of_turn]
            self._promises_of_turn.clear()

    @property
    def _is_far_ahead(self) -> bool:
        """Whether the journal has so many operations to make durable that more must wait."""
        return len(self._operations) >= OPERATIONS_AHEAD and not self._recorder.failed

    def _set_lazy_due(self, now: int) -> None:
        """What changed since the journal heard of it must not wait for ever."""
        if self._dirty and self._lazy_due is None:
            self._lazy_due = now + LAZY_US

    def _promise(self, index: int | None, call: Callable[[], None]) -> None:
        """Make the call once the record of that index is on disk; None: that of the operations of this turn."""
        if index is None:
            self._promises_of_turn.append(call)
        elif index <= self._intake.durable_index:
            call()
        else:
            self._promises.append((index, call))

    # -- the journal's news ---------------------------------------------------------------------------------------

    def placed(self, index: int, position: Position) -> None:
        """The journal has taken the record, and it will lie there."""
        found = self._intake.placed(index)
        if found is not None:
            log, number = found
            log.place(number, position)
            if not log.is_deleted:
                self._retention.placed(log, number)
        self._is_cut_waiting = False

    def moved(self, moves: Iterable[Move]) -> None:
        """Batches lie elsewhere, or are gone because nobody wanted them."""
        for move in moves:
            log = self._catalog.by_id.get(move.stream_id)
            if log is not None:
                self._retention.resized(log, *log.move(move.base_offset, move.position))

    def persisted(self, index: int, now: int) -> None:
        """Everything up to index is on disk: confirm it, promise it, deliver it."""
        if self._recorder.failed or index <= self._intake.durable_index:
            return
        self._consumers.persisted(index)
        for log in self._intake.persisted(index, now):
            self._deliveries.wake_stream(log)
        self._removal.forget(index)
        self._captures.persisted(index)
        self._mover.persisted(index)
        while self._operations and self._operations[0] <= index:
            self._operations.popleft()
        while self._promises and self._promises[0][0] <= index:
            self._promises.popleft()[1]()
        self._deliveries.run(now)
        self._set_lazy_due(now)

    def loaded(self, token: int, records: list[Record | Moved | None], now: int) -> None:
        """What a Read asked for; None for a record that is damaged, MOVED for one to look up again."""
        self._readback.loaded(token, records, now)
        self._deliveries.run(now)
        self._set_lazy_due(now)

    def storage(self, full: bool, failed: bool) -> None:
        """The state of the disk. A failure is for good."""
        self._intake.full = full
        self._recorder.failed = self._recorder.failed or failed
        if full or failed:
            self._captures.persisted(
                self._recorder.last_index
            )  # it may never be: who publishes live must not wait for it

    # -- time -----------------------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When handle_timeout() and a turn are due; 0 for at once."""
        may_write = not self._recorder.failed and not self._is_far_ahead
        is_sweeping = self._removal.has_more and may_write and not self._dirty
        if (
            self._deliveries.has_more
            or ((self._dead_letters.has_more or self._redrives.has_more) and may_write)
            or is_sweeping
            or (self._cut is not None and not self._is_cut_waiting and may_write)
        ):
            return 0
        due = self._timers.next_timeout()
        aged = self._removal.next_due(self._ahead) if may_write and not self._dirty else None
        if aged is not None:
            due = aged if due is None else min(due, aged)
        if self._lazy_due is not None and may_write:
            return self._lazy_due if due is None else min(due, self._lazy_due)
        return due

    def handle_timeout(self, now: int) -> None:
        """Leases that are over, delays that have passed; a turn() follows."""
        self._timers.handle_timeout(now)

    # -- status ---------------------------------------------------------------------------------------------------

    def status(self, rows_max: int, now: int) -> dict[str, object]:
        """For people and metrics; plain values, and at most `rows_max` streams and as many groups."""
        catalog, accounts, wall_ms = self._catalog, self._accounts, self._wall_ms(now)
        streams = {name: accounts.stream(log) for name, log in islice(catalog.by_name.items(), rows_max)}
        pairs = ((log, group) for log in catalog.by_id.values() for group in log.groups.values())
        groups = {
            f"{log.name}/{group.name}": accounts.group(log, group, wall_ms) for log, group in islice(pairs, rows_max)
        }
        return {
            "stream_count": len(catalog.by_name),
            "streams": streams,
            "groups": groups,
            "producers": len(self._intake.producers),
            "tail_bytes": self._tail.bytes,
            "anomalies": self._anomalies,
        }
