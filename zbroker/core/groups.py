"""A group's account of a stream: which messages are settled, lent, waiting. No session, no message, no journal here."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter
from typing import Final

from patterns.wire.configs import GroupConfig
from patterns.wire.settled import Range, Settled, merged
from zbroker.core.doomed import Doomed, Taken, Verdict
from zbroker.core.heap import PackedHeap
from zbroker.core.leases import Lease, Leases, Piece

UNSETTLED_MAX: Final = 1_000_000  # lent and waiting together; beyond it a group gets nothing new until some are settled
_TRIES: Final = 64  # offsets in one array of attempts: what is delivered again comes alone, or with many beside it
_TRIES_MAX: Final = 2**32 - 1  # as such an array has it
_ONCE: Final = [1] * _TRIES


class Dirty:
    """What the journal does not know of a group yet: absolute operations in the making."""

    __slots__ = ("acked", "attempts", "dead", "delivered", "expired", "lost")

    def __init__(self) -> None:
        self.acked: list[Range] = []
        self.dead: list[Range] = []
        self.lost: list[Range] = []
        self.expired: list[Range] = []
        self.attempts: list[Piece] = []
        self.delivered = False

    @property
    def settles(self) -> bool:
        """Whether something is in it that should not wait."""
        return bool(self.acked or self.dead or self.lost or self.expired)


class Group:
    """The state of one group of a stream.

    A message that the stream has on disk is in exactly one place: settled, lent by a lease, waiting (ready or
    delayed), or not below `cursor` yet. Counting each place by itself makes the account in `balance` a check.

    Attributes:
        start: the offset from which the account counts.
        cursor: everything below it was delivered once, or is settled.
        dirty: for the journal.
        holders: what members hold, of those that hold anything.
        woken_at: for who wakes it: when that is to happen next.
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
        self.acked = self.dead = self.expired = self.lost = 0
        self.leased = self.waiting = self.redelivered = self.leases_lost = 0
        self.dirty = Dirty()
        self.doomed = Doomed()
        self._dooming = {} if dooming is None else dooming
        self.holders: dict[Leases, None] = {}
        self.woken_at: int | None = None
        self._returned = PackedHeap()  # pieces that were lent and given back before anybody began with them
        self._ready = PackedHeap()  # the others that wait
        self._delayed = PackedHeap()  # when it is due, and a piece
        self._ahead = 0  # settled above the cursor
        self._fresh_next = False
        # What was delivered before a restart and is not settled waits where it is, between these offsets.
        self._again_from = self._again_end = start
        self._again: Iterator[Piece] = iter(())
        self._again_next: Piece | None = None
        self.recovered = False  # they are held until members had time to come back
        self._tries: dict[int, array[int]] = {}  # of these, what the journal says beyond "once": _TRIES offsets in each

    @property
    def lease_us(self) -> int:
        """How long a lease lasts without progress of its member."""
        return int(self.config.lease_s * 1_000_000)

    # -- what is to be delivered ----------------------------------------------------------------------------------

    def next_piece(self, durable_next: int, *, begun: bool = True) -> Piece | None:
        """What should be delivered next; it stays where it is until lend(). Without `begun`, of what no attempt was counted for.

        What nobody began with comes first, so that a group keeps the order while its members change. Then messages
        that were begun with and new ones take turns, so that one that fails for ever does not stop the rest.
        """
        if self._returned:
            return Piece._make(self._returned.first)
        fresh = self._fresh(durable_next)
        waiting = self._first_waiting() if begun else None
        return fresh if waiting is None or (self._fresh_next and fresh) else waiting

    def _first_waiting(self) -> Piece | None:
        again = self._again_next
        if not self._ready:
            return again
        ready = Piece._make(self._ready.first)
        return ready if again is None or ready < again else again

    def _fresh(self, durable_next: int) -> Piece | None:
        if self.leased + self.waiting >= UNSETTLED_MAX:
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
        self._take(piece, last)
        taken = Piece(piece.first, last, piece.tries)
        lease = Lease(id, self, taken, until)
        self.leased += lease.count
        if piece.tries:
            self.redelivered += lease.count
            self.dirty.attempts.append(Piece(taken.first, last, lease.attempt))
        return lease

    def _take(self, piece: Piece, last: int) -> None:
        """Remove the beginning of the next piece from its place."""
        if piece.first >= self.cursor:
            self.cursor = last + 1
            self.dirty.delivered = True
            self._fresh_next = False
            return
        rest = Piece(last + 1, piece.last, piece.tries) if last < piece.last else None
        if piece == self._again_next:
            self._again_next = rest or self._next_again()
        else:
            heap = self._ready if piece.tries else self._returned
            heap.pop()
            if rest is not None:
                heap.push(rest)
        self.waiting -= last + 1 - piece.first
        self._fresh_next = piece.tries > 0

    def drop_lost(self, piece: Piece, last: int) -> None:
        """The beginning of the next piece, up to `last`, turned out to be damaged."""
        self._take(piece, last)
        self.lost += self.settled.add(piece.first, last)
        self.dirty.lost.append((piece.first, last))

    def drop_expired(self, piece: Piece, last: int) -> None:
        """The beginning of the next piece, up to `last`, was given up before this group asked for it."""
        self._take(piece, last)
        self.expired += self.settled.add(piece.first, last)
        self.dirty.expired.append((piece.first, last))

    # -- what becomes of it ---------------------------------------------------------------------------------------

    def settle(
        self, lease: Lease, ranges: list[Range], action: str, due: int | None = None, verdict: Verdict | None = None
    ) -> int:
        """Apply ack, nack, reject, release or expire; returns how many messages of the ranges the lease held.

        Args:
            due: for nack, when they may be delivered again; None for at once.
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
            tries = lease.attempt - 1 if action == "release" else lease.attempt
            self.leases_lost += action == "expire" and count > 0
            for first, last in taken:
                if action == "reject":
                    self._doom(Piece(first, last, tries), verdict)
                else:
                    self._put_back(Piece(first, last, tries), due)
        return count

    def _doom(self, piece: Piece, verdict: Verdict | None = None) -> None:
        self.doomed.add(piece, verdict)
        self._dooming[self] = None

    def _put_back(self, piece: Piece, due: int | None) -> None:
        if 0 < self.config.max_deliveries <= piece.tries:
            self._doom(piece)
        elif due is None:
            (self._ready if piece.tries else self._returned).push(piece)
        else:
            self._delayed.push((due, *piece))

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

    def spare(self) -> None:
        """The first of the doomed, which were delivered often enough, are to be offered again: there is no dead-letter stream."""
        taken = self.doomed.take(self.doomed.first.last)
        self._ready.push(Piece(taken.first, taken.last, taken.tries))

    def next_due(self) -> int | None:
        """When the next delayed message may be delivered."""
        return self._delayed.first[0] if self._delayed else None

    def wake(self, now: int) -> bool:
        """Delayed messages whose time has come get ready; whether there were any."""
        woken = False
        while self._delayed and self._delayed.first[0] <= now:
            self._ready.push(Piece._make(self._delayed.pop()[1:]))
            woken = True
        return woken

    def reclaim(self, ranges: list[Range]) -> int:
        """Ack what was delivered once before a restart, and is held for its member; how many messages that was.

        What was delivered more than once is left out: who names it may hold the older of its leases.
        """
        if not self.recovered:
            return 0
        asked = merged(ranges) or [(self._again_from, self._again_end - 1)]
        taken = [piece for first, last in asked for piece in self._delivered_before(first, last) if piece.tries == 1]
        count = sum(self.settled.add(piece.first, piece.last) for piece in taken)
        self.dirty.acked += [(piece.first, piece.last) for piece in taken]
        self.acked += count
        self.waiting -= count
        return count

    def release_recovered(self) -> None:
        """The time in which members may claim what they had before a restart is over."""
        self.recovered = False
        self._again = self._spared(self._again_from, self._again_end - 1)
        self._again_next = self._next_again()

    def _spared(self, first: int, last: int) -> Iterator[Piece]:
        """What of it may be delivered again; the rest is doomed at once, for nobody may come who asks for what lies before."""
        most = self.config.max_deliveries
        if not most:
            return self._delivered_before(first, last)
        for piece in self._delivered_before(first, last):
            if piece.tries >= most:
                self._doom(piece)
        return (piece for piece in self._delivered_before(first, last) if piece.tries < most)

    def _next_again(self) -> Piece | None:
        following = next(self._again, None)
        if following is None:
            self._tries.clear()
            self._again_from = self._again_end
        else:
            self._again_from = following.first
        return following

    def _delivered_before(self, first: int, last: int) -> Iterator[Piece]:
        """What of these offsets was delivered before the restart and is not settled, in order.

        Once released, nothing of it is settled before it is taken from here.
        """
        first, last = max(first, self._again_from), min(last, self._again_end - 1)
        for begin, end in self.settled.missing(first, last):
            if not self._tries:
                yield Piece(begin, end, 1)
                continue
            tries, at = self._tries_of(begin), begin
            while at <= end:
                if self._tries_of(at) != tries:
                    yield Piece(begin, at - 1, tries)
                    begin, tries = at, self._tries_of(at)
                at += 1 if at // _TRIES in self._tries else _TRIES - at % _TRIES
            yield Piece(begin, end, tries)

    def _tries_of(self, offset: int) -> int:
        known = self._tries.get(offset // _TRIES)
        return known[offset % _TRIES] if known is not None else 1

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
        if what == "attempts":
            for item in value:
                self._recover_tries(*item)
            return
        new = self.settled.add_all(value)
        if what not in ("lost", "expired", "redriven"):
            self.cursor = max(self.cursor, max(map(itemgetter(1), value), default=-1) + 1)
        self.acked += new if what in ("acked", "redriven") else 0
        self.dead += new if what == "dead" else 0
        self.lost += new if what == "lost" else 0
        self.expired += new if what == "expired" else 0

    def _recover_tries(self, first: int, last: int, tries: int) -> None:
        for offset in range(first, last + 1):
            known = self._tries.get(offset // _TRIES)
            if known is None:
                known = self._tries[offset // _TRIES] = array("I", _ONCE)
            known[offset % _TRIES] = max(min(tries, _TRIES_MAX), known[offset % _TRIES])

    def opened(self, next_offset: int) -> None:
        """What was delivered and is not settled waits to be delivered again, counting the attempts before the stop."""
        self.cursor = max(self.cursor, self.settled.floor)
        self.waiting = max(0, self.cursor - self.start) - self.settled.count(self.start, self.cursor - 1)
        self._again_from, self._again_end = self.settled.floor, self.cursor
        self.recovered = self.waiting > 0
        self._ahead = self.settled.count(self.cursor, max(next_offset, self.cursor) - 1)

    def attempts(self) -> Iterator[Piece]:
        """What was delivered more than once and is not settled, wherever it is now; as recover() takes it.

        Of this moment, though it may be told later; some of it may be settled, or delivered more often.
        """
        waiting = [self._ready.rows(2), (row[1:] for row in self._delayed.rows(2)), self.doomed.attempts(2)]
        before = [(number, known) for number, known in self._tries.items() if number >= self._again_from // _TRIES]
        held = [leases.retried() for leases in self.holders]
        return chain(_told(before), map(Piece._make, chain(*waiting)), *held)

    # -- the account ----------------------------------------------------------------------------------------------

    def pending(self, durable_next: int) -> int:
        """Messages on disk that are not settled, counted where they are."""
        return self.leased + self.waiting + max(0, durable_next - self.cursor - self._ahead)

    def balance(self, durable_next: int) -> bool:
        """Whether accepted = acked + dead + expired + lost + pending."""
        accepted = max(0, durable_next - self.start)
        return accepted == self.acked + self.dead + self.expired + self.lost + self.pending(durable_next)


def _told(tries: list[tuple[int, array[int]]]) -> Iterator[Piece]:
    for number, known in tries:
        for count, places in groupby(range(_TRIES), known.__getitem__):
            if count > 1:
                first, *more = places
                yield Piece(number * _TRIES + first, number * _TRIES + first + len(more), count)
