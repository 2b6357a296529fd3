"""The Replier of the asyncio shell."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole, Arrivals
from patterns.roles.arguments import check_count, check_executor
from patterns.roles.incoming import IncomingRequestRole
from patterns.roles.replier import Handler, ReplierRole
from patterns.wire.errors import BadArgument, Cancelled, Closed, HandlerFailed, ReplierLost

__all__ = ["Handler", "IncomingRequest", "Replier"]
_log = logging.getLogger("zbroker.replier")
_END: Final = object()  # instead of a part; None is one


class IncomingRequest(IncomingRequestRole):
    __doc__ = IncomingRequestRole.__doc__

    async def send_part(self, body: Any, headers: dict[str, str] | None = None) -> None:
        """Send the next part of the reply, as soon as the requester lets it come; end() or reply() follows the last.

        Raises:
            Cancelled: nobody waits any more.
            Overloaded: the requester has let no part come for 60 s.
            BadArgument: one reply was asked for; see `takes_parts`.
            BadBody, TooLarge.
        """
        await self._replier._driver.drive(self._send_part(body, headers))


class Replier(ReplierRole[AioDriver], AioRole):
    """Offers services and answers requests.

    Args:
        address: one that it binds, or `zb://` of brokers. None: ZBROKER_URL.
        service: the name, or several.
        handler: takes a body and returns one, or an awaitable of one; for serve_forever(). The items of an async generator, or
            of a generator, are the parts of a streamed reply: it runs as far as the requester takes them, and is closed
            when that one leaves. A coroutine is cancelled then. A handler with two parameters gets the IncomingRequest
            as well: `is_cancelled`, `remaining_s`, `headers`.
        codec: of the replies.
        type: what request bodies are validated as; a request that is not of it gets VALIDATION_FAILED by itself.
        idle_timeout_s: iteration ends when no request came for so long.
        security: not built yet.
        concurrency: how many requests it is given at once, and serve_forever() works on.
        executor: where it calls the handler, which is no coroutine function then. None: in the loop, which stands still
            while a handler computes.

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
        concurrency: int = 1,
        executor: Executor | None = None,
    ) -> None:
        check_count("concurrency", concurrency, 1_000_000, "requests")
        check_executor(executor)
        if executor is not None and inspect.iscoroutinefunction(handler):
            raise BadArgument("executor= is for handlers that block; a coroutine function runs in the loop")
        self._concurrency = concurrency
        self._executor = executor
        super().__init__(
            AioDriver,
            address,
            service,
            handler,
            codec=codec,
            type=type,
            idle_timeout_s=idle_timeout_s,
            security=security,
            concurrency=concurrency,
        )
        self._arrivals = Arrivals(self._more, idle_timeout_s)
        self._stopped: set[int] = set()  # tokens of handlers whose tasks we have cancelled
        self._unbegun: set[int] = set()  # tokens of tasks that have not run yet; cancelled now, they never would

    async def ready(self, timeout_s: float = 5.0) -> None:
        """Return when the services are offered. Raises TimedOut, Unavailable."""
        await self._driver.drive(self._ready(timeout_s))

    def __aiter__(self) -> AsyncIterator[IncomingRequest]:
        """Requests, oldest first, until close() or idle_timeout_s without one. Each needs reply() or fail()."""
        return self._arrivals

    async def _more(self, timeout_s: float | None) -> tuple[IncomingRequest] | None:
        request = await self._driver.drive(self._next(timeout_s))
        return None if request is None else (request,)

    async def receive(self, timeout_s: float | None = None) -> IncomingRequest | None:
        """The next request; None when none came in time, or after close()."""
        return await self._arrivals.receive(timeout_s)

    async def serve_forever(self) -> None:
        """Answer requests with the handler until close(). An Exception of the handler is an error reply, never the end.

        Another one, such as SystemExit, is an error reply and goes on to the caller. When this ends by an exception, nothing is
        offered any more, so that others answer, until it is called again.

        close() lets those under way finish while its timeout lasts, and cancels them then; cancelling this cancels them at once.

        Raises:
            BadArgument: there is no handler.
        """
        handler = self._must_have_handler()
        with self._in_service(asyncio.CancelledError, GeneratorExit):
            if self._concurrency > 1:
                await self._serve_at_once(handler)
                return
            async for request in self:
                await self._serve(request, handler)

    async def _serve_at_once(self, handler: Handler) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for request in self:
                token = request._token
                self._unbegun.add(token)
                task = asyncio.create_task(self._serve(request, handler))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(partial(self._task_ended, token))
                while len(tasks) >= self._concurrency:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            if tasks and not self.closed:  # idle, or close() waits for them
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _task_ended(self, token: int, task: asyncio.Task[None]) -> None:
        """What is more than an error reply ends serve_forever(); the loop itself hands on SystemExit and Ctrl-C.

        A task that was cancelled before its first step has run nothing of ours: its request is answered here.
        """
        if token in self._unbegun:
            self._unbegun.discard(token)
            self._refuse(
                token, Cancelled("its task at the replier was cancelled before it began with this; nothing was done")
            )
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
            self._failure = error
            if not self._driver.is_closed and not self._driver.forked:
                self._driver.run()  # wakes who waits for the next request

    async def _serve(self, request: IncomingRequest, handler: Handler) -> None:
        token, task = request._token, asyncio.current_task()
        assert task is not None
        self._unbegun.discard(token)
        if token in self._cancelled or self.closed:  # since it was taken: it must not begin any more (SPEC.md 7)
            self._settled(token)
            return
        cancelling = task.cancelling()
        self._serving[token] = task
        try:
            await self._answer(request, handler)
        except asyncio.CancelledError as error:
            if task.cancelling() == cancelling:  # nobody has cancelled us, but somebody what the handler awaited
                self._answer_cancellation(request, error)
                return
            if token not in self._stopped or task.cancelling() > cancelling + 1:  # by whoever owns the task
                if not self.closed:
                    self._fail(
                        token, ReplierLost("the replier was cancelled while it worked on this; it may have been done")
                    )
                raise
            if token in self._cancelled:
                self._settled(token)
        except Closed:
            pass  # nobody can be answered any more
        finally:
            if token in self._stopped:
                self._stopped.discard(token)
                task.uncancel()
            self._served(token)

    def _served(self, token: int) -> None:
        """The handler has ended."""
        del self._serving[token]
        self._in_hand.pop(token, None)
        self._given.pop(token, None)
        self._cancelled.discard(token)
        if self._is_leaving:
            self._driver.run()  # wakes who waits in close()

    async def _answer(self, request: IncomingRequest, handler: Handler) -> None:
        try:
            found = await self._call(handler, request)
            if type(found) is AsyncGeneratorType or type(found) is GeneratorType:
                await self._serve_parts(request, found)
            else:
                request.reply(found)
        except Exception as error:  # noqa: BLE001  around a user's handler: an error reply, not the end of the service
            self._answer_failure(request, error)
        except (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError):  # of whoever interrupts us
            raise
        except BaseException as error:
            self._answer_end(request, error)
            raise

    def _answer_cancellation(self, request: IncomingRequest, error: asyncio.CancelledError) -> None:
        """A fault of the handler as any other; handed on, it would end serve_forever() in silence."""
        _log.error("the handler of service %r failed: what it awaited was cancelled", request.service, exc_info=error)
        self._refuse(
            request._token, HandlerFailed("CancelledError: what the handler awaited was cancelled by somebody")
        )

    async def _call(self, handler: Handler, request: IncomingRequest) -> Any:
        arguments = (request.body, request) if self._wants_request else (request.body,)
        if self._executor is not None:
            return await asyncio.get_running_loop().run_in_executor(self._executor, handler, *arguments)
        found = handler(*arguments)
        return await found if inspect.isawaitable(found) else found

    async def _serve_parts(self, request: IncomingRequest, parts: Any) -> None:
        """As far as the requester lets them come; a generator is closed where it stands when nobody waits any more."""
        try:
            while await self._driver.drive(request._room()):
                body = await self._next_part(parts)
                if body is _END:
                    request.end()
                    return
                self._part(request._token, body, None)
            self._settled(request._token)
        finally:
            if type(parts) is AsyncGeneratorType:
                await parts.aclose()
            else:
                parts.close()

    async def _next_part(self, parts: Any) -> Any:
        if type(parts) is AsyncGeneratorType:
            return await anext(parts, _END)
        if self._executor is not None:
            return await asyncio.get_running_loop().run_in_executor(self._executor, next, parts, _END)
        return next(parts, _END)

    def _stop(self, token: int) -> None:
        """Cancel what can be: a thread of an executor cannot, and looks at `is_cancelled`."""
        task = self._serving.get(token)
        if task is not None and self._executor is None and token not in self._stopped:
            self._stopped.add(token)
            task.cancel()

    def _me(self) -> asyncio.Task[Any] | None:
        return asyncio.current_task()
