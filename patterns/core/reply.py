"""Answering (SPEC.md 7): the replier's engine behind a broker, and the one that serves requesters itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientEngine, ClientSession, Failed, SessionReady
from patterns.core.offers import Offers
from patterns.core.requested import Asked, Book, RequestCancelled, Requested, requested
from patterns.wire.address import Address
from patterns.wire.engine import Effect, Link, Open, PeerId, Unreachable
from patterns.wire.errors import (
    Closed,
    CreditExceeded,
    NoReplier,
    Overloaded,
    ProtocolError,
    RemoteProtocolError,
    WrongRole,
    ZbrokerError,
)
from patterns.wire.frames import MSGPACK, Frames, Message, pack, reform
from patterns.wire.limits import BATCH_BYTES_MAX, BODY_BYTES_MAX, CREDIT_BYTES, REPLIES_HELD_BYTES_MAX
from patterns.wire.messages import (
    Cancel,
    Codec,
    ErrorHeader,
    Header,
    Hello,
    Limits,
    Offer,
    Offered,
    Partial,
    Ping,
    Ready,
    Reply,
    Request,
    Resume,
    Role,
    Withdraw,
)
from patterns.wire.messages import Credit as CreditHeader
from patterns.wire.server import Session, Sessions, error_header
from patterns.wire.session import Credit, raise_for_parts

_MS: Final = 1_000
_REQUESTS_WINDOW: Final = 1_024  # requests that one requester may have outstanding here
_FIRST_PING: Final = 2  # 1 is the heartbeat's
_PARTING_MS: Final = 500  # for proof that the last replies were read; libzmq drops what is unread when we close
_REPLY_BYTES_HELD: Final = REPLIES_HELD_BYTES_MAX  # then an error takes a reply's place


class ServiceReady(msgspec.Struct, gc=False):
    """The broker has registered the service."""

    service: str


class ReplierEngine(ClientEngine):
    """Offers services to a broker and answers what it is given, `concurrency` requests at a time."""

    def __init__(
        self,
        addresses: Sequence[Address],
        services: Sequence[str],
        nonce: bytes,
        codec: Codec,
        jitter: Jitter,
        concurrency: int = 1,
    ) -> None:
        super().__init__(addresses, jitter)
        self._offers = Offers(services)
        self._nonce = nonce
        self._codec = codec
        self._concurrency = concurrency
        self._open: dict[int, int] = {}  # token -> the request's id of this session
        self._numbers: dict[int, int] = {}  # and back
        self._parts: dict[int, Credit] = {}  # token -> what the requester lets come, and how much went
        self._tokens = count(1)
        self._pings = count(_FIRST_PING)
        self._withdrawing = 0  # the PING behind the last WITHDRAW, as long as it has no answer

    def _hello(self, session: ClientSession) -> Hello:
        return Hello(
            role=Role.REPLIER,
            nonce=self._nonce,
            codec=self._codec,
            credit_messages=self._concurrency,
            credit_bytes=CREDIT_BYTES,
            resume=Resume(session.ready.epoch) if session.ready else None,
        )

    @property
    def is_offered(self) -> bool:
        return self.sessions[0].is_ready and self._offers.is_complete

    def codec_to(self, token: int) -> Codec:
        """The codec for a reply: our own, the broker translates."""
        return self._codec

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        self.offer(now)

    def offer(self, now: int) -> None:
        """Offer the services; again, after withdraw(). The session is READY."""
        self._offers.begin()
        self._offer_more(now)

    def _offer_more(self, now: int) -> None:
        for number, service in self._offers.due():
            self.sessions[0].send(Offer(number, service), now)

    def on_lost(self, session: ClientSession, now: int) -> None:
        self._offers.lost()
        self._withdrawing = 0
        self.news.extend(RequestCancelled(token) for token in self._open)
        self._open.clear()
        self._numbers.clear()
        self._parts.clear()

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Request() as header:
                self._asked(session, header, message, now)
            case Offered(id=number):
                if (service := self._offers.answered(number)) is not None:
                    self.news.append(ServiceReady(service))
                self._offer_more(now)
            case Cancel(id=number):
                self._cancel(number)
            case CreditHeader(id=number, messages=messages, bytes=size):
                credit = self._parts.get(self._numbers.get(number, 0))
                if credit is not None:
                    credit.raise_to(messages, size)
            case _:
                self.counters["unexpected"] += 1

    def _asked(self, session: ClientSession, header: Request, message: Message, now: int) -> None:
        session.into.spend(1, message.size)
        session.into.renew(1, message.size)  # by the reply, which always follows (SPEC.md 6)
        token = next(self._tokens)
        try:
            event = requested(token, header, message, now)
        except ProtocolError as error:
            self.counters["malformed"] += 1
            session.send(error_header(error, "request", header.id), now)
            return
        self._open[token] = header.id
        self._numbers[header.id] = token
        if header.credit_messages:
            self._parts[token] = Credit(header.credit_messages, header.credit_bytes)
        self.news.append(event)

    def _cancel(self, number: int) -> None:
        token = self._numbers.get(number, 0)
        if token:
            self._parts.pop(token, None)
            self.news.append(RequestCancelled(token))

    def withdraw(self, now: int) -> None:
        """No more requests, please; those that came are still answered, and those that crossed this on the way."""
        session, offered = self.sessions[0], self._offers.stop()
        if session.is_ready:
            for service in offered:
                session.send(Withdraw(service), now)
            self._withdrawing = next(self._pings)
            session.send(Ping(self._withdrawing), now)

    @property
    def is_withdrawn(self) -> bool:
        """Whether no request can come any more: what the broker sent before it read our WITHDRAW is here."""
        return not self._withdrawing or not self.is_ready

    def on_pong(self, token: int) -> None:
        if token == self._withdrawing:
            self._withdrawing = 0

    def has_room(self, token: int) -> bool:
        """Whether another part may be sent: the requester takes parts, waits, and has given credit."""
        credit = self._parts.get(token)
        return credit is not None and credit.is_open

    def part(self, token: int, codec: Codec, payload: bytes, columns: bytes, now: int) -> None:
        """Send a part of the reply, for which there is room; nothing happens if nobody waits any more."""
        credit = self._parts.get(token)
        if credit is None:
            self.counters["late_replies"] += 1
            return
        header = Partial(id=self._open[token], sequence=credit.messages_used, codec=codec)
        credit.spend(1, len(columns) + len(payload))
        self.sessions[0].send(header, now, columns=columns, payload=payload)

    def reply(self, token: int, codec: Codec, payload: bytes, columns: bytes, now: int) -> None:
        """Answer; nothing happens if nobody waits any more."""
        parts = _sent(self._parts, token) if self._parts else 0
        self._answer(token, Reply(id=0, codec=codec, parts=parts), now, columns, payload)

    def end(self, token: int, now: int) -> None:
        """The reply was in the parts."""
        parts = _sent(self._parts, token) if self._parts else 0
        self._answer(token, Reply(id=0, count=0, parts=parts), now)

    def fail(self, token: int, error: ZbrokerError, now: int) -> None:
        """Answer with an error."""
        self._parts.pop(token, None)
        self._answer(token, error_header(error, "request"), now)

    def _answer(
        self, token: int, header: Reply | ErrorHeader, now: int, columns: bytes = b"", payload: bytes = b""
    ) -> None:
        number = self._open.pop(token, None)
        if number is not None:
            self._numbers.pop(number, None)
        session = self.sessions[0]
        if number is None or not session.is_ready:
            self.counters["late_replies"] += 1
            return
        header.id = number
        session.send(header, now, columns=columns, payload=payload)


def _sent(streams: dict[int, Credit], token: int) -> int:
    """How many parts this reply had; there are no more."""
    credit = streams.pop(token, None)
    return credit.messages_used if credit is not None else 0


class PeerReplierEngine:
    """A replier that binds: requesters are its sessions, the caller's handler its only worker."""

    def __init__(self, address: Address, services: Sequence[str], epoch: int, codec: Codec) -> None:
        self.address = address
        self._services = list(services)
        self._codec = codec
        self._epoch = epoch
        self.wants: list[Effect] = []
        self.news: list[object] = []
        self._sessions = Sessions(self, self.wants, epoch)
        self._open = Book()
        self._parts: dict[int, Credit] = {}  # token -> what the requester lets come, and how much went
        self._tokens = count(1)
        self._closed = False
        self._leaves_at: int | None = None
        self.error: ZbrokerError | None = None
        self.detail = ""
        self.counters = self._sessions.counters
        self.refused = self._sessions.refused

    # -- Engine --------------------------------------------------------------------------------------------------

    def start(self, now: int) -> None:
        """Bind."""
        self.wants.append(Open(1, self.address.endpoint))
        self.news.append(SessionReady(False))

    def connected(self, link: Link, now: int) -> None:
        """Somebody connected; the HELLO tells who."""

    def disconnected(self, link: Link, now: int) -> None:
        """Somebody left; peer_gone() tells who."""

    def unreachable(self, link: Link, now: int, why: Unreachable = Unreachable.NOBODY) -> None:
        """The address cannot be bound; the shell raised already."""

    def peer_gone(self, link: Link, peer: PeerId, now: int) -> None:
        """A routing id that can no longer be reached."""
        self._sessions.disconnected((link, peer), now)

    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None:
        found = self._sessions.receive(link, peer, frames, now)
        if self._leaves_at is not None:
            self._part_if_read()
        if found is None:
            return
        session, message = found
        match message.header:
            case Request() as header:
                self._asked(session, header, message, now)
            case Cancel(id=number):
                self._cancel(session, number)
            case CreditHeader(id=number, messages=messages, bytes=size):
                self._widen(session, number, messages, size, now)
            case _:
                error = WrongRole(f"kind {message.kind!r} is not for a {session.role} to send to a replier")
                self._sessions.refuse(session, error)

    def allowance(self, link: Link, peer: PeerId) -> tuple[int, int]:
        """Bytes and messages that a connection's session may have under way; (0, 0) without a session."""
        session = self._sessions.at((link, peer))
        if session is None:
            return 0, 0
        return session.into.bytes_max - session.into.bytes_used, max(1, session.into.messages_left)

    def events(self) -> list[object]:
        events, self.news = self.news, []
        return events

    def effects(self) -> list[Effect]:
        if not self.wants:
            return []
        effects = self.wants.copy()
        self.wants.clear()  # cleared, not replaced: the sessions share the list
        return effects

    def next_timeout(self) -> int | None:
        due = self._sessions.next_timeout()
        return due if self._leaves_at is None else min(self._leaves_at, due or self._leaves_at)

    def handle_timeout(self, now: int) -> None:
        self._sessions.handle_timeout(now)
        if self._leaves_at is not None and now >= self._leaves_at:
            self._part()

    def leave(self, now: int) -> None:
        """Tell the requesters, once they have read what they were sent; they turn to another address."""
        if not self._closed and self._leaves_at is None:
            self._leaves_at = now + _PARTING_MS * _MS
            for session in self._sessions:
                self._sessions.prove(session)
            self._part_if_read()

    def _part_if_read(self) -> None:
        if not any(session.probe for session in self._sessions):
            self._part()

    def _part(self) -> None:
        self._sessions.farewell("the replier is leaving", 0)
        self._leaves_at = None
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def is_ready(self) -> bool:
        return not self._closed

    is_offered = is_ready

    was_ready = True

    def unavailable(self) -> ZbrokerError:
        return Closed("this Replier is closed")

    # -- Host ----------------------------------------------------------------------------------------------------

    def admit(self, session: Session, hello: Hello, now: int) -> Ready:
        if hello.role is not Role.REQUESTER:
            raise WrongRole(f"a {hello.role} cannot talk to a replier; only requesters connect here")
        self.ended(session, "resumed", now)  # what it asked on its last connection, it has given up, or asks again
        return Ready(
            version=1,
            epoch=self._epoch,
            limits=Limits(BODY_BYTES_MAX, BATCH_BYTES_MAX),
            services=self._services,
            credit_messages=_REQUESTS_WINDOW,
            credit_bytes=CREDIT_BYTES,
        )

    def ended(self, session: Session, reason: str, now: int) -> None:
        for token in self._open.tokens(session):
            self._gone(token)

    # -- requests ------------------------------------------------------------------------------------------------

    def _asked(self, session: Session, header: Request, message: Message, now: int) -> None:
        size = message.size
        if not session.into.is_open:
            window = f"{session.into.messages_max} messages and {session.into.bytes_max} bytes"
            self._sessions.end(session, CreditExceeded(f"request beyond the credit of {window}"), now)
            return
        session.into.spend(1, size)
        if self._open.token(session, header.id):
            session.into.renew(1, size)  # no outcome of its own: that id's outcome is the older request's
            in_use = RemoteProtocolError(f"request id {header.id} is in use by a request without an outcome")
            self._sessions.refuse(session, in_use)
            return
        token = next(self._tokens)
        try:
            event = self._admit(token, header, message, now)
        except ZbrokerError as error:
            session.into.renew(1, size)
            self._sessions.refuse(session, error, "request", header.id)
            return
        self._open.add(token, Asked(session, header.id, size, header.credit_messages > 0))
        self.news.append(event)

    def _admit(self, token: int, header: Request, message: Message, now: int) -> Requested:
        """A request that passed every check at the door, with its credit for parts."""
        if header.service not in self._services:
            raise NoReplier(f"service {header.service!r} is not offered here; offered: {', '.join(self._services)}")
        event = requested(token, header, message, now)
        if header.credit_messages:
            credit = Credit()
            raise_for_parts(credit, header.credit_messages, header.credit_bytes)
            self._parts[token] = credit
        return event

    def _widen(self, session: Session, number: int, messages: int, size: int, now: int) -> None:
        """CREDIT for the parts of one reply; of none, if it has had its outcome or takes no parts."""
        token = self._open.token(session, number)
        credit = self._parts.get(token)
        if credit is None:
            return
        try:
            raise_for_parts(credit, messages, size)
        except ZbrokerError as error:
            self.fail(token, error, now)
            self.news.append(RequestCancelled(token))

    def _cancel(self, session: Session, number: int) -> None:
        token = self._open.token(session, number)
        if token:
            session.into.renew(1, self._open[token].size)  # CANCEL gives the credit back at both ends (SPEC.md 6)
            self._gone(token)

    def _gone(self, token: int) -> None:
        self._open.pop(token)
        self._parts.pop(token, None)
        self.news.append(RequestCancelled(token))

    def withdraw(self, now: int) -> None:
        """The shell refuses what comes from now on; there is nobody to tell."""

    is_withdrawn = True

    def has_room(self, token: int) -> bool:
        """Whether another part may be sent: the requester takes parts, waits, has given credit and reads."""
        credit = self._parts.get(token)
        return credit is not None and credit.is_open and not self._open[token].session.outbox

    def part(self, token: int, codec: Codec, payload: bytes, columns: bytes, now: int) -> None:
        """Send a part of the reply, for which there is room; nothing happens if nobody waits any more."""
        credit = self._parts.get(token)
        if credit is None:
            self.counters["late_replies"] += 1
            return
        asked = self._open[token]
        header = Partial(id=asked.number, sequence=credit.messages_used, codec=codec)
        credit.spend(1, self._post(asked.session, header, columns, payload))

    def codec_to(self, token: int) -> Codec:
        """The codec for a reply: the requester's, because nobody translates between us; `raw` is never changed."""
        asked = self._open.get(token)
        if asked is None or Codec.RAW in (self._codec, asked.session.codec):
            return self._codec
        return asked.session.codec

    def reply(self, token: int, codec: Codec, payload: bytes, columns: bytes, now: int) -> None:
        """Answer; nothing happens if nobody waits any more."""
        self._answer(
            token, Reply(id=0, codec=codec, parts=_sent(self._parts, token) if self._parts else 0), columns, payload
        )

    def end(self, token: int, now: int) -> None:
        """The reply was in the parts."""
        self._answer(token, Reply(id=0, count=0, parts=_sent(self._parts, token)), b"", b"")

    def fail(self, token: int, error: ZbrokerError, now: int) -> None:
        """Answer with an error."""
        self._parts.pop(token, None)
        self._answer(token, error_header(error, "request", 0), b"", b"")

    def _answer(self, token: int, header: Reply | ErrorHeader, columns: bytes, payload: bytes) -> None:
        asked = self._open.pop(token)
        if asked is None:
            self.counters["late_replies"] += 1
            return
        session, answer = asked.session, header
        if session.outbox_bytes + len(payload) > _REPLY_BYTES_HELD:
            error = Overloaded(f"reply dropped: the requester has not read {session.outbox_bytes} bytes of replies")
            answer, columns, payload = self._sessions.refusal(error, "request"), b"", b""
        answer.id = asked.number
        session.into.renew(1, asked.size)
        if isinstance(answer, Reply):
            self._post(session, answer, columns, payload)
        elif asked.takes_parts:  # not before the parts that came before it
            self._sessions.answer_in_turn(session, answer, _REPLY_BYTES_HELD)
        else:
            self._sessions.answer(session, answer)

    def _post(self, session: Session, header: Reply | Partial, columns: bytes, payload: bytes) -> int:
        """Send what counts against the requester's credit; how much that is, in bytes."""
        columns = reform(columns, MSGPACK, session.form)  # the handler's side writes msgpack only
        frames = pack(header, columns=columns, payload=payload, form=session.form)
        size = len(columns) + len(payload)
        self._sessions.post(session, 1, size, frames)
        return size


__all__ = ["Failed", "Header", "PeerReplierEngine", "ReplierEngine", "RequestCancelled", "Requested", "ServiceReady"]
