"""Who drives an engine under asyncio: the event loop, woken by the sockets' descriptors. No thread, no lock.

A wait only looks at state that turns change, and takes nothing itself: so cancelling one loses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from patterns.io import context
from patterns.io.clock import clock
from patterns.io.links import DrivenEngine, Links, SocketKind
from patterns.io.waiting import Steps
from patterns.wire.errors import Closed, Forked, ZbrokerError

_T = TypeVar("_T")


def _never() -> bool:
    return False


class AioDriver:
    """Runs an engine for a role of the asyncio shell; belongs to the loop that it was made in.

    Args:
        engine: sans-I/O; only touched in the loop's thread.
        kind: the sockets that the engine's links need.
        on_events: takes the engine's events; must not block.
        before_turn: moves what callers have posted into the engine.
        in_background: of no use here: the loop always drives.
    """

    def __init__(
        self,
        engine: DrivenEngine,
        kind: SocketKind,
        on_events: Callable[[list[Any]], None],
        *,
        binds: bool = False,
        before_turn: Callable[[int], None] | None = None,
        in_background: Callable[[], bool] = _never,
        linger_ms: int = 0,
    ) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise RuntimeError("roles of patterns.aio are made inside a running event loop") from error
        if not hasattr(self._loop, "add_reader"):
            raise RuntimeError("this event loop cannot watch descriptors; use the selector loop")
        self.engine = engine
        self.lock: AbstractContextManager[None] = nullcontext()
        self._links = Links(
            engine,
            kind,
            context.shared_context,
            lambda fd: self._loop.add_reader(fd, self._turn_soon),
            self._loop.remove_reader,
            on_events,
            before_turn=before_turn,
            binds=binds,
            linger_ms=linger_ms,
        )
        self._waiters: dict[asyncio.Future[bool], Callable[[], bool]] = {}
        self._is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: int | None = None
        self.kicked = False
        self.forked = False
        self.is_closed = False
        context.enter(self)

    @property
    def bound(self) -> str:
        """The endpoint, if it binds; a port 0 is filled in."""
        return self._links.bound

    def start(self) -> None:
        """Make the sockets and begin to connect. Raises BadAddress, Unavailable."""
        try:
            self.engine.start(clock())
            self._links.perform()
        except ZbrokerError:
            self._shut()
            raise
        self._turn_soon()

    def check(self) -> None:
        """Raises Forked, Closed, or what the session was refused for."""
        if self.forked:
            raise Forked("this object belongs to the process that made it; make another one after the fork")
        if self.is_closed:
            raise Closed("this object is closed")
        if self.engine.error is not None:
            raise self.engine.error

    def is_over(self) -> bool:
        """Whether close() was called, for iteration, which ends then. Raises the rest of what check() raises."""
        try:
            self.check()
        except Closed:
            return True
        return False

    # -- turns ---------------------------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Everything that is there may be more than one turn takes: then the loop's other work goes between."""
        self._is_scheduled = False
        if self.is_closed:
            return
        self.kicked = False
        self._links.turn()
        self._settle()

    def _settle(self) -> None:
        """After anything that may have changed state: wake the done, set the timer, look again if more is there."""
        if self._waiters:
            for future, done in list(self._waiters.items()):
                if not future.done() and done():
                    future.set_result(True)
        if self._links.has_new or self._links.is_readable():
            self._turn_soon()
        self._set_timer()

    def _set_timer(self) -> None:
        due = self.engine.next_timeout()
        if due == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = due
        if due is not None:
            self._timer = self._loop.call_later(max(0, due - clock()) / 1e6, self._expire)

    def _expire(self) -> None:
        self._timer = self._timer_at = None
        self._turn_soon()

    # -- what roles call -----------------------------------------------------------------------------------------

    async def wait(self, done: Callable[[], bool], deadline: int | None) -> bool:
        """Until done() or the deadline; whether it is done. Cancelling it changes nothing but who waits."""
        if self.forked:
            self.check()
        self._links.push(clock())
        if done():
            return True
        self._settle()
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiters[future] = done
        timer = None
        if deadline is not None:
            timer = self._loop.call_later(max(0, deadline - clock()) / 1e6, _give_up, future)
        try:
            return await future or done()
        finally:
            self._waiters.pop(future, None)
            if timer is not None:
                timer.cancel()

    async def drive(self, steps: Steps[_T]) -> _T:
        """Run a role's steps, awaiting where they wait."""
        try:
            wait = next(steps)
            while True:
                try:
                    done = await self.wait(wait.done, wait.deadline)
                except BaseException as error:  # noqa: BLE001  cancelled: the steps clean up after themselves
                    wait = steps.throw(error)
                else:
                    wait = steps.send(done)
        except StopIteration as stop:
            result: _T = stop.value
            return result

    def run(self, call: Callable[[int], None] | None = None) -> None:
        """Send what call(now) and others have posted."""
        if self.forked:
            self.check()
        now = clock()
        if call is not None:
            call(now)
        self.kicked = False
        self._links.push(now)
        self._settle()

    burst = run

    def kick(self) -> None:
        """Something was posted: it leaves when the loop comes round."""
        self.kicked = True
        self._turn_soon()

    def defer(self, call: Callable[[], None]) -> None:
        """Call user code soon."""
        self._loop.call_soon(call)

    # -- the end -------------------------------------------------------------------------------------------------

    async def close(self, timeout_s: float) -> bool:
        """Say goodbye, wait for the answer, close the sockets; whether it went well in time. Idempotent."""
        if self.is_closed or self.forked:
            return True
        deadline = clock() + int(timeout_s * 1e6)
        self._links.turn()
        self.engine.leave(clock())
        try:
            return await self.wait(lambda: self.engine.closed, deadline)
        finally:
            self._shut()

    def at_exit(self) -> None:
        """The interpreter ends and the program has not closed us; the loop is gone, so nobody says goodbye."""
        if not self.is_closed:
            self.is_closed = True
            self._links.close()
            context.leave(self)

    def _shut(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._links.close()
        if self._timer is not None:
            self._timer.cancel()
        for future, done in list(self._waiters.items()):
            if not future.done():
                future.set_result(done())
        context.leave(self)


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
