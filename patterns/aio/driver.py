"""Who drives an engine under asyncio: the event loop, woken by the sockets' descriptors. No thread, no lock.

A wait only looks at state that turns change, and takes nothing itself: so cancelling one loses nothing. Turns run in
callbacks of the loop, never inside an await of the user's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeVar
from weakref import WeakSet

from patterns.io import context
from patterns.io.clock import clock
from patterns.io.links import DrivenEngine, Links, SocketKind
from patterns.io.waiting import Steps, no_steps
from patterns.wire.errors import Closed, Forked, LocalProtocolError

_log = logging.getLogger("zbroker")
_T = TypeVar("_T")
_TURNS_MAX: Final = 64  # in a row; a turn ends at the first news, and each look at those who wait costs all of them
_LOOK_S: Final = 1.0  # a loop that is busy for longer sees by itself, later, that time was skipped
_STINT_US: Final = 10_000  # then the loop's others have their turn
_busy: Final[WeakSet[asyncio.AbstractEventLoop]] = WeakSet()  # waited for in vain: not again, before they were seen
_open: Final[set[AioDriver]] = set()
"""Those that are not closed. Kept: collected without a close() they leave connections, descriptors and the guard's thread behind."""


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
        unwatching = asyncio.AbstractEventLoop.add_reader  # which only says that there is none
        if getattr(type(self._loop), "add_reader", unwatching) is unwatching:
            raise RuntimeError(
                f"{type(self._loop).__name__} has no add_reader(), so it cannot watch sockets; use a selector event loop"
            )
        self.engine = engine
        self.owner = "object"  # the role's class, for people
        self.lock: AbstractContextManager[None] = nullcontext()
        self._links = Links(
            engine,
            kind,
            context.shared_context,
            lambda fd: self._loop.add_reader(fd, self._turn, [(fd, 0)]),
            self._unwatch,
            on_events,
            before_turn=before_turn,
            binds=binds,
            linger_ms=linger_ms,
        )
        self._waiters: dict[asyncio.Future[bool], tuple[Callable[[], bool], int | None]] = {}  # until what, and when
        self._is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self.kicked = False
        self.forked = False
        self.is_closed = False
        _shut_orphans()
        _open.add(self)
        context.enter(self)

    @property
    def bound(self) -> str:
        """The endpoint, if it binds; a port 0 is filled in."""
        return self._links.bound

    @property
    def cuts(self) -> Counter[str]:
        """Connections to a bound socket that the guard has cut, by reason."""
        return self._links.cuts

    def start(self, last: Callable[[float], Steps[None]] = no_steps) -> None:
        """Make the sockets and begin to connect; at exit the loop is gone, and nobody runs `last`. Raises BadAddress, Unavailable."""
        try:
            self.engine.start(clock())
            self._links.perform()
        except BaseException:  # libzmq has no socket left
            self.shut()
            raise
        self._turn_soon()

    def check(self) -> None:
        """Raises Forked, Closed, or what the session was refused for."""
        if self.forked:
            raise Forked("this object belongs to the process that made it; make another one after the fork")
        if self.is_closed:
            raise Closed(f"this {self.owner} is closed")
        self._check_loop()
        if self.engine.error is not None:
            raise self.engine.error

    @property
    def is_orphaned(self) -> bool:
        """Whether the loop that it was made in is closed."""
        return self._loop.is_closed()

    def _check_loop(self) -> None:
        if self._loop.is_closed():
            raise LocalProtocolError(
                f"this {self.owner} belongs to the event loop that it was made in, and that one has ended; make it, use it "
                "and close it inside one asyncio.run()"
            )

    def check_here(self) -> None:
        """Raises LocalProtocolError when the loop that runs now is not the one that it was made in."""
        if asyncio.get_running_loop() is not self._loop:
            self._check_loop()
            raise LocalProtocolError(
                f"this {self.owner} belongs to the event loop that it was made in, and here runs another one; make one in "
                "each loop, or call it with asyncio.run_coroutine_threadsafe()"
            )

    def is_over(self) -> bool:
        """Whether close() was called, for iteration, which ends then. Raises the rest of what check() raises."""
        try:
            self.check()
        except Closed:
            return True
        return False

    def _unwatch(self, fd: int) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(fd)

    # -- turns, in callbacks of the loop ---------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._turn_now)

    def _turn_now(self) -> None:
        self._is_scheduled = False
        self._turn(None)

    def _turn(self, named: list[tuple[int, int]] | None) -> None:
        """Take what is there, as far as one round of the loop should; then look who has waited for it."""
        if self.is_closed:
            return
        links = self._links
        self.kicked = False
        is_more = False
        began = clock()
        try:
            for _ in range(_TURNS_MAX):
                links.turn(named)
                is_more = links.has_new or links.is_readable()
                if links.has_new or not is_more or clock() - began > _STINT_US:
                    break
        except Exception as error:  # noqa: BLE001  the top of a callback: the loop would log it, and who waits wait on
            links.fail(self.owner, error)
        for future, (done, _deadline) in list(self._waiters.items()):
            if not future.done() and done():
                future.set_result(True)
        self._look_ahead(is_more)

    def _look_ahead(self, is_more: bool) -> None:
        """The descriptors are edge-triggered: what is there already wakes nobody. And the engine's timer may be new."""
        due = self._links.due = self.engine.next_timeout()
        if is_more:
            self._turn_soon()
        if due is not None:
            self._wake_by(due)

    def _wake_by(self, due: int) -> None:
        """One timer for the engine and all who wait: one that fires early sets the next; most waits end long before theirs."""
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0, due - clock()) / 1e6, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = clock()
        for future, (_done, deadline) in self._waiters.items():
            if deadline is not None and deadline <= now and not future.done():
                future.set_result(False)
        self._turn(None)
        left = [deadline for _done, deadline in self._waiters.values() if deadline is not None and deadline > now]
        if left and not self.is_closed:
            self._wake_by(min(left))

    def look_at_clock(self) -> int | None:
        """See patterns.io.context.User; a loop that runs in another thread does it there, and is waited for."""
        if self.is_closed or self.forked or self._loop.is_closed():
            return None
        if self._loop.is_running() and asyncio._get_running_loop() is not self._loop:
            self._loop.call_soon_threadsafe(self._look_at_clock)
            if self._loop not in _busy:
                _await_turn_of(self._loop)
        else:
            self._look_at_clock()
        return self.engine.next_timeout()

    def _look_at_clock(self) -> None:
        """Twice: after so long, a turn that has taken something in leaves what is due for the next."""
        for _ in range(2):
            if self._timer is not None:
                self._timer.cancel()
            if not self.is_closed:
                self._expire()

    # -- what roles call -----------------------------------------------------------------------------------------

    async def wait(self, done: Callable[[], bool], deadline: int | None, *, fresh: bool = False) -> bool:
        """Until done() or the deadline; whether it is done. Cancelling it changes nothing but who waits.

        With `fresh`, the sockets are looked at before done() is asked at first.
        """
        if self.forked:
            self.check()
        self.check_here()
        if fresh and not self.is_closed:
            self._links.turn()
        self._push()
        if done() or self.is_closed:
            await asyncio.sleep(0)  # who always finds it done would never let the loop turn
            return done()
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiters[future] = done, deadline
        if deadline is not None:
            self._wake_by(deadline)
        try:
            return await future or done()
        finally:
            self._waiters.pop(future, None)

    def _push(self) -> None:
        """Send; whom that helps is seen in the next turn, once for all who push in this round of the loop."""
        if self.is_closed:
            return
        self.kicked = False
        links = self._links
        links.push(clock())
        if self._waiters:
            self._turn_soon()
        self._look_ahead(links.has_new or links.is_readable())

    async def drive(self, steps: Steps[_T]) -> _T:
        """Run a role's steps, awaiting where they wait."""
        try:
            wait = next(steps)
            while True:
                try:
                    done = await self.wait(wait.done, wait.deadline, fresh=wait.fresh)
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
        self._check_loop()
        if call is not None:
            call(clock())
        self._push()

    def burst(self) -> None:
        """Send a full batch of posted messages."""
        self.run()

    def kick(self) -> None:
        """Something was posted: it leaves when the loop comes round."""
        if self.forked:
            self.check()
        self._check_loop()
        self.kicked = True
        self._turn_soon()

    def defer(self, call: Callable[[], None]) -> None:
        """Call user code soon."""
        self._loop.call_soon(call)

    def call_theirs(self, call: Callable[[], _T]) -> _T:
        """Call the program's code in the midst of a call of ours."""
        return call()

    def abandon(self, call: Callable[[], None]) -> None:
        """Call it soon; for finalizers, which may run in any thread, and after the loop."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody is told anything any more
            pass

    # -- the end -------------------------------------------------------------------------------------------------

    async def close(self, timeout_s: float) -> bool:
        """Say goodbye, wait for the answer, close the sockets; whether it went well in time. Idempotent.

        Cancelled, it closes the sockets at once.
        """
        if self.is_closed or self.forked:
            return True
        deadline = clock() + int(timeout_s * 1e6)
        self._links.turn()
        self.engine.leave(clock())
        try:
            return await self.wait(lambda: self.engine.closed, deadline)
        finally:
            self.shut()

    def at_exit(self, until: int) -> None:
        """The interpreter ends and the program has not closed us; the loop is gone, so nobody says goodbye."""
        if not self.is_closed:
            self.is_closed = True
            self._links.close()
            self._left()

    def _left(self) -> None:
        _open.discard(self)
        context.leave(self)

    def shut(self) -> None:
        """Close the sockets at once; who waits is woken."""
        if self.is_closed:
            return
        self.is_closed = True
        self._links.close()
        if self._timer is not None:
            self._timer.cancel()
        for future, (done, _deadline) in list(self._waiters.items()):
            if not future.done() and not self._loop.is_closed():
                future.set_result(done())
        self._left()


def _await_turn_of(loop: asyncio.AbstractEventLoop) -> None:
    """Until a loop in another thread has done what was asked before; a busy one is waited for once, not at each step of an hour."""
    seen = threading.Event()
    loop.call_soon_threadsafe(seen.set)
    if not seen.wait(_LOOK_S):
        _busy.add(loop)
        loop.call_soon_threadsafe(_busy.discard, loop)


def _shut_orphans() -> None:
    """Close what was left open in loops that have ended; a program that calls asyncio.run() again and again would fill up with it."""
    for driver in [one for one in list(_open) if one.is_orphaned or one.forked]:
        try:
            _open.remove(driver)
        except KeyError:
            continue  # another thread does it
        if not driver.forked:
            _log.warning("a %s was left open when its event loop ended: close it, or use `async with`", driver.owner)
            driver.shut()
