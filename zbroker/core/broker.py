"""The broker's engine: sessions, services, topics and streams behind one door. Sans-I/O: a loop carries out its effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from patterns.wire import codec
from patterns.wire.engine import Link, PeerId
from patterns.wire.errors import (
    CreditExceeded,
    NotInThisDeployment,
    ShuttingDown,
    TooLarge,
    WrongRole,
    ZbrokerError,
)
from patterns.wire.frames import Frames, Message
from patterns.wire.limits import (
    BATCH_BYTES_MAX,
    BODY_BYTES_MAX,
    CREDIT_BYTES,
    CREDIT_MESSAGES,
    EXPIRY_MS,
    GRACE_MS,
    HEARTBEAT_MS,
    PART_BYTES_AHEAD_MAX,
    PARTS_AHEAD_MAX,
)
from patterns.wire.messages import Admin, Codec, Credit, Hello, Limits, Ping, Ready, Result, Role
from patterns.wire.records import Move, Opened, Position, Record
from patterns.wire.server import Session, Sessions
from patterns.wire.words import counted
from zbroker.core.effects import PLAIN_PUBLISHERS, PLAIN_SUBSCRIBERS, SESSIONS, Effect, Moved
from zbroker.core.events import Event, SessionBegan, SessionEnded, SessionRefused, WarningGone, WarningRaised
from zbroker.core.plain_publishers import PlainPublishers
from zbroker.core.plain_subscribers import PlainSubscribers
from zbroker.core.services import Services
from zbroker.core.topics import Topics
from zbroker.core.translate import Translate, translate

_STATUS_ROWS_MAX: Final = 1_000  # of each table in `status`: a thousand rows fit a message, and nobody reads more
_RETRY_MS: Final = 1_000
_REPLIES_UNDER_WAY_MAX: Final = 256  # of the largest size, in libzmq's memory before we read them
_DURABLE_ROLES: Final = frozenset((Role.PRODUCER, Role.CONSUMER))
_SENDING_ROLES: Final = frozenset((Role.REQUESTER, Role.PUBLISHER, Role.PRODUCER))  # those that we give credit

Handler = Callable[[Session, Message, int], None]


class Timed(Protocol):
    """A part that has something due at times."""

    def next_timeout(self) -> int | None: ...
    def handle_timeout(self, now: int) -> None: ...


class StreamsFacade(Protocol):
    """What the engine asks of the streams; None in a broker without a journal."""

    def listen(self, warn: Callable[[str, str], None], note: Callable[[Event], None]) -> None: ...
    def restore(self, chunks: Iterable[bytes]) -> bool: ...
    def index(self, chunk: bytes) -> bool: ...
    def reindex(self, record: Record, position: Position) -> None: ...
    def begin_checkpoint(self, full: list[int], current: int) -> None: ...
    def recover(self, record: Record, position: Position) -> None: ...
    def opened(
        self, epoch: int, next_index: int, now: int, segments: Sequence[int] = (), is_damaged: bool = False
    ) -> None: ...
    def admit(self, session: Session, hello: Hello, ready: Ready, now: int) -> None: ...
    def receive(self, session: Session, message: Message, now: int) -> None: ...
    def ended(self, session: Session, reason: str, now: int) -> None: ...
    def turn(self, now: int) -> None: ...
    def placed(self, index: int, position: Position) -> None: ...
    def moved(self, moves: Iterable[Move]) -> None: ...
    def persisted(self, index: int, now: int) -> None: ...
    def loaded(self, token: int, records: list[Record | Moved | None], now: int) -> None: ...
    def storage(self, full: bool, failed: bool) -> None: ...
    def next_timeout(self) -> int | None: ...
    def handle_timeout(self, now: int) -> None: ...
    def administer(self, session: Session, header: Admin, now: int) -> None: ...
    def status(self, rows_max: int, now: int) -> dict[str, object]: ...
    def join(self, topics: Topics, nonce: bytes) -> None: ...


MakeStreams = Callable[[Sessions, list[Effect]], StreamsFacade]


def _called(session: Session) -> str:
    return session.nonce[:4].hex()


class BrokerEngine:
    """One broker. `now` is integer microseconds on a monotonic clock; it never goes back.

    Args:
        cluster: names what clients may call the same broker; goes into READY.
        now: the instant of its start.
        epoch: of a broker without a journal; a journal's own comes with opened().
        make_streams: makes the streams over our sessions and effects; None: no journal, no streams.
        nonce: names the broker as the publisher of what plain publishers send; 16 bytes, another one in each life.
        plain_codec: what their bodies are labelled as.
        translate: how live bodies, requests and replies get into another codec.
    """

    def __init__(
        self,
        cluster: str,
        now: int,
        epoch: int = 0,
        make_streams: MakeStreams | None = None,
        nonce: bytes = bytes(16),
        plain_codec: Codec = Codec.RAW,
        translate: Translate = translate,
    ) -> None:
        self._cluster = cluster
        self._started_at = now
        self._effects: list[Effect] = []
        self._events: list[Event] = []
        self._sessions = Sessions(self, self._effects, epoch, {Role.CONSUMER: GRACE_MS * 1_000})  # type: ignore[arg-type]
        self._services = Services(self._sessions, translate)
        self._plain_subscribers = PlainSubscribers(self._effects)
        self._topics = Topics(self._sessions, self._plain_subscribers, translate)
        self._plain_publishers = PlainPublishers(self._topics, nonce, plain_codec, self._note)
        self._streams = make_streams(self._sessions, self._effects) if make_streams else None
        self._timed: tuple[Timed, ...] = (self._sessions, self._services, *filter(None, [self._streams]))
        if self._streams is not None:
            self._streams.join(self._topics, nonce)
            self._streams.listen(self.warn, self._note)
        self._informed: dict[str, object] = {}
        self._warnings: dict[str, str] = {}
        self._is_draining = False
        self._handlers = self._table()

    def _table(self) -> dict[bytes, tuple[frozenset[Role], Handler]]:
        """Which roles may send a kind, and who acts on it. What is not here, B alone sends."""
        services, topics = self._services, self._topics
        replier, requester = frozenset((Role.REPLIER,)), frozenset((Role.REQUESTER,))
        subscriber, publisher = frozenset((Role.SUBSCRIBER,)), frozenset((Role.PUBLISHER,))
        producer, consumer = frozenset((Role.PRODUCER,)), frozenset((Role.CONSUMER,))
        return {
            b"Q": (requester, services.request),
            b"q": (replier, services.reply),
            b"p": (replier, services.partial),
            b"X": (requester, services.cancel),
            b"O": (replier, services.offer),
            b"W": (replier, services.withdraw),
            b"P": (publisher, topics.publish),
            b"S": (subscriber, topics.subscribe),
            b"U": (subscriber, topics.unsubscribe),
            b"A": (producer, self._to_streams),
            b"J": (consumer, self._to_streams),
            b"K": (consumer, self._to_streams),
            b"L": (consumer, self._to_streams),
            b"C": (frozenset(Role), self._credit),
            b"E": (frozenset(Role), self._error),
            b"M": (frozenset((Role.ADMIN,)), self._admin),
        }

    # -- the journal's beginning ---------------------------------------------------------------------------------

    def restore(self, chunks: Iterable[bytes]) -> bool:
        """A checkpoint of an earlier life, before everything else; False: not understood, show another one."""
        assert self._streams is not None
        return self._streams.restore(chunks)

    def index(self, chunk: bytes) -> bool:
        """Where records lie that the checkpoint reflects; False: not understood, show the records."""
        assert self._streams is not None
        return self._streams.index(chunk)

    def reindex(self, record: Record, position: Position) -> None:
        """One record that the checkpoint reflects."""
        assert self._streams is not None
        self._streams.reindex(record, position)

    def begin_checkpoint(self, full: list[int], current: int) -> None:
        """The journal wants one: `full` segments lack an index, `current` is written to. It leaves as effects."""
        assert self._streams is not None
        self._streams.begin_checkpoint(full, current)

    def recover(self, record: Record, position: Position) -> None:
        """A record of an earlier life, in index order, before opened()."""
        assert self._streams is not None
        self._streams.recover(record, position)

    def opened(self, opened: Opened, cluster: str, now: int) -> None:
        """The journal is open: this is our epoch, and the cluster that its folder names."""
        assert self._streams is not None
        self._cluster = cluster
        self._sessions.epoch = opened.epoch
        self._streams.opened(opened.epoch, opened.next_index, now, opened.segments, bool(opened.damage))
        if opened.damage:
            self.warn(
                "damage", f"{counted(len(opened.damage), 'damaged place')} in the journal; see `zbroker store verify`"
            )

    @property
    def epoch(self) -> int:
        """Grows with every start."""
        return self._sessions.epoch

    # -- what the loop brings ------------------------------------------------------------------------------------

    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None:
        """One message from a peer. Whatever a peer sent becomes an answer or a count, never an exception."""
        if link != SESSIONS:
            if link == PLAIN_PUBLISHERS:
                self._plain_publishers.receive(frames, now)
            else:
                self._plain_subscribers.receive(peer, frames, now)
            return
        found = self._sessions.receive(link, peer, frames, now)
        if found is None:
            return
        session, message = found
        entry = self._handlers.get(message.kind)
        try:
            if entry is None or session.role not in entry[0]:
                raise WrongRole(f"kind {message.kind.decode()!r} is not for a {session.role}")
            entry[1](session, message, now)
        except CreditExceeded as error:
            self._sessions.end(session, error, now)
        except ZbrokerError as error:
            self._sessions.refuse(session, error)

    def connected(self, link: Link, peer: PeerId, now: int) -> None:
        """A plain peer's connection has come. Of sessions, HELLO tells."""
        if link == PLAIN_PUBLISHERS:
            self._plain_publishers.connected(peer)
        elif link == PLAIN_SUBSCRIBERS:
            self._plain_subscribers.connected(peer, now)

    def disconnected(self, link: Link, peer: PeerId, now: int) -> None:
        """A connection is proven gone; of a plain peer, said to be."""
        if link == SESSIONS:
            self._sessions.disconnected((link, peer), now)
        elif link == PLAIN_PUBLISHERS:
            self._plain_publishers.disconnected(peer)
        else:
            self._plain_subscribers.disconnected(peer, now)

    def allowance(self, link: Link, peer: PeerId) -> tuple[int, int]:
        """Bytes and messages that a connection's session may have under way towards us; (0, 0) without a session.

        A replier's replies are bounded by the requests that it has credit for, not by credit of ours.
        """
        session = self._sessions.at((link, peer))
        if session is None:
            return 0, 0
        if session.role is Role.REPLIER:
            messages = min(session.out.messages_max, _REPLIES_UNDER_WAY_MAX)
            size = messages * (BODY_BYTES_MAX + PART_BYTES_AHEAD_MAX)  # each may be the end of a streamed one
            return size, messages * (1 + PARTS_AHEAD_MAX)
        return session.into.bytes_max - session.into.bytes_used, max(1, session.into.messages_left)

    def not_offered(self, count: int) -> None:
        """So many messages of an Offer were left out: the loop's way to plain subscribers is full."""
        self._plain_subscribers.not_offered(count)

    def suspect(self, link: Link, peer: PeerId) -> None:
        """A hint says that a connection is gone: one PING, in the form that its peer reads, will prove it."""
        session = self._sessions.at((link, peer))
        if session is not None:
            self._sessions.tell(session, Ping(0))

    def turn(self, now: int) -> None:
        """Once a turn, after all that was there was received."""
        self._plain_publishers.turn(now)
        self._topics.turn(now)
        if self._streams is not None:
            self._streams.turn(now)

    def placed(self, index: int, position: Position) -> None:
        """Where an appended record lies."""
        assert self._streams is not None
        self._streams.placed(index, position)

    def moved(self, moves: Iterable[Move]) -> None:
        """The journal has put batches elsewhere."""
        assert self._streams is not None
        self._streams.moved(moves)

    def persisted(self, index: int, now: int) -> None:
        """All records up to this index are on the disk."""
        assert self._streams is not None
        self._streams.persisted(index, now)

    def loaded(self, token: int, records: list[Record | Moved | None], now: int) -> None:
        """The records that a Read asked for; None for a damaged one, MOVED for one to look up again."""
        assert self._streams is not None
        self._streams.loaded(token, records, now)

    def storage(self, *, full: bool = False, failed: bool = False) -> None:
        """The state of the disk has changed."""
        if self._streams is not None:
            self._streams.storage(full, failed)
        self.warn("storage_full", "the disk is full: producers are refused until there is room" if full else "")
        self.warn(
            "storage_failed", "the disk has failed: nothing durable is served; check it, then restart" if failed else ""
        )

    def effects(self) -> list[Effect]:
        """What the loop must do, oldest first; each once."""
        effects = self._effects[:]
        self._effects.clear()  # the list itself is shared with sessions and streams
        return effects

    def _note(self, event: Event) -> None:
        self._events.append(event)

    @property
    def has_events(self) -> bool:
        """Whether events() has something."""
        return bool(self._events)

    def events(self) -> list[Event]:
        """What people may want to read of, oldest first; each once."""
        events, self._events = self._events, []
        return events

    def next_timeout(self) -> int | None:
        """When handle_timeout() is due."""
        due = None
        for part in self._timed:  # every turn asks: a list and a generator to min() over take twice as long
            instant = part.next_timeout()
            if instant is not None and (due is None or instant < due):
                due = instant
        return due

    def handle_timeout(self, now: int) -> None:
        """Do what is due by now."""
        for part in self._timed:
            part.handle_timeout(now)

    # -- the end -------------------------------------------------------------------------------------------------

    def drain(self, now: int) -> None:
        """Take nothing new and say so; requests that repliers work on may finish."""
        self._is_draining = True
        self._services.drain()

    @property
    def under_way(self) -> int:
        """Requests that repliers work on."""
        return self._services.under_way

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._is_draining and not self._services.under_way

    def farewell(self) -> None:
        """GOODBYE to everybody, as the last word."""
        self._sessions.farewell("the broker shuts down", _RETRY_MS)

    # -- what Sessions asks of its host --------------------------------------------------------------------------

    def admit(self, session: Session, hello: Hello, now: int) -> Ready:
        """The READY for a session, or a ZbrokerError that refuses it."""
        who = _called(session), hello.role.value, hello.name
        try:
            ready = self._admit(session, hello, now)
        except ZbrokerError as error:
            self._events.append(SessionRefused(*who, error.name, error.detail))
            raise
        self._events.append(SessionBegan(*who, ready.resumed))
        return ready

    def _admit(self, session: Session, hello: Hello, now: int) -> Ready:
        if self._is_draining:
            raise ShuttingDown("the broker shuts down", retry_after_ms=_RETRY_MS)
        gives_credit = hello.role in _SENDING_ROLES
        ready = Ready(
            version=1,
            epoch=self._sessions.epoch,
            limits=Limits(BODY_BYTES_MAX, BATCH_BYTES_MAX),
            cluster=self._cluster,
            name=hello.name,
            heartbeat_ms=HEARTBEAT_MS,
            expiry_ms=EXPIRY_MS,
            credit_messages=CREDIT_MESSAGES if gives_credit else 0,
            credit_bytes=CREDIT_BYTES if gives_credit else 0,
        )
        if hello.role in _DURABLE_ROLES:
            if self._streams is None:
                raise NotInThisDeployment(
                    "this broker runs without a journal (--no-data): no streams; start it with --data"
                )
            self._streams.admit(session, hello, ready, now)
        else:
            self._release(session, now)
            self._topics.admit(session, hello)
        return ready

    def _release(self, session: Session, now: int) -> None:
        """A HELLO may overtake the news that its old connection is gone; these roles end with their connection."""
        self._services.ended(session, now)
        self._topics.ended(session)

    def ended(self, session: Session, reason: str, now: int) -> None:
        """A session is over: give back what it held."""
        self._events.append(SessionEnded(_called(session), session.role.value, session.name, reason))
        if session.role in _DURABLE_ROLES:
            if self._streams is not None:
                self._streams.ended(session, reason, now)
            return
        self._release(session, now)

    # -- handlers ------------------------------------------------------------------------------------------------

    def _to_streams(self, session: Session, message: Message, now: int) -> None:
        assert self._streams is not None  # without them no producer or consumer was admitted
        self._streams.receive(session, message, now)

    def _credit(self, session: Session, message: Message, now: int) -> None:
        """The totals are noted already; here it wakes what waited for them."""
        header = message.header
        assert isinstance(header, Credit)
        if header.id:
            self._services.widen(session, message, now)
        elif session.role in (Role.REPLIER, Role.REQUESTER):
            self._services.credit(session, now)
        elif session.role is Role.CONSUMER:
            self._to_streams(session, message, now)

    def _error(self, session: Session, message: Message, now: int) -> None:
        if session.role is Role.REPLIER:
            self._services.error(session, message, now)
        else:
            self._sessions.counters["errors_received"] += 1

    def _admin(self, session: Session, message: Message, now: int) -> None:
        header = message.header
        assert isinstance(header, Admin)
        if header.verb != "status":
            self._administer(session, header, now)
            return
        used = session.codec if session.codec is Codec.JSON else Codec.MSGPACK
        try:
            payload = codec.encode_body(used, [self.status(now)])
        except TooLarge as error_:
            self._sessions.refuse(session, error_, "command", header.id)
            return
        self._sessions.answer(session, Result(id=header.id, codec=used), payload=payload)

    def _administer(self, session: Session, header: Admin, now: int) -> None:
        if self._streams is not None:
            self._streams.administer(session, header, now)
            return
        error = NotInThisDeployment(
            f"{header.verb[:64]!r}: this broker runs without a journal (--no-data), and knows the verb `status` alone"
        )
        self._sessions.refuse(session, error, "command", header.id)

    # -- for people ----------------------------------------------------------------------------------------------

    def inform(self, name: str, section: object) -> None:
        """A section of `status` that the loop knows: journal, guard."""
        self._informed[name] = section

    def warn(self, key: str, text: str) -> None:
        """Show a warning in `status` until it is taken back with an empty text."""
        if text:
            if key not in self._warnings:
                self._events.append(WarningRaised(key, text))
            self._warnings[key] = text
        elif self._warnings.pop(key, None) is not None:
            self._events.append(WarningGone(key))

    def uptime_ms(self, now: int) -> int:
        """Since the start."""
        return (now - self._started_at) // 1_000

    def status(self, now: int) -> dict[str, object]:
        """All that `zbroker status` shows."""
        roles = Counter(session.role.value for session in self._sessions)
        counters = self._sessions.counters + self._services.counters + self._topics.counters
        counters += self._plain_publishers.counters + self._plain_subscribers.counters
        counters += Counter(requests=self._services.requests)
        status: dict[str, object] = {
            "epoch": self.epoch,
            "cluster": self._cluster,
            "uptime_ms": self.uptime_ms(now),
            "streams": {},
            "groups": {},
            "services": self._services.status(_STATUS_ROWS_MAX),
            "subscriptions": self._topics.status(_STATUS_ROWS_MAX),
            "plain": {**self._plain_publishers.status(), **self._plain_subscribers.status()},
            "sessions": {"total": len(self._sessions), **dict(sorted(roles.items()))},
            "counters": dict(sorted(counters.items())),
            "refused": dict(sorted(self._sessions.refused.items())),
            "journal": None,
            "warnings": list(self._warnings.values()),
        }
        if self._streams is not None:
            status.update(self._streams.status(_STATUS_ROWS_MAX, now))
        status.update(self._informed)
        return status
