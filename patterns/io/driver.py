"""Who drives an engine: the caller that waits, or else the keeper. Sockets belong to whoever holds the lock.

One thread at a time is the *leader*: it sleeps on the sockets' file descriptors, without the lock, so that others may
send meanwhile. Others that wait are followers; a turn wakes those whose wait is over, and who stops leading wakes the next.
Sleeping on descriptors is safe beside use of the sockets; sleeping in zmq_poll is not. Signal handlers run, and raise, where
a thread sleeps, and at the end of a call (patterns/io/shield.py).
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from patterns.io import context
from patterns.io.clock import clock
from patterns.io.keeper import Keeper
from patterns.io.links import DrivenEngine, Links, SocketKind
from patterns.io.shield import shield
from patterns.io.waiting import Steps, no_steps
from patterns.io.wake import Follower, Wake
from patterns.wire.errors import Closed, Forked

_T = TypeVar("_T")
_FOREVER_S: Final = 3_600.0
_FOREVER_US: Final = 3_600_000_000
_PATIENCE_US: Final = 2_000_000  # a broker that restarts is back by then
_LEAST_WAIT_US: Final = 250_000  # for the lock, with no time left: somebody's turn takes some milliseconds
_LETTING_IN_S: Final = 50e-6  # asleep, so that another thread runs, and tries again in the next turn
_log = logging.getLogger("zbroker")
_TURNS_MAX: Final = 64  # in a row, with the lock
_IN_FD: Final = select.POLLIN


class Driver:
    """Runs an engine for a role of the sync shell.

    Args:
        engine: sans-I/O; only touched under the lock.
        kind: the sockets that the engine's links need.
        on_events: takes the engine's events, under the lock; must not block or call back into user code.
        before_turn: moves what callers have posted into the engine; under the lock.
        in_background: whether somebody must drive though nobody waits; under the lock.
    """

    def __init__(
        self,
        engine: DrivenEngine,
        kind: SocketKind,
        on_events: Callable[[list[Any]], None],
        *,
        binds: bool = False,
        before_turn: Callable[[int], None] | None = None,
        in_background: Callable[[], bool] = lambda: False,
        linger_ms: int = 0,
    ) -> None:
        self.engine = engine
        self.owner = "object"  # the role's class, for people
        self.lock = threading.Lock()
        self.in_background = in_background
        self._poll = select.poll()
        self._links = Links(
            engine,
            kind,
            context.shared_context,
            lambda fd: self._poll.register(fd, _IN_FD),
            self._poll.unregister,
            on_events,
            before_turn=before_turn,
            binds=binds,
            linger_ms=linger_ms,
        )
        self._wake = Wake()
        self._poll.register(self._wake.fd, _IN_FD)
        self._leader: Callable[[], bool] | None = None  # the wait of who leads
        self._sleeps_until = 0
        self.followers: list[Follower] = []  # threads that wait while another one leads
        self._deferred: deque[Callable[[], None]] = deque()
        self._arriving: list[None] = []  # an item for each thread that waits for the lock to begin a call
        self._deferring: set[int] = set()  # threads that are in run_deferred()
        self._has_complained = False
        self._last: Callable[[float], Steps[None]] = no_steps  # what a role waits for before the goodbye
        self.bursts = 0  # full batches that callers sent by themselves
        self.entries = 0  # calls of wait(); the keeper sees by it whether a caller is about
        self.kicked = False
        self.forked = self.is_closed = False
        self._keeper = Keeper(self)
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
        """Make the sockets and begin to connect. Raises BadAddress, Unavailable."""
        self._last = last
        shield.look_around()
        raised = shield.raise_()
        try:
            with self.lock:
                self.engine.start(clock())
                self._links.perform()
            self._keeper.start()
        except BaseException:  # libzmq has no socket left, the system no thread
            self._shut()
            raise
        finally:
            if raised:
                shield.lower(raised)

    def check(self) -> None:
        """Raises Forked, Closed, or what the session was refused for."""
        if self.forked:
            raise Forked("this object belongs to the process that made it; make another one after the fork")
        if self.is_closed:
            raise Closed(f"this {self.owner} is closed")
        if self.engine.error is not None:
            raise self.engine.error

    def is_over(self) -> bool:
        """Whether close() was called, for iteration, which ends then. Raises the rest of what check() raises."""
        if self.is_closed and not self.forked:
            return True
        if self.forked or self.engine.error is not None:
            self.check()
        return False

    # -- turns, under the lock -----------------------------------------------------------------------------------

    def turn(self, named: list[tuple[int, int]] | None = None) -> None:
        """A turn of the links; wakes those whose wait it has ended. `named`: the descriptors that a poll has named."""
        self.kicked = False
        self._links.turn(named)
        if self.followers or self._leader is not None:
            self._ring_the_done()

    def catch_up(self) -> None:
        """Turns until nothing is there any more: each ends at the first news, and who comes once a millisecond would fall behind."""
        for _ in range(_TURNS_MAX):
            self.turn()
            if not self._links.is_readable():
                return

    def fail(self, error: Exception) -> None:
        """The keeper's turn, or what was deferred, has raised: whoever waits is told; under the lock."""
        if not self.is_closed:
            self._links.fail(self.owner, error)
            self.ring_everybody()

    # -- waiting -------------------------------------------------------------------------------------------------

    def wait(
        self, done: Callable[[], bool], deadline: int | None, *, fresh: bool = False, keeper: bool = False
    ) -> bool:
        """Drive, or wait while another drives, until done() or the deadline; whether it is done.

        Args:
            done: evaluated under the lock; must be cheap.
            deadline: on clock(); None: no limit.
            fresh: look at the sockets before done() is asked at first.
            keeper: the caller is the keeper, which gives way to anybody else.
        """
        if self.forked:
            self.check()  # the sockets and the lock are the parent's
        raised = shield.raise_()
        try:
            if not self.lock.acquire(False) and not self._enter(deadline):
                return False
            try:
                if not keeper:
                    self.entries += 1
                now = clock()
                if fresh:
                    self.turn()
                else:
                    self._links.push(now)
                self._wake_if_swallowed()
                return self._wait(done, deadline, keeper, now)
            finally:
                if self._leader is None:
                    self._hand_over(keeper)
                self.lock.release()
        finally:
            if raised:
                shield.lower(raised)

    def _enter(self, deadline: int | None) -> bool:
        """Wait for the lock; False when the deadline has passed. Whoever is busy with it, sees us and lets us in."""
        self._arriving.append(None)
        try:
            if deadline is None:
                return self.lock.acquire()
            left_us = min(_FOREVER_US, max(_LEAST_WAIT_US, deadline - clock()))
            return self.lock.acquire(timeout=left_us / 1e6)
        finally:
            self._arriving.pop()

    def _let_in(self) -> None:
        """Let go of the lock for whoever waits for it: taken again at once, it would never be another's."""
        self.lock.release()
        try:
            time.sleep(_LETTING_IN_S)
        finally:
            self.lock.acquire()

    def _wait(self, done: Callable[[], bool], deadline: int | None, keeper: bool, began: int) -> bool:
        """The loop of wait(), under the lock."""
        now = began
        has_looked = False  # a limit of 0 means: what is there already, so the sockets are asked once
        while not done():
            if has_looked:
                now = clock()
            if not self._has_complained and now - began > _PATIENCE_US:
                self._complain()
            is_late = deadline is not None and now >= deadline and (has_looked or self._leader is not None)
            if is_late or self.is_closed:
                return False
            has_looked = True
            if self._leader is None:
                self.turn(self._lead(done, deadline, now))
            elif keeper:
                return False
            else:
                self._follow(done, deadline, now)
            if self._deferred:
                self.run_deferred()
        return True

    def _complain(self) -> None:
        """Once: who waits without a limit for somebody who is not there should be told."""
        if not self.engine.is_ready and not self.engine.closed and self.engine.error is None:
            self._has_complained = True
            _log.warning("%s", self.engine.unavailable())

    def defer(self, call: Callable[[], None]) -> None:
        """Call user code soon, without the lock; under the lock."""
        self._deferred.append(call)

    def abandon(self, call: Callable[[], None]) -> None:
        """Call it soon, without the lock; for finalizers, which may run in any thread and at any point of it."""
        if not self.is_closed and not self.forked:
            self._deferred.append(call)
            self.kick()

    def run_deferred(self) -> None:
        """Call what was deferred; under the lock, which is let go meanwhile. What is called may come here again: the outermost goes on
        with all, for a requester that leaves defers a thousand, and so many calls in each other are more than Python allows."""
        me = threading.get_ident()
        if me in self._deferring:
            return
        self._deferring.add(me)
        try:
            while self._deferred:
                call = self._deferred.popleft()
                self.lock.release()
                try:
                    self.call_theirs(call)
                finally:
                    self.lock.acquire()
        finally:
            self._deferring.discard(me)

    def call_theirs(self, call: Callable[[], _T]) -> _T:
        """Call the program's code in the midst of a call of ours, without the lock: signal handlers run there as ever."""
        opened = False
        try:
            opened = shield.open()
            return call()
        finally:
            if opened:
                shield.is_open = False

    def _lead(self, done: Callable[[], bool], deadline: int | None, now: int) -> list[tuple[int, int]] | None:
        """Sleep without the lock until a socket, a timer or another thread calls; the descriptors that did."""
        is_ready = self._links.has_new or self._links.is_readable()
        if is_ready and not shield.has_news:  # who never sleeps must not keep handlers waiting
            if self._arriving:
                self._let_in()
            return None
        due = self._links.due = self.engine.next_timeout()
        until = now + _FOREVER_US
        if due is not None and due < until:
            until = due
        if deadline is not None and deadline < until:
            until = deadline
        timeout_ms = max(0, (until - now + 999) // 1_000)
        self._leader = done
        if is_ready or self.kicked:  # by somebody who saw no leader yet
            timeout_ms = 0
        self._sleeps_until = until
        try:
            self.lock.release()
            opened = False
            try:
                opened = shield.open()
                return self._poll.poll(timeout_ms)
            finally:
                if opened:
                    shield.is_open = False
                self.lock.acquire()
        finally:
            self._leader = None
            if self.is_closed:
                self._wake.close()
            elif self._wake.rung:
                self._wake.hush()

    def _follow(self, done: Callable[[], bool], deadline: int | None, now: int) -> None:
        follower = Follower(done)
        self.followers.append(follower)
        due = self.engine.next_timeout()
        if self._keeper.leads or (due is not None and due < self._sleeps_until):
            self._wake.ring()  # the leader sleeps longer than what we have just asked for
        timeout_s = _FOREVER_S if deadline is None else min(_FOREVER_S, max(0.0, (deadline - now) / 1e6))
        try:
            self.lock.release()
            opened = False
            try:
                opened = shield.open()
                follower.bell.acquire(timeout=timeout_s)
            finally:
                if opened:
                    shield.is_open = False
                self.lock.acquire()
        finally:
            if follower in self.followers:
                self.followers.remove(follower)

    def _ring_the_done(self) -> None:
        """Wake those whose wait this turn has ended."""
        for follower in self.followers[:]:
            if follower.done():
                self.followers.remove(follower)
                follower.bell.release()
        if self._leader is not None and self._leader():
            self._wake.ring()

    def _hand_over(self, keeper: bool) -> None:
        if self.followers:
            self.followers.pop(0).bell.release()
        elif not keeper and (self.kicked or self._keeper.is_wanted()):
            self._keeper.call()

    @property
    def is_led(self) -> bool:
        """Whether a thread sleeps on the sockets now."""
        return self._leader is not None

    def run(self, call: Callable[[int], None] | None = None) -> None:
        """Send what call(now) and others have posted; never waits for the other end, and takes nothing in."""
        if self.forked:
            self.check()
        raised = shield.raise_()
        try:
            if not self.lock.acquire(False):
                self._enter(None)
            try:
                now = clock()
                if call is not None:
                    call(now)
                self._send(now)
            finally:
                self.lock.release()
        finally:
            if raised:
                shield.lower(raised)

    def _send(self, now: int) -> None:
        """The rest of run(), under the lock."""
        self.kicked = False
        self._links.push(now)
        if self.followers or self._leader is not None:
            self._ring_the_done()
        if self._deferred:
            self.run_deferred()
        if self._leader is not None:
            self._wake_if_swallowed()
        elif not self.followers and self._keeper.is_wanted():
            self._keeper.call()

    def _wake_if_swallowed(self) -> None:
        """After any send or look of another thread: what came before, the descriptor that a leader sleeps on tells nobody any more."""
        if self._leader is not None and self._links.is_readable():
            self._wake.ring()

    def burst(self) -> None:
        """Send a full batch of posted messages from here, and take in what has come: the keeper naps meanwhile."""
        self.bursts += 1
        self.run(self._links.listen)

    def kick(self) -> None:
        """Something was posted: whoever drives shall take it. Cheap, without the lock or the shield, once per turn."""
        if self.forked:
            self.check()
        self.kicked = True
        if self._keeper.naps:
            return
        try:
            if self._leader is not None:
                self._wake.ring()
            else:
                self._keeper.call()
        except BaseException:  # a signal's handler: perhaps nobody was called, so the next message calls again
            self.kicked = False
            raise

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self, timeout_s: float) -> bool:
        """Say goodbye, wait for the answer, close the sockets; whether it went well in time. Idempotent."""
        if self.is_closed or self.forked:
            return True
        deadline = clock() + int(timeout_s * 1e6)
        raised = shield.raise_()
        try:
            with self.lock:
                self.turn()
                self.engine.leave(clock())
            return self.wait(lambda: self.engine.closed, deadline)
        finally:
            self._shut()
            if raised:
                shield.lower(raised)

    def at_exit(self, until: int) -> None:
        """The interpreter ends and the program has not closed us: what it has posted is not given up without a word."""
        try:
            if not self.forked:
                self.drive(self._last(context.left_s(until)))
        finally:
            self.close(context.left_s(until))

    def drive(self, steps: Steps[_T], keep: Callable[[_T], object] | None = None) -> _T:
        """Run a role's steps, blocking where they wait.

        Args:
            keep: given the result when a signal's handler raises instead of it, so that the next call can return it.
        """
        raised = shield.raise_()
        if not raised:
            return self._drive(steps)
        try:
            result = self._drive(steps)
        except BaseException:
            shield.lower(raised)
            raise
        try:
            shield.lower(raised)
        except BaseException:
            if keep is not None:
                keep(result)
            raise
        return result

    def _drive(self, steps: Steps[_T]) -> _T:
        try:
            wait = next(steps)
            while True:
                try:
                    done = self.wait(wait.done, wait.deadline, fresh=wait.fresh)
                except BaseException as error:  # noqa: BLE001  Ctrl-C: the steps clean up after themselves
                    wait = steps.throw(error)
                else:
                    wait = steps.send(done)
        except StopIteration as stop:
            result: _T = stop.value
            return result

    def _shut(self) -> None:
        with self.lock:
            if self.is_closed:  # another thread closes it, too; descriptors are closed once
                return
            self.is_closed = True
            self._links.close()
            self.ring_everybody()
        self._keeper.stop()
        with self.lock:
            if self._leader is None:
                self._wake.close()
        context.leave(self)

    def look_at_clock(self) -> int | None:
        """See patterns.io.context.User."""
        return None if self.is_closed or self.forked else self._keeper.look_at_clock()

    def ring_everybody(self) -> None:
        for follower in self.followers:
            follower.bell.release()
        self.followers.clear()
        self._wake.ring()
