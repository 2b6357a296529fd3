"""The broker's side of its sidecar: a Journal whose records are written, and confirmed, by another process.

append() and commit() never wait. What is not confirmed is kept: a sidecar that dies is followed by another one, which finds
in the folder what the first had written, and is given the rest again. Indexes are the broker's, so nothing is written twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

import msgspec

from patterns.wire.records import Move, Opened, Position, Record, Restorer
from patterns.wire.settled import CHUNK, Settled, runs
from zbroker.processes import dialogue
from zbroker.processes.dialogue import Message, Order, Welcome
from zbroker.processes.line import Line
from zbroker.store.faults import (
    AFTER_A_REFUSAL,
    AFTER_DEATHS,
    FolderLocked,
    JournalFailed,
    JournalFull,
    JournalUnfinished,
)

UNCONFIRMED_BYTES_MAX: Final = 256 << 20  # a quarter of memory_bytes; sessions' credit stops most loads long before
LOCK_WAIT_US: Final = 10_000_000  # a sidecar whose broker died is gone within a second, unless its disk is slow
Visit = Callable[[Record, Position], None]
_RECORD_BYTES: Final = 200  # of a record beside its columns and payload, in memory
_RETRY_US: Final = 1_000_000
_DEATHS_MAX: Final = 5
_DEATHS_WITHIN_US: Final = 10_000_000
_CLOSE_US: Final = 10_000_000


class State(Enum):
    """Of the sidecar, as its broker knows it."""

    OPENING = "opening"
    SERVING = "serving"
    AWAY = "away"
    RETURNING = "returning"
    FAILED = "failed"
    CLOSED = "closed"


class SidecarJournal:
    """A Journal in another process. Its news come on a descriptor: whoever polls it calls hear().

    Args:
        start: begins a sidecar; raises OSError when no process can be made.
        order: what to open.
        clock: microseconds, monotonic.
        on_locked: asked when somebody else holds the folder; whether to wait for him.
        unconfirmed_bytes_max: with so much that is not confirmed it is full.

    Attributes:
        trouble: why confirms wait, for people; empty when the sidecar is there.
    """

    def __init__(
        self,
        start: Callable[[], Line],
        order: Order,
        clock: Callable[[], int],
        on_locked: Callable[[], bool] = lambda: True,
        *,
        unconfirmed_bytes_max: int = UNCONFIRMED_BYTES_MAX,
    ) -> None:
        self._start = start
        self._order = order
        self._clock = clock
        self._on_locked = on_locked
        self._unconfirmed_bytes_max = unconfirmed_bytes_max
        self._state = State.OPENING
        self._line: Line | None = None
        self._visit: Visit = lambda record, position: None
        self._restorer: Restorer | None = None
        self._state_chunks: list[bytes] = []
        self._opened: Opened | None = None
        self._fault: Exception | None = None
        self._durable_index = self._last_index = 0
        self._unconfirmed: deque[Record] = deque()
        self._unconfirmed_bytes = 0
        self._found: list[Position] = []  # of the first unconfirmed ones, which the sidecar before had written
        self._placed: list[tuple[int, Position]] = []
        self._moves: list[Move] = []  # of which the engine does not know yet
        self._is_full = False
        self._begun: tuple[list[int], int] | None = None  # a checkpoint, of which the engine does not know yet
        self._is_checkpointing = False
        self._forgotten: dict[int, Settled] = {}
        self._status: dict[str, Any] = {}
        self._is_status_asked = False
        self._deaths: deque[int] = deque(maxlen=_DEATHS_MAX)
        self._retry_at: int | None = None
        self._is_closing = self._is_closed = False
        self.restarts = 0
        self.trouble = ""
        self._table: dict[int, Callable[[Message], None]] = {
            dialogue.STATE: self._take_state,
            dialogue.RESTORE: self._answer_restore,
            dialogue.INDEX: self._answer_index,
            dialogue.REINDEX: self._take_reindex,
            dialogue.FOUND: self._take_found,
            dialogue.LOCKED: self._take_locked,
            dialogue.OPENED: self._take_opened,
            dialogue.DURABLE: self._take_durable,
            dialogue.CHECKPOINT: self._take_checkpoint,
            dialogue.MOVED: self._take_moved,
            dialogue.STATUS: self._take_status,
            dialogue.FAULT: self._take_fault,
            dialogue.CLOSED: self._take_closed,
        }

    # -- open -----------------------------------------------------------------------------------------------------

    def open(self, visit: Visit, restorer: Restorer | None = None) -> Opened:
        """As FileJournal.open(), and with its errors; while somebody else holds the folder it waits for LOCK_WAIT_US, if on_locked says so.

        Raises:
            JournalFailed: no process could be made, or it has died.
        """
        self._visit, self._restorer = visit, restorer
        try:
            self._line = self._start()
        except OSError as error:
            raise self._failed(f"no sidecar process can be started ({error})") from error
        self._command(self._order)
        while self._opened is None:
            self._line.wait(None)
            self._take_in()
            if self._fault is not None:
                self._line.close()
                raise self._fault
            if self._line.is_cut:
                ending = self._line.close()
                raise self._failed(
                    f"its sidecar process has died while it opened the folder ({ending or 'no status'})", AFTER_DEATHS
                )
        return self._opened

    def _command(self, order: Order) -> None:
        assert self._line is not None
        self._line.put(dialogue.said_value(dialogue.ORDER, order))
        self._line.flush()

    def _take_locked(self, message: Message) -> None:
        if not self._on_locked() and self._state is State.OPENING:
            self._fault = FolderLocked(self._order.folder)

    def _take_state(self, message: Message) -> None:
        _, data, start, end = message
        self._state_chunks.append(data[start:end])

    def _answer_restore(self, message: Message) -> None:
        chunks, self._state_chunks = self._state_chunks, []
        self._answer(self._restorer is not None and self._restorer.restore(chunks))

    def _answer_index(self, message: Message) -> None:
        _, data, start, end = message
        self._answer(self._restorer is not None and self._restorer.index(data[start:end]))

    def _answer(self, answer: bool) -> None:
        assert self._line is not None
        self._line.put(dialogue.said_value(dialogue.ANSWER, answer))
        self._line.flush()

    def _take_reindex(self, message: Message) -> None:
        if self._restorer is not None:
            self._restorer.reindex(*dialogue.record_at(message))

    def _take_found(self, message: Message) -> None:
        """To a new broker, a record of the log. To one that runs, one that it has not heard to be durable."""
        record, position = dialogue.record_at(message)
        if self._state is State.OPENING:
            self._visit(record, position)
        elif len(self._found) < len(self._unconfirmed) and self._unconfirmed[len(self._found)] == record:
            self._found.append(position)
        else:
            self._fault = self._failed(f"it holds a record {record.index} that this broker has not written")

    def _take_opened(self, message: Message) -> None:
        welcome: Welcome = dialogue.value_of(message, Welcome)
        end = welcome.opened.next_index - 1
        self._status, self._is_full = welcome.status, welcome.full
        if self._state is State.OPENING:
            self._opened = welcome.opened
            self._durable_index = self._last_index = end
        elif self._fault is None and end != self._durable_index + len(self._found):
            self._fault = self._failed(f"it ends with record {end}, {self._durable_index} was known to be durable")
        if self._fault is None:
            self._serve(end)

    def _serve(self, end: int) -> None:
        """Go on where the log ends."""
        assert self._line is not None
        self._state, self.trouble = State.SERVING, ""
        found, self._found = self._found, []
        self._confirm(end, found)
        for record in self._unconfirmed:
            self._line.put(dialogue.record_head(record), record.payload)
        for stream_id, offsets in self._forgotten.items():
            ranges = [(0, offsets.floor - 1)] if offsets.floor else []
            for chunk, bits in offsets.bitmaps():
                ranges.extend(runs(bits, chunk * CHUNK))
            self._tell_forgotten([(stream_id, first, last) for first, last in ranges])

    # -- append and commit ----------------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """Take a record; where it lies hear() tells once it is durable.

        Raises:
            JournalFailed: for ever.
        """
        if self._fault is not None:
            raise self._fault
        assert record.index == self._last_index + 1, f"index {record.index} after {self._last_index}"
        self._last_index = record.index
        self._unconfirmed.append(record)
        self._unconfirmed_bytes += _RECORD_BYTES + len(record.columns) + len(record.payload)
        if self._state is State.SERVING:
            assert self._line is not None
            self._line.put(dialogue.record_head(record), record.payload)

    def commit(self, now: int) -> int:
        """Hand over what was appended, as far as the sidecar takes it; returns what is known to be durable.

        Raises:
            JournalFailed: for ever.
        """
        if self._fault is not None:
            raise self._fault
        if self._line is not None:
            self._line.flush()
        return self._durable_index

    # -- news -----------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """What to poll; another one after a restart, -1 while there is none and once the journal has failed."""
        return -1 if self._line is None or self._fault is not None else self._line.fileno()

    @property
    def is_blocked(self) -> bool:
        """Whether to poll for room, too: the sidecar has not taken everything."""
        return self._line is not None and self._line.waiting_bytes > 0

    def hear(self, now: int) -> list[tuple[int, Position]]:
        """Take in news; returns the records that are durable now, with their places, in order.

        Raises:
            JournalFailed: for ever. What has no confirm is neither known to be durable nor known not to be.
        """
        if self._line is not None and self._fault is None:
            self._line.flush()
            self._take_in()
            if self._line is not None and self._line.is_cut:
                self._hung_up(now)
        placed, self._placed = self._placed, []
        if self._fault is not None:
            raise self._fault
        return placed

    def _take_in(self) -> None:
        assert self._line is not None
        for message in self._line.hear():
            if self._fault is None:
                self._table[message[0]](message)

    def _take_durable(self, message: Message) -> None:
        index, self._is_full, places = dialogue.durable_of(message)
        self._confirm(index, places)

    def _confirm(self, index: int, places: list[Position]) -> None:
        unconfirmed = self._unconfirmed
        for place in places:
            record = unconfirmed.popleft()
            self._unconfirmed_bytes -= _RECORD_BYTES + len(record.columns) + len(record.payload)
            self._placed.append((record.index, place))
        assert not places or self._placed[-1][0] == index, f"places up to {self._placed[-1][0]}, durable {index}"
        self._durable_index = index

    def _take_fault(self, message: Message) -> None:
        error = dialogue.fault_of(message)
        if self._state is State.RETURNING and isinstance(error, FolderLocked | JournalFull):
            self._try_later(str(error))  # the process before is not gone yet, or the disk is full: both heal
        elif self._state is not State.OPENING and isinstance(error, OSError):
            self._fault = self._failed(str(error))
        else:
            self._state, self._fault = State.FAILED, error

    def _take_closed(self, message: Message) -> None:
        self._is_closed = True

    # -- death ----------------------------------------------------------------------------------------------------

    def _hung_up(self, now: int) -> None:
        """The sidecar has died. Another one is started, unless it dies all the time."""
        assert self._line is not None
        ending = self._line.close() or "no status yet"
        self._line = None
        self._deaths.append(now)
        if self._fault is not None:
            return
        if self._is_closing and not self._unconfirmed:
            self._is_closed = True  # all is on the disk, and the folder's lock went with the process
            return
        self._is_closing = False
        if len(self._deaths) == _DEATHS_MAX and now - self._deaths[0] < _DEATHS_WITHIN_US:
            self._fault = self._failed(
                f"its sidecar process died {_DEATHS_MAX} times in a row (last: {ending})", AFTER_DEATHS
            )
            return
        self._begun, self._is_checkpointing, self._is_status_asked = None, False, False
        self._found.clear()
        self.trouble = f"the sidecar process has died ({ending}); another one opens the journal, and confirms wait"
        self._return(now)

    def _return(self, now: int) -> None:
        """Start another one."""
        self._retry_at = None
        try:
            self._line = self._start()
        except OSError as error:
            self._state, self._retry_at = State.AWAY, now + _RETRY_US
            self.trouble = f"no sidecar process can be started ({error}); it is tried each second, and confirms wait"
            return
        self._state = State.RETURNING
        self.restarts += 1
        self._command(msgspec.structs.replace(self._order, durable_index=self._durable_index))

    def _try_later(self, why: str) -> None:
        self._hang_up()
        self._found.clear()
        self._state, self._retry_at = State.AWAY, self._clock() + _RETRY_US
        self.trouble = f"the sidecar process cannot open the journal, and tries again each second: {why}"

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def _failed(self, cause: str, advice: str = AFTER_A_REFUSAL) -> JournalFailed:
        self._state = State.FAILED
        return JournalFailed(self._order.folder, cause, advice)

    # -- time -----------------------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When another start is to be tried."""
        return self._retry_at

    def handle_timeout(self, now: int) -> None:
        """Try it."""
        if self._retry_at is not None and self._retry_at <= now:
            self._return(now)

    @property
    def tidy_at(self) -> int | None:
        """At once, if there are moves."""
        return 0 if self._moves else None

    def tidy(self, now: int) -> list[Move]:
        """The sidecar does it; here are the moves that it has told of."""
        moves, self._moves = self._moves, []
        return moves

    def _take_moved(self, message: Message) -> None:
        self._moves += dialogue.moved_of(message)

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def checkpoint_due(self) -> bool:
        """Whether the sidecar has begun one."""
        return self._begun is not None

    def begin_checkpoint(self) -> tuple[list[int], int]:
        """As the protocol has it; what is cut from now on covers what was durable when the sidecar began."""
        assert self._begun is not None
        begun, self._begun = self._begun, None
        self._is_checkpointing = True
        return begun

    def _take_checkpoint(self, message: Message) -> None:
        full, current = dialogue.value_of(message)
        self._begun = full, current

    def put_checkpoint(self, chunk: bytes, segment: int) -> None:
        """A piece of it; nothing, when the sidecar that began it has died."""
        if self._is_checkpointing and self._line is not None:
            self._line.put(dialogue.said_piece(chunk, segment), chunk)

    def end_checkpoint(self, last_index: int) -> None:
        """All was said."""
        if self._is_checkpointing and self._line is not None:
            self._line.put(dialogue.said_value(dialogue.END, last_index))
        self._is_checkpointing = False

    def forget(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """A hint that another sidecar needs again, so it is kept."""
        told = list(ranges)
        for stream_id, first, last in told:
            self._forgotten.setdefault(stream_id, Settled()).add(first, last)
        if self._state is State.SERVING:
            self._tell_forgotten(told)

    def _tell_forgotten(self, ranges: list[tuple[int, int, int]]) -> None:
        assert self._line is not None
        self._line.put(dialogue.said_value(dialogue.FORGET, ranges))

    # -- state, end -----------------------------------------------------------------------------------------------

    @property
    def durable_index(self) -> int:
        """Highest index known to be synced; 0 when none is."""
        return self._durable_index

    @property
    def full(self) -> bool:
        """The disk has no room for another segment, or too much waits for the sidecar."""
        return self._is_full or self._unconfirmed_bytes >= self._unconfirmed_bytes_max

    def status(self) -> dict[str, object]:
        """The journal's as it last said, and how the sidecar is; another one is asked for."""
        if self._state is State.SERVING and not self._is_status_asked:
            assert self._line is not None
            self._is_status_asked = True
            self._line.put(dialogue.said(dialogue.STATUS))
            self._line.flush()
        return {
            **self._status,
            "durable_index": self._durable_index,
            "waiting_records": self._last_index - self._durable_index,
            "failed": str(self._fault) if self._fault is not None else None,
            "sidecar": {
                "pid": self._line.pid if self._line is not None else None,
                "state": self._state.value,
                "restarts": self.restarts,
                "unconfirmed_bytes": self._unconfirmed_bytes,
                "unsent_bytes": self._line.waiting_bytes if self._line is not None else 0,
            },
        }

    def _take_status(self, message: Message) -> None:
        self._status, self._is_status_asked = dialogue.value_of(message), False

    def close(self) -> None:
        """Have everything made durable and the folder unlocked; at most for ten seconds.

        Raises:
            JournalUnfinished, JournalFailed: that was not done; what was confirmed is on the disk all the same.
            JournalFull: records still waited for space.
        """
        try:
            if self._state in (State.SERVING, State.RETURNING, State.AWAY):
                self._finish(self._clock() + _CLOSE_US)
        finally:
            self._state = State.CLOSED
            self._hang_up()

    def _finish(self, until: int) -> None:
        while not self._is_closed:
            now = self._clock()
            if self._state is not State.SERVING and not self._unconfirmed:
                return  # nobody holds anything that is not on the disk
            if self._line is None or now >= until:
                why = self.trouble or f"its sidecar process has not finished within {_CLOSE_US // 1_000_000} s"
                raise JournalUnfinished(self._order.folder, len(self._unconfirmed), why)
            if self._state is State.SERVING and not self._is_closing:
                self._is_closing = True
                self._line.put(dialogue.said(dialogue.CLOSE))
                self._line.flush()
            self._line.wait(until - now)
            self.hear(self._clock())
