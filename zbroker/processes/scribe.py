"""The sidecar's side: a journal that writes what a broker sends over a Line, and says what is durable. No clock, no process.

tests/simulation runs it over a virtual line and disk, sidecar.py over a socketpair and a real one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from patterns.io.journal import Journal
from patterns.wire.records import Move, Position, Record
from zbroker.processes import dialogue
from zbroker.processes.dialogue import Message, Order, Welcome
from zbroker.processes.line import Line
from zbroker.store.faults import FolderLocked, JournalError, JournalFull

_GATHER_BYTES: Final = 1 << 20  # one commit's worth; what has come in the meantime is the next one's
_LOOK_AGAIN_BYTES: Final = (
    64 << 10
)  # who has sent so much at once is sending more; to look for it costs others their wait
_READS_MAX: Final = 16
_SHOW_BYTES: Final = 1 << 18  # of what an open shows, before it is sent
_LOCK_RETRY_US: Final = 20_000


class Scribe:
    """Opens a journal when it is told to, then writes.

    Args:
        line: to the broker.
        make_journal: what an order wants opened; called again while somebody else holds the folder.

    Attributes:
        is_over: nothing is left to be done.
    """

    def __init__(self, line: Line, make_journal: Callable[[Order], Journal]) -> None:
        self._line = line
        self._make_journal = make_journal
        self.is_over = False
        self._order: Order | None = None  # until it is carried out
        self._locked_until: int | None = None
        self._retry_at = self._ordered_at = 0
        self._journal: Journal | None = None
        self._is_failed = False
        self._has_appended = False
        self._taken_bytes = 0
        self._places: deque[tuple[int, Position]] = deque()  # of records that are not durable yet
        self._held: deque[Record] = deque()  # the journal has no room for them, nor for what comes after
        self._said = (0, False)  # durable index, full
        self._table: dict[int, Callable[[Message, int], None]] = {
            dialogue.ORDER: self._take_order,
            dialogue.RECORD: self._take_record,
            dialogue.PIECE: self._take_piece,
            dialogue.END: self._take_end,
            dialogue.FORGET: self._take_forget,
            dialogue.STATUS: self._tell_status,
            dialogue.CLOSE: self._close,
        }

    @property
    def is_opening(self) -> bool:
        """An order is not carried out yet."""
        return self._order is not None

    # -- time -----------------------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When turn() is due though nothing was said; 0 for at once."""
        if self._order is not None:
            return self._retry_at
        if self._journal is None or self._is_failed:
            return None
        due = [0] if self._has_appended else [self._journal.next_timeout(), self._tidy_at(self._journal)]
        return min((at for at in due if at is not None), default=None)

    def turn(self, now: int) -> None:
        """Take in what the broker has said, make it durable, say so."""
        self._taken_bytes = 0
        for _ in range(_READS_MAX):
            messages = self._line.hear()
            for message in messages:
                self._table[message[0]](message, now)
            if not _LOOK_AGAIN_BYTES <= self._taken_bytes < _GATHER_BYTES or not messages:
                break
        if self._order is not None and now >= self._retry_at:
            self._open(self._order, now)
        if self._journal is not None and not self._is_failed:
            self._write(self._journal, now)
        if self._line.is_cut and not self.is_over:
            self._leave()
        self._line.flush()

    def _leave(self) -> None:
        """The broker has died: what it had handed over is written all the same; the next one finds it, or does without."""
        self.is_over = True
        if self._journal is not None:
            try:
                self._journal.close()
            except JournalError:
                pass  # nobody is left to hear it

    # -- opening --------------------------------------------------------------------------------------------------

    def _take_order(self, message: Message, now: int) -> None:
        assert self._journal is None
        self._order = dialogue.value_of(message, Order)
        self._locked_until = now + self._order.lock_wait_us
        self._retry_at = self._ordered_at = now

    def _open(self, order: Order, now: int) -> None:
        journal = self._make_journal(order)
        shown = _Shown(self._line, order.durable_index)
        restorer = _Trusting(self._line) if order.durable_index is not None else shown
        try:
            opened = journal.open(shown.visit, restorer)
        except FolderLocked as error:
            if self._locked_until is not None and now < self._locked_until:
                if self._retry_at == self._ordered_at:
                    self._line.put(dialogue.said(dialogue.LOCKED))
                self._retry_at = now + _LOCK_RETRY_US
                return
            self._refuse(error)
        except (JournalError, OSError) as error:
            self._refuse(error)
        except BrokerGone:
            self._order, self.is_over = None, True
        else:
            self._order, self._journal = None, journal
            self._said = opened.next_index - 1, journal.full
            self._line.put(dialogue.said_value(dialogue.OPENED, Welcome(opened, journal.full, journal.status())))

    def _refuse(self, error: Exception) -> None:
        """Nothing is open; the broker decides what becomes of it, and ends us by hanging up."""
        self._order = None
        self._line.put(dialogue.said_fault(error))

    # -- what the broker says ---------------------------------------------------------------------------------------

    def _take_record(self, message: Message, now: int) -> None:
        _, data, start, end = message
        self._taken_bytes += end - start
        if self._is_failed or self._journal is None:
            return
        record = dialogue.record_of(data, start, end)
        if self._held:
            self._held.append(record)
        else:
            self._append(self._journal, record)

    def _append(self, journal: Journal, record: Record) -> None:
        try:
            position = journal.append(record)
        except JournalFull:
            self._held.append(record)  # nothing was taken, nothing was confirmed: it waits for room
            self._has_appended = True  # so that a commit looks whether the room is there
            return
        except JournalError as error:
            self._fail(error)
            return
        assert position is not None
        self._places.append((record.index, position))
        self._has_appended = True

    def _take_piece(self, message: Message, now: int) -> None:
        self._attempt(lambda journal: journal.put_checkpoint(*dialogue.piece_of(message)))

    def _take_end(self, message: Message, now: int) -> None:
        self._attempt(lambda journal: journal.end_checkpoint(dialogue.value_of(message)))

    def _take_forget(self, message: Message, now: int) -> None:
        self._attempt(lambda journal: journal.forget(map(tuple, dialogue.value_of(message))))

    def _attempt(self, call: Callable[[Journal], None]) -> None:
        if self._journal is None or self._is_failed:
            return
        try:
            call(self._journal)
        except JournalError as error:
            self._fail(error)

    def _tell_status(self, message: Message, now: int) -> None:
        if self._journal is not None:
            self._line.put(dialogue.said_value(dialogue.STATUS, self._journal.status()))

    def _close(self, message: Message, now: int) -> None:
        self.is_over = True
        try:
            if self._journal is not None:
                self._journal.close()
        except JournalError as error:
            self._line.put(dialogue.said_fault(error))
        else:
            self._line.put(dialogue.said(dialogue.CLOSED))
        self._journal = None

    # -- writing --------------------------------------------------------------------------------------------------

    def _write(self, journal: Journal, now: int) -> None:
        try:
            has_committed, self._has_appended = self._has_appended, False
            if has_committed:
                journal.commit(now)
                self._report(journal)
                self._line.flush()  # somebody waits for it; all that follows can
            due = journal.next_timeout()
            if due is not None and due <= now:
                journal.handle_timeout(now)
            self._append_held(journal)
            self._report(journal)
            if not self._held and journal.checkpoint_due:
                self._line.put(dialogue.said_value(dialogue.CHECKPOINT, journal.begin_checkpoint()))
            due = self._tidy_at(journal)
            if due is not None and due <= now and (moves := journal.tidy(now)):
                self._line.put(dialogue.said_moved(moves))
        except JournalError as error:
            self._fail(error)

    def _tidy_at(self, journal: Journal) -> int | None:
        """Not while records wait that may be the reason why messages were forgotten."""
        return None if self._held else journal.tidy_at

    def _append_held(self, journal: Journal) -> None:
        """There may be room again; what fits is committed in the next turn, which is due at once."""
        if self._held and not journal.full:
            held, self._held = self._held, deque()
            while held and not self._held:
                self._append(journal, held.popleft())
            self._held.extend(held)

    def _report(self, journal: Journal) -> None:
        durable, places = journal.durable_index, self._places
        if (durable, journal.full) == self._said:
            return
        self._said = durable, journal.full
        became: list[Position] = []
        while places and places[0][0] <= durable:
            became.append(places.popleft()[1])
        self._line.put(dialogue.said_durable(durable, journal.full, became))

    def _fail(self, error: JournalError) -> None:
        """For ever; the folder stays ours, so that nobody trusts it while the broker says that its disk has failed."""
        if not self._is_failed:
            self._is_failed = True
            self._held.clear()
            self._line.put(dialogue.said_fault(error))


