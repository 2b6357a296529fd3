"""Asking (SPEC.md 7): the requester's engine, through a broker or straight to repliers."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count
from typing import Final

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientEngine, ClientSession, error_of
from patterns.wire.address import Address
from patterns.wire.errors import (
    CreditExceeded,
    NoReplier,
    OutcomeUnknown,
    ProtocolError,
    RemoteProtocolError,
    ReplierLost,
    ShuttingDown,
    TimedOut,
    ZbrokerError,
)
from patterns.wire.frames import Message, columns_of, pack
from patterns.wire.limits import CREDIT_BYTES, SERVICE_WAIT_MS
from patterns.wire.messages import (
    Cancel,
    Codec,
    ErrorHeader,
    Hello,
    Partial,
    Ready,
    Reply,
    Request,
    Resume,
    Role,
)
from patterns.wire.messages import Credit as CreditHeader
from patterns.wire.session import ClientEvent, Credit

_MS: Final = 1_000
_WAIT_TENTHS: Final = (
    9  # of the time left; the last tenth is for NO_REPLIER's way back, or only TimedOut would be heard
)
_REPLIES_WINDOW: Final = 4_096  # replies on their way to one requester; their bytes are the closer bound
_REPLY_BYTES_WINDOW: Final = 2 * CREDIT_BYTES
_LEFT_MIN: Final = _REPLIES_WINDOW // 2
_LEFT_BYTES_MIN: Final = _REPLY_BYTES_WINDOW // 2


class Outcome(msgspec.Struct):
    """The one outcome of a request: an error, or a body still encoded; a streamed reply may end without one."""

    id: int
    error: ZbrokerError | None
    codec: Codec = Codec.MSGPACK
    payload: bytes = b""
    headers: dict[str, str] | None = None
    has_body: bool = True


class PartReceived(msgspec.Struct, gc=False):
    """The next part of a streamed reply, still encoded. `size` is what counts against the request's credit."""

    id: int
    codec: Codec
    payload: bytes
    headers: dict[str, str] | None
    size: int


class _Pending(msgspec.Struct):
    """A request without an outcome. The collector sees it: it leads to its engine, which may be dropped with requests open.

    Attributes:
        asked: where it was dispatched to.
        refused_by: who does not offer the service.
        parts: of a streamed reply: the credit that we gave, and what came; None: one reply is wanted.
        size: what credit counts.
    """

    header: Request
    columns: bytes
    payload: bytes
    size: int
    deadline: int
    wait_until: int
    asked: ClientSession | None = None
    refused_by: list[ClientSession] = []
    parts: Credit | None = None

    @property
    def has_begun(self) -> bool:
        """Whether a part has come: then nobody else may be asked, for he would begin anew."""
        return self.parts is not None and self.parts.messages_used > 0


