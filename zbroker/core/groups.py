"""A group's account of a stream: which messages are settled, lent, waiting. No session, no message, no journal here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from typing import Final

from patterns.wire.configs import GroupConfig
from patterns.wire.settled import Range, Settled, merged
from zbroker.core.column import Block
from zbroker.core.delays import Delays
from zbroker.core.dirty import Dirty
from zbroker.core.doomed import Doomed, Taken, Verdict
from zbroker.core.heap import PackedHeap
from zbroker.core.leases import Lease, Leases, Piece
from zbroker.core.recovered import Recovered

_WOKEN_MAX: Final = 1_024  # pieces whose time has come, in one go: a million may be due at the same instant


class Group:
    """The state of one group of a stream.

    A message that the stream has on disk is in exactly one place: settled, lent by a lease, waiting (ready or
    delayed), or not below `cursor` yet. Counting each place by itself makes the account in `balance` a check.

    Attributes:
        start: the offset from which the account counts.
        cursor: everything below it was delivered once, or is settled.
        dirty: for the journal.
        passed: messages that were sent back for another group; they are not of this account.
        holders: what members hold, of those that hold anything.
        woken_at: for who wakes it: when that is to happen next.
        overdue: messages whose time has come stay where they are until those have left whose time had come before.
        config: what it was told to be.
        is_paused: nothing is lent until somebody resumes it.
        doomed: what waits to become a dead letter.

    Args:
        dooming: groups that have such messages; whoever moves them looks there.
    """

    def __init__(
        self,
        id: int,
        stream_id: int,
        name: str,
        start: int,
        config: GroupConfig | None = None,
        dooming: dict[Group, None] | None = None,
    ) -> None:
        self.id = id
        self.config = config or GroupConfig("", name)
        self.is_paused = False
        self.stream_id = stream_id
        self.name = name
        self.start = start
        self.cursor = start
        self.settled = Settled(start)
        self.acked = self.dead = self.expired = self.lost = self.passed = 0
        self.leased = self.waiting = self.redelivered = self.leases_lost = 0
        self.dirty = Dirty()
        self.doomed = Doomed()
        self._dooming = {} if dooming is None else dooming
        self.holders: dict[Leases, None] = {}
        self.woken_at: int | None = None
        self.overdue = False
        self._sweep = 0  # whose time has come by then is ready, and leaves in order of offset
        self._returned = PackedHeap()  # pieces that nobody has begun with: given back before, or delayed until now
        self._ready = PackedHeap()  # the others that wait
        self._delays = Delays()
        self._ahead = 0  # settled above the cursor
        self._fresh_next = False
        self._before = Recovered(start)  # what was delivered before a restart and is not settled waits where it is
        self.recovered = False  # it is held until members had time to come back

    @property
    def lease_us(self) -> int:
        """How long a lease lasts without progress of its member."""
        return int(self.config.lease_s * 1_000_000)

    @property
    def is_full(self) -> bool:
        """Whether so much is lent and waits that it is given nothing new."""
        return self.leased + self.waiting >= self.config.unsettled_max

    @property
    def delayed(self) -> int:
        """How many messages wait for their time."""
        return min(self._delays.messages, self.waiting)  # some of them may have expired

    # -- what is to be delivered ----------------------------------------------------------------------------------

    def next_piece(self, durable_next: int, *, begun: bool = True) -> Piece | None:
        """What should be delivered next; it stays where it is until lend(). Without `begun`, of what no attempt was counted for.

        What nobody began with comes first, so that a group keeps the order while its members change, and what was
        delayed is not kept longer than it was to be. Then messages
        that were begun with and new ones take turns, so that one that fails for ever does not stop the rest.
        """
        if self._returned:
            return Piece._make(self._returned.first)
        fresh = self._fresh(durable_next)
        waiting = self._first_waiting() if begun else None
        return fresh if waiting is None or (self._fresh_next and fresh) else waiting

    def _first_waiting(self) -> Piece | None:
        again = self._before.next
        if not self._ready:
            return again
        ready = Piece._make(self._ready.first)
        return ready if again is None or ready < again else again

    def _fresh(self, durable_next: int) -> Piece | None:
        if self.is_full:
            return None
        if self._ahead:
            self._pass_settled(durable_next)
        if self.cursor >= durable_next:
            return None
        if not self._ahead:
            return Piece(self.cursor, durable_next - 1, 0)
        first, last = next(self.settled.missing(self.cursor, durable_next - 1))
        return Piece(first, last, 0)

    def _pass_settled(self, durable_next: int) -> None:
        following = next(self.settled.missing(self.cursor, durable_next - 1), None)
        cursor = durable_next if following is None else following[0]
        if cursor > self.cursor:
            self._ahead -= self.settled.count(self.cursor, cursor - 1)
            self.cursor = cursor

    def lend(self, id: int, piece: Piece, last: int, until: int) -> Lease:
        """Lend the piece that next_piece() named, up to `last`."""
        is_fresh = piece.first >= self.cursor
        self._take(piece, last)
        lease = Lease(id, self, Piece(piece.first, last, piece.tries), until)
        self.leased += lease.count
        self.redelivered += lease.count if piece.tries else 0
        if not is_fresh:
            self.dirty.tried(Piece(piece.first, last, lease.attempt))
        return lease

    def postpone(self, first: int, last: int, now: int, delay: int, left: int) -> None:
        """What next_piece() named, which is new, is not to be delivered yet.

        Args:
            delay: how long its sender wants it to wait, in ms.
            left: how much of that is left; more than none.
        """
        self.cursor = last + 1
        self.dirty.delivered = True
        self.waiting += last + 1 - first
        self._delay(Piece(first, last, 0), now, delay, left)

    def _take(self, piece: Piece, last: int) -> None:
        """Remove the beginning of the next piece from its place."""
        if piece.first >= self.cursor:
            self.cursor = last + 1
            self.dirty.delivered = True
            self._fresh_next = False
            return
        rest = Piece(last + 1, piece.last, piece.tries) if last < piece.last else None
        if piece == self._before.next:
            self._before.take_next(rest)
        else:
            heap = self._ready if piece.tries else self._returned
            heap.pop()
            if rest is not None:
                heap.push(rest)
        self.waiting -= last + 1 - piece.first
        self._fresh_next = piece.tries > 0

    def drop(self, piece: Piece, last: int, what: str) -> None:
        """The beginning of the next piece, up to `last`, is not to be had: `lost`, `expired` before this group asked for it, or `passed`."""
        self._take(piece, last)
        new = self.settled.add(piece.first, last)
        self.lost += new if what == "lost" else 0
        self.expired += new if what == "expired" else 0
        self.passed += new if what == "passed" else 0
        getattr(self.dirty, what).append((piece.first, last))

    # -- what becomes of it ---------------------------------------------------------------------------------------

    def settle(
        self,
        lease: Lease,
        ranges: list[Range],
        action: str,
        now: int = 0,
        delay: int = 0,
        verdict: Verdict | None = None,
    ) -> int:
        """Apply ack, nack, reject, release or expire; returns how many messages of the ranges the lease held.

        Args:
            delay: for nack, after how many ms they may be delivered again; 0: as the group says.
            verdict: for reject, where it leads to a dead letter.
        """
        taken, count = lease.take(ranges)
        self.leased -= count
        if action == "ack":
            for first, last in taken:
                self.acked += self.settled.add(first, last)
            self.dirty.acked += taken
        elif action == "reject" and not self.config.dead_letter:
            for first, last in taken:
                self.dead += self.settled.add(first, last)
            self.dirty.dead += taken
        else:
            self.waiting += count
            self.leases_lost += action == "expire" and count > 0
            tries = lease.attempt - 1 if action == "release" else lease.attempt
            for first, last in taken:
                piece = Piece(first, last, tries)
                if action == "reject":
                    self._doom(piece, verdict)
                else:
                    self._come_back(piece, action, now, delay)
        return count

    def _doom(self, piece: Piece, verdict: Verdict | None = None) -> None:
        self.doomed.add(piece, verdict)
        self._dooming[self] = None

    def _come_back(self, piece: Piece, action: str, now: int, delay: int) -> None:
        if action == "release":
            self.dirty.tried(piece)
        elif not self._is_over(piece) and (delay := delay or self._backoff(piece.tries)):
            self._delay(piece, now, delay, delay)
            return
        self._put_back(piece)

    def _backoff(self, tries: int) -> int:
        """How long a message waits that has failed so often; ms."""
        steps = self.config.backoff_s
        return int(steps[min(tries, len(steps)) - 1] * 1_000) if steps else 0

    def _is_over(self, piece: Piece) -> bool:
        return 0 < self.config.max_deliveries <= piece.tries

    def _delay(self, piece: Piece, now: int, delay: int, left: int) -> None:
        due = -(-now // 1_000) + left
        self._delays.add(piece, due, delay)
        self.dirty.waits.append((*piece, due, delay))

    def _put_back(self, piece: Piece) -> None:
        if self._is_over(piece):
            self._doom(piece)
        else:
            (self._ready if piece.tries else self._returned).push(piece)

    def bury(self, last: int, what: str = "moved") -> Taken:
        """The first of the doomed, up to `last`, are dead letters now; or `dead` without one, `lost` or `expired`.

        Of those that are moved the record that moves them tells the journal.
        """
        taken = self.doomed.take(last)
        self.waiting -= taken.last - taken.first + 1
        new = self.settled.add(taken.first, taken.last)
        self.dead += new if what in ("moved", "dead") else 0
        self.lost += new if what == "lost" else 0
        self.expired += new if what == "expired" else 0
        if what != "moved":
            getattr(self.dirty, what).append((taken.first, taken.last))
        return taken

    def settle_ahead(self, first: int, last: int, what: str) -> None:
        """Nobody was lent these yet, and the group is done with them: `lost`, `expired`, or `redriven`.

        Of those that are redriven the record that sends them back tells the journal.
        """
        assert first >= self.cursor, f"offset {first} below the cursor {self.cursor}"
        new = self.settled.add(first, last)
        self._ahead += new
        self.acked += new if what == "redriven" else 0
        self.lost += new if what == "lost" else 0
        self.expired += new if what == "expired" else 0
        if what != "redriven":
            getattr(self.dirty, what).append((first, last))

    def expire_below(self, below: int) -> list[Verdict]:
        """It is owed nothing below this offset any more: what was not settled of it is expired, wherever it is.

        Returns:
            Verdicts of which nothing is left to be moved.
        """
        if below <= self.settled.floor:
            return []
        verdicts = self._expire_doomed(below)
        self._expire_lent(below)
        for heap in (self._returned, self._ready):
            while heap and heap.first[0] < below:
                _, last, tries = heap.pop()
                if last >= below:
                    heap.push((below, last, tries))
        if below > self.cursor:
            self._ahead -= self.settled.count(self.cursor, below - 1)
            self.cursor = below
        gaps = list(self.settled.missing(self.start, below - 1))
        self.expired += sum(self.settled.add(first, last) for first, last in gaps)
        self.dirty.expired += gaps
        self._before.pass_over(self.settled.floor)
        settled = self.settled.count(self.start, self.cursor - 1)
        self.waiting = max(0, self.cursor - self.start) - settled - self.leased  # what is delayed stays where it is
        return verdicts

    def _expire_doomed(self, below: int) -> list[Verdict]:
        verdicts = []
        while self.doomed and self.doomed.first.first < below:
            verdict = self.bury(below - 1, "expired").verdict
            verdicts += [] if verdict is None else [verdict]
        return verdicts

    def _expire_lent(self, below: int) -> None:
        for leases in list(self.holders):
            for lease in leases:
                if lease.first < below:
                    self.leased -= lease.take([(lease.first, below - 1)])[1]
                    leases.keep(lease)

    def spare(self) -> None:
        """The first of the doomed, which were delivered often enough, are to be offered again: there is no dead-letter stream."""
        taken = self.doomed.take(self.doomed.first.last)
        self._ready.push(Piece(taken.first, taken.last, taken.tries))

    def next_due(self) -> int | None:
        """When wake() has something to do; microseconds."""
        due = self._delays.next_due
        return None if due is None or (self.overdue and self._returned) else due * 1_000

    def wake(self, now: int) -> bool:
        """Delayed messages whose time has come get ready, the first of them; whether there were any.

        In sweeps: those of one sweep leave in order of offset, for neighbours lie in one batch, and whose time comes meanwhile
        is of the next one. Else a member that is slower than they come would take low offsets for ever, and high ones never.
        """
        if not self._returned:
            self._sweep = now
        until = min(now, self._sweep) // 1_000
        woken = 0
        while woken < _WOKEN_MAX and (due := self._delays.next_due) is not None and due <= until:
            piece = self._delays.pop()
            for first, last in self.settled.missing(piece.first, piece.last):  # else it has expired meanwhile
                self._put_back(Piece(first, last, piece.tries))
            woken += 1
        due = self._delays.next_due
        self.overdue = due is not None and until < due <= now // 1_000
        return woken > 0

    def reclaim(self, ranges: list[Range]) -> int:
        """Ack what was delivered once before a restart, and is held for its member; how many messages that was.

        What was delivered more than once is left out: who names it may hold the older of its leases.
        """
        if not self.recovered:
            return 0
        asked = merged(ranges) or [(self.start, self.cursor - 1)]
        taken = [piece for first, last in asked for piece in self._before.pieces(first, last) if piece.tries == 1]
        count = sum(self.settled.add(piece.first, piece.last) for piece in taken)
        self.dirty.acked += [(piece.first, piece.last) for piece in taken]
        self.acked += count
        self.waiting -= count
        return count

    def release_recovered(self) -> None:
        """The time in which members may claim what they had before a restart is over."""
        self.recovered = False
        most = self.config.max_deliveries  # as it is now, for both: it may be changed before all was taken
        if most:
            for piece in self._before.pieces(self.start, self.cursor - 1):
                if piece.tries >= most:  # now: nobody may come who asks for what lies before
                    self._doom(piece)
        self._before.release(lambda piece: not 0 < most <= piece.tries)

    def lose(self, first: int, last: int) -> None:
        """Damage took these offsets, found while recovering: nothing is lent or waiting yet."""
        new = self.settled.add(max(first, self.start), last)
        self.lost += new

    # -- recovery -------------------------------------------------------------------------------------------------

    def recover(self, what: str, value: list[list[int]] | int) -> None:
        """Apply an operation from the journal; twice is as good as once."""
        if isinstance(value, int):
            self.cursor = max(self.cursor, value)
            return
        if what in ("attempts", "delayed"):
            for item in value:
                (self._before.tried if what == "attempts" else self._before.delayed)(*item)
            return
        new = self.settled.add_all(value)
        if what not in ("lost", "expired", "passed", "redriven"):
            self.cursor = max(self.cursor, max(map(itemgetter(1), value), default=-1) + 1)
        self.acked += new if what in ("acked", "redriven") else 0
        self.dead += new if what == "dead" else 0
        self.lost += new if what == "lost" else 0
        self.expired += new if what == "expired" else 0
        self.passed += new if what == "passed" else 0

    def opened(self, next_offset: int, now: int = 0, ahead: int = 0) -> None:
        """What was delivered and is not settled waits to be delivered again, counting the attempts before the stop.

        Args:
            ahead: how far the clock of what is told is ahead of the engine's, in ms.
        """
        self.cursor = max(self.cursor, self.settled.floor)
        self.waiting = max(0, self.cursor - self.start) - self.settled.count(self.start, self.cursor - 1)
        self._ahead = self.settled.count(self.cursor, max(next_offset, self.cursor) - 1)
        self._before.open(self.settled, self.cursor)
        self._sweep = now
        elsewhere = 0
        soonest = now // 1_000
        for first, last, due, delay, tries in self._before.take_delayed():
            due = min(max(due - ahead, soonest), soonest + delay)  # whatever the clock says by now
            self._delays.add(Piece(first, last, tries), due, delay)
            elsewhere += last + 1 - first
        for piece in self._before.take_unbegun():
            self._returned.push(piece)
            elsewhere += piece.last + 1 - piece.first
        self.recovered = self.waiting > elsewhere

    def attempts(self) -> Iterator[Piece]:
        """What waits or is lent and was not delivered once, but for what is delayed; as recover() takes it, in order.

        Of this moment, though it may be told later; some of it may be settled, or delivered more often.
        """
        waiting = [self._returned.rows(), self._ready.rows(2), self.doomed.attempts(2)]
        held = [leases.retried() for leases in self.holders]
        return chain(self._before.attempts(), map(Piece._make, chain(*waiting)), *held)

    def delays(self, ahead: int) -> Iterator[list[Block]]:
        """What is delayed, of this moment; see Delays.blocks()."""
        return self._delays.blocks(ahead)

    # -- the account ----------------------------------------------------------------------------------------------

    def pending(self, durable_next: int) -> int:
        """Messages on disk that are not settled, counted where they are."""
        return self.leased + self.waiting + max(0, durable_next - self.cursor - self._ahead)

    def accepted(self, durable_next: int) -> int:
        """Messages on disk since its start; what was sent back for another group as long as it has not come to it."""
        return max(0, durable_next - self.start) - self.passed

    def balance(self, durable_next: int) -> bool:
        """Whether accepted = acked + dead + expired + lost + pending."""
        return self.accepted(durable_next) == self.acked + self.dead + self.expired + self.lost + self.pending(
            durable_next
        )
