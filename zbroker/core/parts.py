"""Streamed replies (SPEC.md 7): parts go to who asked, credit goes to who replies. Whose request it is, services.py knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from patterns.wire.errors import CreditExceeded, RemoteProtocolError, ZbrokerError
from patterns.wire.frames import Message
from patterns.wire.limits import REPLIES_UNREAD_CUT
from patterns.wire.messages import Credit, Partial
from patterns.wire.server import Session, Sessions
from zbroker.core.flow import Flow
from zbroker.core.replies import OUTBOX_BYTES_MAX, check_one_body, for_requester, overloaded
from zbroker.core.requests import Pending, Replier, Requester
from zbroker.core.translate import Translate


class Parts:
    """The traffic of all streamed replies.

    Args:
        sessions: where frames leave.
        requesters, repliers: the books of the services.
        counters: of the services.
        stop: gives a request an error as its outcome, and tells its replier.
        translate: how a part gets into another codec.
    """

    def __init__(
        self,
        sessions: Sessions,
        requesters: dict[Session, Requester],
        repliers: dict[Session, Replier],
        counters: Counter[str],
        stop: Callable[[Pending, ZbrokerError], None],
        translate: Translate,
    ) -> None:
        self._sessions = sessions
        self._requesters = requesters
        self._repliers = repliers
        self._counters = counters
        self._stop = stop
        self._translate = translate

    def begin(self, pending: Pending, flow: Flow) -> tuple[int, int]:
        """The credit that a replier begins with."""
        requester = pending.requester
        assert requester is not None
        slowly = bool(requester.session.outbox)
        if slowly:
            requester.held[pending.own_id] = pending
        return flow.begin(slowly=slowly)

    def widen(self, session: Session, message: Message) -> None:
        """CREDIT of a requester for the parts of one reply."""
        header = message.header
        assert isinstance(header, Credit)
        requester = self._requesters.get(session)
        pending = requester.pending.get(header.id) if requester else None
        if pending is None or pending.flow is None:
            return  # it has had its outcome meanwhile
        try:
            pending.flow.widen(header.messages, header.bytes)
        except ZbrokerError as error:
            self._stop(pending, error)
            return
        self._allow(pending)

    def read(self, session: Session) -> None:
        """A requester has read, or granted more: if nothing waits for it now, its repliers may go on."""
        requester = self._requesters.get(session)
        if requester is None or not requester.held or session.outbox:
            return
        held, requester.held = requester.held, {}
        for pending in held.values():
            self._allow(pending)

    def proven(self, replier: Replier) -> None:
        """A replier may have read what it was told: it hears of credit that waited for that."""
        while replier.held and replier.session.unread < REPLIES_UNREAD_CUT:
            self._allow(replier.held.popitem()[1])

    def _allow(self, pending: Pending) -> None:
        """Pass the requester's credit on to its replier: later, while replies wait for the requester, or while it reads nothing."""
        requester, replier, flow = pending.requester, pending.replier, pending.flow
        if requester is None or replier is None or flow is None or not flow.is_due:
            return
        if requester.session.outbox:
            requester.held[pending.own_id] = pending
        elif replier.session.unread >= REPLIES_UNREAD_CUT:
            replier.held[pending.own_id] = pending
        else:
            messages, size = flow.allow()
            self._sessions.answer(replier.session, Credit(messages, size, pending.own_id))

    def partial(self, session: Session, message: Message, now: int) -> None:
        """PARTIAL from a replier: the next part of a reply. Raises CreditExceeded, which ends the session."""
        header = message.header
        assert isinstance(header, Partial)
        replier = self._repliers.get(session)
        pending = replier.working.get(header.id) if replier else None
        if pending is None or pending.requester is None or now >= pending.deadline:
            self._counters["late_replies"] += 1
            return
        if pending.flow is None:
            error = RemoteProtocolError("PARTIAL for a request without credit for parts")
            self._sessions.refuse(session, error, "request", header.id)
            return
        try:
            self._pass_on(pending, pending.flow, pending.requester.session, message)
        except CreditExceeded:
            raise
        except ZbrokerError as error:
            self._stop(pending, error)  # with a hole it is no reply

    def _pass_on(self, pending: Pending, flow: Flow, requester: Session, message: Message) -> None:
        header = message.header
        assert isinstance(header, Partial)
        flow.came(header, message.size)
        check_one_body(message, header.codec, header.count)
        frames, size = for_requester(requester, header, pending.header.id, message, self._translate)
        if requester.outbox_bytes + size > OUTBOX_BYTES_MAX:
            raise overloaded(requester, size)
        flow.passed(size)
        self._counters["parts"] += 1
        self._sessions.post(requester, 1, size, frames)
        self._allow(pending)  # credit that was too little for a CREDIT of its own may be worth one now
