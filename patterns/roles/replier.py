"""The Replier: offers services and answers requests."""

from __future__ import annotations

import inspect
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from patterns.core.reply import PeerReplierEngine, ReplierEngine, RequestCancelled, Requested, ServiceReady
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.arguments import check_limits, services_of
from patterns.roles.incoming import Given, IncomingRequestRole, NotTaken, OneReplyWanted, Untranslated
from patterns.roles.role import (
    LINGER_MS,
    D,
    MakeDriver,
    Role,
    binds,
    codec_of,
    deadline_of,
    jitter,
    new_nonce,
    raise_error,
    refuse_security,
    resolve,
)
from patterns.wire.attributes import check_headers
from patterns.wire.codec import BodyDecoder, encode_only
from patterns.wire.errors import (
    ApplicationError,
    BadAddress,
    BadArgument,
    BadBody,
    Cancelled,
    Closed,
    HandlerFailed,
    NoReplier,
    ReplierLost,
    ShuttingDown,
    TimedOut,
    ZbrokerError,
)
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Codec, Columns
from patterns.wire.names import check_name
from patterns.wire.words import counted, described

_log = logging.getLogger("zbroker.replier")
Handler = Callable[..., Any]
_LOOK_US = 1_000  # a request that waited here so long may have been cancelled; a look costs 5 us


