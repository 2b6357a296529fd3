"""Requests by service (SPEC.md 7): who offers, who waits, who works on what. Each request has one outcome.

Credit is spent and renewed here as SPEC.md 6 says; frames leave through Sessions, which holds what a requester has no
credit for.
"""

from __future__ import annotations

from collections import Counter
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

import msgspec

from patterns.wire.errors import (
    CreditExceeded,
    NoReplier,
    Overloaded,
    RemoteProtocolError,
    ReplierLost,
    ShuttingDown,
    Untranslatable,
    ZbrokerError,
)
from patterns.wire.frames import Message, pack, reform
from patterns.wire.limits import REPLIES_UNREAD_CUT
from patterns.wire.messages import (
    Cancel,
    ErrorHeader,
    Offer,
    Offered,
    Reply,
    Request,
    Role,
    Withdraw,
)
from patterns.wire.names import check_name
from patterns.wire.server import Session, Sessions
from zbroker.core.flow import Flow
from zbroker.core.parts import Parts
from zbroker.core.replies import OUTBOX_BYTES_MAX, check_one_body, for_requester, in_codec_of, overloaded
from zbroker.core.requests import Pending, Replier, Requester, Service
from zbroker.core.translate import Translate, translate

_RETRY_MS: Final = 1_000
_US: Final = 1_000  # microseconds in a millisecond


