"""What a broker's engine wants, carried out: sends, one commit a turn, reads; and what to do when the disk is full or fails.

A read is asked for and answered in a later turn, so that no confirm waits for it: reads.py.

No socket, no clock, no signal: the loop runs it over libzmq and a real disk, tests/simulation over virtual ones, so what is
simulated is what is run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from patterns.io.journal import DistantJournal, Journal
from patterns.wire.engine import PeerId, Send
from patterns.wire.frames import Frames
from patterns.wire.records import Record
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import MOVED, SESSIONS, Append, Checkpoint, CheckpointEnd, Effect, Forget, Moved, Read
from zbroker.processes.reads import Reads
from zbroker.store.faults import JournalError, JournalFull, RecordDamaged, RecordMoved, RecordUnreadable

STALL_US: Final = 1_000_000  # after a longer one, what waits in the sockets comes before what expired meanwhile
CROWD: Final = 16  # effects at once; in fewer, to look for what several peers are sent costs more than their copies
_PASSES_MAX: Final = 8  # effects may cause effects; what is left then goes on in the next turn


def has_stalled(due: int, now: int) -> bool:
    """Whether what was due is late by more than our own pace explains. 0 is no instant: it says at once."""
    return due > 0 and now - due > STALL_US


class Carrier:
    """Between an engine and what it acts on.

    Args:
        engine: decides.
        journal: open; None without streams.
        send: takes a message for a routing id; anything but None says that it cannot be reached.
        other: takes the effects that concern neither sessions nor the journal.
        share: told of the frames of many sends at once, before the first; many may be the same objects.
        reads: serves Read effects; None without streams.

    Attributes:
        has_appended: something waits for a commit.
        is_failed: the journal is, for good.
    """

    def __init__(
        self,
        engine: BrokerEngine,
        journal: Journal | None,
        send: Callable[[PeerId, Frames], object | None],
        other: Callable[[Effect], None],
        share: Callable[[list[Frames]], object] | None = None,
        reads: Reads | None = None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._send = send
        self._other = other
        self._share = share
        self._turned_at = 0
        self._reads = reads
        self.has_appended = False
        self.is_failed = False
        self._appended_index = 0
        self._handed_index = 0  # the last record that a commit has handed over
        self._is_full = False
        self._trouble = ""
        self._held: deque[Record] = deque()  # taken by the engine, but the journal has no room; in order of index
        self._rotten = 0  # records that were read and are damaged
        self._unread: list[Read] = []  # asked again once a second: no file could be opened

    # -- effects -------------------------------------------------------------------------------------------------

    def carry_out(self, now: int) -> None:
        """What the engine wants, until it wants nothing more: sends first, then one commit for all that was appended."""
        engine = self._engine
        self._turned_at = now
        has_committed = has_heard = False
        for _ in range(_PASSES_MAX):
            engine.turn(now)
            effects = engine.effects()
            has_news = bool(effects) and self.do(effects, now)
            if self.has_appended and not has_committed:
                has_committed = True
                has_news = self._commit(now) or has_news
            if self._reads is not None and not has_heard and self._reads.is_answered:  # confirms go first
                has_heard = has_news = True
                self._hear_reads(self._reads, now)
            if not has_news:
                break
        if self._journal is not None and not self.is_failed:
            self._tidy(self._journal, now)

    def do(self, effects: list[Effect], now: int) -> bool:
        """Carry them out, in order; returns whether the engine learned anything by it."""
        send = self._send
        unreachable: dict[PeerId, None] = {}
        has_news = False
        if len(effects) >= CROWD and self._share is not None:
            self._share([effect.frames for effect in effects if type(effect) is Send])
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                if send(effect.peer, effect.frames) is not None:  # type: ignore[union-attr]
                    unreachable[effect.peer] = None  # type: ignore[union-attr]
            elif isinstance(effect, Append):
                has_news = self._append(effect.record) or has_news
            elif isinstance(effect, Read):
                assert self._reads is not None
                self._reads.ask(effect)
            elif isinstance(effect, Checkpoint | CheckpointEnd | Forget):
                self._hand_on(effect)
            else:
                self._other(effect)
        for peer in unreachable:
            self._engine.disconnected(SESSIONS, peer, now)
        return has_news or bool(unreachable)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When expire() is due: the engine's earliest instant, or the journal's; 0 for at once."""
        due = self._engine.next_timeout()
        if self._journal is not None:
            for own in (self._journal.next_timeout(), self._journal.tidy_at):
                if own is not None and (due is None or own < due):
                    due = own
        return due

    def expire(self, due: int, now: int, hear: Callable[[], int]) -> int:
        """Everybody's timers, `due` by now. Returns the instant by which they were judged.

        Args:
            hear: takes in all that waits in the sockets and returns the time afterwards. Called first after a stall:
                what peers sent meanwhile is heard before their time is held to be over.
        """
        if has_stalled(due or self._turned_at, now):  # what is due at once was due when the last turn had ended
            now = hear()
        self._engine.handle_timeout(now)
        if self._journal is not None:
            self._look_after(self._journal, now)
        return now

    def _look_after(self, journal: Journal, now: int) -> None:
        due = journal.next_timeout()
        if self.is_failed or due is None or due > now:
            return
        before = journal.durable_index
        try:
            journal.handle_timeout(now)
        except JournalError as error:
            self.fail(error)
            return
        if journal.durable_index > before:  # it found room for what waited for it
            self._engine.persisted(journal.durable_index, now)
        self._append_held(journal)
        if journal.checkpoint_due and not self._held:
            self._begin_checkpoint(journal)

    # -- journal -------------------------------------------------------------------------------------------------

    def _append(self, record: Record) -> bool:
        """Give a record to the journal; without room it is held, and what comes after it too: indexes have no gap.

        Returns:
            Whether the engine learned anything by it.
        """
        if self.is_failed:
            return False
        assert self._journal is not None
        if self._held:
            self._held.append(record)
            return False
        try:
            position = self._journal.append(record)
        except JournalFull:
            self._held.append(record)  # nothing was taken, nothing was confirmed: it waits for room
            self.has_appended = True  # so that the commit looks whether the room is there, and producers hear of it
            return False
        except JournalError as error:
            self.fail(error)
            return True
        self.has_appended = True
        self._appended_index = record.index
        if position is None:
            return False
        self._engine.placed(record.index, position)
        return True

    def _append_held(self, journal: Journal) -> None:
        """The journal may have room again; tell whether it has."""
        if self._held and not journal.full:
            held, self._held = self._held, deque()
            for record in held:
                self._append(record)
        if journal.full is not self._is_full:
            self._is_full = journal.full
            self._engine.storage(full=self._is_full, failed=False)

    @property
    def awaited_index(self) -> int:
        """The last record that the journal took and has not made durable; 0: none."""
        if self.is_failed or self._journal is None or self._appended_index <= self._journal.durable_index:
            return 0
        return self._appended_index

    def hear(self, journal: DistantJournal, now: int) -> None:
        """A journal in another process has something to say, or takes more."""
        if self.is_failed:
            return
        try:
            placed = journal.hear(now)
        except JournalError as error:
            self._tell_trouble("")
            self.fail(error)
            return
        for index, position in placed:
            self._engine.placed(index, position)
        if placed:
            self._engine.persisted(journal.durable_index, now)
            self.do(self._engine.effects(), now)  # confirms leave before anything else is seen to
        self._tidy(journal, now)  # before a checkpoint begins, whose indexes must know of all moves
        self._tell_trouble(journal.trouble)
        self._append_held(journal)
        if journal.checkpoint_due:
            self._begin_checkpoint(journal)

    def _tell_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._engine.warn("sidecar", trouble)

    def commit_early(self, now: int) -> None:
        """Hand what was appended to a journal in another process, if that has nothing else to do: it begins while the turn goes on.

        If it is busy, what the turn appends after this is one commit with it.
        """
        if self.has_appended and self._journal is not None and self._journal.durable_index >= self._handed_index:
            self._commit(now)

    def _commit(self, now: int) -> bool:
        """One sync for everything appended in this turn; returns whether the engine learned anything by it."""
        assert self._journal is not None
        self.has_appended = False
        self._handed_index = self._appended_index
        before, was_full = self._journal.durable_index, self._is_full
        try:
            durable = self._journal.commit(now)
        except JournalError as error:
            self.fail(error)
            return True
        if durable > before:
            self._engine.persisted(durable, now)
        self._append_held(self._journal)
        if self._journal.checkpoint_due and not self._held:
            self._begin_checkpoint(self._journal)
        return durable > before or was_full is not self._is_full

    def _begin_checkpoint(self, journal: Journal) -> None:
        try:
            self._engine.begin_checkpoint(*journal.begin_checkpoint())
        except JournalError as error:
            self.fail(error)

    def _hand_on(self, effect: Checkpoint | CheckpointEnd | Forget) -> None:
        """What the journal only takes note of; a piece of a checkpoint goes into the page cache, with a sync now and then."""
        assert self._journal is not None
        try:
            if isinstance(effect, Checkpoint):
                self._journal.put_checkpoint(effect.chunk, effect.segment)
            elif isinstance(effect, Forget):
                self._journal.forget(effect.ranges)
            else:
                self._journal.end_checkpoint(effect.last_index)
        except JournalError as error:
            self.fail(error)

    def _tidy(self, journal: Journal, now: int) -> None:
        """A piece of what can wait, behind everything else of the turn."""
        due = journal.tidy_at
        if due is None or due > now:
            return
        try:
            moves = journal.tidy(now)
        except JournalError as error:
            self.fail(error)
            return
        if moves:
            self._engine.moved(moves)

    # -- reads ---------------------------------------------------------------------------------------------------

    def _hear_reads(self, reads: Reads, now: int) -> None:
        for read, found in reads.answers():
            unreadable = next((error for error in found if isinstance(error, RecordUnreadable)), None)
            if unreadable is not None:
                self._engine.warn("unreadable", str(unreadable))
                self._unread.append(read)
                continue
            self._tell_rot([error for error in found if isinstance(error, RecordDamaged)])
            self._engine.loaded(read.token, [_record(outcome) for outcome in found], now)

    def _tell_rot(self, damaged: list[RecordDamaged]) -> None:
        """An open that began at a checkpoint has not read what lies before it: this is the first to see it."""
        if damaged:
            self._rotten += len(damaged)
            text = f"records that were read and are not whole any more: {self._rotten}; {damaged[-1]}"
            self._engine.warn("rot", text)

    def read_again(self) -> None:
        """Try again what no file could be opened for; a second later there may be one."""
        if not self._unread:
            return
        assert self._reads is not None
        unread, self._unread = self._unread, []
        self._engine.warn("unreadable", "")
        for read in unread:
            self._reads.ask(read)

    def fail(self, error: JournalError) -> None:
        """What is on the disk is not known any more: go on with what needs none, and stay visible."""
        self.is_failed = True
        self.has_appended = False
        self._held.clear()
        self._engine.storage(full=self._is_full, failed=True)
        self._engine.warn("journal", str(error))


def _record(outcome: Record | Exception) -> Record | Moved | None:
    """As the engine hears it; it tells those whom damage concerns."""
    if isinstance(outcome, Record):
        return outcome
    return MOVED if isinstance(outcome, RecordMoved) else None
