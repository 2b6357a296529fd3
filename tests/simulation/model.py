"""What a group may do: a model of streams, groups and leases that hears every message and predicts what the engine says.

It stands beside the engine, on the wire: HELLO, JOIN, SETTLE and their kin come in, DELIVER, SETTLED and ERROR go out. From
SPEC.md 9.2 alone it knows who may hold what, and which attempt it is; where time makes two answers right, it admits both.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from patterns.wire.errors import StaleLease, ZbrokerError
from patterns.wire.frames import Frames, parse
from patterns.wire.limits import EXPIRY_MS, GRACE_MS
from patterns.wire.messages import (
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
from tests.simulation.burials import settled_by
from tests.simulation.lending import Key, Lease, Message, News, Pair, Session
from tests.simulation.policies import Policies
from tests.simulation.violation import Violation, require

if TYPE_CHECKING:
    from tests.simulation.world import World
    from zbroker.core.catalog import Catalog

STALL_US = 1_000_000
ACTIONS = frozenset(("ack", "nack", "reject", "release", "extend"))
GRACE_US = GRACE_MS * 1_000
EXPIRY_US = EXPIRY_MS * 1_000
UNRECORDED = 1 << 62


class Model:
    """All groups of a broker, over its lives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.coverage: Counter[str] = Counter()
        self._groups: dict[Key, dict[int, Message]] = {}
        self._image: dict[
            Key, dict[int, tuple[int, str, int]]
        ] = {}  # what the journal knows: attempts, how it ended, its due time
        self._news: list[News] = []  # what no OPS record holds yet
        self._journaled: list[tuple[int, list[News]]] = []
        self._lease_ids: set[int] = set()
        self._last_ops = self._last_append = 0
        self._policies = Policies()
        self._begin()

    def _begin(self) -> None:
        self._sessions: dict[bytes, Session] = {}
        self._by_peer: dict[bytes, Session] = {}
        self._hellos: dict[bytes, Hello] = {}
        self._heard: dict[bytes, int] = {}  # by the broker; when what it heard last had come to its socket is in:
        self._arrived: dict[bytes, int] = {}
        self._asked: dict[tuple[bytes, int], tuple[int, int]] = {}  # (peer, settle id) -> stale at least, at most
        self._sure: dict[tuple[bytes, int], tuple[Key, set[int]]] = {}  # what must be on disk with that answer
        self._verdicts: list[tuple[bytes, int, bool | None]] = []  # (peer, lease, stale?) of this turn, without an id
        self._stale_told: Counter[tuple[bytes, int]] = Counter()
        self._gone: dict[bytes, Session] = {}
        self._policies.begin()
        self._active: dict[Pair, Session] = {}  # of an exclusive group: who was given its messages last

    # -- what comes in --------------------------------------------------------------------------------------------

    def received(self, peer: bytes, frames: Frames, arrived: int, now: int) -> None:
        """The broker takes a message from its socket, where it has lain since `arrived`."""
        try:
            message = parse(frames)
        except ZbrokerError:
            return
        header = message.header
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
            case Settle():
                self._settle(peer, session, header, arrived, now)
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

    def _settle(self, peer: bytes, session: Session, header: Settle, arrived: int, now: int) -> None:
        for held in session.leases.values():
            held.is_doubtful = held.is_doubtful or not self._validity(held, arrived, now)
        lease = session.leases.get(header.lease)
        ranges = header.ranges
        asked = {offset for first, last in ranges for offset in range(first, last + 1)}
        if lease is None:
            self._unknown(peer, header, asked)
            session.progress_at = now
            return
        is_valid = not lease.is_doubtful
        session.progress_at = now
        named = (asked or set(lease.held)) & lease.held
        stale = len(asked - named) if asked else 0
        if header.action == "extend":
            lease.until = max(lease.until, now + min(header.delay_ms, 7 * 86_400_000) * 1_000)
            self._expect(peer, header, 0, 0 if is_valid else max(1, len(asked)))
            return
        if is_valid:
            self._expect(peer, header, stale, stale)
        else:
            self._expect(peer, header, stale, max(1, len(asked)))
        self._apply(lease, named, header.action, is_valid, header.delay_ms * 1_000)
        if header.id and is_valid and header.action in ("ack", "reject"):
            self._sure[peer, header.id] = lease.key, named

    def _apply(self, lease: Lease, named: set[int], action: str, is_valid: bool, delay_us: int) -> None:
        messages = self._groups[lease.key]
        for offset in named:
            message = messages[offset]
            if message.holder is not lease:
                continue
            lease.held.discard(offset)
            if action == "reject" and self._policies.of(lease.key[:2]).dead_letter:
                message.comes_back(lease.attempt + 1, lease.attempt + 1)
                message.is_doomed = is_valid
                self.coverage["rejected"] += 1
            elif action in ("ack", "reject"):
                if is_valid:
                    message.holder, message.done, message.done_at = None, action, UNRECORDED
                    self._news.append(News(lease.key, offset, lease.attempt, action, message.lent))
                else:
                    self._come_back(lease, offset, lease.attempt, lease.attempt + 1)
                    message.done, message.done_at = "perhaps", 0  # taken, if the broker saw the time otherwise
                    self.coverage["settle_on_the_verge"] += 1
            elif action == "release":
                self._come_back(lease, offset, lease.attempt, lease.attempt + (not is_valid))
            else:
                due = self._due_after(lease, delay_us) if is_valid else 0
                self._come_back(lease, offset, lease.attempt + 1, lease.attempt + 1, due)
        if not lease.held:
            lease.session.leases.pop(lease.id, None)

    def _come_back(self, lease: Lease, offset: int, low: int, high: int, due: int = 0) -> None:
        """Nobody holds it; a record will say which attempts count, and takes back what one before may say."""
        message = self._groups[lease.key][offset]
        message.comes_back(low, high)
        message.due = due
        self._news.append(News(lease.key, offset, high - 1, "", message.lent, due))  # or less: `counted` has that

    def _due_after(self, lease: Lease, delay_us: int) -> int:
        """When a message that failed now may be lent again."""
        delay_us = delay_us or self._policies.of(lease.key[:2]).backoff_us(lease.attempt)
        return self.world.scheduler.now + delay_us

    def _unknown(self, peer: bytes, header: Settle, asked: set[int]) -> None:
        """A lease that is not this session's: stale, but for a claim of before the restart."""
        count = len(asked) or 1
        if header.lease >> 32 < self._epoch and header.action == "ack" and asked:
            self.coverage["claim"] += 1
            self._expect(peer, header, 0, count)
            session = self._by_peer[peer]
            if session.pair is not None:
                for offset in asked:
                    message = self._groups.setdefault(self._policies.key(session.pair), {}).get(offset)
                    if message is not None and message.holder is None and not message.done:
                        message.done, message.done_at = "perhaps", 0
            return
        self.coverage["stale_settle"] += 1
        self._expect(peer, header, count, count)

    def _expect(self, peer: bytes, header: Settle, low: int, high: int) -> None:
        if header.id:
            self._asked[peer, header.id] = (low, high)
        else:
            self._verdicts.append((peer, header.lease, True if low else (False if not high else None)))

    def _validity(self, lease: Lease, arrived: int, now: int) -> bool:
        """Whether it certainly counts: its time is not over, or was not when the message came and nobody listened."""
        until = self._valid_until(lease)
        if now < until:
            return True
        return arrived < until and now - until > STALL_US

    @staticmethod
    def _valid_until(lease: Lease) -> int:
        return max(lease.until, lease.session.progress_at + lease.length_us)

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
                low, high = self._asked.pop((peer, header.id), (0, 1 << 53))
                require(
                    low <= header.stale <= high,
                    f"6: a settle of {session.nonce!r} has {header.stale} stale messages, the model {low} to {high}",
                )
                self._check_sure(peer, header.id)
            case ErrorHeader(scope="lease", id=lease, number=StaleLease.number):
                self._stale_told[peer, lease] += 1
            case ErrorHeader(scope="session") if session is not None:
                self._end(session, 0)
                self._forget(peer, session)
        session = self._by_peer.get(peer)
        if not reached and session is not None:  # proven gone: what still comes from there is a stranger's
            session.lost_at = now
            self._gone[peer] = self._by_peer.pop(peer)  # of the same turn more may follow

    def _check_sure(self, peer: bytes, id: int) -> None:
        """An answer says that it is on disk; of what was rejected, that it is a dead letter there."""
        key, named = self._sure.pop((peer, id), (None, set[int]()))
        if key is None or not self._policies.is_now(key) or key[:2] in self._policies.changed:
            return
        if self.world.truth.is_damaged:
            return
        for offset in named:
            message = self._groups[key][offset]
            is_there = message.done and message.done_at <= self.world.truth.durable
            require(is_there, f"7: {key}[{offset}] is said to be settled, and no record on disk says so")

    def _ready(self, peer: bytes, header: Ready, now: int) -> None:
        hello = self._hellos.pop(peer, None)
        if hello is None:
            return
        known = self._sessions.get(hello.nonce)
        if known is not None and header.resumed:
            kept = set(hello.resume.leases) if hello.resume else set()
            for lease in [lease for id, lease in known.leases.items() if id not in kept]:
                self._give_back(lease, 0)
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
            return
        pair = session.pair
        require(pair is not None, f"6: {session.nonce!r} is given lease {header.lease} without a JOIN")
        assert pair is not None
        require(header.lease not in self._lease_ids, f"6: lease id {header.lease} comes twice")
        self._lease_ids.add(header.lease)
        self._check_turn(session, pair)
        key, length_us = self._policies.key(pair), self._policies.of(pair).lease_us
        lease = session.leases[header.lease] = Lease(header.lease, key, session, header, now, length_us)
        messages = self._groups.setdefault(key, {})
        stream = self.world.truth.names.get(key[0])
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

    def look(self, catalog: Catalog) -> None:
        """A verb or a JOIN was heard, or a life has begun: which groups there are now, and what they are told to be."""
        for pair, before, now in self._policies.look(catalog):
            if before.id != now.id:
                self._reset((*pair, before.id))
            if before.is_exclusive is not now.is_exclusive:
                self._active.pop(pair, None)
            if pair in self._policies.changed:  # what waits may have failed before it counted
                for message in self._groups.get((*pair, now.id), {}).values():
                    if message.is_doomed and not now.dead_letter:
                        message.done, message.done_at = "perhaps", 0  # dead without a letter, soon
                    message.is_doomed = False
            for lease in [lease for session in self._sessions.values() for lease in session.leases.values()]:
                if lease.key[:2] == pair:
                    lease.length_us = min(lease.length_us, now.lease_us)

    def _reset(self, key: Key) -> None:
        """Nobody holds anything of the older account any more; should the record of that be lost, it is as before a restart."""
        self.coverage["reset"] += 1
        for session in self._sessions.values():
            for lease in [lease for lease in session.leases.values() if lease.key == key]:
                del session.leases[lease.id]
                for offset in lease.held:
                    message = self._groups[key][offset]
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
        require(not message.is_doomed, f"9: {key}[{offset}] is delivered after its reject")
        self._check_doom(key, offset, lease.attempt)
        if not message.next_low <= lease.attempt <= message.next_high:
            raise Violation(
                f"6: {key}[{offset}] has attempt {lease.attempt}, the model {message.next_low} to {message.next_high}"
            )
        message.holder = lease
        message.lent += 1
        message.highest = max(message.highest, lease.attempt)
        self._news.append(News(key, offset, lease.attempt, "", message.lent))

    def _take_from(self, message: Message, holder: Lease, offset: int, now: int) -> None:
        """It is lent to another: by now its holder must have lost it."""
        session = holder.session
        is_over = holder.is_doubtful or now >= self._valid_until(holder)
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

    def turned(self) -> None:
        """The end of a turn: each SETTLE without an id is answered by now, if there was something to say."""
        verdicts, self._verdicts = self._verdicts, []
        told, self._stale_told = self._stale_told, Counter()
        for peer, lease, stale in verdicts:
            if stale is None or peer not in self._by_peer:
                continue
            was_told = told[peer, lease] > 0
            expected = [verdict for other, id, verdict in verdicts if (other, id) == (peer, lease)]
            if len(set(expected)) == 1 and was_told is not stale:
                raise Violation(
                    f"6: a settle of lease {lease} was {'refused' if was_told else 'taken'}, and should not be"
                )

    # -- ends -----------------------------------------------------------------------------------------------------

    def _give_back(self, lease: Lease, counted: int | None) -> None:
        """A lease ends; `counted`: 1 if the attempt counts, None where it may or may not."""
        lease.session.leases.pop(lease.id, None)
        if counted == 0 and (lease.is_doubtful or self.world.scheduler.now >= self._valid_until(lease)):
            counted = None  # its time may have been over before
        low = lease.attempt + (counted or 0)
        high = lease.attempt + (1 if counted is None else counted)
        messages = self._groups[lease.key]
        for offset in lease.held:
            if messages[offset].holder is lease:
                self._come_back(lease, offset, low, high)

    def _end(self, session: Session, counted: int | None) -> None:
        for lease in list(session.leases.values()):
            self._give_back(lease, counted)

    def _forget(self, peer: bytes, session: Session) -> None:
        self._by_peer.pop(peer, None)
        if self._sessions.get(session.nonce) is session:
            del self._sessions[session.nonce]

    # -- the journal and its crashes ------------------------------------------------------------------------------

    def handed(self, record: Record) -> None:
        """An OPS record has left the engine; it holds all that had happened by then."""
        if record.kind == RecordKind.OPS and record.index > self._last_ops:  # one that was held comes again
            self._last_ops = record.index
            for news in self._news:
                if news.done:
                    self._groups[news.key][news.offset].done_at = record.index
            self._journaled.append((record.index, self._news))
            self._news = []
        elif record.kind == RecordKind.APPEND and record.index > self._last_append:
            self._last_append = record.index
            self._buried(record)

    def _buried(self, record: Record) -> None:
        """A dead letter, or one that is sent back, says of a message what an OPS record would."""
        names = {id: name for name, id in self.world.truth.names.items()}
        for what, stream, id, ranges in settled_by(record):
            key = self._policies.named(names.get(stream), id)
            if key is None:
                continue
            messages = self._groups.setdefault(key, {})
            for offset in [offset for first, last in ranges for offset in range(first, last + 1)]:
                message = messages.setdefault(offset, Message())
                if message.holder is not None:
                    self._take_from(message, message.holder, offset, self.world.scheduler.now)
                message.done, message.done_at, message.is_doomed = what, record.index, False
                news = News(key, offset, message.next_low - 1, what, message.lent)
                self._journaled.append((record.index, [news]))

    def stopped(self) -> None:
        """In order: nothing is forgotten, but what was delivered in the last moment."""
        self._journaled.append((0, [news for news in self._news if news.done]))
        self._news = []

    def crashed(self) -> None:
        """What no record holds is forgotten."""
        self._news = []

    def opened(self, opened: Opened, records: list[Record]) -> None:
        """A new life knows what the records hold that have survived."""
        self._epoch = opened.epoch
        kept = {record.index for record in records}
        for index, news in self._journaled:
            if index == 0 or index in kept:
                self._know(news)
        self._journaled, self._news = [], []
        self._last_ops = self._last_append = opened.next_index - 1
        if opened.damage:
            self._image = {}  # an OPS record may be among the lost: then all of it may come again
            self.coverage["reopened_damaged"] += 1
        self._begin()
        for key, messages in self._groups.items():
            image = self._image.get(key, {})
            for offset, message in messages.items():
                known, done, due, lent = image.get(offset, (0, "", 0, 0))
                message.due = 0 if self.world.injected["wall_jump"] else due - 2_000  # told in milliseconds
                attempts = min([known, *(counted for _, counted in message.counted)])
                message.holder, message.is_doomed = None, False
                message.done, message.done_at = done or ("perhaps" if message.done else ""), 0
                most = known if lent == message.lent else max(message.highest, known)
                message.next_low, message.next_high = attempts + 1, most + 1

    def _know(self, told: list[News]) -> None:
        """A record with these has survived."""
        for news in told:
            image = self._image.setdefault(news.key, {})
            _, done, *_ = image.get(news.offset, (0, "", 0, 0))
            image[news.offset] = (news.attempt, news.done or done, news.due, news.lent)
            message = self._groups[news.key][news.offset]
            message.counted = [one for one in message.counted if one[0] >= news.lent]

    def is_settled(self, stream: str, group: str, id: int, offset: int, durable: int) -> bool:
        """Whether a member has acked or rejected it, or may have, and a record up to `durable` says so."""
        message = self._groups.get((stream, group, id), {}).get(offset)
        return message is not None and bool(message.done) and message.done_at <= durable

    def settled(self) -> None:
        """At the end each message that was ever delivered is done with."""
        if self.world.truth.is_damaged:
            return
        for key, messages in self._groups.items():
            for offset, message in messages.items():
                if message.holder is not None and not self.world.truth.are_forgotten(key[0], offset, offset):
                    raise Violation(f"13: {key}[{offset}] is still lent")
