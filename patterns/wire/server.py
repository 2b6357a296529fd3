"""The sessions of an end that others connect to: a broker, or a Replier peer to peer (SPEC.md 5). What roles do is the host's."""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from patterns.wire.engine import Close, Effect, Link, PeerId, Send
from patterns.wire.errors import (
    FeatureUnsupported,
    NoSession,
    RemoteProtocolError,
    UnknownCommand,
    VersionUnsupported,
    WrongRole,
    ZbrokerError,
)
from patterns.wire.frames import JSON, MSGPACK, Form, Frames, Message, kind_of, pack, parse
from patterns.wire.limits import EXPIRY_MS, HEARTBEAT_MS, REPLIES_UNREAD_CUT, REPLIES_UNREAD_MAX
from patterns.wire.messages import Credit as CreditHeader
from patterns.wire.messages import ErrorHeader, Goodbye, Header, Hello, NoSessionHeader, Ping, Pong, Ready, Role
from patterns.wire.session import Credit, ProvenCredit, ServerEvent, ServerState, server_next

Peer = tuple[Link, PeerId]
Waiting = tuple[int, int, Frames, object]  # messages, bytes that credit counts, frames, and what the host knows of them
_READY: Final = ServerState.READY
_OWN_KINDS: Final = frozenset(kind_of(header) for header in (Ping, Pong, CreditHeader, Goodbye))
_PEERS_REMEMBERED: Final = 4_096  # connections without a session whose unread answers we count; oldest forgotten first


class Session:
    """One client as the serving end sees it.

    Attributes:
        peer: link and routing id of the connection that it has now.
        into: the credit that we gave it.
        out: the credit that it gave us.
        outbox: batches that wait for `out`.
        unread: answers given that it has not proven to have read.
        probe: the token of the PING whose PONG will prove that it read all before it; 0: none is under way.
        probed: `unread` and `out.sent` when that left.
    """

    __slots__ = (
        "codec", "form", "heard_at", "into", "name", "nonce", "out", "outbox", "outbox_bytes", "peer", "probe", "probed", "role", "started_at",
        "state", "unread",
    )  # fmt: skip

    def __init__(self, peer: Peer, hello: Hello, form: Form, into: Credit, now: int) -> None:
        self.peer = peer
        self.nonce = hello.nonce
        self.role = hello.role
        self.name = hello.name
        self.codec = hello.codec
        self.form = form
        self.state = ServerState.NEW
        self.into = into
        self.out = ProvenCredit(hello.credit_messages, hello.credit_bytes)
        self.outbox: deque[Waiting] = deque()
        self.outbox_bytes = 0
        self.unread = 0
        self.probe = 0
        self.probed = (0, 0)
        self.heard_at = now
        self.started_at = now

    @property
    def must_wait(self) -> bool:
        """Whether a batch that is posted now would wait."""
        return bool(self.outbox) or not self.out.is_open or self.state is not _READY

    def hold(self, waiting: Waiting, *, first: bool = False) -> None:
        """Put a batch at the end of the outbox, or in front of all others."""
        if first:
            self.outbox.appendleft(waiting)
        else:
            self.outbox.append(waiting)
        self.outbox_bytes += sum(map(len, waiting[2]))  # memory, the header included; credit counts columns and payload

    def take_back(self, *, last: bool = False) -> Waiting:
        """Take the oldest batch, or the newest, out of the outbox."""
        waiting = self.outbox.pop() if last else self.outbox.popleft()
        self.outbox_bytes -= sum(map(len, waiting[2]))
        return waiting


class Host(Protocol):
    """What a serving engine decides about sessions."""

    def admit(self, session: Session, hello: Hello, now: int) -> Ready:
        """The READY for a session; fill what the role needs. A ZbrokerError refuses it."""

    def ended(self, session: Session, reason: str, now: int) -> None:
        """The session is over: "goodbye", "disconnected", "expired", "replaced" or "refused". Give back what it held."""


