"""What the roles of the asyncio shell share: they are async context managers, close() is awaited, and iteration."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain
from types import TracebackType
from typing import Generic, Self, TypeVar

from patterns.aio.driver import AioDriver
from patterns.io import context
from patterns.roles.arguments import check_timeout
from patterns.roles.role import CLOSE_TIMEOUT_S, Role, check_limit

_T = TypeVar("_T")
_log = logging.getLogger("zbroker")


class AioRole(Role[AioDriver]):
    """An async context manager around a driver; see the roles. Belongs to the loop that it was made in."""

    async def __aenter__(self) -> Self:
        driver = self._driver
        if not driver.is_closed and not driver.forked:
            driver.check_here()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(
            error, Exception
        ):  # not a cancellation, or the end of the program: they are no fault of a message
            self._failed()
        await self.close()

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what was posted, say goodbye and let go of the sockets; cancelled, let go at once. More than once is fine."""
        check_limit(timeout_s)
        driver = self._driver
        if driver.is_closed or driver.forked:
            return
        if driver.is_orphaned:
            driver.shut()
            _log.warning(
                "a %s was closed after its event loop had ended: what it had not sent yet is lost", driver.owner
            )
            return
        driver.check_here()
        try:
            await driver.drive(self._last(timeout_s))
            await driver.close(timeout_s)
        finally:
            driver.shut()


class Arrivals(Generic[_T]):
    """An async iterator over what comes in batches; awaits only between them.

    A class, since an async generator ends for good when an await in it is cancelled, and takes a fifth longer.

    Args:
        more: the next batch; None when none came in that time, or after close().
        idle_timeout_s: iteration ends when nothing came for so long; the next loop goes on.
    """

    def __init__(
        self, more: Callable[[float | None], Awaitable[Iterable[_T] | None]], idle_timeout_s: float | None
    ) -> None:
        self._more = more
        self._idle_timeout_s = idle_timeout_s
        self._rest: Iterator[_T] = iter(())
        context.watch(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _T:
        for item in self._rest:
            return item
        found = await self.receive(self._idle_timeout_s)
        if found is None:
            raise StopAsyncIteration
        return found

    def waiting(self) -> Iterator[_T]:
        """Take what came and nobody was given."""
        rest, self._rest = self._rest, iter(())
        return rest

    def let_go(self) -> None:
        """As context.Iteration's."""
        self.waiting()

    async def receive(self, timeout_s: float | None) -> _T | None:
        """The next one; None when none came in time."""
        check_timeout(timeout_s)
        while True:
            for item in self._rest:
                return item
            batch = await self._more(timeout_s)
            if batch is None:
                return None
            self._rest = chain(self._rest, batch)  # another task may have put a rest there meanwhile
