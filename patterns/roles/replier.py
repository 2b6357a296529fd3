"""The Replier: offers services and answers requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from patterns.core.reply import Cancelled, PeerReplierEngine, ReplierEngine, Requested
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.role import (
    LINGER_MS,
    D,
    MakeDriver,
    Role,
    binds,
    check_headers,
    codec_of,
    deadline_of,
    jitter,
    new_nonce,
    raise_error,
    refuse_security,
    resolve,
)
from patterns.wire.codec import BodyDecoder, encode_only
from patterns.wire.errors import (
    ApplicationError,
    BadAddress,
    BadArgument,
    Closed,
    HandlerFailed,
    TimedOut,
    ZbrokerError,
)
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Columns
from patterns.wire.names import check_name

_log = logging.getLogger("zbroker.replier")
Handler = Callable[[Any], Any]


class IncomingRequest:
    """A request to answer, once; with patterns.sync from any thread.

    Attributes:
        service: which one was asked.
        body: decoded, and validated if the Replier has a `type`.
        headers: str to str, or None.
    """

    def __init__(self, replier: ReplierRole[Any], event: Requested, body: Any) -> None:
        self._replier = replier
        self._token = event.token
        self._deadline = event.deadline
        self.service = event.service
        self.body = body
        self.headers = event.headers

    @property
    def remaining_s(self) -> float:
        """Seconds until nobody waits for the reply any more; negative when it is too late."""
        return (self._deadline - clock()) / 1e6

    @property
    def cancelled(self) -> bool:
        """Whether the requester has given up or left."""
        return self._token in self._replier._cancelled

    def reply(self, body: Any, headers: dict[str, str] | None = None) -> None:
        """Answer. Raises BadBody, TooLarge; nothing happens when nobody waits any more."""
        self._replier._reply(self._token, body, headers)

    def fail(self, code: str, detail: str = "") -> None:
        """Answer with an application error: the requester's call raises ApplicationError with this code and detail."""
        self._replier._fail(self._token, ApplicationError(detail or code, code=code))


class ReplierRole(Role[D]):
    """See patterns.sync.Replier."""

    def __init__(
        self,
        make: MakeDriver[D],
        address: str | None,
        service: str | Sequence[str],
        handler: Handler | None,
        *,
        codec: str,
        type: Any,
        idle_timeout_s: float | None,
        security: object,
        concurrency: int = 1,
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        services = [check_name(name, "service") for name in ([service] if isinstance(service, str) else service)]
        if not services:
            raise BadArgument("a Replier needs at least one service")
        self._handler = handler
        self._codec = codec_of(codec)
        self._bodies = BodyDecoder(type)
        self._idle_timeout_s = idle_timeout_s
        self._requests: dict[int, Requested] = {}  # not begun with, by token, oldest first
        self._cancelled: set[int] = set()  # begun with, and nobody waits any more
        self._engine: ReplierEngine | PeerReplierEngine
        if addresses[0].brokered:
            self._engine = ReplierEngine(addresses, services, new_nonce(), self._codec, jitter, concurrency)
            self._driver = make(self._engine, SocketKind.DEALER, self._take, in_background=self._wants_keeper)
        else:
            self._engine = self._peer_engine(addresses, services)
            self._driver = make(
                self._engine,
                SocketKind.ROUTER,
                self._take,
                binds=True,
                in_background=self._wants_keeper,
                linger_ms=LINGER_MS,
            )
        self._driver.start()

    def _peer_engine(self, addresses: Sequence[Any], services: list[str]) -> PeerReplierEngine:
        if len(addresses) != 1 or not binds(addresses[0], default=True):
            raise BadAddress("peer to peer a Replier binds one address; requesters connect to several")
        epoch = time.time_ns() // 1_000_000_000  # SPEC.md: without a journal, seconds of the wall clock at start
        return PeerReplierEngine(addresses[0], services, epoch, self._codec)

    def _wants_keeper(self) -> bool:
        """A bound replier greets requesters at any time; behind a broker only until the session stands."""
        return not self._engine.closed and (isinstance(self._engine, PeerReplierEngine) or not self._engine.is_offered)

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Requested):
                self._requests[event.token] = event
            elif isinstance(event, Cancelled):
                self._cancel(event.token)

    def _cancel(self, token: int) -> None:
        """Forget a request that waits here, so that asking and cancelling in a loop fills nothing."""
        if self._requests.pop(token, None) is None:
            self._cancelled.add(token)
        else:
            self._driver.defer(lambda: self._settled(token))

    @property
    def address(self) -> str:
        """The address that requesters connect to; a port 0 is filled in."""
        return self._driver.bound or self._engine_address()

    def _engine_address(self) -> str:
        return self._engine.addresses[0].endpoint if isinstance(self._engine, ReplierEngine) else ""

    def _ready(self, timeout_s: float) -> Steps[None]:
        self._driver.check()
        engine = self._engine
        if not (yield Wait(lambda: engine.is_offered or engine.error is not None, deadline_of(timeout_s))):
            raise (
                engine.unavailable() if not engine.is_ready else TimedOut("the broker has not registered the services")
            )
        raise_error(engine)

    def _next(self, timeout_s: float | None) -> Steps[IncomingRequest | None]:
        """The next request; None when none came in time, or after close()."""
        driver, requests = self._driver, self._requests
        deadline = deadline_of(timeout_s)
        while True:
            if driver.is_over():
                return None
            if not requests and not (yield Wait(self._has_news, deadline)):
                return None
            event = self._oldest()
            if event is None:
                continue
            if event.deadline <= clock():
                self._settled(event.token)
                continue
            try:
                body = self._bodies.only(event.codec, event.payload)
            except ZbrokerError as error:
                self._fail(event.token, error)
                continue
            return IncomingRequest(self, event, body)

    def _oldest(self) -> Requested | None:
        with self._driver.lock:
            for token in self._requests:
                return self._requests.pop(token)
        return None

    def _has_news(self) -> bool:
        return bool(self._requests) or self._driver.is_closed or self._engine.closed or self._engine.error is not None

    def _must_have_handler(self) -> Handler:
        if self._handler is None:
            raise BadArgument("serve_forever() needs the handler that Replier(address, service, handler) takes")
        return self._handler

    def _answer_failure(self, request: IncomingRequest, error: Exception) -> None:
        """What the handler, or the encoding of what it returned, has raised: an error reply."""
        if isinstance(error, (ApplicationError, Closed)):  # others of ours, of a nested request maybe, say nothing here
            self._fail(request._token, error)
            return
        _log.error("the handler of service %r failed", request.service, exc_info=error)
        self._fail(request._token, HandlerFailed(f"{type(error).__name__}: {error}"))

    def _reply(self, token: int, body: Any, headers: dict[str, str] | None) -> None:
        self._driver.check()
        # what is encoded already can only go as it is, and is labelled so
        codec = self._codec if isinstance(body, msgspec.Raw) else self._engine.codec_to(token)
        payload = encode_only(codec, body)
        check_headers(headers)
        columns = pack_columns(Columns(headers=[headers]), MSGPACK) if headers else b""
        self._driver.run(lambda now: self._engine.reply(token, codec, payload, columns, now))
        self._cancelled.discard(token)

    def _fail(self, token: int, error: ZbrokerError) -> None:
        self._driver.check()
        self._driver.run(lambda now: self._engine.fail(token, error, now))
        self._cancelled.discard(token)

    def _settled(self, token: int) -> None:
        """Nobody waits: take it off the engine's books."""
        if self._driver.is_closed:  # deferred, and then came close()
            return
        self._fail(token, TimedOut("nobody waits for this reply any more"))