class BrokerGone(Exception):
    """Nobody is left for whom the journal would be opened."""


class _Shown:
    """What an open shows, sent on; the answers that it needs are waited for. A Restorer, and a visit."""

    def __init__(self, line: Line, durable_index: int | None) -> None:
        self._line = line
        self._least = 0 if durable_index is None else durable_index + 1

    def visit(self, record: Record, position: Position) -> None:
        if record.index >= self._least:
            self._put(dialogue.said_at(dialogue.FOUND, record, position))

    def restore(self, chunks: Iterable[bytes]) -> bool:
        for chunk in chunks:
            self._put(dialogue.said(dialogue.STATE, chunk))
        return self._ask(dialogue.said(dialogue.RESTORE))

    def index(self, chunk: bytes) -> bool:
        return self._ask(dialogue.said(dialogue.INDEX, chunk))

    def reindex(self, record: Record, position: Position) -> None:
        self._put(dialogue.said_at(dialogue.REINDEX, record, position))

    def _put(self, head: bytes, body: bytes = b"") -> None:
        self._line.put(head, body)
        if self._line.waiting_bytes >= _SHOW_BYTES:
            self._line.drain()
            if self._line.is_broken:
                raise BrokerGone

    def _ask(self, question: bytes) -> bool:
        self._line.put(question)
        self._line.drain()
        while not self._line.is_cut:
            self._line.wait(None)
            for message in self._line.hear():
                assert message[0] == dialogue.ANSWER, "a broker says nothing else meanwhile"
                return bool(dialogue.value_of(message))
        raise BrokerGone


class _Trusting:
    """Takes a checkpoint for the broker, which made it, knows more by now, and is shown nothing of it.

    But where a segment has no index, the sidecar before may have compacted it, and died before the broker heard of it.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    def restore(self, chunks: Iterable[bytes]) -> bool:
        return True

    def index(self, chunk: bytes) -> bool:
        return True

    def reindex(self, record: Record, position: Position) -> None:
        move = Move(position.segment, record.stream_id, record.base_offset, position)
        self._line.put(dialogue.said_moved([move]))
