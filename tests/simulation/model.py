"""What a group may do: a model of streams, groups and leases that hears every message and predicts what the engine says.

It stands beside the engine, on the wire: HELLO, JOIN, SETTLE and their kin come in, DELIVER, SETTLED and ERROR go out. From
SPEC.md 9.2 alone it knows who may hold what, and which attempt it is; where time makes two answers right, it admits both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from patterns.wire.errors import NoSuchGroup, NoSuchStream, ProtocolError, StaleLease, ZbrokerError
from patterns.wire.frames import Frames, parse
from patterns.wire.limits import EXPIRY_MS, GRACE_MS
from patterns.wire.messages import (
    Admin,
    Deliver,
    ErrorHeader,
    Goodbye,
    Hello,
    Join,
    Leave,
    Ready,
    Role,
    Settle,
    Settled,
)
from patterns.wire.records import Opened, Record, RecordKind
from tests.simulation.books import Books
from tests.simulation.burials import expired_by, settled_by
from tests.simulation.lending import Key, Lease, Message, News, Pair, Session
from tests.simulation.policies import Policies
from tests.simulation.settling import STALL_US, Settling
from tests.simulation.violation import Violation, require

if TYPE_CHECKING:
    from tests.simulation.world import World
    from zbroker.core.catalog import Catalog

ACTIONS = frozenset(("ack", "nack", "reject", "release", "extend"))
GRACE_US = GRACE_MS * 1_000
EXPIRY_US = EXPIRY_MS * 1_000

NO_OPERATIONS = b"\x90"  # behind a checkpoint of a broker that idles


class Model:
    """All groups of a broker, over its lives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.books = Books(world)
        self.coverage = self.books.coverage
        self._lease_ids: set[int] = set()
        self._last_append = 0
        self._policies = Policies()
        self._begin(epoch=0)

    def _begin(self, epoch: int) -> None:
        self._sessions: dict[bytes, Session] = {}
        self._by_peer: dict[bytes, Session] = {}
        self._hellos: dict[bytes, Hello] = {}
        self._heard: dict[bytes, int] = {}  # by the broker; when what it heard last had come to its socket is in:
        self._arrived: dict[bytes, int] = {}
        self._gone: dict[bytes, Session] = {}
        self._policies.begin()
        self._purging = ""  # the stream that a verb of this turn purges
        self._untold: dict[
            bytes, int
        ] = {}  # peers that are to hear that what they have joined is gone, and by which error
        self._settling = Settling(self.world, self.books, self._policies, epoch)
        self._active: dict[Pair, Session] = {}  # of an exclusive group: who was given its messages last

    # -- what comes in --------------------------------------------------------------------------------------------

    def received(self, peer: bytes, frames: Frames, arrived: int, now: int) -> None:
        """The broker takes a message from its socket, where it has lain since `arrived`."""
        try:
            message = parse(frames)
        except ZbrokerError:
            return
        header = message.header
        if isinstance(header, Admin) and header.verb == "purge_stream":
            self._purging = str(header.arguments.get("stream"))
        if isinstance(header, Hello):
            if header.role is Role.CONSUMER:
                self._hellos[peer] = header
                self._arrived[peer] = arrived
            return
        session = self._by_peer.get(peer)
        if session is None or self._is_ended(peer, session, arrived):
            return
        self._heard[peer], self._arrived[peer] = now, arrived
        match header:
            case Settle() if self.world.is_storage_failed or header.action not in ACTIONS:
                pass  # refused, whatever it names
            case Join():
                session.pair = (header.stream, header.group) if header.group else None
                session.reads = "" if header.group else header.stream
            case Settle():
                self._settling.heard(peer, session, header, arrived, now)
            case Goodbye() | Leave():
                self._end(session, 0)
                if session.pair is not None and self._active.get(session.pair) is session:
                    del self._active[session.pair]  # should it join again, it is the last
                session.pair = None
                if isinstance(header, Goodbye):
                    self._forget(peer, session)

    def _is_ended(self, peer: bytes, session: Session, arrived: int) -> bool:
        """Whether the engine has given the session up; only silence gives it the right to, as heard at its socket."""
        if self.world.has_session(peer):
            return False
        is_moving = any(hello.nonce == session.nonce for hello in self._hellos.values())
        silence = arrived - self._arrived.get(peer, arrived)
        if not is_moving and silence < EXPIRY_US - STALL_US:  # for shorter a turn may be busy with others
            raise Violation(f"6: {session.nonce!r} was given up after {silence / 1e6:.1f} s of silence")
        self._gone[peer] = self._by_peer.pop(peer)
        self.coverage["given_up"] += 1
        return True

    # -- what goes out --------------------------------------------------------------------------------------------

    def sent(self, peer: bytes, frames: Frames, now: int, *, reached: bool) -> None:
        """The broker has given a message to its socket."""
        try:
            header = parse([bytes(frame) for frame in frames]).header
        except ZbrokerError as error:
            raise Violation(f"12: the broker sends what no client can read: {error}") from error
        session = self._by_peer.get(peer) or self._gone.get(peer)
        match header:
            case Ready():
                self._ready(peer, header, now)
            case Deliver() if session is not None:
                self._deliver(session, header, now)
            case Settled() if session is not None:
                self._settling.answered(peer, session, header)
            case ErrorHeader(scope="stream", number=number) if number == self._untold.get(peer):
                del self._untold[peer]
            case ErrorHeader(scope="stream", number=number) if session is not None and number != ProtocolError.number:
                session.pair, session.reads = None, ""  # its JOIN is refused
            case ErrorHeader(scope="lease", id=lease, number=StaleLease.number):
                self._settling.told_stale(peer, lease)
            case ErrorHeader(scope="session") if session is not None:
                self._end(session, 0)
                self._forget(peer, session)
        session = self._by_peer.get(peer)
        if not reached and session is not None:  # proven gone: what still comes from there is a stranger's
            session.lost_at = now
            self._gone[peer] = self._by_peer.pop(peer)  # of the same turn more may follow

    def _ready(self, peer: bytes, header: Ready, now: int) -> None:
        hello = self._hellos.pop(peer, None)
        if hello is None:
            return
        known = self._sessions.get(hello.nonce)
        if known is not None and header.resumed:
            kept = set(hello.resume.leases) if hello.resume else set()
            for lease in [lease for id, lease in known.leases.items() if id not in kept]:
                self.books.give_back(lease, 0)
            self._move(known)
            self.coverage["resumed"] += 1
        else:
            if known is not None:
                self._end(known, None)
                self._move(known)  # by a HELLO of an older connection, too, that was long under way
            known = self._sessions[hello.nonce] = Session(hello.nonce)
        known.lost_at = None
        self._by_peer[peer] = known
        self._heard[peer] = now

    def _move(self, session: Session) -> None:
        """Another connection has its identity: what still comes by an older one is a stranger's."""
        for other in [other for other, one in self._by_peer.items() if one is session]:
            self._gone[other] = self._by_peer.pop(other)

    def _deliver(self, session: Session, header: Deliver, now: int) -> None:
        if not header.lease:
            self._check_purged(session.reads, header)
            return
        pair = session.pair
        require(pair is not None, f"6: {session.nonce!r} is given lease {header.lease} without a JOIN")
        assert pair is not None
        require(header.lease not in self._lease_ids, f"6: lease id {header.lease} comes twice")
        self._lease_ids.add(header.lease)
        self._check_turn(session, pair)
        key, length_us = self._policies.key(pair), self._policies.of(pair).lease_us
        lease = session.leases[header.lease] = Lease(header.lease, key, session, header, now, length_us)
        messages = self.books.of(key)
        stream = self.world.truth.holdings.names.get(key[0])
        self._check_purged(key[0], header)
        for offset in range(header.offset, header.offset + header.count):
            message = messages.get(offset)
            if message is None:
                message = messages[offset] = Message()
                message.next_high += self.world.truth.is_damaged  # it may be lost that nobody has begun with it
            if message.holder is not None:
                self._take_from(message, message.holder, offset, now)
            self._lend(key, offset, message, lease)
            self._check_delay(key, stream, offset)
            reserved = self.world.truth.reserved.get((stream or 0, offset), key[1])
            require(reserved == key[1], f"9: {key}[{offset}] is delivered, and was sent back for {reserved}")
            if (stream, offset) not in self.world.truth.messages and not self.world.truth.is_damaged:
                raise Violation(f"1: {key[0]}[{offset}] is delivered before it is durable")

    def _check_purged(self, stream: str, header: Deliver) -> None:
        """What a record on disk says is thrown away comes to nobody."""
        below = self.world.truth.holdings.purged_below(stream)
        is_there = header.offset >= below or self.world.truth.is_damaged
        require(is_there, f"2: {stream}[{header.offset}] is delivered, and all below {below} was purged")

    def _check_delay(self, key: Key, stream: int | None, offset: int) -> None:
        """A message that was sent with a delay is lent after that, by the broker's own clock."""
        due_ms = self.world.truth.due_ms.get((stream or 0, offset), 0)
        if due_ms and not self.world.injected["wall_jump"]:
            self.coverage["delayed"] += 1
            early = due_ms - self.world.wall_ms()
            require(early <= 0, f"6: {key}[{offset}] is delivered {early} ms before its time")

    def _check_turn(self, session: Session, pair: Pair) -> None:
        """Whether the group may give anything now, and to this session."""
        require(not self._policies.of(pair).is_paused, f"6: {pair} is paused, and lends to {session.nonce!r}")
        if not self._policies.of(pair).is_exclusive:
            return
        active = self._active.get(pair)
        if active is not None and active is not session and active.pair == pair:
            peers = [peer for peer, one in self._by_peer.items() if one is active]
            is_there = any(self.world.has_session(peer) for peer in peers)
            require(
                not is_there, f"6: {pair} is exclusive, {active.nonce!r} is there, and {session.nonce!r} is lent to"
            )
        self._active[pair] = session

    def _check_doom(self, key: Key, offset: int, attempt: int) -> None:
        """What has failed often enough is a dead letter, or on its way to be one."""
        most = self._policies.of(key[:2]).max_deliveries
        if 0 < most < attempt and key[:2] not in self._policies.changed:
            raise Violation(f"9: {key}[{offset}] is delivered for the {attempt}th time, at most {most}")

    def look(self, catalog: Catalog, were: Iterable[str] = ()) -> None:
        """A verb or a JOIN was heard, or a life has begun: which groups there are now, and what they are told to be.

        Args:
            were: names of the streams that there were.
        """
        self._purge(catalog)
        for pair, before, now in self._policies.look(catalog):
            if before.id != now.id:
                self._reset((*pair, before.id))
            if not now.id:
                self.coverage["group_deleted"] += 1
                self._active.pop(pair, None)
                why = NoSuchGroup if pair[0] in catalog.by_name else NoSuchStream
                self._dismiss([peer for peer, one in self._by_peer.items() if one.pair == pair], why)
            if before.is_exclusive is not now.is_exclusive:
                self._active.pop(pair, None)
            if pair in self._policies.changed:  # what waits may have failed before it counted
                for message in self.books.groups.get((*pair, now.id), {}).values():
                    if (message.is_doomed or message.may_be_doomed) and not (now.dead_letter or message.done):
                        message.done, message.done_at = "perhaps", 0  # dead without a letter, soon
                    message.is_doomed = False
            for lease in [lease for session in self._sessions.values() for lease in session.leases.values()]:
                if lease.key[:2] == pair:
                    lease.length_us = min(lease.length_us, now.lease_us)
        for name in [name for name in were if name not in catalog.by_name]:
            self._dismiss([peer for peer, one in self._by_peer.items() if one.reads == name], NoSuchStream)

    def _purge(self, catalog: Catalog) -> None:
        """A verb has thrown away the oldest messages of a stream: what groups are owed of them is expired."""
        name, self._purging = self._purging, ""
        log = catalog.by_name.get(name)
        if log is None:
            return
        for group in log.groups.values():
            key = name, group.name, group.id
            for offset, message in list(self.books.of(key).items()):
                if offset < log.given_up.floor and message.done in ("", "perhaps"):
                    message = self.books.expire(key, offset)
                    self.books.note(News(key, offset, message.next_low - 1, "expired", message.lent))

    def _dismiss(self, peers: list[bytes], why: type[ZbrokerError]) -> None:
        """What they have joined is gone: they are to hear so, in this turn."""
        self.coverage["dismissed"] += len(peers)
        for peer in peers:
            session = self._by_peer[peer]
            session.pair, session.reads = None, ""
            self._untold[peer] = why.number

    def _reset(self, key: Key) -> None:
        """Nobody holds anything of the older account any more; should the record of that be lost, it is as before a restart."""
        self.coverage["reset"] += 1
        for session in self._sessions.values():
            for lease in [lease for lease in session.leases.values() if lease.key == key]:
                del session.leases[lease.id]
                for offset in lease.held:
                    message = self.books.groups[key][offset]
                    if message.holder is lease:
                        message.comes_back(lease.attempt + 1, lease.attempt + 1)

    def _lend(self, key: Key, offset: int, message: Message, lease: Lease) -> None:
        if message.done == "perhaps":
            message.done = ""
        require(not message.done, f"7: {key}[{offset}] is delivered after its {message.done}")
        now = self.world.scheduler.now
        require(
            now >= message.due, f"6: {key}[{offset}] is delivered {(message.due - now) / 1e6:.3f} s before it is due"
        )
        message.due = 0
        message.may_be_doomed = False
        require(not message.is_doomed, f"9: {key}[{offset}] is delivered after its reject")
        self._check_doom(key, offset, lease.attempt)
        if not message.next_low <= lease.attempt <= message.next_high:
            raise Violation(
                f"6: {key}[{offset}] has attempt {lease.attempt}, the model {message.next_low} to {message.next_high}"
            )
        message.holder = lease
        message.lent += 1
        message.highest = max(message.highest, lease.attempt)
        self.books.note(News(key, offset, lease.attempt, "", message.lent))

    def _take_from(self, message: Message, holder: Lease, offset: int, now: int) -> None:
        """It is lent to another: by now its holder must have lost it."""
        session = holder.session
        is_over = holder.is_doubtful or now >= holder.valid_until
        silent_since = max(
            (self._heard.get(peer, 0) for peer, other in self._by_peer.items() if other is session), default=0
        )
        lost_at = session.lost_at if session.lost_at is not None else silent_since + EXPIRY_US
        if is_over or now >= lost_at + GRACE_US:
            holder.held.discard(offset)
            message.comes_back(holder.attempt + 1, holder.attempt + 1)
            self.coverage["lease_expired" if is_over else "session_expired"] += 1
            return
        raise Violation(
            f"6: {holder.key}[{offset}] is lent again, and lease {holder.id} of {session.nonce!r} is valid until {holder.until}"
        )

    # -- ends -----------------------------------------------------------------------------------------------------

    def _end(self, session: Session, counted: int | None) -> None:
        for lease in list(session.leases.values()):
            self.books.give_back(lease, counted)

    def _forget(self, peer: bytes, session: Session) -> None:
        self._by_peer.pop(peer, None)
        if self._sessions.get(session.nonce) is session:
            del self._sessions[session.nonce]

    # -- the journal and its crashes ------------------------------------------------------------------------------

    def turned(self) -> None:
        """The end of a turn."""
        untold = [peer for peer in self._untold if peer in self._by_peer and self.world.has_session(peer)]
        require(not untold, f"11: {untold} have joined what is gone, and are not told so")
        self._untold.clear()
        self._settling.turned(self._by_peer)

    def handed(self, record: Record) -> None:
        """The engine has let go of a record."""
        if record.kind == RecordKind.OPS and record.payload != NO_OPERATIONS:
            self.books.handed(record)
            self._expired(record)
        elif record.kind == RecordKind.APPEND and record.index > self._last_append:
            self._last_append = record.index
            self._buried(record)

    def _expired(self, record: Record) -> None:
        """A record says what groups are not owed any more; whether rightly, the truth judges."""
        for _, id, ranges in expired_by(record):
            key = self._policies.by_id(id)
            if key is None:
                continue
            for offset in [offset for first, last in ranges for offset in range(first, last + 1)]:
                message = self.books.expire(key, offset)
                message.done_at = record.index
                self.coverage["expired"] += 1
                self.books.say(record.index, News(key, offset, message.next_low - 1, "expired", message.lent))

    def _buried(self, record: Record) -> None:
        """A dead letter, or one that is sent back, says of a message what an OPS record would."""
        for what, _, id, ranges in settled_by(record):
            key = self._policies.by_id(id)
            if key is None:
                continue
            messages = self.books.of(key)
            for offset in [offset for first, last in ranges for offset in range(first, last + 1)]:
                message = messages.setdefault(offset, Message())
                if message.holder is not None:
                    self._take_from(message, message.holder, offset, self.world.scheduler.now)
                message.done, message.done_at, message.is_doomed = what, record.index, False
                self.books.say(record.index, News(key, offset, message.next_low - 1, what, message.lent))

    def opened(self, opened: Opened, records: list[Record]) -> None:
        """A new life knows what the records hold that have survived."""
        self._last_append = opened.next_index - 1
        self.books.opened(opened, records)
        self._begin(opened.epoch)

    def settled(self) -> None:
        """At the end each message that was ever delivered is done with."""
        if self.world.truth.is_damaged:
            return
        for key, messages in self.books.groups.items():
            for offset, message in messages.items():
                if message.holder is not None and not self.world.truth.holdings.are_forgotten(key[0], offset, offset):
                    raise Violation(f"13: {key}[{offset}] is still lent")
