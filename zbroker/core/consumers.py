"""The consumers' side: JOIN, SETTLE, LEAVE, and what becomes of leases when a session goes or comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from patterns.wire.attributes import check_delay
from patterns.wire.configs import GroupConfig
from patterns.wire.errors import (
    BadArgument,
    NoSuchGroup,
    ProtocolError,
    StaleLease,
    StorageFailed,
    ZbrokerError,
)
from patterns.wire.limits import GRACE_MS, INTEGER_MAX
from patterns.wire.messages import Hello, Join, Joined, Leave, Ready, Settle, Settled
from patterns.wire.names import check_name
from patterns.wire.server import Session, Sessions
from patterns.wire.session import ServerState
from patterns.wire.settled import Range, merged
from patterns.wire.words import counted
from zbroker.core.catalog import Catalog, Recorder
from zbroker.core.deliveries import Deliveries, Feed, Member
from zbroker.core.doomed import Verdict
from zbroker.core.groups import Group
from zbroker.core.leases import Leases
from zbroker.core.log import StreamLog
from zbroker.core.policy import Policy, no_stream
from zbroker.core.timers import Timers

ACTIONS: Final = frozenset(["ack", "nack", "reject", "release", "extend"])
EXTEND_US_MAX: Final = 7 * 86_400 * 1_000_000  # a week is longer than anybody computes
CLAIM_US: Final = GRACE_MS * 1_000
_RANGES_TOLD: Final = 8  # of a SETTLE that comes too late; an error is to be read

# (index, call): the call is made when the record of that index is on disk; None: the next OPS
Promise = Callable[[int | None, Callable[[], None]], None]


class Consumers:
    """All consumer sessions.

    Args:
        promise: makes a call once a record is on disk.
        dirty: groups of which the journal does not know all.
        policy: whether streams and groups are made by first use.
    """

    def __init__(
        self,
        sessions: Sessions,
        catalog: Catalog,
        recorder: Recorder,
        deliveries: Deliveries,
        timers: Timers,
        dirty: dict[Group, None],
        promise: Promise,
        policy: Policy,
    ) -> None:
        self._sessions = sessions
        self._catalog = catalog
        self._recorder = recorder
        self._deliveries = deliveries
        self._timers = timers
        self._dirty = dirty
        self._promise = promise
        self._policy = policy
        self._members: dict[Session, Member] = {}
        self._feeds: dict[Group, Feed] = {}
        self._claims: dict[Session, frozenset[int]] = {}
        self._claims_until = 0
        self._durable_index = 0

    def opened(self, next_index: int, now: int) -> None:
        """Hold what members had before the restart, until they had time to come back."""
        self._durable_index = next_index - 1
        held = False
        for group in self._catalog.groups.values():
            feed = self._feed(self._catalog.by_id[group.stream_id], group)
            feed.lost = [(max(first, group.start), last) for first, last in feed.log.lost if last >= group.start]
            held = held or group.recovered
            self._deliveries.wake_later(feed, now)
        if held:
            self._claims_until = now + CLAIM_US
            self._timers.at(self._claims_until, self._end_of_claims)

    def _end_of_claims(self, now: int) -> None:
        self._claims_until = 0
        for group, feed in self._feeds.items():
            if group.recovered:
                group.release_recovered()
                self._deliveries.wake_feed(feed)
        for member in self._members.values():
            member.claims = frozenset()
        self._claims.clear()

    def members_of(self, group: Group) -> int:
        """How many sessions share it now."""
        return len(self.members(group))

    def members(self, group: Group) -> list[Member]:
        """Sessions that share it now, the one that has joined first before the others."""
        feed = self._feeds.get(group)
        return list(feed.members) if feed else []

    def configured(self, group: Group) -> None:
        """What it is told to be has changed: its members hear of times, and it may have something to give."""
        feed = self._feeds.get(group)
        if feed is None:
            return
        for member in feed.members:
            self._sessions.answer(member.session, _joined(0, feed))
        self._deliveries.wake_feed(feed)

    def wake(self, group: Group) -> None:
        """It may have got something to give."""
        feed = self._feeds.get(group)
        if feed is not None:
            self._deliveries.wake_feed(feed)

    def reset(self, log: StreamLog, group: Group, start: int) -> None:
        """Its account begins anew, at an offset: what members hold of the old one is stale, and they go on with the new one."""
        new = self._catalog.group(log, group.name, start)
        self._dirty.pop(group, None)
        feed = self._feeds.pop(group, None)
        if feed is None:
            return
        members = list(feed.members)
        self._feeds[new], feed.group = feed, new
        for member in members:
            self._deliveries.leave(member)
            for _ in member.leases.take_all():
                pass  # nobody has them any more
            member.leases, member.claims = Leases(new), frozenset()
        self._promise(new.id, lambda: self._begin_all(members))

    def expire(self, group: Group, below: int) -> None:
        """It is owed nothing below this offset any more; leases of that are stale."""
        verdicts = group.expire_below(below)
        if not group.dirty.is_clean:
            self._dirty[group] = None
        for verdict in verdicts:
            if verdict.call is not None:
                verdict.call(None)
        self.wake(group)

    def dismiss(self, log: StreamLog, group: Group | None, why: ZbrokerError) -> None:
        """The group is not there any more, or, without one, the stream: its members have left, and hear why."""
        gone = [
            (session, member)
            for session, member in self._members.items()
            if member.feed.log is log and group in (None, member.feed.group)
        ]
        for session, member in gone:
            del self._members[session]
            for _ in member.leases.take_all():
                pass  # there is nobody to whom they could go back
            self._deliveries.leave(member)
            self._sessions.refuse(session, why, "stream", member.id)
        for one in list(log.groups.values()) if group is None else [group]:
            self._feeds.pop(one, None)
            self._dirty.pop(one, None)

    def _begin_all(self, members: list[Member]) -> None:
        for member in members:
            self._begin(member.session, member)

    def __contains__(self, session: Session) -> bool:
        return session in self._members

    # -- sessions -------------------------------------------------------------------------------------------------

    def admit(self, session: Session, hello: Hello, ready: Ready, now: int) -> None:
        """A consumer says HELLO, maybe again."""
        member = self._members.get(session)
        resume = hello.resume
        if resume is None:
            return
        if member is None:
            if self._claims_until and resume.leases:
                self._claims[session] = frozenset(resume.leases)
            return
        if member.feed.group is None:  # what the old connection lost only its reader knows: it joins again, from there
            del self._members[session]
            self._part(member, "release", now)
            return
        ready.resumed = True
        kept = frozenset(resume.leases)
        for lease in member.leases:
            if lease.id not in kept:
                lease.group.settle(lease, [], "release", now)
                member.leases.keep(lease)
                self._came_back(member, now)
        self._deliveries.wake_feed(member.feed)
        # the session is not READY before we return; the next turn finds it so
        if member in member.feed.members:
            member.feed.willing[member] = None
            self._deliveries.wake_feed(member.feed)

    def ended(self, session: Session, reason: str, now: int) -> None:
        """Give back what it held; an attempt counts unless it said so itself."""
        self._claims.pop(session, None)
        member = self._members.pop(session, None)
        if member is not None:
            self._part(member, "expire" if reason in ("expired", "disconnected") else "release", now)

    def _part(self, member: Member, action: str, now: int) -> None:
        for lease in member.leases.take_all():
            lease.group.settle(lease, [], action, now)
        self._came_back(member, now)
        self._deliveries.leave(member)
        if member.feed.group is None:
            self._catalog.given_up(member.feed.log)

    def credit(self, session: Session) -> None:
        """It granted more."""
        member = self._members.get(session)
        if member is not None:
            self._deliveries.wake(member)

    # -- join and leave -------------------------------------------------------------------------------------------

    def join(self, session: Session, header: Join) -> None:
        """A JOIN came; the same one again is answered again, and may change the mode."""
        try:
            member = self._members.get(session)
            if member is None:
                self._join(session, header)
            elif self._is_same(member, header):
                member.slices = _is_sliced(header.mode)
                self._sessions.answer(session, _joined(header.id, member.feed))
            else:
                raise ProtocolError("a session joins once; LEAVE first, or open another one")
        except ZbrokerError as error:
            self._sessions.refuse(session, error, "stream", header.id)  # what the consumer came for: it must hear of it

    def _is_same(self, member: Member, header: Join) -> bool:
        group = member.feed.group
        return (member.feed.log.name, group.name if group else "") == (header.stream, header.group)

    def _join(self, session: Session, header: Join) -> None:
        slices = _is_sliced(header.mode)
        check_start(header)
        known = self._catalog.by_name.get(header.stream)
        if self._recorder.failed and (known is None or (header.group and header.group not in known.groups)):
            raise StorageFailed("the broker's disk failed; no stream or group is made until it is started again")
        feed = self._feed_for(header)
        claims = self._claims.pop(session, frozenset())
        member = self._members[session] = Member(session, feed, header.id, slices, claims)
        joined = _joined(header.id, feed)
        made_at = feed.group.id if feed.group else feed.log.id  # of one that is only awaited: 0
        if made_at <= self._durable_index:
            self._sessions.answer(session, joined)
            self._deliveries.join(member)
        else:
            self._promise(made_at, lambda: self._joined(session, member, joined))

    def _joined(self, session: Session, member: Member, joined: Joined) -> None:
        if not self._is_there(member.feed):
            return  # it has heard that already
        if session.state is not ServerState.CLOSED:
            self._sessions.answer(session, joined)
        self._begin(session, member)

    def _is_there(self, feed: Feed) -> bool:
        """Whether what it gives was not deleted."""
        group = feed.group
        return not feed.log.is_deleted and (group is None or (group.stream_id, group.id) in self._catalog.groups)

    def _begin(self, session: Session, member: Member) -> None:
        """Its group is on disk; deliver, unless it has left in the meantime."""
        if self._members.get(session) is member:
            self._deliveries.join(member)

    def persisted(self, index: int) -> None:
        """Streams and groups made up to here are on disk."""
        self._durable_index = index

    def _feed_for(self, header: Join) -> Feed:
        """Of a group, which is made, and its stream too; or of a reader, who makes nothing."""
        if not header.group:
            return self._reader(header)
        log = self._catalog.by_name.get(header.stream)
        group = log.groups.get(header.group) if log else None
        if log is None or group is None:
            check_name(header.group, "group")
            self._check_auto_create(header, log)
            start = self.start_of(log or StreamLog(0, header.stream), header)  # a JOIN that is refused makes nothing
            log = self._catalog.stream(header.stream)
            group = self._catalog.group(log, header.group, start)
            if self._policy.group_idle_s:
                config = GroupConfig(log.name, group.name, idle_expiry_s=self._policy.group_idle_s)
                self._catalog.group_configured(group, config)
        return self._feed(log, group)

    def _check_auto_create(self, header: Join, log: StreamLog | None) -> None:
        if self._policy.auto_create:
            return
        if log is None:
            raise no_stream(header.stream)
        raise NoSuchGroup(
            f"stream {header.stream!r} has no group {header.group!r}, and `auto_create` is off; make it first: "
            f"`zbroker group create {header.stream} {header.group}`"
        )

    def _reader(self, header: Join) -> Feed:
        if header.stream not in self._catalog.by_name and not self._policy.auto_create:
            check_name(header.stream, "stream")
            raise no_stream(header.stream)
        log = self._catalog.awaited(header.stream)
        try:
            return Feed(log, None, self.start_of(log, header))
        except BadArgument:
            self._catalog.given_up(log)
            raise

    def _feed(self, log: StreamLog, group: Group) -> Feed:
        feed = self._feeds.get(group)
        if feed is None:
            feed = self._feeds[group] = Feed(log, group)
        return feed

    def start_of(self, log: StreamLog, header: Join) -> int:
        """The offset that `start` means now. Raises BadArgument."""
        match header.start:
            case "first":
                return log.first_offset
            case "new":
                return log.next_offset
            case "time":
                return log.published_since(header.published_at or 0)
            case int(offset) if offset <= log.next_offset:
                return offset
            case _:
                raise BadArgument(
                    f"start {header.start} lies beyond the next offset {log.next_offset} of stream {log.name!r}"
                )

    def leave(self, session: Session, header: Leave, now: int) -> None:
        """A LEAVE came: as GOODBYE, but the session stays."""
        member = self._members.pop(session, None)
        if member is None:
            self._sessions.refuse(session, ProtocolError("LEAVE without a JOIN"), "command", header.id)
            return
        self._part(member, "release", now)

    # -- settle ---------------------------------------------------------------------------------------------------

    def settle(self, session: Session, header: Settle, now: int) -> None:
        """A SETTLE came."""
        try:
            if header.action not in ACTIONS:
                raise BadArgument(f"action {header.action[:32]!r}; one of {', '.join(sorted(ACTIONS))}")
            if any(first > last for first, last in header.ranges):
                raise BadArgument("a range whose first offset is above its last")
            if header.action == "nack":
                check_delay(header.delay_ms)
            if self._recorder.failed:
                raise StorageFailed("the broker's disk failed; what is settled now would be delivered again")
            verdict = Verdict(header.reason, is_awaited=header.id > 0) if header.action == "reject" else None
            stale = self._apply(session, header, now, verdict)
            self._sessions.counters["stale_settles"] += stale > 0
        except ZbrokerError as error:
            self._sessions.refuse(session, error, "lease", header.lease)
            return
        if header.id:
            settled = Settled(header.id, min(stale, INTEGER_MAX))
            if verdict is not None and verdict.left:  # it is settled when it is a dead letter, which may take a while
                verdict.call = lambda index: self._promise(index, lambda: self._settled(session, settled))
            else:
                self._promise(None, lambda: self._settled(session, settled))
        elif stale:
            places = ", ".join(f"{first} to {last}" for first, last in header.ranges[:_RANGES_TOLD]) or "all"
            why = StaleLease(
                f"{counted(stale, 'message')} of lease {header.lease} (offsets {places}), not this session's any more"
            )
            self._sessions.refuse(session, why, "lease", header.lease)

    def _settled(self, session: Session, settled: Settled) -> None:
        if session.state is not ServerState.CLOSED:  # whether it has joined or not: who asks is answered
            self._sessions.answer(session, settled)

    def _apply(self, session: Session, header: Settle, now: int, verdict: Verdict | None) -> int:
        """Do it; returns how many of the messages it names are not the session's."""
        ranges = merged(header.ranges) if len(header.ranges) > 1 else header.ranges
        asked = sum(last - first + 1 for first, last in ranges)
        member = self._members.get(session)
        if member is None:
            return asked or 1
        member.renewed_at = now
        lease = member.leases.get(header.lease)
        if lease is None:
            return (asked or 1) - self._claim(member, header, ranges)
        if header.action == "extend":
            lease.until = max(lease.until, now + min(header.delay_ms * 1_000, EXTEND_US_MAX))
            member.leases.keep(lease)
            return 0
        group = lease.group
        frees = header.action not in ("ack", "reject") or group.is_full
        held = group.settle(lease, ranges, header.action, now, header.delay_ms, verdict)
        member.leases.keep(lease)
        if lease.id == member.alone:
            self._deliveries.wake(member)
        if not group.dirty.is_clean:
            group.dirty.is_awaited |= header.id > 0
            self._dirty[group] = None
        if frees:
            self._came_back(member, now)
        return max(asked - held, 0)

    def _came_back(self, member: Member, now: int) -> None:
        """What it held is settled, or waits for another: at once, or until its time."""
        group = member.feed.group
        if group is None:
            return
        if not group.dirty.is_clean:
            self._dirty[group] = None
        self._deliveries.wake_later(member.feed, now)
        self._deliveries.wake_feed(member.feed)

    def _claim(self, member: Member, header: Settle, ranges: list[Range]) -> int:
        """An ack of a lease of before the restart, while its messages are held for whoever had them."""
        group = member.feed.group
        if group is None or header.lease not in member.claims or header.action != "ack":
            return 0
        self._dirty[group] = None
        return group.reclaim(ranges)


def _joined(id: int, feed: Feed) -> Joined:
    """What a member is told of where it stands, and of its times; with an id of 0 nobody has asked."""
    group = feed.group
    if group is None:
        return Joined(id, feed.cursor)
    processing_max_ms = int((group.config.processing_max_s or 0) * 1_000)
    return Joined(id, group.cursor, group.lease_us // 1_000, processing_max_ms)


def check_start(header: Join) -> None:
    """That `start` is one that SPEC.md 9.2 knows. Raises BadArgument."""
    start = header.start
    if isinstance(start, str) and start not in ("first", "new", "time"):
        raise BadArgument(f"start {start[:32]!r}; 'first', 'new', 'time' or an offset")
    if (start == "time") is not (header.published_at is not None):
        raise BadArgument("start 'time' and published_at go together")


def _is_sliced(mode: str) -> bool:
    """Whether a JOIN asks for slices. Raises BadArgument."""
    if mode not in ("batches", "slices"):
        raise BadArgument(f"mode {mode[:32]!r}; 'batches' or 'slices'")
    return mode == "slices"
