"""A client's session, and the engine that the connecting roles share (SPEC.md 5). Roles fill in the hooks at its end."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from patterns.core.backoff import Backoff, Jitter
from patterns.wire.address import Address
from patterns.wire.engine import Close, Effect, Link, Open, PeerId, Send, Unreachable
from patterns.wire.errors import (
    BadAddress,
    ProtocolError,
    RemoteProtocolError,
    Unavailable,
    UnknownCommand,
    ZbrokerError,
    from_wire,
)
from patterns.wire.frames import Frames, Message, kind_of, pack, parse
from patterns.wire.limits import (
    BATCH_BYTES_MAX,
    BODY_BYTES_MAX,
    HANDSHAKE_MS,
    HEARTBEAT_MS,
    HELLO_JITTER_MS,
    RECONNECT_MS,
    RECONNECT_MS_MAX,
    RETRY_AFTER_MS_MAX,
)
from patterns.wire.messages import Credit as CreditHeader
from patterns.wire.messages import (
    ErrorHeader,
    Goodbye,
    Header,
    Hello,
    Limits,
    NoSessionHeader,
    Ping,
    Pong,
    Ready,
)
from patterns.wire.server import error_header
from patterns.wire.session import ClientEvent, ClientState, Credit, client_next, pace_of

_DEFAULT_LIMITS: Final = Limits(BODY_BYTES_MAX, BATCH_BYTES_MAX)
_MS: Final = 1_000
_SESSION_KINDS: Final = frozenset(
    kind_of(header) for header in (Ready, NoSessionHeader, Ping, Pong, CreditHeader, Goodbye, ErrorHeader)
)


class SessionReady(msgspec.Struct, gc=False):
    """A session was opened, or opened again."""

    resumed: bool


class SessionLost(msgspec.Struct, gc=False):
    """The connection is gone; another try follows by itself."""

    detail: str


class Failed(msgspec.Struct):
    """The session was refused for good: every call raises this from now on."""

    error: ZbrokerError


class ClientSession:
    """One session over one connection after the other.

    Attributes:
        link: the socket it has now.
        ready: the last READY.
        out: the credit that B gave us; into: the credit that we gave B.
        is_ready: READY, and not leaving.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        hello: Callable[[ClientSession], Hello],
        links: Iterator[Link],
        effects: list[Effect],
        jitter: Jitter,
    ) -> None:
        self._addresses = itertools.cycle(addresses)
        self._hello = hello
        self._links = links
        self._effects = effects
        self._jitter = jitter
        self._backoff = Backoff(RECONNECT_MS * _MS, RECONNECT_MS_MAX * _MS, jitter)
        self.address = addresses[0]
        self.link: Link = 0
        self.state = ClientState.DOWN
        self.ready: Ready | None = None
        self.limits = _DEFAULT_LIMITS
        self.out = Credit()
        self.into = Credit()
        self.outbox: deque[tuple[int, int, Frames]] = deque()
        self.outbox_bytes = 0
        self.leaving = self.is_ready = False
        self.heard_at = self._sent_at = 0
        self._heartbeat_us = self._expiry_us = 0  # READY says it
        self._due: int | None = None  # the one timer: retry, hello, handshake or heartbeat, as the state says
        self._hello_sent = False

    # -- the life of the connection ------------------------------------------------------------------------------

    def open(self, now: int) -> None:
        """Make a socket to the next address."""
        self._step(ClientEvent.OPEN)
        self.address = next(self._addresses)
        self.link = next(self._links)
        self._hello_sent = False
        self._due = now + HANDSHAKE_MS * _MS
        self._effects.append(Open(self.link, self.address.endpoint))

    def connected(self, now: int) -> None:
        """The connection stands: say HELLO, spread in time if everybody comes back at once."""
        self._step(ClientEvent.CONNECTED, ours=False)
        if self._hello_sent:
            return
        self._due = now + (int(self._jitter() * HELLO_JITTER_MS * _MS) if self.ready else 0)
        self.handle_timeout(now)

    def _say_hello(self, now: int) -> None:
        self._hello_sent = True
        hello = self._hello(self)
        self.into = Credit(hello.credit_messages, hello.credit_bytes)
        self._due = now + HANDSHAKE_MS * _MS
        self.send(hello, now)

    def begin(self, ready: Ready, now: int) -> None:
        """READY came."""
        self._step(ClientEvent.READY, ours=False)
        self._backoff.reset()
        self.ready, self.limits = ready, ready.limits
        self.out = Credit(ready.credit_messages, ready.credit_bytes)
        self.heard_at = now
        self._heartbeat_us, self._expiry_us = pace_of(ready)
        self._due = now + self._heartbeat_us

    def lose(self, event: ClientEvent, now: int, *, retry_us: int | None = None) -> None:
        """The connection, or what it led to, is gone; try the next address in a while."""
        self._step(event, ours=False)
        self._effects.append(Close(self.link))
        if self.ready is not None:  # else it was queued for whoever greets first, at whichever address
            self.outbox.clear()  # what was queued for the old connection is void (SPEC.md 5); the role sends again
            self.outbox_bytes = 0
        self.link = 0
        self._due = now + (self._backoff.next() if retry_us is None else retry_us)
        if self.leaving:
            self.close()

    def close(self) -> None:
        """For good."""
        if self.state is ClientState.CLOSED:
            return
        self._step(ClientEvent.CLOSE)
        self._due = None
        if self.link:
            self._effects.append(Close(self.link))
            self.link = 0

    def leave(self, now: int) -> None:
        """Say GOODBYE and close when it is answered; at once if there is nobody to say it to."""
        if self.is_ready and not self.leaving:
            self.leaving, self.is_ready = True, False
            self.send(Goodbye(), now)
            self._due = now + HEARTBEAT_MS * _MS
        elif not self.leaving:
            self.close()

    def _step(self, event: ClientEvent, *, ours: bool = True) -> None:
        self.state = client_next(self.state, event, ours=ours)
        self.is_ready = self.state is ClientState.READY and not self.leaving

    # -- sending -------------------------------------------------------------------------------------------------

    def send(self, header: Header, now: int, *, columns: bytes = b"", payload: bytes = b"") -> None:
        """Send now: what credit does not count."""
        self._sent_at = now
        self._effects.append(Send(self.link, b"", pack(header, columns=columns, payload=payload)))

    def post(self, messages: int, size: int, frames: Frames, now: int) -> None:
        """Send a counted batch as soon as credit admits it, in order."""
        if self.outbox or not self.is_ready or not self.out.take(messages, size):
            self.outbox.append((messages, size, frames))
            self.outbox_bytes += size
            return
        self._effects.append(Send(self.link, b"", frames))
        self._sent_at = now

    def flush(self, now: int) -> None:
        """Send what waits, as far as credit goes."""
        outbox, out = self.outbox, self.out
        while outbox and out.is_open and self.is_ready:
            messages, size, frames = outbox.popleft()
            self.outbox_bytes -= size
            out.spend(messages, size)
            self._effects.append(Send(self.link, b"", frames))
            self._sent_at = now

    def grant(self, messages_max: int, bytes_max: int, now: int) -> None:
        """Tell B its new totals."""
        self.into.raise_to(messages_max, bytes_max)
        self.send(CreditHeader(self.into.messages_max, self.into.bytes_max), now)

    # -- time ----------------------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        return self._due

    def handle_timeout(self, now: int) -> ClientEvent | None:
        """Do what is due. An event is returned when the connection is to be given up for it."""
        if self._due is None or now < self._due:
            return None
        match self.state:
            case ClientState.DOWN:
                self.open(now)
            case ClientState.GREETING if not self._hello_sent:
                self._say_hello(now)
            case ClientState.READY if not self.leaving:
                return self._beat(now)
            case _:
                return ClientEvent.TIMEOUT
        return None

    def _beat(self, now: int) -> ClientEvent | None:
        """PING what is silent, or has heard nothing of us; give up on what stays silent."""
        if now - self.heard_at >= self._expiry_us:
            return ClientEvent.TIMEOUT
        quiet_since = min(self.heard_at, self._sent_at)
        if now - quiet_since >= self._heartbeat_us:
            self.send(Ping(1), now)
            self._due = now + self._heartbeat_us
        else:
            self._due = quiet_since + self._heartbeat_us
        return None


