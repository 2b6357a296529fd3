"""A broker in this process's memory: the engine, carrier and journal's protocol of a real one, and no socket, file or process.

Roles of patterns.sync and patterns.aio connect to its `memory://` url as to any broker. What a role sends, the broker acts on in the
thread that sends it; a thread of its own sees to what is due later. Time passes as ever, and a test may skip some.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import weakref
from types import TracebackType
from typing import Any, Final, Self

from patterns.io import context, virtual
from patterns.io.clock import clock, skip, skipped_us
from patterns.io.virtual import End, Notice
from patterns.wire.address import MEMORY
from patterns.wire.errors import BadArgument, LocalProtocolError
from patterns.wire.frames import Frames
from patterns.wire.limits import HELLO_JITTER_MS
from patterns.wire.server import Sessions
from patterns.wire.words import described
from zbroker.config import load
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import SESSIONS, Effect
from zbroker.core.streams import Streams
from zbroker.processes.broker import policy_of, translate_of
from zbroker.processes.carrier import Carrier
from zbroker.testing.journal import MemoryJournal
from zbroker.testing.reads import ImmediateReads

_STEP_US: Final = 100_000  # what is due within one, is due at once: far below any limit of the protocol
_INFORM_US: Final = 1_000_000
_BACK_S: Final = HELLO_JITTER_MS / 1_000 + 0.1  # who comes back after a restart says so within it
_AWAKE_US: Final = 3_600_000_000  # with its heartbeats, an hour takes a second or so
_ROUTING_ID_FIRST: Final = 0x6B8B4567  # as libzmq's, so that nobody relies on a shorter one
_SKIPPED_S_MAX: Final = 366 * 86_400
_log = logging.getLogger("zbroker")
_numbers: Final = itertools.count(1)
_moving: Final = threading.RLock()  # whoever skips time
_brokers: Final[set[MemoryBroker]] = set()


class MemoryBroker:
    """A broker with streams, for tests. A context manager; in use from the start.

    Args:
        name: of its address; None: one that no other has.
        settings: keys of `zbroker.toml`; those about ports, files and processes are of no use here.

    Attributes:
        mode: "memory".
        url: for any role of this process.
        lives: how often it was started.
        failure: what its engine has raised, which is a fault of ours: it is down then.

    Raises:
        ValueError: the name is in use.
        ConfigurationError: a setting that no broker takes.
    """

    mode: Final = "memory"

    def __init__(self, name: str | None = None, **settings: Any) -> None:
        self._options = load(settings, {}, []).options
        self.name = name or f"broker-{next(_numbers)}"
        self.url = f"{MEMORY}{self.name}"
        self.lives = 0
        self.failure: Exception | None = None
        self._journal = MemoryJournal()
        self._ends: dict[bytes, End] = {}  # those that are connected
        self._waiting: list[End] = []  # those that would be
        self._known: weakref.WeakSet[Any] = (
            weakref.WeakSet()
        )  # engines of roles; between two connections they have no end
        self._cut: list[object] = []  # those that get no connection
        self._routing_ids = itertools.count(_ROUTING_ID_FIRST)
        self._engine: BrokerEngine | None = None
        self._carrier: Carrier | None = None
        self._informed_at = 0
        self._sleeps_until: int | None = None
        self._changed = threading.Condition(threading.Lock())
        self._is_closed = False
        self._is_skipping = False
        self._thread = threading.Thread(target=self._keep, name=f"zbroker-{self.name}", daemon=True)
        virtual.register(self.name, self)
        _brokers.add(self)
        self._thread.start()
        self.start()

    def __repr__(self) -> str:
        return f"MemoryBroker({self.name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def address(self, name: str = "") -> str:
        """Where roles that talk about `name` meet: here, all at the url."""
        return self.url

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve what the journal holds; roles that were connected come back by themselves. Nothing, when it serves already."""
        with self._changed:
            if self._is_closed:
                raise LocalProtocolError(f"{self.url} is closed; make another MemoryBroker")
            if self._engine is not None:
                return
            now = clock()
            engine = BrokerEngine(
                "", now, make_streams=self._make_streams, nonce=os.urandom(16), translate=translate_of(self._options)
            )
            engine.opened(self._journal.open(engine.recover, engine), self.name, now)
            reads = ImmediateReads(self._journal)
            self._engine = engine
            self._carrier = Carrier(engine, self._journal, self._send, _refuse, reads=reads)
            self.lives += 1
            self._turn(now)
            waiting, self._waiting = self._waiting, []
            for end in waiting:
                self._join(end)

    def _make_streams(self, sessions: Sessions, effects: list[Effect]) -> Streams:
        options = self._options
        return Streams(sessions, effects, _wall_ms_at, translate=translate_of(options), policy=policy_of(options))

    def kill(self) -> None:
        """SIGKILL: it is gone without a word. What was confirmed is in the journal; what was under way is lost."""
        with self._changed:
            self._down()

    def stop(self) -> None:
        """SIGTERM: everybody gets a GOODBYE, and it is gone."""
        with self._changed:
            if self._engine is not None and self._carrier is not None:
                self._engine.drain(clock())
                self._carrier.carry_out(clock())
                self._engine.farewell()
                self._carrier.carry_out(clock())
            self._down()

    def restart(self) -> None:
        """SIGKILL, and another life with the same journal; roles are back when this returns, half a second later by their clock."""
        self.kill()
        self.start()
        self.advance(_BACK_S)

    def close(self) -> None:
        """Gone for good, with all that it held. Idempotent."""
        self.stop()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        virtual.unregister(self.name)
        _brokers.discard(self)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _down(self) -> None:
        self._engine = self._carrier = None
        self._journal.crash()
        ends, self._ends = self._ends, {}
        for end in ends.values():
            self._part(end)

    # -- time --------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let so much time pass at once, for all in-memory brokers and all roles of this process.

        All that is due meanwhile happens, in its order: delays and leases end, sessions stay alive by their heartbeats, calls that wait
        too long time out. time.sleep(), asyncio.sleep() and timers of the program itself are not affected. Of more than an hour, all
        but the last hour passes as if this machine had slept: sessions are lost, and come back.

        Raises:
            BadArgument: less than nothing, or more than 366 days.
        """
        if not isinstance(seconds, (int, float)) or not 0 <= seconds <= _SKIPPED_S_MAX:
            raise BadArgument(f"advance({seconds!r}): a number of seconds from 0 to {_SKIPPED_S_MAX}")
        with _moving:
            goal = clock() + int(seconds * 1e6)
            due = _look(()) if (slept := goal - clock() - _AWAKE_US) <= 0 else _skip(slept)
            while (now := clock()) < goal:
                wanted = goal if due is None else min(goal, max(due, now + _STEP_US))
                due = _skip(wanted - now)

    # -- faults ------------------------------------------------------------------------------------------------------

    def cut(self, *roles: object) -> None:
        """Cut the connections of these roles, of all without any; they stay away until mend(), as if their machine was gone.

        Raises:
            BadArgument: one is not connected here.
        """
        with self._changed:
            engines = [getattr(role, "_engine", None) for role in roles] if roles else list(self._known)
            for role, engine in zip(roles, engines, strict=False):
                if engine is None or engine not in self._known:
                    raise BadArgument(f"{role!r} has no connection to {self.url}")
            self._cut += engines
            for end in list(self._ends.values()):
                if self._is_cut(end):
                    self._leave(end)
                    self._part(end)

    def mend(self) -> None:
        """All that were cut may come back; they have when this returns, half a second later by their clock."""
        with self._changed:
            self._cut.clear()
            waiting, self._waiting = self._waiting, []
            for end in waiting:
                self._join(end)
        self.advance(_BACK_S)

    @property
    def disk_full(self) -> bool:
        """Whether producers are refused for want of space; a test may set it."""
        return self._journal.full

    @disk_full.setter
    def disk_full(self, is_full: bool) -> None:
        with self._changed:
            self._journal.full = is_full
            if self._engine is not None:
                self._engine.storage(full=is_full, failed=False)
                self._turn(clock())

    # -- what ends call ----------------------------------------------------------------------------------------------

    def connect(self, end: End) -> None:
        """See patterns.io.virtual.Exchange."""
        with self._changed:
            self._known.add(end.engine)
            self._join(end)

    def receive(self, end: End, frames: Frames) -> None:
        """See patterns.io.virtual.Exchange."""
        with self._changed:
            engine = self._engine
            if engine is None or not end.routing_id:
                return
            now = clock()
            try:
                engine.receive(SESSIONS, end.routing_id, frames, now)
            except Exception as error:  # noqa: BLE001  no fault of the role in whose thread we are
                self._fail(error)
            self._turn(now)

    def disconnect(self, end: End) -> None:
        """See patterns.io.virtual.Exchange."""
        with self._changed:
            if end in self._waiting:
                self._waiting.remove(end)
            self._leave(end)

    def _is_cut(self, end: End) -> bool:
        return any(engine is end.engine for engine in self._cut)

    def _join(self, end: End) -> None:
        if self._engine is None or self._is_cut(end):
            self._waiting.append(end)
            end.tell(Notice.UNREACHABLE)
            return
        end.routing_id = b"\0" + next(self._routing_ids).to_bytes(4, "big")
        self._ends[end.routing_id] = end
        end.tell(Notice.CONNECTED)

    def _part(self, end: End) -> None:
        """Its connection is gone, and it waits for another one."""
        end.routing_id = b""
        self._waiting.append(end)
        end.tell(Notice.DISCONNECTED)

    def _leave(self, end: End) -> None:
        """The engine hears that a connection is gone, at once: nothing has to be proven here."""
        if self._ends.pop(end.routing_id, None) is not None and self._engine is not None:
            now = clock()
            self._engine.disconnected(SESSIONS, end.routing_id, now)
            self._turn(now)

    # -- turns, under the lock ---------------------------------------------------------------------------------------

    def _send(self, peer: bytes, frames: Frames) -> object | None:
        end = self._ends.get(peer)
        if end is None:
            return peer
        end.put([bytes(frame) for frame in frames])
        return None

    def _turn(self, now: int) -> None:
        """What the engine wants; what is due is for the thread, or for who skips time."""
        engine, carrier = self._engine, self._carrier
        if engine is None or carrier is None:
            return
        try:
            carrier.carry_out(now)
            if now - self._informed_at >= _INFORM_US:
                self._informed_at = now
                engine.inform("journal", self._journal.status())
            engine.events()
        except Exception as error:  # noqa: BLE001  as above
            self._fail(error)
            return
        due = self._due()
        if due is not None and (self._sleeps_until is None or due < self._sleeps_until):
            self._changed.notify()

    def _due(self) -> int | None:
        """When the thread has something to do; 0 for at once."""
        if self._carrier is None:
            return None
        return 0 if self._carrier.has_appended else self._carrier.next_timeout()

    def _expire(self, now: int) -> None:
        """Do what is due by now."""
        due = self._due()
        if due is None or due > now or self._carrier is None:
            return
        try:
            self._carrier.expire(due, now, lambda: now)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(error)
        self._turn(now)

    def _fail(self, error: Exception) -> None:
        _log.error("%s has failed, and is down", self.url, exc_info=error)
        self.failure = self.failure or error
        self._down()

    def check(self) -> None:
        """Raises LocalProtocolError when the broker itself has failed; the `zbroker` fixture does so at the end of each test."""
        if self.failure is not None:
            raise LocalProtocolError(f"{self.url} has failed: {described(self.failure)}") from self.failure

    # -- the thread --------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        with self._changed:
            while not self._is_closed:
                due, now = self._due(), clock()
                if due is not None and due <= now and not self._is_skipping:
                    self._expire(now)
                    continue
                self._sleeps_until = None if self._is_skipping else due
                self._changed.wait(None if self._sleeps_until is None else max(0, self._sleeps_until - now) / 1e6)
                self._sleeps_until = 0

    def _look_at_clock(self, is_skipping: bool) -> int | None:
        """As context.User's; `is_skipping`: the thread keeps still, so that roles act before the broker judges them."""
        with self._changed:
            self._is_skipping = is_skipping
            if not is_skipping:
                self._changed.notify()
            self._expire(clock())
            return self._due()


def _look(brokers: tuple[MemoryBroker, ...], *, is_skipping: bool = False) -> int | None:
    """Roles first, for what they say keeps their sessions; then the brokers, then what roles make of what those said."""
    context.look_at_clock()
    dues = [broker._look_at_clock(is_skipping) for broker in brokers]
    found = [due for due in (*dues, context.look_at_clock()) if due is not None]
    return min(found, default=None)


def _skip(duration_us: int) -> int | None:
    """One step; returns when something is due next."""
    brokers = tuple(_brokers)
    for broker in brokers:
        with broker._changed:
            broker._is_skipping = True
    try:
        skip(duration_us)
        return _look(brokers, is_skipping=True)
    finally:
        for broker in brokers:
            with broker._changed:
                broker._is_skipping = False
                broker._changed.notify()


def _wall_ms_at(now: int) -> int:
    """What people's clocks show at an instant of clock()."""
    return (time.time_ns() // 1_000 + skipped_us() + now - clock()) // 1_000


def _refuse(effect: Effect) -> None:
    """What is for plain ZeroMQ ports, which are not here, and for connections, which a ROUTER cannot close either."""


os.register_at_fork(after_in_child=_brokers.clear)  # copies, whose threads are the parent's
