"""The Replier of the asyncio shell."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from typing import Any

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole, Arrivals
from patterns.roles.replier import Handler, IncomingRequest, ReplierRole
from patterns.wire.errors import BadArgument, Closed, ShuttingDown

__all__ = ["Handler", "IncomingRequest", "Replier"]


class Replier(ReplierRole[AioDriver], AioRole):
    """Offers services and answers requests.

    Args:
        address: one that it binds, or `zb://` of brokers. None: ZBROKER_URL.
        service: the name, or several.
        handler: takes a body and returns one, or an awaitable of one; for serve_forever().
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
        if concurrency < 1:
            raise BadArgument(f"concurrency={concurrency!r}: at least 1")
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
        """Answer requests with the handler until close(). An exception of the handler is an error reply, never the end.

        Handlers that are under way when this is cancelled, or at close(), are cancelled, too.

        Raises:
            BadArgument: there is no handler.
        """
        handler = self._must_have_handler()
        if self._concurrency > 1:
            await self._serve_at_once(handler)
            return
        async for request in self:
            await self._serve(request, handler)

    async def _serve_at_once(self, handler: Handler) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for request in self:
                task = asyncio.create_task(self._serve(request, handler))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                while len(tasks) >= self._concurrency:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks and not self.closed:  # idle
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, request: IncomingRequest, handler: Handler) -> None:
        try:
            try:
                request.reply(await self._call(handler, request.body))
            except asyncio.CancelledError:
                self._fail(request._token, ShuttingDown("the replier was cancelled"))
                raise
            except Exception as error:  # noqa: BLE001  around a user's handler: an error reply, not the end of the service
                self._answer_failure(request, error)
        except Closed:
            pass  # nobody can be answered any more

    async def _call(self, handler: Handler, body: Any) -> Any:
        if self._executor is not None:
            return await asyncio.get_running_loop().run_in_executor(self._executor, handler, body)
        found = handler(body)
        return await found if inspect.isawaitable(found) else found