class ReplierRole(Role[D]):
    """See patterns.sync.Replier."""

    _incoming: type[IncomingRequestRole]

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
        services = [check_name(name, "service") for name in services_of(service)]
        check_limits(idle_timeout_s=idle_timeout_s)
        if handler is not None and not callable(handler):
            raise BadArgument(f"handler={handler!r}: a function that takes a body and returns one")
        self._handler = handler
        self._wants_request = handler is not None and _takes_two(handler)
        self._codec = codec_of(codec)
        self._bodies = BodyDecoder(type)
        self._idle_timeout_s = idle_timeout_s
        self._requests: dict[int, Requested] = {}  # not begun with, by token, oldest first
        self._cancelled: set[int] = set()  # begun with, and nobody waits any more
        self._serving: dict[int, Any] = {}  # by token, the task in which a handler works on it; in the asyncio shell
        self._given: dict[int, Given] = {}  # by token, until it is answered
        self._let_go: deque[Given] = deque()  # without an answer: by an exception, or by mistake
        self._in_hand: dict[int, Any] = {}  # by token, the thread or task that has taken it and has not answered yet
        self._is_leaving = False
        self._failure: BaseException | None = None  # what a handler's task has ended with; serve_forever() raises it
        self._servers = 0  # calls of serve_forever() that have not ended
        self._is_idle = False  # the last of them ended by an exception: nothing is offered until somebody serves again
        self._looked_at = 0
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
        self._start()

    @property
    def refused(self) -> dict[str, int]:
        """What it has refused to those who connect to its bound address, by the error's name: `refused` of SPEC.md 10.1.

        Empty through a broker, which counts by itself.
        """
        return dict(self._engine.refused) if isinstance(self._engine, PeerReplierEngine) else {}

    @property
    def cuts(self) -> dict[str, int]:
        """Connections to the bound address that were cut since they flooded it, by reason: `guard.cuts` of SPEC.md 10.1.

        Linux and tcp:// alone; empty through a broker, which guards itself. A warning in the log tells of them, every 10 s at most.
        """
        return dict(self._driver.cuts)

    def _peer_engine(self, addresses: Sequence[Any], services: list[str]) -> PeerReplierEngine:
        if len(addresses) != 1 or not binds(addresses[0], default=True):
            raise BadAddress("peer to peer a Replier binds one address; requesters connect to several")
        epoch = max(
            0, time.time_ns() // 1_000_000_000
        )  # SPEC.md: without a journal, seconds of the wall clock at start
        return PeerReplierEngine(addresses[0], services, epoch, self._codec)

    def _wants_keeper(self) -> bool:
        """A bound replier greets requesters at any time; behind a broker only until the session stands."""
        engine = self._engine
        is_wanted = self._is_idle or isinstance(engine, PeerReplierEngine) or not engine.is_offered
        return is_wanted and not engine.closed

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Requested):
                self._requests[event.token] = event
                if self._is_leaving or self._is_idle:
                    self._driver.defer(self._refuse_waiting)
            elif self._is_idle and isinstance(event, ServiceReady):  # the broker has come back
                self._driver.defer(lambda: self._driver.run(self._engine.withdraw))
            elif isinstance(event, RequestCancelled):
                self._cancel(event.token)

    def _cancel(self, token: int) -> None:
        """Forget a request that waits here, so that asking and cancelling in a loop fills nothing."""
        if self._requests.pop(token, None) is None:
            self._cancelled.add(token)
            self._in_hand.pop(token, None)
            self._stop(token)
        else:
            self._driver.defer(lambda: self._settled(token))

    def _stop(self, token: int) -> None:
        """Nobody waits for what a handler works on: a shell that can interrupt it, does."""

    def _look(self) -> None:
        """Take in what is there; nothing to do where a loop drives."""

    def _me(self) -> Any:
        """The thread or task that runs."""
        raise AssertionError("each shell says it")

    def _looks_again(self) -> bool:
        """Whether it is time to see if somebody has given up."""
        now = clock()
        due = now - self._looked_at > _LOOK_US
        if due:
            self._looked_at = now
        return due

    @property
    def address(self) -> str:
        """The address that requesters connect to; a port 0 is filled in."""
        return self._driver.bound or self._engine_address()

    def _engine_address(self) -> str:
        return str(self._engine.addresses[0]) if isinstance(self._engine, ReplierEngine) else ""

    def _ready(self, timeout_s: float) -> Steps[None]:
        self._driver.check()
        engine = self._engine
        if not (yield Wait(lambda: engine.is_offered or engine.error is not None, deadline_of(timeout_s))):
            self._driver.check()
            raise (
                engine.unavailable() if not engine.is_ready else TimedOut("the broker has not registered the services")
            )
        raise_error(engine)

    def _next(self, timeout_s: float | None) -> Steps[Any]:
        """The next request; None when none came in time, or after close()."""
        driver, requests = self._driver, self._requests
        deadline = deadline_of(timeout_s)
        if self._is_idle:
            self._offer_again()
        while True:
            self._take_back()
            if self._is_leaving or self._failure is not None or driver.is_over():
                return None
            is_new = not requests
            if is_new:
                if not (yield Wait(self._has_news, deadline)):
                    return None
            elif self._looks_again():  # what has waited here while a handler worked
                yield Wait(at_once, None, fresh=True)
            event = self._oldest()
            if event is None:
                continue
            now = clock()
            if is_new:
                self._looked_at = now
            if event.deadline <= now:
                self._settled(event.token)
                continue
            try:
                body = self._bodies.only(event.codec, event.payload)
            except ZbrokerError as error:
                self._fail(event.token, error)
                continue
            return self._give(event, body)

    def _give(self, event: Requested, body: Any) -> IncomingRequestRole:
        request = self._incoming(self, event, body)
        given = self._given[event.token] = Given(request, self._let_go.append)
        given.token, given.service = event.token, event.service
        return request

    def _take_back(self) -> None:
        """Answer what was let go without an answer: whoever asked is told, and the broker gives us another."""
        while self._let_go:
            given = self._let_go.popleft()
            lost = ReplierLost(f"the replier of service {given.service!r} let go of the request without an answer")
            self._refuse(given.token, lost)

    def _oldest(self) -> Requested | None:
        with self._driver.lock:
            for token in self._requests:
                self._in_hand[token] = self._me()
                return self._requests.pop(token)
        return None

    def _has_news(self) -> bool:
        return (
            bool(self._requests)
            or bool(self._let_go)
            or self._is_leaving
            or self._failure is not None
            or self._driver.is_closed
            or self._engine.closed
            or self._engine.error is not None
        )

    def _must_have_handler(self) -> Handler:
        if self._handler is None:
            raise BadArgument("serve_forever() needs the handler that Replier(address, service, handler) takes")
        return self._handler

    @contextmanager
    def _in_service(self, *harmless: type[BaseException]) -> Iterator[None]:
        """Around serve_forever(): when the last one ends by an exception, but for harmless ones, others answer from now on."""
        self._servers += 1
        try:
            yield
        except harmless:
            self._servers -= 1
            raise
        except BaseException:
            self._servers -= 1
            self._stop_offering()
            raise
        else:
            self._servers -= 1

    def _stop_offering(self) -> None:
        """Nobody serves any more: a broker is told so, and what comes all the same is refused."""
        driver = self._driver
        if self._servers == 0 and not driver.is_closed and not driver.forked and self._engine.error is None:
            self._is_idle = True
            driver.run(self._engine.withdraw)
            self._refuse_waiting()

    def _offer_again(self) -> None:
        """Somebody serves again."""
        self._is_idle = False
        engine = self._engine
        if isinstance(engine, ReplierEngine):
            self._driver.run(lambda now: engine.offer(now) if engine.is_ready else None)

    def _answer_end(self, request: IncomingRequestRole, error: BaseException) -> None:
        """The handler has raised what ends more than itself, such as SystemExit: its request is answered first."""
        if isinstance(error, SystemExit):  # Python says nothing of it when it ends a thread
            _log.error("the handler of service %r has called exit: serve_forever() ends by it", request.service)
        self._refuse(request._token, HandlerFailed(described(error)))

    def _answer_failure(self, request: IncomingRequestRole, error: Exception) -> None:
        """What the handler, or the encoding of what it returned, has raised: an error reply."""
        if request._token in self._cancelled:
            self._settled(request._token)  # what a handler says of being stopped, it says to nobody
            return
        if isinstance(error, (ApplicationError, Closed, NotTaken, OneReplyWanted, Untranslated)):
            self._fail(request._token, error)  # others of ours, of a nested request maybe, say nothing here
            return
        _log.error("the handler of service %r failed", request.service, exc_info=error)
        self._fail(request._token, HandlerFailed(described(error)))

    def _written(self, token: int, body: Any, headers: dict[str, str] | None) -> tuple[Codec, bytes, bytes]:
        """Codec, payload and columns of a reply or a part."""
        self._driver.check()
        # what is encoded already can only go as it is, and is labelled so
        codec = self._codec if isinstance(body, msgspec.Raw) else self._engine.codec_to(token)
        try:
            payload = encode_only(codec, body)
        except BadBody as error:
            if codec is self._codec:
                raise
            raise Untranslated(error.detail) from error  # as a broker between us would answer
        if headers is None:
            return codec, payload, b""
        check_headers(headers)
        return codec, payload, pack_columns(Columns(headers=[headers]), MSGPACK) if headers else b""

    def _reply(self, token: int, body: Any, headers: dict[str, str] | None) -> None:
        codec, payload, columns = self._written(token, body, headers)
        self._finish(token, self._engine.reply, codec, payload, columns)

    def _part(self, token: int, body: Any, headers: dict[str, str] | None) -> None:
        codec, payload, columns = self._written(token, body, headers)
        self._driver.run(lambda now: self._engine.part(token, codec, payload, columns, now))

    def _end(self, token: int) -> None:
        self._driver.check()
        self._finish(token, self._engine.end)

    def _fail(self, token: int, error: ZbrokerError) -> None:
        self._driver.check()
        self._finish(token, self._engine.fail, error)

    def _finish(self, token: int, verb: Callable[..., None], *arguments: Any) -> None:
        """The one answer of a request; under the lock, so that close() sees it sent and done in one step."""

        def answer(now: int) -> None:
            verb(token, *arguments, now)
            self._in_hand.pop(token, None)
            self._given.pop(token, None)

        self._driver.run(answer)
        self._cancelled.discard(token)

    def _settled(self, token: int) -> None:
        """Nobody waits: take it off the engine's books."""
        self._refuse(token, Cancelled("nobody waits for this reply any more"))

    def _refuse(self, token: int, error: ZbrokerError) -> None:
        """An error reply; nothing after the end, which another thread may bring at any moment."""
        if self._engine.error is None:
            with suppress(Closed):
                self._fail(token, error)

    # -- the end -------------------------------------------------------------------------------------------------

    def _last(self, timeout_s: float) -> Steps[None]:
        """Take nothing new, and wait for what others work on; say what was not answered."""
        self._is_leaving = True
        engine = self._engine
        if engine.error is not None:
            return
        deadline = deadline_of(timeout_s)
        self._driver.run(engine.withdraw)
        # a request that crosses our WITHDRAW would be lost with the session, as if it had been begun
        yield Wait(lambda: engine.is_withdrawn or engine.error is not None, deadline, fresh=True)
        self._refuse_waiting()
        self._take_back()
        yield Wait(self._all_served, deadline)
        late = [token for token, who in {**self._in_hand, **self._serving}.items() if who != self._me()]
        if late:
            _log.warning("closed while %s had no reply: REPLIER_LOST for who asked", counted(len(late), "request"))
        for token in late:
            self._stop(token)

    def _all_served(self) -> bool:
        """But for what the caller itself is working on: a handler may close its replier."""
        me = self._me()
        return all(who == me for works in (self._serving, self._in_hand) for who in list(works.values()))

    def _refuse_waiting(self) -> None:
        """What no handler has begun with is certainly not done. A broker must not be taken for who is leaving."""
        kind = NoReplier if self._is_idle or isinstance(self._engine, ReplierEngine) else ShuttingDown
        does = "has stopped serving" if self._is_idle else "is leaving"
        while (event := self._oldest()) is not None:
            self._refuse(event.token, kind(f"the replier of service {event.service!r} {does}; it was not begun"))


def at_once() -> bool:
    """Wait for nothing: just look."""
    return True


def _takes_two(handler: Handler) -> bool:
    """Whether a handler wants the request beside the body: it has two parameters without a default."""
    try:
        found = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # some that are written in C have none
        return False
    required = [
        one
        for one in found
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) == 2