class Services:
    """All services of a broker.

    Args:
        sessions: where frames leave, and where a session is ended.
        translate: how a body gets into another codec.
    """

    def __init__(self, sessions: Sessions, translate: Translate = translate) -> None:
        self._sessions = sessions
        self._translate = translate
        self._services: dict[str, Service] = {}
        self._requesters: dict[Session, Requester] = {}
        self._repliers: dict[Session, Replier] = {}
        self._due: list[tuple[int, int, Pending]] = []  # a heap; entries of what has had its outcome are void
        self._ages = count()  # unique, so that requests themselves are never compared
        self._live = 0
        self._last_id = 0
        self._changes = count(1)
        self.is_draining = False
        self.counters: Counter[str] = Counter()
        self._parts = Parts(sessions, self._requesters, self._repliers, self.counters, self._stop, translate)

    # -- repliers ------------------------------------------------------------------------------------------------

    def offer(self, session: Session, message: Message, now: int) -> None:
        """OFFER: from now on this session may be given requests for the service."""
        header = message.header
        assert isinstance(header, Offer)
        try:
            check_name(header.service, "service")
        except ZbrokerError as error:
            self._sessions.refuse(session, error, "offer", header.id)
            return
        replier = self._repliers.get(session)
        if replier is None:
            replier = self._repliers[session] = Replier(session, self._changes)
        self._service(header.service).join(replier)
        self._sessions.answer(session, Offered(header.id))
        self._freed(replier, now)

    def withdraw(self, session: Session, message: Message, now: int) -> None:
        """WITHDRAW: no further requests; what it has, it finishes."""
        header = message.header
        assert isinstance(header, Withdraw)
        replier = self._repliers.get(session)
        service = replier.services.get(header.service) if replier else None
        if replier is not None and service is not None:
            self._leave(replier, service, now)

    def _leave(self, replier: Replier, service: Service, now: int) -> None:
        service.leave(replier)
        if not service.repliers:
            for pending in service.waiting.values():
                self._wait_for_anyone(pending, now)
        self._tidy(service)

    def credit(self, session: Session, now: int) -> None:
        """CREDIT, or a PONG, has widened what may be sent to a replier, or to a requester."""
        replier = self._repliers.get(session)
        if replier is not None:
            self._parts.proven(replier)
            self._freed(replier, now)
            return
        self._parts.read(session)

    def _freed(self, replier: Replier, now: int) -> None:
        """Give a replier what waits, and note how ready it is after that."""
        while replier.wanted and replier.is_free and (pending := replier.next_wanted()) is not None:
            self._hand_over(pending, replier, now)
        replier.has_changed()

    # -- requests ------------------------------------------------------------------------------------------------

    def request(self, session: Session, message: Message, now: int) -> None:
        """REQUEST: to the readiest replier, or it waits for one."""
        header = message.header
        assert isinstance(header, Request)
        size = message.size
        if not session.into.take(1, size):
            raise CreditExceeded(
                f"request {header.id} beyond the credit of {session.into.messages_max} messages and {session.into.bytes_max} bytes"
            )
        requester = self._requesters.get(session)
        if requester is None:
            requester = self._requesters[session] = Requester(session)
        if header.id in requester.pending:
            session.into.renew(1, size)  # no outcome of its own: that id's outcome is the older request's
            raise RemoteProtocolError(f"request id {header.id} is in use by a request without an outcome")
        self._last_id += 1
        deadline = now + header.timeout_ms * _US
        pending = Pending(
            requester, header, message.columns, message.payload, size, message.form, self._last_id, deadline, 0
        )
        requester.pending[header.id] = pending
        self._live += 1
        try:
            service = self._admit(message, header)
            if header.credit_messages:
                pending.flow = Flow(header.credit_messages, header.credit_bytes)
        except ZbrokerError as error:
            self._fail(pending, error)
            return
        if deadline <= now:
            self._silent(pending)
            return
        heappush(self._due, (deadline, next(self._ages), pending))
        if len(self._due) > 1_024 + 4 * self._live:  # what has had its outcome long before its deadline
            self._due = [entry for entry in self._due if entry[2].requester is not None]
            heapify(self._due)
        self._place(pending, service, now)

    def _admit(self, message: Message, header: Request) -> Service:
        """The service of a request that passed every check at the door."""
        if self.is_draining:
            raise _shutting_down()
        check_one_body(message, header.codec, header.count)
        return self._services.get(header.service) or self._service(check_name(header.service, "service"))

    def _service(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = Service(name)
        return service

    def _tidy(self, service: Service) -> None:
        """Forget a service that nobody offers and nobody waits for, so that names cost memory only while they are used."""
        if not service.repliers and not service.waiting:
            self._services.pop(service.name, None)

    def _place(self, pending: Pending, service: Service, now: int) -> None:
        """Dispatch a request, or let it wait."""
        replier = service.readiest() if not service.waiting else None
        if replier is not None:
            self._hand_over(pending, replier, now)
            replier.has_changed()
            return
        service.wait(pending)
        if not service.repliers:
            self._wait_for_anyone(pending, now)

    def _wait_for_anyone(self, pending: Pending, now: int) -> None:
        """The clock of NO_REPLIER runs while a service has no replier at all."""
        pending.waits_until = now + pending.header.wait_ms * _US
        if pending.waits_until < pending.deadline:
            heappush(self._due, (pending.waits_until, next(self._ages), pending))

    def _hand_over(self, pending: Pending, replier: Replier, now: int) -> None:
        """Write a request to a replier that has credit for it, under our own id."""
        session = replier.session
        remaining_ms = (pending.deadline - now) // _US
        if remaining_ms <= 0:
            self._silent(pending)
            return
        asked = pending.header
        try:
            payload, used = in_codec_of(session, asked.codec, pending.payload, self._translate)
        except Untranslatable as error:
            self._fail(pending, error)
            return
        header = Request(
            id=pending.own_id,
            service=asked.service,
            timeout_ms=remaining_ms,
            idempotent=asked.idempotent,
            codec=used,
        )
        if pending.flow is not None:
            header.credit_messages, header.credit_bytes = self._parts.begin(pending, pending.flow)
        columns = reform(pending.columns, pending.form, session.form) if pending.columns else b""
        frames = pack(header, columns=columns, payload=payload, form=session.form)
        pending.replier = replier
        pending.given_bytes = size = len(columns) + len(payload)
        replier.working[pending.own_id] = pending
        if not asked.idempotent:
            pending.payload = pending.columns = b""  # never sent twice
        self._sessions.post(session, 1, size, frames)

    def partial(self, session: Session, message: Message, now: int) -> None:
        """PARTIAL from a replier: the next part of a reply. Raises CreditExceeded, which ends the session."""
        self._parts.partial(session, message, now)

    def widen(self, session: Session, message: Message, now: int) -> None:
        """CREDIT of a requester for the parts of one reply."""
        self._parts.widen(session, message)

    def _stop(self, pending: Pending, error: ZbrokerError) -> None:
        """The outcome of a request that a replier works on."""
        self._tell_replier(pending)
        self._fail(pending, error)

    # -- outcomes ------------------------------------------------------------------------------------------------

    def cancel(self, session: Session, message: Message, now: int) -> None:
        """CANCEL: the requester is no longer interested. It renews the credit, at both ends; unknown ids had an outcome."""
        header = message.header
        assert isinstance(header, Cancel)
        requester = self._requesters.get(session)
        if requester is None:
            return
        pending = requester.pending.get(header.id)
        if pending is not None:
            self.counters["cancelled"] += 1
            self._tell_replier(pending)
            self._silent(pending)
        size = requester.silent.pop(header.id, None)
        if size is not None:
            session.into.renew(1, size)

    def _tell_replier(self, pending: Pending) -> None:
        if pending.replier is not None:
            self._sessions.tell(pending.replier.session, Cancel(pending.own_id))

    def reply(self, session: Session, message: Message, now: int) -> None:
        """REPLY from a replier: the request's outcome."""
        header = message.header
        assert isinstance(header, Reply)
        replier, pending = self._finished(session, header.id)
        if replier is None or pending is None:
            return
        if now >= pending.deadline:
            self._silent(pending)
        else:
            self._pass_on(session, pending, header, message)
        self._freed(replier, now)

    def _pass_on(self, session: Session, pending: Pending, header: Reply, message: Message) -> None:
        if pending.requester is None:
            self.counters["late_replies"] += 1
            return
        requester = pending.requester.session
        try:
            if header.parts or pending.flow is not None:
                _check_parts(pending, header)
            if header.count or message.payload or pending.flow is None:  # else the parts were all of it
                check_one_body(message, header.codec, header.count)
            frames, size = for_requester(requester, header, pending.header.id, message, self._translate)
            if requester.outbox_bytes + size > OUTBOX_BYTES_MAX:
                raise overloaded(requester, size)
        except (Untranslatable, Overloaded) as error:
            self._fail(pending, error)
            return
        except ZbrokerError as error:  # the replier's own mistake: both ends hear of it
            self._sessions.refuse(session, error, "request", header.id)
            self._fail(pending, error)
            return
        self._forget(pending)
        requester.into.renew(1, pending.asked_bytes)
        self._sessions.post(requester, 1, size, frames)

    def error(self, session: Session, message: Message, now: int) -> None:
        """ERROR of scope request from a replier: the request's outcome."""
        header = message.header
        assert isinstance(header, ErrorHeader)
        if header.scope != "request":
            self.counters["errors_received"] += 1
            return
        replier, pending = self._finished(session, header.id)
        if replier is None or pending is None:
            return
        if pending.requester is None or now >= pending.deadline:
            self.counters["late_replies"] += 1
            self._silent(pending)
        else:
            self._fail_with(pending, msgspec.structs.replace(header, id=pending.header.id))
        self._freed(replier, now)

    def _finished(self, session: Session, own_id: int) -> tuple[Replier | None, Pending | None]:
        """The replier, and the request that it has answered; the answer grants us the request's credit again."""
        replier = self._repliers.get(session)
        pending = replier.working.pop(own_id, None) if replier else None
        if replier is None or pending is None:
            self.counters["late_replies"] += 1
        else:
            replier.held.pop(own_id, None)
            replier.owed -= pending.requester is None
            session.out.renew(1, pending.given_bytes)
            pending.replier = None
        return replier, pending

    def _fail(self, pending: Pending, error: ZbrokerError) -> None:
        """The outcome is an error of ours."""
        self._fail_with(pending, self._sessions.refusal(error, "request", pending.header.id))

    def _fail_with(self, pending: Pending, header: ErrorHeader) -> None:
        requester = pending.requester
        assert requester is not None
        session, has_parts = requester.session, pending.flow is not None
        if session.unread >= REPLIES_UNREAD_CUT or (has_parts and session.outbox_bytes > OUTBOX_BYTES_MAX):
            self._sessions.counters["answers_withheld"] += 1
            self._silent(pending)  # SPEC.md 11: it reads nothing; its own clock has the last word
            return
        self._forget(pending)
        session.into.renew(1, pending.asked_bytes)
        if has_parts:  # not before the parts that came before it
            self._sessions.answer_in_turn(session, header, OUTBOX_BYTES_MAX)
        else:
            self._sessions.answer(session, header)

    def _silent(self, pending: Pending) -> None:
        """Nothing is sent for this request any more. The requester's CANCEL, come or to come, renews its credit."""
        requester = pending.requester
        self._forget(pending)
        if requester is not None:
            requester.silent[pending.header.id] = pending.asked_bytes

    def _forget(self, pending: Pending) -> None:
        """Nobody waits for it. If a replier works on it, its size stays on that replier's account until it answers."""
        if pending.requester is not None:
            pending.requester.pending.pop(pending.header.id, None)
            if pending.flow is not None:
                pending.requester.held.pop(pending.own_id, None)
            pending.requester = None
            self._live -= 1
            if pending.replier is not None:
                pending.replier.owed += 1
        pending.payload = pending.columns = b""
        service = self._services.get(pending.header.service)
        if service is not None and service.waiting.pop(pending.own_id, None) is not None:
            self._tidy(service)

    # -- sessions and time ---------------------------------------------------------------------------------------

    def ended(self, session: Session, now: int) -> None:
        """A session is over, however: a replier's work is lost or moves, a requester's is dropped."""
        if session.role is Role.REPLIER:
            replier = self._repliers.pop(session, None)
            if replier is not None:
                self._replier_gone(replier, now)
        else:
            requester = self._requesters.pop(session, None)
            if requester is not None:
                for pending in list(requester.pending.values()):
                    self._tell_replier(pending)
                    self._forget(pending)

    def _replier_gone(self, replier: Replier, now: int) -> None:
        services, working = list(replier.services.values()), list(replier.working.values())
        replier.working.clear()
        for service in services:
            self._leave(replier, service, now)
        for pending in working:
            pending.replier = None
            if pending.requester is None:
                continue
            if pending.deadline <= now:
                self._silent(pending)
            elif pending.header.idempotent and not (pending.flow and pending.flow.has_begun):
                self.counters["redispatched"] += 1
                self._place(pending, self._service(pending.header.service), now)
            else:
                self._fail(pending, ReplierLost("the replier was lost after the request had been given to it"))

    def drain(self) -> None:
        """Take no new requests, and none that no replier has yet; what was dispatched may finish."""
        self.is_draining = True
        waiting = [pending for service in self._services.values() for pending in service.waiting.values()]
        for pending in waiting:
            self._fail(pending, _shutting_down())

    def next_timeout(self) -> int | None:
        """When a deadline or a wait for a first replier ends."""
        due = self._due
        while due and due[0][2].requester is None:
            heappop(due)
        return due[0][0] if due else None

    def handle_timeout(self, now: int) -> None:
        """Forget requests whose time is over, refuse those that waited in vain."""
        while (due := self.next_timeout()) is not None and due <= now:
            pending = heappop(self._due)[2]
            if now >= pending.deadline:
                self.counters["timed_out"] += 1
                self._tell_replier(pending)
                self._silent(pending)
                continue
            service = self._services.get(pending.header.service)
            waits = service is not None and pending.own_id in service.waiting and not service.repliers
            if waits and now >= pending.waits_until:
                wait_ms = pending.header.wait_ms
                self._fail(pending, NoReplier(f"nobody offers service {pending.header.service!r}; waited {wait_ms} ms"))

    def status(self, rows_max: int) -> dict[str, dict[str, int]]:
        """Services by name, at most `rows_max` of them."""
        rows = list(self._services.values())[:rows_max]
        return {
            service.name: {
                "repliers": len(service.repliers),
                "waiting": len(service.waiting),
                "credit": sum(replier.room for replier in service.repliers),
            }
            for service in rows
        }

    @property
    def requests(self) -> int:
        """REQUESTs so far."""
        return self._last_id

    @property
    def under_way(self) -> int:
        """Requests that repliers work on and somebody waits for."""
        return sum(
            pending.requester is not None for replier in self._repliers.values() for pending in replier.working.values()
        )


def _check_parts(pending: Pending, header: Reply) -> None:
    """The parts before a reply are counted here too. Raises RemoteProtocolError: a requester would hear it from nobody."""
    came = pending.flow.given.messages_used if pending.flow is not None else 0
    if header.parts != came:
        raise RemoteProtocolError(f"the reply says that {header.parts} parts came before it, and {came} did")


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("the broker shuts down and takes no new requests", retry_after_ms=_RETRY_MS)