class RequesterEngine(ClientEngine):
    """Asks. Each request has exactly one Outcome event, at its deadline at the latest."""

    def __init__(self, addresses: Sequence[Address], nonce: bytes, codec: Codec, jitter: Jitter) -> None:
        super().__init__(addresses, jitter)
        self._nonce = nonce
        self._codec = codec
        self._ids = count(1)
        self._pending: dict[int, _Pending] = {}
        self._waiting: dict[int, None] = {}  # not dispatched, oldest first
        self._deadlines: list[tuple[int, int]] = []
        self._moves_on = False  # the broker takes nothing new, and there is another address

    def _hello(self, session: ClientSession) -> Hello:
        resume = Resume(session.ready.epoch) if session.ready else None
        return Hello(
            role=Role.REQUESTER,
            nonce=self._nonce,
            codec=self._codec,
            credit_messages=_REPLIES_WINDOW,
            credit_bytes=_REPLY_BYTES_WINDOW,
            resume=resume,
        )

    def request(
        self,
        service: str,
        codec: Codec,
        payload: bytes,
        columns: bytes,
        *,
        timeout_us: int,
        wait_ms: int = SERVICE_WAIT_MS,
        idempotent: bool = False,
        parts: tuple[int, int] | None = None,
        now: int,
    ) -> int:
        """Ask, now or as soon as somebody can be asked; the id that the Outcome will have.

        `wait_ms` ends when a tenth of the time is left at the latest. With `parts`, messages and bytes, the reply may come in parts: as many as that, and what widen() adds.
        """
        number = next(self._ids)
        header = Request(
            id=number, service=service, timeout_ms=0, wait_ms=wait_ms, idempotent=idempotent, codec=codec
        )  # fmt: skip
        deadline = now + timeout_us
        pending = _Pending(
            header,
            columns,
            payload,
            len(columns) + len(payload),
            deadline,
            now + min(wait_ms * _MS, timeout_us * _WAIT_TENTHS // 10),
        )
        if parts is not None:
            header.credit_messages, header.credit_bytes = parts
            pending.parts = Credit(*parts)
        self._pending[number] = pending
        heapq.heappush(self._deadlines, (deadline, number))
        if not self._dispatch(pending, now):
            self._waiting[number] = None
        return number

    def widen(self, number: int, messages: int, size: int, now: int) -> None:
        """Let so many parts come in all: totals since the request, as all credit."""
        pending = self._pending.get(number)
        if pending is None or pending.parts is None or pending.asked is None or not pending.asked.is_ready:
            return
        pending.parts.raise_to(messages, size)
        pending.asked.send(CreditHeader(messages, size, number), now)

    def forget(self, number: int, now: int) -> None:
        """The caller has left: no Outcome follows. B returns the credit by CREDIT (SPEC.md 6)."""
        self._drop(number, now)
        self._dispatch_waiting(now)

    def _drop(self, number: int, now: int) -> None:
        """Take a request off the books before it has an outcome; CANCEL renews its credit (SPEC.md 6)."""
        pending = self._pending.pop(number, None)
        self._waiting.pop(number, None)
        if pending is not None and pending.asked is not None and pending.asked.is_ready:
            pending.asked.send(Cancel(number), now)
            pending.asked.out.renew(1, pending.size)

    @property
    def outstanding(self) -> int:
        return len(self._pending)

    # -- whom to ask ---------------------------------------------------------------------------------------------

    def _dispatch(self, pending: _Pending, now: int) -> bool:
        session = self._choose(pending)
        if session is None or pending.deadline <= now:  # nothing is sent for a request whose time is over
            return False
        header = pending.header
        header.timeout_ms = max(1, (pending.deadline - now) // _MS)
        header.wait_ms = min(header.wait_ms, header.timeout_ms * _WAIT_TENTHS // 10)
        pending.asked = session
        frames = pack(header, columns=pending.columns, payload=pending.payload)
        session.post(1, pending.size, frames, now)
        return True

    def _choose(self, pending: _Pending) -> ClientSession | None:
        """The ready session with the most credit left; peer to peer, one that offers the service."""
        if self.brokered:
            session = self.sessions[0]
            return session if session.is_ready and session.out.is_open and not self._moves_on else None
        best: ClientSession | None = None
        for session in self.sessions:
            if not session.is_ready or not session.out.is_open or session in pending.refused_by:
                continue
            if session.ready is not None and pending.header.service not in session.ready.services:
                continue
            if best is None or session.out.messages_left > best.out.messages_left:
                best = session
        return best

    def _dispatch_waiting(self, now: int) -> None:
        for number in list(self._waiting):
            if self._dispatch(self._pending[number], now):
                del self._waiting[number]
            elif self.brokered and self._choose(self._pending[number]) is None:
                return  # no credit for the oldest is no credit for the rest

    # -- what comes back -----------------------------------------------------------------------------------------

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        self._dispatch_waiting(now)

    def on_credit(self, session: ClientSession, now: int) -> None:
        self._dispatch_waiting(now)

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Reply() | Partial() as header:
                into = session.into
                into.spend(1, message.size)
                if (
                    into.messages_max - into.messages_used < _LEFT_MIN
                    or into.bytes_max - into.bytes_used < _LEFT_BYTES_MIN
                ):
                    session.grant(into.messages_used + _REPLIES_WINDOW, into.bytes_used + _REPLY_BYTES_WINDOW, now)
                if isinstance(header, Reply):
                    self._replied(session, header, message, now)
                else:
                    self._part_came(session, header, message, now)
            case ErrorHeader(scope="request", id=number) as header:
                self._failed(session, number, error_of(header), now)
            case _:
                self.counters["unexpected"] += 1
        if self._moves_on:
            self._move_on(now)

    def _replied(self, session: ClientSession, reply: Reply, message: Message, now: int) -> None:
        pending = self._settle(session, reply.id, now)
        if pending is None:
            return
        try:
            if pending.parts is not None or reply.count != 1 or reply.parts:
                _check_end(reply, pending.parts)
            headers = columns_of(message, reply.count).headers if message.columns else None
        except ProtocolError as error:
            self.counters["malformed"] += 1
            self.news.append(Outcome(reply.id, error))  # one outcome, even of a reply that cannot be read
            return
        first = headers[0] if isinstance(headers, list) and headers else None
        self.news.append(Outcome(reply.id, None, reply.codec, message.payload, first, reply.count == 1))

    def _part_came(self, session: ClientSession, part: Partial, message: Message, now: int) -> None:
        pending = self._pending.get(part.id)
        if pending is None or pending.asked is not session:
            self.counters["late_replies"] += 1
            return
        try:
            _check_part(part, pending.parts)
            headers = columns_of(message, 1).headers if message.columns else None
        except ZbrokerError as error:
            self.counters["malformed"] += 1
            self.forget(part.id, now)  # with a hole it is no reply; who sends it is told to stop
            self.news.append(Outcome(part.id, error))
            return
        assert pending.parts is not None
        pending.parts.spend(1, message.size)
        first = headers[0] if isinstance(headers, list) else None
        self.news.append(PartReceived(part.id, part.codec, message.payload, first, message.size))

    def _failed(self, session: ClientSession, number: int, error: ZbrokerError, now: int) -> None:
        pending = self._pending.get(number)
        is_here = pending is not None and pending.asked is session and not pending.has_begun
        if pending is not None and is_here and self._is_turned_away(error):
            self._ask_elsewhere(session, number, pending, now)
        elif self._settle(session, number, now) is not None:
            self.news.append(Outcome(number, error))

    def _is_turned_away(self, error: ZbrokerError) -> bool:
        """Whether nothing was done, and somebody else that we know of may do it."""
        if self.brokered:
            return isinstance(error, ShuttingDown) and len(self.addresses) > 1
        return isinstance(error, NoReplier) or (isinstance(error, ShuttingDown) and len(self.sessions) > 1)

    def _ask_elsewhere(self, session: ClientSession, number: int, pending: _Pending, now: int) -> None:
        session.out.renew(1, pending.size)
        pending.asked = None
        if self.brokered:
            self._moves_on = True
        else:
            pending.refused_by = [*pending.refused_by, session]
        if not self._dispatch(pending, now):
            self._waiting[number] = None

    def _move_on(self, now: int) -> None:
        """Leave a broker that takes nothing new for the next address, when all that it works on for us has an outcome."""
        session = self.sessions[0]
        if session.is_ready and not any(pending.asked is session for pending in self._pending.values()):
            self._lose(session, ClientEvent.GOODBYE, f"the broker at {session.address} shuts down", now, retry_us=0)

    def _settle(self, session: ClientSession, number: int, now: int) -> _Pending | None:
        """Take the request off the books; None when it was off already: a late answer meets nobody."""
        pending = self._pending.get(number)
        if pending is None or pending.asked is not session:
            self.counters["late_replies"] += 1
            return None
        del self._pending[number]
        session.out.renew(1, pending.size)
        if self._waiting or session.outbox:
            session.flush(now)
            self._dispatch_waiting(now)
        return pending

    def on_lost(self, session: ClientSession, now: int) -> None:
        """What was dispatched there has an unknown outcome; only what is idempotent is asked again."""
        self._moves_on = False
        for number, pending in list(self._pending.items()):
            if pending.asked is not session:
                continue
            pending.asked = None
            if pending.header.idempotent and not pending.has_begun:
                pending.wait_until = pending.deadline  # whoever comes back is asked again while its time lasts
                self._waiting[number] = None
            else:
                del self._pending[number]
                self.news.append(Outcome(number, self._unknown(pending, session)))
        self._dispatch_waiting(now)

    def _unknown(self, pending: _Pending, session: ClientSession) -> ZbrokerError:
        what = f"request to {pending.header.service!r}"
        where = session.address
        if self.brokered:
            return OutcomeUnknown(
                f"{what}: the connection to the broker at {where} broke after it was sent; it may have been done. "
                f"Ask again if that is harmless, or say idempotent=True"
            )
        return ReplierLost(f"{what}: the replier at {where} was lost after it was sent; it may have been done")

    # -- time ----------------------------------------------------------------------------------------------------

    def role_timeout(self) -> int | None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in self._pending:
            heapq.heappop(deadlines)
        due = deadlines[0][0] if deadlines else None
        if not self.brokered:
            for number in self._waiting:
                wait_until = self._pending[number].wait_until
                due = wait_until if due is None else min(due, wait_until)
        return due

    def on_timeout(self, now: int) -> None:
        while (due := self._first_due(now)) is not None:
            pending = self._pending[due]
            self._drop(due, now)
            self.news.append(Outcome(due, self._too_late(pending)))
        if self._moves_on:
            self._move_on(now)
        self._dispatch_waiting(now)  # into the credit that those gave back
        if not self.brokered:
            self._give_up_waiting(now)

    def _first_due(self, now: int) -> int | None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            number = heapq.heappop(deadlines)[1]
            if number in self._pending:
                return number
        return None

    def _too_late(self, pending: _Pending) -> ZbrokerError:
        if pending.asked is None and not self.is_ready:
            return self.unavailable()
        where = pending.asked.address if pending.asked is not None else "nobody: all were busy or unknown"
        return TimedOut(
            f"request to {pending.header.service!r}: no outcome before its deadline; it was sent to {where}"
        )

    def _give_up_waiting(self, now: int) -> None:
        """Peer to peer nobody else can say NO_REPLIER for a service that none of the peers offers."""
        for number in list(self._waiting):
            pending = self._pending[number]
            offered = any(
                session.is_ready and session.ready is not None and pending.header.service in session.ready.services
                for session in self.sessions
                if session not in pending.refused_by
            )
            if offered:
                pending.wait_until = pending.deadline  # it waits for credit now, not for somebody to offer
            if pending.wait_until > now or offered:
                continue
            self._drop(number, now)
            error = self._no_replier(pending) if self.is_ready else self.unavailable()
            self.news.append(Outcome(number, error))

    def _no_replier(self, pending: _Pending) -> ZbrokerError:
        asked = ", ".join(str(session.address) for session in self.sessions)
        return NoReplier(f"service {pending.header.service!r} is offered by none of {asked}")


def _check_end(reply: Reply, parts: Credit | None) -> None:
    """Raises RemoteProtocolError when a reply does not say of its parts what we saw."""
    came = parts.messages_used if parts is not None else 0
    if reply.parts != came:
        raise RemoteProtocolError(f"the reply says that {reply.parts} parts came before it, {came} did")
    if reply.count > 1 or (reply.count == 0 and parts is None):
        raise RemoteProtocolError(f"a reply of {reply.count} bodies, where one was asked for")


def _check_part(part: Partial, parts: Credit | None) -> None:
    """Raises RemoteProtocolError, CreditExceeded when a part must not come, or not now."""
    if parts is None:
        raise RemoteProtocolError("a part of a reply came, and parts were not asked for")
    if part.sequence != parts.messages_used or part.count != 1:
        raise RemoteProtocolError(f"part {part.sequence} of a reply came, part {parts.messages_used} is the next")
    if not parts.is_open:
        raise CreditExceeded(f"part {part.sequence} is beyond {parts.messages_max} parts and {parts.bytes_max} bytes")
