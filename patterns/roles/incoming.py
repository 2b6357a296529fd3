"""A request as the replier's program has it: what was asked, and how to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from patterns.core.reply import Requested
from patterns.io.clock import clock
from patterns.io.waiting import Steps, Wait
from patterns.roles.arguments import check_text
from patterns.wire.errors import ApplicationError, BadArgument, Cancelled, Overloaded, Untranslatable

ROOM_US = 60_000_000  # without credit for a part; a reader that pauses for longer holds a handler that others wait for

if TYPE_CHECKING:
    from patterns.roles.replier import ReplierRole


class OneReplyWanted(BadArgument):
    """Parts for a requester that takes none: its mistake, and it is told so."""


class NotTaken(Overloaded):
    """Parts that the requester does not let come: nobody shall hold a handler for as long as it likes."""


class Untranslated(Untranslatable):
    """A reply that the requester's codec cannot express, as a broker between them would say."""


class Given(ref["IncomingRequestRole"]):
    """A request that somebody was given. When it is let go, nothing but C runs, so no exception of a signal's handler is in time."""

    __slots__ = ("service", "token")
    token: int
    service: str


class IncomingRequestRole:
    """A request to answer, once; with patterns.sync from any thread.

    Attributes:
        service: which one was asked.
        body: decoded, and validated if the Replier has a `type`.
        headers: str to str, or None.
        takes_parts: whether the reply may come in parts, by send_part() and end(): it was asked for by stream().
    """

    def __init__(self, replier: ReplierRole[Any], event: Requested, body: Any) -> None:
        self._replier = replier
        self._token = event.token
        self._deadline = event.deadline
        self.service = event.service
        self.body = body
        self.headers = event.headers
        self.takes_parts = event.takes_parts

    @property
    def remaining_s(self) -> float:
        """Seconds until nobody waits for the reply any more; negative when it is too late."""
        return (self._deadline - clock()) / 1e6

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits any more: the requester has given up or left, or it is too late. Looks at the sockets."""
        replier = self._replier
        if self._token not in replier._cancelled:
            replier._look()
        return self._token in replier._cancelled or self._deadline <= clock() or replier._driver.is_closed

    def reply(self, body: Any, headers: dict[str, str] | None = None) -> None:
        """Answer; behind parts, it is the last one. Raises BadBody, TooLarge; nothing happens when nobody waits any more."""
        self._replier._reply(self._token, body, headers)

    def fail(self, code: str, detail: str = "") -> None:
        """Answer with an application error: the requester's call raises ApplicationError with this code and detail."""
        if not isinstance(detail, str):
            raise BadArgument(f"detail={detail!r}: a str")
        check_text("code", code)
        self._replier._fail(self._token, ApplicationError(detail or code, code=code))

    def end(self) -> None:
        """The reply was in the parts, or it is empty. Raises BadArgument when one reply was asked for."""
        self._must_take_parts()
        self._replier._end(self._token)

    def _must_take_parts(self) -> None:
        if not self.takes_parts:
            raise OneReplyWanted(f"service {self.service!r} replies in parts: ask it with stream(), not with request()")

    def _room(self) -> Steps[bool]:
        """Wait until the requester lets another part come; False when nobody waits any more."""
        self._must_take_parts()
        replier, token, engine = self._replier, self._token, self._replier._engine
        gone, driver = replier._cancelled, replier._driver
        limit = clock() + ROOM_US
        done = yield Wait(
            lambda: token in gone or engine.has_room(token) or driver.is_closed or engine.error is not None,
            min(self._deadline, limit),
            fresh=replier._looks_again(),
        )
        driver.check()
        if not done and limit < self._deadline:
            held = (
                f"the requester has let no part of this reply of service {self.service!r} come for {ROOM_US / 1e6:g} s"
            )
            raise NotTaken(f"{held}: it ends here; take parts sooner, or ask for less at a time")
        return done and token not in gone and engine.has_room(token)

    def _send_part(self, body: Any, headers: dict[str, str] | None) -> Steps[None]:
        if not (yield from self._room()):
            raise Cancelled(f"nobody waits for this reply of service {self.service!r} any more")
        self._replier._part(self._token, body, headers)
