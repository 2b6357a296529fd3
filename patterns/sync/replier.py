"""The Replier of the sync shell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from patterns.io.driver import Driver
from patterns.roles.replier import Handler, IncomingRequest, ReplierRole
from patterns.sync.role import SyncRole
from patterns.wire.errors import Closed

__all__ = ["Handler", "IncomingRequest", "Replier"]


class Replier(ReplierRole[Driver], SyncRole):
    """Offers services and answers requests, one at a time.

    Args:
        address: one that it binds, or `zb://` of brokers. None: ZBROKER_URL.
        service: the name, or several.
        handler: takes a body and returns one; for serve_forever().
        codec: of the replies.
        type: what request bodies are validated as; a request that is not of it gets VALIDATION_FAILED by itself.
        idle_timeout_s: iteration ends when no request came for so long.
        security: not built yet.

    Raises:
        BadAddress, BadName, BadArgument, NotInThisDeployment; Unavailable when the address cannot be bound.
    """

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
        super().__init__(
            Driver, address, service, handler, codec=codec, type=type, idle_timeout_s=idle_timeout_s, security=security
        )

    def ready(self, timeout_s: float = 5.0) -> None:
        """Return when the services are offered. Raises TimedOut, Unavailable."""
        self._driver.drive(self._ready(timeout_s))

    def __iter__(self) -> Iterator[IncomingRequest]:
        """Requests, oldest first, until close() or idle_timeout_s without one. Each needs reply() or fail()."""
        drive = self._driver.drive
        while (request := drive(self._next(self._idle_timeout_s))) is not None:
            yield request

    def receive(self, timeout_s: float | None = None) -> IncomingRequest | None:
        """The next request; None when none came in time, or after close()."""
        return self._driver.drive(self._next(timeout_s))

    def serve_forever(self) -> None:
        """Answer requests with the handler until close(). An exception of the handler is an error reply, never the end.

        Raises:
            BadArgument: there is no handler.
        """
        handler = self._must_have_handler()
        try:
            for request in self:
                self._serve(request, handler)
        except Closed:
            pass

    def _serve(self, request: IncomingRequest, handler: Handler) -> None:
        try:
            request.reply(handler(request.body))
        except Exception as error:  # noqa: BLE001  around a user's handler: an error reply, not the end of the service
            self._answer_failure(request, error)
