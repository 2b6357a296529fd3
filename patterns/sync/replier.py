"""The Replier of the sync shell."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from inspect import isasyncgenfunction, iscoroutinefunction
from types import GeneratorType
from typing import Any, Final

from patterns.io.driver import Driver
from patterns.io.waiting import Steps
from patterns.roles.incoming import IncomingRequestRole
from patterns.roles.replier import Handler, ReplierRole, at_once
from patterns.sync.role import SyncRole
from patterns.wire.errors import BadArgument, Closed

__all__ = ["Handler", "IncomingRequest", "Replier"]
_ANSWERED: Final = object()


class IncomingRequest(IncomingRequestRole):
    __doc__ = IncomingRequestRole.__doc__

    def send_part(self, body: Any, headers: dict[str, str] | None = None) -> None:
        """Send the next part of the reply, as soon as the requester lets it come; end() or reply() follows the last.

        Raises:
            Cancelled: nobody waits any more.
            Overloaded: the requester has let no part come for 60 s.
            BadArgument: one reply was asked for; see `takes_parts`.
            BadBody, TooLarge.
        """
        self._replier._driver.drive(self._send_part(body, headers))


class Replier(ReplierRole[Driver], SyncRole):
    """Offers services and answers requests, one at a time: a streamed reply occupies it until its end.

    Args:
        address: one that it binds, or `zb://` of brokers. None: ZBROKER_URL.
        service: the name, or several.
        handler: takes a body and returns one; for serve_forever(). A generator's items are the parts of a streamed reply: it
            runs as far as the requester takes them, and is closed when that one leaves. A handler with two parameters
            gets the IncomingRequest as well: `is_cancelled`, `remaining_s`, `headers`.
        codec: of the replies.
        type: what request bodies are validated as; a request that is not of it gets VALIDATION_FAILED by itself.
        idle_timeout_s: iteration ends when no request came for so long.
        security: not built yet.

    Raises:
        BadAddress, BadName, BadArgument, NotInThisDeployment; Unavailable when the address cannot be bound.
    """

    _incoming = IncomingRequest

    def __init__(
        self,
        address: str | None,
        service: str | Sequence[str],
        handler: Handler | None = None,
        *,
        codec: str = "msgpack",
        type: Any = Any,
        idle_timeout_s: float | None = None,
        security: object = None,
    ) -> None:
        if _is_async(handler):
            raise BadArgument(f"handler={handler!r} is asynchronous: a plain function, or Replier from patterns.aio")
        super().__init__(
            Driver, address, service, handler, codec=codec, type=type, idle_timeout_s=idle_timeout_s, security=security
        )

    def ready(self, timeout_s: float = 5.0) -> None:
        """Return when the services are offered. Raises TimedOut, Unavailable."""
        self._driver.drive(self._ready(timeout_s))

    def __iter__(self) -> Iterator[IncomingRequest]:
        """Requests, oldest first, until close() or idle_timeout_s without one. Each needs reply() or fail()."""
        while (request := self._taken(lambda: self._next(self._idle_timeout_s))) is not None:
            yield request

    def receive(self, timeout_s: float | None = None) -> IncomingRequest | None:
        """The next request; None when none came in time, or after close()."""
        found: IncomingRequest | None = self._taken(lambda: self._next(timeout_s))
        return found

    def serve_forever(self) -> None:
        """Answer requests with the handler until close(). An Exception of the handler is an error reply, never the end.

        Another one, such as SystemExit, is an error reply and goes on to the caller. When this ends by an exception, nothing is
        offered any more, so that others answer, until it is called again.

        close(), from another thread, lets the request under way finish while its timeout lasts.

        Raises:
            BadArgument: there is no handler.
        """
        handler = self._must_have_handler()
        with suppress(Closed), self._in_service(Closed):
            request: IncomingRequest | None = self._taken(lambda: self._next(self._idle_timeout_s))
            while request is not None:
                found = self._serve(request, handler)
                steps = self._after(request, found)
                del request, found  # while it waits, nothing of the last one is held
                request = self._driver.drive(steps, self._keep)

    def _after(self, request: IncomingRequest, found: Any) -> Steps[Any]:
        """Reply, and take the next request, in one call: signal handlers are put aside once for both."""
        try:
            if found is not _ANSWERED:
                request.reply(found)
        except Exception as error:  # noqa: BLE001  what the handler has returned is no body: an error reply
            self._answer_failure(request, error)
        del request, found
        if self._kept is None:
            return (yield from self._next(self._idle_timeout_s))
        kept, self._kept = self._kept, None  # of another thread that serves, and was interrupted
        return kept

    def _serve(self, request: IncomingRequest, handler: Handler) -> Any:
        """What is to be replied; _ANSWERED when it was."""
        try:
            found = handler(request.body, request) if self._wants_request else handler(request.body)
            if type(found) is not GeneratorType:
                return found
            self._serve_parts(request, found)
        except Exception as error:  # noqa: BLE001  around a user's handler: an error reply, not the end of the service
            self._answer_failure(request, error)
        except (KeyboardInterrupt, GeneratorExit):  # of whoever interrupts us, not of the handler
            raise
        except BaseException as error:
            self._answer_end(request, error)
            raise
        return _ANSWERED

    def _serve_parts(self, request: IncomingRequest, parts: Generator[Any, None, None]) -> None:
        """As far as the requester lets them come; a generator is closed where it stands when nobody waits any more."""
        with closing(parts):
            while self._driver.drive(request._room()):
                try:
                    body = next(parts)
                except StopIteration:
                    request.end()
                    return
                self._part(request._token, body, None)
        self._settled(request._token)

    def _look(self) -> None:
        self._driver.wait(at_once, None, fresh=True)

    def _me(self) -> int:
        return threading.get_ident()


def _is_async(handler: Any) -> bool:
    """Whether calling it gives something to await, as far as can be told without calling it."""
    called = getattr(handler, "__call__", None)  # noqa: B004  its own: an object's may be a coroutine function
    return any(is_one(one) for is_one in (iscoroutinefunction, isasyncgenfunction) for one in (handler, called))