class ClientEngine:
    """What Requester, Replier, Publisher, Subscriber, Producer and Consumer engines share; see wire/engine.py.

    Args:
        addresses: all brokered: one session that tries one after the other; peer to peer: a session for each.
        jitter: random numbers in [0, 1).

    Attributes:
        wants: effects that nobody has taken yet.
        news: events, likewise.
    """

    def __init__(self, addresses: Sequence[Address], jitter: Jitter) -> None:
        self.addresses = tuple(addresses)
        self.brokered = addresses[0].brokered
        self.wants: list[Effect] = []
        self.news: list[Any] = []
        self._links = itertools.count(1)
        self.counters: Counter[str] = Counter()
        self.error: ZbrokerError | None = None  # why the session was refused for good
        self.detail = ""  # why it is not there at the moment
        groups = [self.addresses] if self.brokered else [(address,) for address in self.addresses]
        self.sessions = [ClientSession(group, self._hello, self._links, self.wants, jitter) for group in groups]

    # -- Engine --------------------------------------------------------------------------------------------------

    def start(self, now: int) -> None:
        """Begin to connect."""
        for session in self.sessions:
            session.open(now)

    def connected(self, link: Link, now: int) -> None:
        session = self._session_at(link)
        if session is not None:
            session.connected(now)

    def disconnected(self, link: Link, now: int) -> None:
        session = self._session_at(link)
        if session is not None:
            self._lose(session, ClientEvent.DISCONNECTED, f"the connection to {session.address} broke", now)

    def unreachable(self, link: Link, now: int, why: Unreachable = Unreachable.NOBODY) -> None:
        """No connection comes about."""
        session = self._session_at(link)
        if session is not None:
            self._lose(session, ClientEvent.DISCONNECTED, why.value.format(place=session.address), now)

    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None:
        for session in self.sessions:
            if session.link == link:
                break
        else:
            return  # as _session_at(), without the call
        session.heard_at = now
        try:
            message = parse(frames)
            if message.kind in _SESSION_KINDS:
                self._receive(session, message, now)
            else:
                self.on_message(session, message, now)
        except UnknownCommand as error:
            self.counters["unknown_command"] += 1
            session.send(error_header(error, "command"), now)
        except RemoteProtocolError:
            self.counters["malformed"] += 1

    def _receive(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Ready(cluster=cluster) if cluster and not self.brokered:
                self._refused(session, _met_a_broker(session.address), now)
            case Ready() as ready:
                session.begin(ready, now)
                self.detail = ""
                self.news.append(SessionReady(ready.resumed))
                self.on_ready(session, ready, now)
                session.flush(now)
            case NoSessionHeader():
                at_once = 0 if session.state is ClientState.READY else None  # who answers HELLO so will do it again
                self._lose(
                    session, ClientEvent.NO_SESSION, "the other end does not know the session", now, retry_us=at_once
                )
            case Ping(token=token):
                session.send(Pong(token), now)
            case Pong(token=token):
                self.on_pong(token)
            case CreditHeader(messages=messages, bytes=size, id=0):
                session.out.raise_to(messages, size)
                session.flush(now)
                self.on_credit(session, now)
            case Goodbye(reason=reason, retry_after_ms=after_ms):
                self._goodbye(session, reason, after_ms, now)
            case ErrorHeader(scope="session") as header:
                self._refused(session, error_of(header), now)
            case ErrorHeader(scope="command", id=0, number=ProtocolError.number) as header:
                self._end(session, error_of(header), now)  # SPEC.md 5: a fault of ours, so another try has the same end
            case _:
                self.on_message(session, message, now)

    def _goodbye(self, session: ClientSession, reason: str, after_ms: int, now: int) -> None:
        if session.leaving:
            session.close()
        else:
            retry_us = None if len(self.addresses) > 1 else _retry_us(after_ms)
            self._lose(session, ClientEvent.GOODBYE, reason or "the other end said goodbye", now, retry_us=retry_us)

    def _refused(self, session: ClientSession, error: ZbrokerError, now: int) -> None:
        """A refusal that may pass is tried again, another is final."""
        if error.retryable or (session.state is ClientState.READY and isinstance(error, ProtocolError)):
            retry_us = None if len(self.addresses) > 1 else _retry_us(error.retry_after_ms)
            self._lose(session, ClientEvent.TIMEOUT, error.detail, now, retry_us=retry_us)
            return
        self._end(session, error, now)

    def _end(self, session: ClientSession, error: ZbrokerError, now: int) -> None:
        """A refusal that is final."""
        session.close()
        self.on_lost(session, now)
        self.detail = error.detail
        if self.closed:  # else other peers still answer
            self.error = error
            self.news.append(Failed(error))

    def _lose(
        self, session: ClientSession, event: ClientEvent, why: str, now: int, *, retry_us: int | None = None
    ) -> None:
        self.detail = why
        was_ready = session.state is ClientState.READY
        session.lose(event, now, retry_us=retry_us)
        if was_ready:
            self.news.append(SessionLost(why))
            self.on_lost(session, now)

    def events(self) -> list[Any]:
        events, self.news = self.news, []
        return events

    def effects(self) -> list[Effect]:
        if not self.wants:
            return []
        effects = self.wants.copy()
        self.wants.clear()  # cleared, not replaced: the sessions share the list
        return effects

    def next_timeout(self) -> int | None:
        due = self.role_timeout()
        for session in self.sessions:
            at = session.next_timeout()
            if at is not None and (due is None or at < due):
                due = at
        return due

    def handle_timeout(self, now: int) -> None:
        for session in self.sessions:
            event = session.handle_timeout(now)
            if event is not None:
                self._lose(session, event, f"no answer from {session.address}", now)
        self.on_timeout(now)

    def leave(self, now: int) -> None:
        """Say goodbye; `closed` tells when that is done."""
        for session in self.sessions:
            session.leave(now)

    @property
    def closed(self) -> bool:
        for session in self.sessions:  # noqa: SIM110  as below
            if session.state is not ClientState.CLOSED:
                return False
        return True

    @property
    def is_ready(self) -> bool:
        for session in self.sessions:  # noqa: SIM110  any() over a generator takes twice as long
            if session.is_ready:
                return True
        return False

    @property
    def was_ready(self) -> bool:
        """Whether anybody was ever there."""
        return any(session.ready is not None for session in self.sessions)

    def unavailable(self) -> ZbrokerError:
        """What to raise when no session came about in time."""
        if self.error is not None:
            return self.error
        listed = ", ".join(map(str, self.addresses))
        what = "broker" if self.brokered else "peer"
        detail = self.detail or "no connection yet"
        return Unavailable(f"no {what} answers at {listed}: {detail}; {advice_on(detail)}")

    def _session_at(self, link: Link) -> ClientSession | None:
        for session in self.sessions:
            if session.link == link:
                return session
        return None  # a message of a socket that is given up already

    # -- what a role fills in ------------------------------------------------------------------------------------

    def _hello(self, session: ClientSession) -> Hello:
        raise AssertionError("each role says its own HELLO")

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        """The session is READY."""

    def on_lost(self, session: ClientSession, now: int) -> None:
        """The session was READY and is no more."""

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        """A message of the role."""

    def on_pong(self, token: int) -> None:
        """Everything that was sent before the PING with this token has been read."""

    def on_credit(self, session: ClientSession, now: int) -> None:
        """More may be sent."""

    def on_timeout(self, now: int) -> None:
        """role_timeout() may be due."""

    def role_timeout(self) -> int | None:
        """When on_timeout() is due."""
        return None


def advice_on(detail: str) -> str:
    """What to do about why nobody answers."""
    return "is it spelled right?" if detail.endswith("does not resolve") else "is it running?"


def _retry_us(after_ms: int) -> int | None:
    """How long to stay away when asked to: neither for ever nor hardly at all. None: nothing was asked."""
    return min(max(after_ms, RECONNECT_MS), RETRY_AFTER_MS_MAX) * _MS if after_ms else None


def _met_a_broker(address: Address) -> BadAddress:
    return BadAddress(f"{address} is peer to peer, and a broker answers there: write {address.of_a_broker}")


def error_of(header: ErrorHeader) -> ZbrokerError:
    """The error that an ERROR carries."""
    return from_wire(
        header.number,
        header.detail or header.name,
        code=header.code,
        retryable=header.retryable,
        retry_after_ms=header.retry_after_ms,
    )