class Sessions:
    """All sessions of one serving engine.

    Args:
        host: admits and mourns sessions.
        effects: where frames to send go; shared with the host.
        epoch: goes into NO_SESSION.
        kept_us: how long a role's session outlives its connection, by role; others end with it.

    Attributes:
        refused: refusals by ZbrokerError.counted_as; what is no refusal is in `counters`.
    """

    def __init__(self, host: Host, effects: list[Effect], epoch: int, kept_us: dict[Role, int] | None = None) -> None:
        self._host = host
        self._effects = effects
        self.epoch = epoch  # a broker learns its own only when its journal is open
        self._kept_us = kept_us or {}
        self._by_peer: dict[Peer, Session] = {}
        self._by_nonce: dict[bytes, Session] = {}
        self._strangers: dict[Peer, int] = {}
        self.counters: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._next_sweep: int | None = None

    def __len__(self) -> int:
        return len(self._by_nonce)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._by_nonce.values())

    def at(self, peer: Peer) -> Session | None:
        """The session of a connection."""
        return self._by_peer.get(peer)

    # -- what comes in -------------------------------------------------------------------------------------------

    def receive(self, link: Link, peer_id: PeerId, frames: Frames, now: int) -> tuple[Session, Message] | None:
        """A message for the host to act on; None when it was the session's own business, or nobody's."""
        peer = (link, peer_id)
        session = self._by_peer.get(peer)
        try:
            message = parse(frames)
        except (RemoteProtocolError, UnknownCommand) as error:
            self._refuse(peer, session, frames, error, now)
            return None
        if message.kind == b"H":
            self._hello(peer, message, now)
            return None
        if session is None:
            self.refused[NoSession.name] += 1
            self._to_stranger(peer, NoSessionHeader(self.epoch), message.form)
            return None
        session.heard_at = now
        if message.kind in _OWN_KINDS:
            return self._own_business(session, message, now)
        return session, message

    def _own_business(self, session: Session, message: Message, now: int) -> tuple[Session, Message] | None:
        header = message.header
        match header:
            case Ping():
                self.answer(session, Pong(header.token))
            case Pong():
                if header.token == session.probe != 0:
                    self._proven(session)
                    credit = CreditHeader(session.out.messages_max, session.out.bytes_max)
                    return session, msgspec.structs.replace(
                        message, kind=b"C", header=credit
                    )  # it wakes as credit does
            case CreditHeader():
                if not header.id:  # else it is a request's, for the host to act on
                    session.out.raise_to(header.messages, header.bytes)
                    self.flush(session)
                return session, message
            case Goodbye():
                self.answer(session, Goodbye())
                session.state = server_next(session.state, ServerEvent.GOODBYE)
                self._end(session, "goodbye", now)
        return None

    def _proven(self, session: Session) -> None:
        """It has read all that was sent before our PING."""
        answers, sent = session.probed
        session.probe = 0
        session.unread -= answers
        session.out.prove(sent)
        if session.unread >= REPLIES_UNREAD_MAX:
            self._probe(session)
        self.flush(session)

    def _hello(self, peer: Peer, message: Message, now: int) -> None:
        hello = message.header
        assert isinstance(hello, Hello)
        if self._strangers.get(peer, 0) >= REPLIES_UNREAD_MAX:
            self.counters["answers_withheld"] += 1  # a client says it once a connection
            return
        try:
            _check_hello(hello)
            session = self._session_for(peer, hello, message.form, now)
            ready = self._host.admit(session, hello, now)
        except ZbrokerError as error:
            self._forget(peer, hello.nonce, now)
            self._to_stranger(peer, self.refusal(error), message.form)
            return
        session.state = server_next(session.state, ServerEvent.HELLO)
        session.into.messages_max, session.into.bytes_max = ready.credit_messages, ready.credit_bytes
        self._count_stranger(peer)  # a READY is an answer too, and a HELLO may follow another without an end
        self._by_peer[peer] = session
        self._by_nonce[session.nonce] = session
        self._sweep_by(now + EXPIRY_MS * 1_000)
        self.tell(session, ready)

    def _session_for(self, peer: Peer, hello: Hello, form: Form, now: int) -> Session:
        """The session that this HELLO resumes, moved here, or a new one."""
        known = self._by_nonce.get(hello.nonce)
        there = self._by_peer.get(peer)
        if known is not None and known.role is not hello.role:
            raise WrongRole(f"this nonce is of a session in another role than {hello.role}; each session has its own")
        if there is not None and there is not known:
            self._end(there, "replaced", now)
        if known is None or hello.resume is None:
            if known is not None:
                self._end(known, "replaced", now)
            return Session(peer, hello, form, Credit(), now)
        self._by_peer.pop(known.peer, None)
        known.peer, known.form, known.codec, known.heard_at, known.unread = peer, form, hello.codec, now, 0
        known.into, known.out, known.probe = Credit(), ProvenCredit(hello.credit_messages, hello.credit_bytes), 0
        known.outbox.clear()  # what the old connection had not taken is void; the host delivers again
        known.outbox_bytes = 0
        return known

    def _forget(self, peer: Peer, nonce: bytes, now: int) -> None:
        """A refused HELLO ends what this connection had, or was about to get; nothing of another, whoever knows its nonce."""
        for session in (self._by_nonce.get(nonce), self._by_peer.get(peer)):
            if session is not None and session.peer == peer and session.state is not ServerState.CLOSED:
                self._end(session, "refused", now)

    # -- what goes out -------------------------------------------------------------------------------------------

    def tell(self, session: Session, header: Header, *, columns: bytes = b"", payload: bytes = b"") -> None:
        """Send now, outside of credit: what protocol or credit bounds by itself (READY, CONFIRM, CREDIT, ..)."""
        link, peer_id = session.peer
        if session.state is not ServerState.DETACHED:
            frames = pack(header, columns=columns, payload=payload, form=session.form)
            self._effects.append(Send(link, peer_id, frames))

    def answer(self, session: Session, header: Header, *, payload: bytes = b"") -> None:
        """Send an answer that only the peer's own eagerness bounds; stops when it shows no sign of reading (SPEC.md 11)."""
        session.unread += 1
        if session.unread > REPLIES_UNREAD_CUT:
            self.counters["answers_withheld"] += 1
            return
        self.tell(session, header, payload=payload)
        if session.unread >= REPLIES_UNREAD_MAX and not session.probe:
            self._probe(session)

    def answer_in_turn(self, session: Session, header: Header, held_bytes_max: int) -> None:
        """As answer(), but behind the batches that wait for credit: no more, once more bytes than that wait."""
        if not session.outbox:
            self.answer(session, header)
            return
        session.unread += 1
        if session.unread > REPLIES_UNREAD_CUT or session.outbox_bytes > held_bytes_max:
            self.counters["answers_withheld"] += 1
            return
        self.post(session, 0, 0, pack(header, form=session.form))
        if session.unread >= REPLIES_UNREAD_MAX and not session.probe:
            self._probe(session)

    def prove(self, session: Session) -> None:
        """Ask for proof that all was read that was sent, if there is any: `probe` is 0 then."""
        if not session.probe and (session.unread or session.out.sent > session.out.proven):
            self._probe(session)

    def _probe(self, session: Session) -> None:
        """Ask for proof that it reads: a token that is known only to who reads it, or guesses our clock."""
        session.probe = 1 + zlib.crc32(b"%d %d %d" % (session.started_at, session.heard_at, session.out.sent))
        session.probed = (session.unread, session.out.sent)
        self.tell(session, Ping(session.probe))

    def refuse(self, session: Session, error: ZbrokerError, scope: str = "command", about: int = 0) -> None:
        """Answer with an error; of scope "session" also ends it, by end()."""
        self.answer(session, self.refusal(error, scope, about))

    def refusal(self, error: ZbrokerError, scope: str = "session", about: int = 0) -> ErrorHeader:
        """An error of ours as it travels, counted: every one that a peer is told, or would be if it read, passes here."""
        self.refused[error.counted_as] += 1
        return error_header(error, scope, about)

    def post(self, session: Session, messages: int, size: int, frames: Frames, known: object = None) -> None:
        """Send a counted batch as soon as the client's credit admits it, in order. `known`: for the host, while it waits."""
        out = session.out
        if session.outbox or session.state is not _READY or not out.take(messages, size):
            session.hold((messages, size, frames, known))
            return
        link, peer_id = session.peer
        self._effects.append(Send(link, peer_id, frames))
        if out.sent >= out.asks_from and not session.probe:
            self._probe(session)

    def flush(self, session: Session) -> None:
        """Send what waits, as far as credit goes."""
        link, peer_id = session.peer
        while session.outbox and session.out.is_open:
            messages, size, frames, _known = session.take_back()
            session.out.spend(messages, size)
            self._effects.append(Send(link, peer_id, frames))
            if session.out.sent >= session.out.asks_from and not session.probe:
                self._probe(session)

    def regrant(self, session: Session, messages_window: int, bytes_window: int) -> None:
        """Open the client's credit again to the whole window once half of it is used."""
        into = session.into
        if into.messages_left > messages_window // 2 and into.bytes_max - into.bytes_used > bytes_window // 2:
            return
        into.raise_to(into.messages_used + messages_window, into.bytes_used + bytes_window)
        self.tell(session, CreditHeader(into.messages_max, into.bytes_max))

    # -- ends ----------------------------------------------------------------------------------------------------

    def disconnected(self, peer: Peer, now: int) -> None:
        """The connection is gone. The session stays detached if its role is kept, else it ends."""
        self._strangers.pop(peer, None)
        session = self._by_peer.get(peer)
        if session is None:
            return
        session.state = server_next(session.state, ServerEvent.DISCONNECTED)
        self._detach(session, now)

    def _detach(self, session: Session, now: int) -> None:
        self._by_peer.pop(session.peer, None)
        kept_us = self._kept_us.get(session.role, 0)
        if not kept_us:
            self._end(session, "disconnected", now)
            return
        session.heard_at = now  # from here on: when it was last there
        self._sweep_by(now + kept_us)

    def end(self, session: Session, error: ZbrokerError, now: int) -> None:
        """End a session with an error that says why."""
        self.refuse(session, error, "session")
        self._end(session, "refused", now)

    def _end(self, session: Session, reason: str, now: int) -> None:
        session.state = ServerState.CLOSED
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer]
        if self._by_nonce.get(session.nonce) is session:
            del self._by_nonce[session.nonce]
        session.outbox.clear()
        session.outbox_bytes = 0
        self.counters[f"sessions_{reason}"] += 1
        self._host.ended(session, reason, now)

    def farewell(self, reason: str, retry_after_ms: int) -> None:
        """Tell everybody that this end goes away."""
        for session in self:
            self.tell(session, Goodbye(reason, retry_after_ms))

    # -- time ----------------------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When handle_timeout() is due."""
        return self._next_sweep

    def handle_timeout(self, now: int) -> None:
        """Ping the quiet, detach the silent, end the detached whose time is over."""
        if self._next_sweep is None or now < self._next_sweep:
            return
        self._next_sweep = None
        for session in list(self):
            silent_us = now - session.heard_at
            if session.state is ServerState.DETACHED:
                kept_us = self._kept_us.get(session.role, 0)
                if silent_us >= kept_us:
                    session.state = server_next(session.state, ServerEvent.EXPIRED)
                    self._end(session, "expired", now)
                else:
                    self._sweep_by(session.heard_at + kept_us)
            elif silent_us >= EXPIRY_MS * 1_000:
                session.state = server_next(session.state, ServerEvent.EXPIRED)
                self._effects.append(Close(*session.peer))
                self._detach(session, now)
        if self._by_nonce:
            self._sweep_by(now + HEARTBEAT_MS * 1_000)

    def _sweep_by(self, due: int) -> None:
        self._next_sweep = due if self._next_sweep is None else min(due, self._next_sweep)

    # -- strangers -----------------------------------------------------------------------------------------------

    def _refuse(
        self,
        peer: Peer,
        session: Session | None,
        frames: Frames,
        error: RemoteProtocolError | UnknownCommand,
        now: int,
    ) -> None:
        if session is None:
            form = JSON if len(frames) > 1 and frames[1].startswith(b"{") else MSGPACK  # as parse() tells them apart
            self._to_stranger(peer, self.refusal(error), form)
        else:
            session.heard_at = now
            self.refuse(session, error)

    def _to_stranger(self, peer: Peer, header: Header, form: Form) -> None:
        """Answer a connection without a session, a bounded number of times."""
        if self._count_stranger(peer) > REPLIES_UNREAD_MAX:
            self.counters["answers_withheld"] += 1
            return
        self._effects.append(Send(*peer, pack(header, form=form)))

    def _count_stranger(self, peer: Peer) -> int:
        told = self._strangers.pop(peer, 0) + 1
        self._strangers[peer] = told
        if len(self._strangers) > _PEERS_REMEMBERED:
            del self._strangers[next(iter(self._strangers))]
        return told


def _check_hello(hello: Hello) -> None:
    lowest, highest = hello.versions
    if not lowest <= 1 <= highest:
        raise VersionUnsupported(f"client speaks ZB1 versions {lowest} to {highest}, this end speaks 1")
    if hello.require:
        raise FeatureUnsupported(f"required features {', '.join(hello.require[:8])} are not known here")


def _sayable(text: str) -> str:
    """What UTF-8 cannot express is escaped: an exception may name a file whose name is no Unicode."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def error_header(error: ZbrokerError, scope: str = "session", about: int = 0) -> ErrorHeader:
    """An error as it travels."""
    return ErrorHeader(
        number=error.number,
        name=error.name,
        detail=_sayable(error.detail[:1_000]),
        scope=scope,
        id=about,
        code=error.code,
        retryable=error.retryable,
        retry_after_ms=error.retry_after_ms,
    )
