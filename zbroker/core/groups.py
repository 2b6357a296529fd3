"""A group's account of a stream: which messages are settled, lent, waiting. No session, no message, no journal here."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from patterns.wire.settled import Range, Settled, merged, runs

UNSETTLED_MAX: Final = 1_000_000  # lent and waiting together; beyond it a group gets nothing new until some are settled


class Piece(NamedTuple):
    """Messages side by side that were delivered equally often: `tries` counted attempts so far."""

    first: int
    last: int
    tries: int


class Lease:
    """A piece lent to one member; `held` has a bit for each message that it still holds."""

    __slots__ = ("attempt", "count", "first", "group", "held", "id", "until")

    def __init__(self, id: int, group: Group, piece: Piece, until: int) -> None:
        self.id = id
        self.group = group
        self.first = piece.first
        self.attempt = piece.tries + 1
        self.count = piece.last - piece.first + 1
        self.held = (1 << self.count) - 1
        self.until = until

    def take(self, ranges: list[Range]) -> tuple[list[Range], int]:
        """Let go of these offsets, of everything when there are none; returns what was held of them, and how many."""
        if not ranges:
            taken = self.held
        elif len(ranges) == 1:
            taken = self._mask(*ranges[0]) & self.held
        else:
            taken = self._mask_of(ranges) & self.held
        self.held ^= taken
        count = taken.bit_count()
        if count == self.count:
            return [(self.first, self.first + count - 1)], count
        return list(runs(taken, self.first)), count

    def _mask_of(self, ranges: list[Range]) -> int:
        """All of them at once; an integer as long as the lease for each of 10,000 ranges takes 50 ms."""
        bits = bytearray((self.count + 7) // 8)
        for first, last in ranges:
            low, high = max(first - self.first, 0), min(last - self.first, self.count - 1)
            if low == high:
                bits[low >> 3] |= 1 << (low & 7)
            elif low < high:
                begin, end = low >> 3, (high >> 3) + 1
                mask = ((1 << (high - low + 1)) - 1) << (low & 7)
                bits[begin:end] = (int.from_bytes(bits[begin:end], "little") | mask).to_bytes(end - begin, "little")
        return int.from_bytes(bits, "little")

    def _mask(self, first: int, last: int) -> int:
        low = max(first - self.first, 0)
        high = min(last - self.first, self.count - 1)
        return ((1 << (high - low + 1)) - 1) << low if low <= high else 0


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
    """

    def __init__(self, id: int, stream_id: int, name: str, start: int) -> None:
        self.id = id
        self.stream_id = stream_id
        self.name = name
        self.start = start
        self.cursor = start
        self.settled = Settled(start)
        self.acked = self.dead = self.expired = self.lost = 0
        self.leased = self.waiting = self.redelivered = self.leases_lost = 0
        self.dirty = Dirty()
        self._ready: list[Piece] = []
        self._delayed: list[tuple[int, Piece]] = []
        self._recovered: list[Piece] = []  # delivered before a restart; held until members had time to come back
        self._ahead = 0  # settled above the cursor
        self._fresh_next = False
        self._retried: dict[int, Lease] = {}  # leases of messages that were delivered before
        self._tries: dict[int, int] = {}  # while recovering: what the journal says beyond "once"

    # -- what is to be delivered ----------------------------------------------------------------------------------

    def next_piece(self, durable_next: int) -> Piece | None:
        """What should be delivered next; it stays where it is until lend().

        Messages to redeliver and new ones take turns, so that one that fails for ever does not stop the rest.
        """
        fresh = self._fresh(durable_next)
        if self._ready and not (self._fresh_next and fresh):
            return self._ready[0]
        return fresh

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
            self._retried[id] = lease
            self.dirty.attempts.append(Piece(taken.first, last, lease.attempt))
        return lease

    def _take(self, piece: Piece, last: int) -> None:
        """Remove the beginning of the next piece from its place."""
        if self._ready and self._ready[0] == piece:
            heappop(self._ready)
            if last < piece.last:
                heappush(self._ready, Piece(last + 1, piece.last, piece.tries))
            self.waiting -= last + 1 - piece.first
            self._fresh_next = True
            return
        self.cursor = last + 1
        self.dirty.delivered = True
        self._fresh_next = False

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

    def settle(self, lease: Lease, ranges: list[Range], action: str, due: int | None = None) -> int:
        """Apply ack, nack, reject, release or expire; returns how many messages of the ranges the lease held.

        Args:
            due: for nack, when they may be delivered again; None for at once.
        """
        taken, count = lease.take(ranges)
        self.leased -= count
        if self._retried and not lease.held:
            self._retried.pop(lease.id, None)
        if action == "ack":
            for first, last in taken:
                self.acked += self.settled.add(first, last)
            self.dirty.acked += taken
        elif action == "reject":
            for first, last in taken:
                self.dead += self.settled.add(first, last)
            self.dirty.dead += taken
        else:
            self.waiting += count
            tries = lease.attempt - 1 if action == "release" else lease.attempt
            self.leases_lost += action == "expire" and count > 0
            for first, last in taken:
                self._put_back(Piece(first, last, tries), due)
        return count

    def _put_back(self, piece: Piece, due: int | None) -> None:
        if due is None:
            heappush(self._ready, piece)
        else:
            heappush(self._delayed, (due, piece))

    def next_due(self) -> int | None:
        """When the next delayed message may be delivered."""
        return self._delayed[0][0] if self._delayed else None

    def wake(self, now: int) -> bool:
        """Delayed messages whose time has come get ready; whether there were any."""
        woken = False
        while self._delayed and self._delayed[0][0] <= now:
            heappush(self._ready, heappop(self._delayed)[1])
            woken = True
        return woken

    def reclaim(self, ranges: list[Range]) -> int:
        """Ack what was delivered once before a restart, and is held for its member; how many messages that was.

        What was delivered more than once is left out: who names it may hold the older of its leases.
        """
        asked, count = merged(ranges), 0
        pieces, self._recovered = self._recovered, []
        for piece in pieces:
            if piece.tries != 1:
                self._recovered.append(piece)
                continue
            claim = Lease(0, self, piece, 0)
            taken, taken_count = claim.take(asked)
            for first, last in taken:
                self.acked += self.settled.add(first, last)
            self.dirty.acked += taken
            count += taken_count
            self._recovered += [Piece(*rest, piece.tries) for rest in runs(claim.held, claim.first)]
        self.waiting -= count
        return count

    def release_recovered(self) -> None:
        """The time in which members may claim what they had before a restart is over."""
        self._ready += self._recovered
        self._recovered = []
        heapify(self._ready)

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
        for item in value:
            if what == "attempts":
                for offset in range(item[0], item[1] + 1):
                    self._tries[offset] = max(item[2], self._tries.get(offset, 0))
                continue
            new = self.settled.add(max(item[0], self.start), item[1])
            self.cursor = self.cursor if what in ("lost", "expired") else max(self.cursor, item[1] + 1)
            self.acked += new if what == "acked" else 0
            self.dead += new if what == "dead" else 0
            self.lost += new if what == "lost" else 0
            self.expired += new if what == "expired" else 0

    def opened(self, next_offset: int) -> None:
        """What was delivered and is not settled waits to be delivered again, counting the attempts before the stop."""
        self.cursor = max(self.cursor, self.settled.floor)
        again = sorted(self._tries)
        for first, last in self.settled.missing(self.start, self.cursor - 1):
            begin = first
            for offset in again[bisect_left(again, first) : bisect_right(again, last)]:
                if begin < offset:
                    self._recovered.append(Piece(begin, offset - 1, 1))
                self._recovered.append(Piece(offset, offset, self._tries[offset]))
                begin = offset + 1
            if begin <= last:
                self._recovered.append(Piece(begin, last, 1))
            self.waiting += last - first + 1
        self._tries = {}
        self._ahead = self.settled.count(self.cursor, max(next_offset, self.cursor) - 1)

    def attempts(self) -> list[Piece]:
        """What was delivered more than once and is not settled, wherever it is now; as recover() takes it."""
        delayed = (piece for _, piece in self._delayed)
        pieces = [piece for places in (self._ready, delayed, self._recovered) for piece in places if piece.tries > 1]
        for lease in self._retried.values():
            pieces += [Piece(first, last, lease.attempt) for first, last in runs(lease.held, lease.first)]
        return pieces

    @property
    def recovered(self) -> bool:
        """Whether messages are held for members of before a restart."""
        return bool(self._recovered)

    # -- the account ----------------------------------------------------------------------------------------------

    def pending(self, durable_next: int) -> int:
        """Messages on disk that are not settled, counted where they are."""
        return self.leased + self.waiting + max(0, durable_next - self.cursor - self._ahead)

    def balance(self, durable_next: int) -> bool:
        """Whether accepted = acked + dead + expired + lost + pending."""
        accepted = max(0, durable_next - self.start)
        return accepted == self.acked + self.dead + self.expired + self.lost + self.pending(durable_next)
