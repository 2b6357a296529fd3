"""What leaves towards consumers: feeds with something to give, and members with room."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby, takewhile
from typing import Final, NamedTuple

from patterns.wire.errors import BadBody
from patterns.wire.frames import MSGPACK, pack, pack_columns, reform
from patterns.wire.limits import COLUMNS_BYTES_MAX
from patterns.wire.messages import Deliver, Lost
from patterns.wire.server import Session, Sessions
from patterns.wire.session import ServerState
from patterns.wire.settled import Range, merged
from zbroker.core.groups import Group
from zbroker.core.leases import Leases, Piece
from zbroker.core.log import StreamLog
from zbroker.core.producers import ID_SHIFT
from zbroker.core.readback import ReadBack
from zbroker.core.tail import DELAYS, UNREADABLE, Batch, Key, Tail
from zbroker.core.timers import Timers

TURN_BYTES: Final = 4 << 20  # delivered in one turn; then others have theirs
TURN_DELIVERIES: Final = 512
FAR_US: Final = 2_000_000  # what is due later is not timed exactly yet


class Member:
    """A consumer's session that has joined.

    Attributes:
        slices: its mode; else whole batches.
        leases: what it holds; nothing, without a group.
        renewed_at: when it last settled anything.
        alone: the lease by which it was last given what had failed before, in a group that counts failures.
        claims: leases of before the broker's restart that it still works on.
    """

    __slots__ = ("alone", "claims", "feed", "id", "leases", "renewed_at", "session", "slices", "timed")

    def __init__(self, session: Session, feed: Feed, id: int, slices: bool, claims: frozenset[int]) -> None:
        self.session = session
        self.feed = feed
        self.id = id
        self.slices = slices
        self.leases = Leases(feed.group)
        self.renewed_at = 0
        self.alone = 0
        self.timed = False
        self.claims = claims

    @property
    def has_room(self) -> bool:
        """Whether a delivery to it would leave at once."""
        session = self.session
        return session.out.is_open and session.state is ServerState.READY and not session.outbox


class Feed:
    """A group, or a reader without one, as a source of deliveries.

    Attributes:
        cursor: of a reader.
        willing: members that have room, as far as we know; the one that waited longest first.
        parked: members that have room for new messages alone, and there was none.
        lost: ranges that no member has been told of.
    """

    __slots__ = ("cursor", "group", "log", "lost", "members", "parked", "willing")

    def __init__(self, log: StreamLog, group: Group | None, cursor: int = 0) -> None:
        self.log = log
        self.group = group
        self.cursor = cursor
        self.members: dict[Member, None] = {}
        self.willing: dict[Member, None] = {}
        self.parked: dict[Member, None] = {}
        self.lost: list[Range] = []

    def next_piece(self, *, begun: bool = True) -> Piece | None:
        """What is next to be delivered; without `begun` nothing whose delivery has failed before."""
        if self.group is not None:
            return None if self.group.is_paused else self.group.next_piece(self.log.durable_next, begun=begun)
        durable_next = self.log.durable_next
        return Piece(self.cursor, durable_next - 1, 0) if self.cursor < durable_next else None


class _Part(NamedTuple):
    """What of a batch one delivery carries, as it leaves."""

    batch: Batch
    messages: int
    columns: bytes
    payload: bytes


class Deliveries:
    """Gives what feeds have to members that have room, in turns; a stalled member is in no list at all.

    Attributes:
        dirty: groups of which the journal does not know all; shared with the facade.

    Args:
        wall_ms: the broker's own clock in ms at an instant of the engine's, as in `published_at`.
    """

    def __init__(
        self,
        sessions: Sessions,
        tail: Tail,
        readback: ReadBack,
        timers: Timers,
        dirty: dict[Group, None],
        wall_ms: Callable[[int], int],
    ) -> None:
        self._sessions = sessions
        self._tail = tail
        self._readback = readback
        self._timers = timers
        self._dirty = dirty
        self._wall_ms = wall_ms
        self._ready: dict[Feed, None] = {}
        self._feeds: dict[StreamLog, dict[Feed, None]] = {}
        self._lease_base = 0
        self._lease_count = 0

    def opened(self, epoch: int) -> None:
        """The broker's epoch makes new lease ids, so none is ever given twice."""
        self._lease_base = epoch << ID_SHIFT

    @property
    def has_more(self) -> bool:
        """Whether the last run() stopped for its budget."""
        return bool(self._ready)

    # -- who may get something ------------------------------------------------------------------------------------

    def join(self, member: Member) -> None:
        """A member is there; what was lost before it came it hears now."""
        feed = member.feed
        feed.members[member] = None
        self._feeds.setdefault(feed.log, {})[feed] = None
        lost, feed.lost = feed.lost, []
        for first, last in lost:
            self._sessions.tell(member.session, Lost(first=first, last=last))
        self.wake(member)

    def leave(self, member: Member) -> None:
        """A member is gone; its leases are the caller's."""
        feed = member.feed
        feed.members.pop(member, None)
        feed.willing.pop(member, None)
        feed.parked.pop(member, None)
        self.wake_feed(feed)
        if not feed.members:
            self._ready.pop(feed, None)
            feeds = self._feeds.get(feed.log, {})
            feeds.pop(feed, None)
            if not feeds:
                self._feeds.pop(feed.log, None)

    def wake(self, member: Member) -> None:
        """A member may have got room."""
        if member.has_room and member in member.feed.members:
            member.feed.willing[member] = None
            self._ready[member.feed] = None

    def wake_feed(self, feed: Feed) -> None:
        """A feed may have got something to give."""
        if feed.parked:
            feed.willing |= feed.parked
            feed.parked.clear()
        if feed.willing:
            self._ready[feed] = None

    def wake_stream(self, log: StreamLog) -> None:
        """A stream has grown."""
        for feed in self._feeds.get(log, ()):
            self.wake_feed(feed)

    # -- deliver --------------------------------------------------------------------------------------------------

    def run(self, now: int) -> None:
        """One delivery to one member of each feed, round and round, until nothing is left or the turn is full."""
        ready, left_bytes, left = self._ready, TURN_BYTES, TURN_DELIVERIES
        while ready and left > 0 and left_bytes > 0:
            feed = next(iter(ready))
            del ready[feed]
            member = self._willing(feed)
            if member is None:
                continue
            size = self._deliver(feed, member, now)
            if size is None:
                continue
            left -= 1
            left_bytes -= size
            del feed.willing[member]
            if member.has_room:
                feed.willing[member] = None  # behind the others
            if feed.willing:
                ready[feed] = None

    def _willing(self, feed: Feed) -> Member | None:
        if feed.group is not None and feed.group.config.exclusive:
            first = next(iter(feed.members), None)  # who has joined first; the next one takes over when it has gone
            return first if first in feed.willing and first.has_room else None
        while feed.willing:
            member = next(iter(feed.willing))
            if member.has_room:
                return member
            del feed.willing[member]
        return None

    def _deliver(self, feed: Feed, member: Member, now: int) -> int | None:
        """Bytes delivered; None when there is nothing to deliver, or not yet."""
        log, name = feed.log, feed.group.name if feed.group is not None else None
        if feed.group is not None and feed.group.overdue and feed.group.wake(now):
            self.wake_later(feed, now)
        begun = not _is_alone(member)
        piece = feed.next_piece(begun=begun)
        while piece is not None:
            number = log.find(piece.first)
            missing = self._readback.missing(log, number, piece.first, piece.last, name)
            if missing is None:
                break
            self._pass_over(feed, piece, number, missing)
            piece = feed.next_piece(begun=begun)
        if piece is None:
            if not begun:
                self._park(feed, member)
            return None
        key = (log.id, number)
        batch = self._tail.get(key)
        if batch is None:
            settled = feed.group.settled if feed.group is not None else None
            self._readback.fetch((self.wake_feed, feed), log, number, settled)
            return None
        try:
            due = self._due_of(feed, piece, key, batch, now)
            if due is None:
                return 0
            part = self._part(member, due, key, batch)
        except UNREADABLE:  # nothing that lies on a disk ends the broker: it is told like what the disk has damaged
            self._tail.unreadable()
            self._readback.damaged.add(key)
            self._ready[feed] = None
            return None
        return self._send(feed, member, due, part, now)

    def _park(self, feed: Feed, member: Member) -> None:
        """It has what failed before, and must show that it lives before it is given more of that; others may have it."""
        del feed.willing[member]
        feed.parked[member] = None
        if feed.willing:
            self._ready[feed] = None

    def _pass_over(self, feed: Feed, piece: Piece, number: int, last: int) -> None:
        """What damage took is told; what was given up, or sent back for another group, nobody who comes later is owed."""
        is_lost, last = self._readback.fate(feed.log, number, piece.first, last)
        if is_lost:
            self._lose(feed, piece, last)
        elif feed.group is None:
            feed.cursor = last + 1
        else:
            is_anothers = self._readback.is_anothers(feed.log, number, piece.first, feed.group.name)
            feed.group.drop(piece, last, "passed" if is_anothers else "expired")
            self._dirty[feed.group] = None

    def _lose(self, feed: Feed, piece: Piece, last: int) -> None:
        if feed.group is None:
            feed.cursor = last + 1
        else:
            feed.group.drop(piece, last, "lost")
            self._dirty[feed.group] = None
        for member in feed.members:
            self._sessions.tell(member.session, Lost(first=piece.first, last=last))
        if not feed.members:
            feed.lost = merged([*feed.lost, (piece.first, last)])

    # -- delayed --------------------------------------------------------------------------------------------------

    def _due_of(self, feed: Feed, piece: Piece, key: Key, batch: Batch, now: int) -> Piece | None:
        """The piece as far as it may be delivered by now; None when its beginning may not, and waits elsewhere. Raises UNREADABLE."""
        group = feed.group
        if not batch.marks & DELAYS or group is None or piece.first < group.cursor:
            return piece
        begin = piece.first - batch.base
        first, last, before = batch.run(begin)
        taken_out = first - before
        end = min(last, piece.last - batch.base) + 1
        delays = self._tail.split(key, batch).columns.delays or []
        delays = delays[begin - taken_out : end - taken_out]
        age = max(self._wall_ms(now) - batch.published_at, 0)
        due = sum(1 for _ in takewhile(lambda delay: delay <= age, delays))
        if due:
            return Piece(piece.first, piece.first + due - 1, 0)
        offset = piece.first
        for delay, same in groupby(takewhile(lambda delay: delay > age, delays)):
            count = len(list(same))
            group.postpone(offset, offset + count - 1, now, delay, delay - age)
            offset += count
        self._dirty[group] = None
        self.wake_later(feed, now)
        return None

    def wake_later(self, feed: Feed, now: int) -> None:
        """What of its group is delayed may be due before the feed is woken the next time.

        What is far away is looked at again half-way, so that messages which are due each before the one before have a
        few timers and not one each.
        """
        group = feed.group
        due = group.next_due() if group is not None else None
        if group is None or due is None or (group.woken_at is not None and group.woken_at <= due):
            return
        left = max(due - now, 1)
        at = group.woken_at = now + (left if left < FAR_US else 1 << (left.bit_length() - 1))
        self._timers.at(at, lambda now: self._wake_delayed(feed, group, at, now))

    def _wake_delayed(self, feed: Feed, group: Group, at: int, now: int) -> None:
        if group.woken_at != at or feed.group is not group:
            return  # an earlier one has come since; or it was reset
        group.woken_at = None
        if group.wake(now):
            self.wake_feed(feed)
        self.wake_later(feed, now)

    # -- lent -----------------------------------------------------------------------------------------------------

    def _part(self, member: Member, piece: Piece, key: Key, batch: Batch) -> _Part:
        """As much of the batch as the member takes. Raises UNREADABLE."""
        session = member.session
        batch = self._tail.view(key, batch, session.codec)
        begin = piece.first - batch.base
        first, last, before = batch.run(begin)
        taken_out = first - before  # of a sliced batch, messages before this one
        end = min(piece.last - batch.base, last) + 1
        if member.slices:
            end = begin + 1 if piece.tries else min(end, begin + session.out.messages_left)
            bytes_left = session.out.bytes_max - session.out.bytes_used
            if end - begin < batch.count or len(batch.payload) > bytes_left:
                split = self._tail.split(key, batch)
                end = split.fitting(begin - taken_out, end - taken_out, bytes_left) + taken_out
        elif piece.tries and _is_isolating(member):
            end = begin + 1
        if end - begin == batch.count:
            columns, payload = reform(batch.columns, MSGPACK, session.form), batch.payload
        else:
            parts, payload = self._tail.split(key, batch).cut(begin - taken_out, end - taken_out)
            columns = pack_columns(parts, session.form)
        if len(columns) > COLUMNS_BYTES_MAX:  # the door refuses such; a peer would end the session, again and again
            raise BadBody(f"columns of {len(columns)} bytes, at most {COLUMNS_BYTES_MAX}")
        return _Part(batch, end - begin, columns, payload)

    def _send(self, feed: Feed, member: Member, piece: Piece, part: _Part, now: int) -> int:
        session, (batch, count, columns, payload) = member.session, part
        lease_id = self._lend(feed, member, piece, piece.first + count - 1, now)
        header = Deliver(
            lease=lease_id,
            offset=piece.first,
            count=count,
            published_at=batch.published_at,
            attempt=piece.tries + 1,
            codec=batch.codec,
            topic=batch.topic,
        )
        frames = pack(header, columns=columns, payload=payload, form=session.form)
        size = len(columns) + len(payload)
        self._sessions.post(session, count, size, frames)
        return size

    def _lend(self, feed: Feed, member: Member, piece: Piece, last: int, now: int) -> int:
        if feed.group is None:
            feed.cursor = last + 1
            return 0
        self._lease_count += 1
        lease = feed.group.lend(self._lease_base + self._lease_count, piece, last, now + feed.group.lease_us)
        member.leases.add(lease)
        if piece.tries and _is_isolating(member):
            member.alone = lease.id
        self._dirty[feed.group] = None
        if not member.timed:
            member.timed = True
            self._timers.at(lease.until, lambda due: self._expire(member, due))
        return lease.id

    def _expire(self, member: Member, now: int) -> None:
        """Take back what the member has not made progress on; called when its first lease may be over."""
        member.timed = False
        group = member.feed.group
        renewed_until = member.renewed_at + (group.lease_us if group else 0)
        earliest: int | None = None
        if renewed_until > now and len(
            member.leases
        ):  # nothing of it can be over: there may be a million, not to be looked through
            earliest = renewed_until
        else:
            for lease in member.leases:
                if lease.until <= now:
                    lease.group.settle(lease, [], "expire", now)
                    member.leases.keep(lease)
                    self.wake_later(member.feed, now)
                    self.wake_feed(member.feed)
                elif earliest is None or lease.until < earliest:
                    earliest = lease.until
        if earliest is not None:
            member.timed = True
            self._timers.at(earliest, lambda due: self._expire(member, due))


def _is_isolating(member: Member) -> bool:
    """Whether its group counts failures: then what ends a member must not be counted against others that failed with it."""
    group = member.feed.group
    return group is not None and group.config.max_deliveries > 0


def _is_alone(member: Member) -> bool:
    """Whether it still has a message that failed before, and its group isolates those."""
    return member.alone > 0 and _is_isolating(member) and member.leases.get(member.alone) is not None
