"""An engine's sockets, and the turn: take what is there, do what is due, send what there is. Never waits; starts no thread but the guard's of a bound ROUTER or XPUB.

One non-blocking turn serves every shell; only who waits, and how, differs between them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

import zmq

from patterns.io import sockets, turn
from patterns.io.clock import clock
from patterns.io.virtual import Ends
from patterns.wire.address import MEMORY
from patterns.wire.engine import Close, Effect, Link, Listen, Open, PeerId, Send, Unreachable
from patterns.wire.errors import LocalProtocolError, ZbrokerError
from patterns.wire.frames import Frames
from patterns.wire.words import described

if TYPE_CHECKING:
    from patterns.io.watched import Watch

_log = logging.getLogger("zbroker")
_HELLO: Final = b"ZB1H"
_TURN_MESSAGES: Final = 128  # then timers and sends have their turn
_STALL_US: Final = 1_000_000  # after a stall, what has arrived is heard before deadlines are judged (design: SIGSTOP)


class SocketKind(Enum):
    DEALER = "dealer"
    ROUTER = "router"
    XPUB = "xpub"
    SUB = "sub"


class DrivenEngine(Protocol):
    """What a turn needs of an engine; see patterns/wire/engine.py."""

    error: ZbrokerError | None
    wants: list[Effect]  # that effects() would return; to look costs no call
    news: list[Any]  # that events() would, and for which a turn ends

    def start(self, now: int) -> None: ...
    def connected(self, link: Link, now: int) -> None: ...
    def disconnected(self, link: Link, now: int) -> None: ...
    def unreachable(self, link: Link, now: int, why: Unreachable) -> None: ...
    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None: ...
    def events(self) -> list[Any]: ...
    def effects(self) -> list[Effect]: ...
    def next_timeout(self) -> int | None: ...
    def handle_timeout(self, now: int) -> None: ...
    def leave(self, now: int) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def was_ready(self) -> bool: ...
    def unavailable(self) -> ZbrokerError: ...


class Plug:
    """One link's socket with its monitor.

    Attributes:
        greeted: the ZMTP handshake of its connection is done.
        watch: of a bound ROUTER's or XPUB's connections, where they can be measured.
        had_socket: libzmq got as far as a socket of the system since the last try.
    """

    __slots__ = ("greeted", "had_socket", "is_routed", "link", "monitor", "monitor_fd", "socket", "socket_fd", "watch")

    def __init__(
        self, link: Link, kind: SocketKind, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes] | None
    ) -> None:
        self.link = link
        self.greeted = self.had_socket = False
        self.watch: Watch | None = None
        self.is_routed = kind is SocketKind.ROUTER
        self.socket = socket
        self.monitor = monitor
        self.socket_fd = int(socket.getsockopt(zmq.FD))
        self.monitor_fd = int(monitor.getsockopt(zmq.FD)) if monitor is not None else -1


class Links:
    """The sockets of one engine.

    Args:
        engine: sans-I/O; whoever calls here has it to itself.
        kind: of all its sockets.
        context: makes them.
        watch, unwatch: told the descriptors that wake a sleeper; they are edge-triggered.
        on_events: takes the engine's events; must not block or call back into user code.
        before_turn: moves what callers have posted into the engine.
        binds: instead of connecting.
        linger_ms: what libzmq holds has so long to leave when a socket closes for good.

    Attributes:
        has_new: a socket was opened since the last turn; its monitor wakes nobody before it was read.
        due: when the engine's timer is due, as of the last look.
        bound: the endpoint, once it is bound.
        cuts: connections to it that the guard has cut, by reason.
    """

    def __init__(
        self,
        engine: DrivenEngine,
        kind: SocketKind,
        context: Callable[[], zmq.Context[zmq.Socket[bytes]]],
        watch: Callable[[int], object],
        unwatch: Callable[[int], object],
        on_events: Callable[[list[Any]], None],
        *,
        before_turn: Callable[[int], None] | None = None,
        binds: bool = False,
        linger_ms: int = 0,
    ) -> None:
        self._engine = engine
        self._kind = kind
        self._context = context
        self._watch = watch
        self._unwatch = unwatch
        self._on_events = on_events
        self._before_turn = before_turn
        self._binds = binds
        self._linger_ms = linger_ms
        self._plugs: dict[Link, Plug] = {}
        self._plugs_by_fd: dict[int, Plug] = {}  # by their sockets' descriptors, not their monitors'
        self._ends: Ends | None = None  # the links that need no socket: in a program under test
        self._last_turn_at = clock()
        self.has_new = False
        self.due: int | None = None
        self.bound = ""
        self.cuts: Counter[str] = Counter()

    def fail(self, owner: str, error: Exception) -> None:
        """A turn that nobody waits for has raised what none may: said in the log, and by every call from now on."""
        if self._engine.error is not None:
            return
        _log.error("a %s has failed, and nothing leaves it any more", owner, exc_info=error)
        failure = LocalProtocolError(
            f"this {owner} has failed, and nothing leaves it any more: {described(error)}; "
            "the log has the traceback; make another one"
        )
        failure.__cause__ = error
        self._engine.error = failure

    def turn(self, named: list[tuple[int, int]] | None = None) -> None:
        """Take what is there, do what is due, send what there is.

        Args:
            named: the descriptors that a poll has named; None: look at everything.
        """
        now = clock()
        plug = self._plugs_by_fd.get(named[0][0]) if named is not None and len(named) == 1 else None
        if plug is not None:
            received = self._receive_from(plug, True, now)
        else:
            self._drain_monitors(now)
            received = sum([self._receive_from(plug, False, now) for plug in list(self._plugs.values())])
            if self._ends is not None:
                received += self._ends.receive(now)
        if named is None:
            self.due = self._engine.next_timeout()
        due = self.due  # asked before the sleep; a timer set since is seen before the next one
        if due is not None and due <= now and not (received and now - self._last_turn_at > _STALL_US):
            self._engine.handle_timeout(now)
        self._last_turn_at = now
        self.push(now)

    def listen(self, now: int) -> None:
        """Hand what is there to the engine; monitors and timers wait for a turn."""
        for plug in self._plugs.values():
            self._receive_from(plug, False, now)
        if self._ends is not None:
            self._ends.receive(now)

    def push(self, now: int) -> None:
        """Send what callers have posted and what the engine has to say; hand its events on."""
        if self._before_turn is not None:
            self._before_turn(now)
        engine = self._engine
        if engine.wants:
            self._carry_out(engine.effects())
        events = engine.events()
        if events:
            self._on_events(events)

    def _receive_from(self, plug: Plug, readable: bool, now: int) -> int:
        """Hand what is there to the engine until that has news for a caller, who comes back for the rest. Returns how many messages."""
        if plug.watch is not None:
            return self._receive_watched(plug, plug.watch, readable, now)
        engine, socket = self._engine, plug.socket
        for taken in range(_TURN_MESSAGES):
            frames = turn.take(socket) if readable else turn.receive(socket)
            if frames is None:
                return taken
            readable = False
            engine.receive(plug.link, frames.pop(0) if plug.is_routed else b"", frames, now)
            if engine.news:
                return taken + 1
        return _TURN_MESSAGES

    def _receive_watched(self, plug: Plug, watch: Watch, readable: bool, now: int) -> int:
        """The same, telling the guard what each connection has had delivered."""
        engine: Any = self._engine
        receive = turn.receive_routed if plug.is_routed else turn.receive_from
        for taken in range(_TURN_MESSAGES):
            message = receive(plug.socket, readable)
            if message is None:
                return taken
            readable = False
            peer, frames, fd = message
            if fd >= 0:  # an XPUB tells of subscriptions that ended with their connection, too
                watch.delivered(fd, sum(map(len, frames)), len(frames))
                if not plug.is_routed:
                    watch.subscribed(fd, frames[0])
            engine.receive(plug.link, peer, frames, now)
            if plug.is_routed and frames and frames[0] == _HELLO:  # before READY leaves
                watch.allow(fd, *engine.allowance(plug.link, peer))
            if engine.news:
                return taken + 1
        return _TURN_MESSAGES

    def _drain_monitors(self, now: int) -> None:
        """Read what the monitors tell. One that was never read until it was empty does not wake anybody."""
        self.has_new = False
        if self._ends is not None:
            self._ends.hear(now)
        for plug in list(self._plugs.values()):
            while (
                plug.monitor is not None
                and turn.is_readable(plug.monitor)  # mostly nothing is there, and an exception that says so costs more
                and (found := sockets.read_event(plug.monitor)) is not None
            ):
                self._tell(plug, found.event, now)

    def _tell(self, plug: Plug, event: sockets.Event, now: int) -> None:
        """What an event of the monitor means. Who refuses our kind of socket closes the connection, and nothing more is said;
        a name that does not resolve is tried again without a socket ever having been made.
        """
        match event:
            case sockets.Event.CONNECTED:
                plug.greeted = True
                self._engine.connected(plug.link, now)
            case sockets.Event.CLOSED:
                plug.had_socket = True
            case sockets.Event.CONNECT_RETRIED:
                why = Unreachable.NOBODY if plug.had_socket else Unreachable.NO_NAME
                plug.had_socket = False
                self._engine.unreachable(plug.link, now, why)
            case _ if event in sockets.FAILURES:
                greeted, plug.greeted = plug.greeted, False
                plug.had_socket = True  # the try after a connection is told of too
                if greeted or self._binds:
                    self._engine.disconnected(plug.link, now)
                else:
                    self._engine.unreachable(plug.link, now, Unreachable.STRANGER)

    def perform(self) -> None:
        """Do what the engine asks for."""
        effects = self._engine.effects()
        if effects:
            self._carry_out(effects)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(link=link, frames=frames):
                    plug = self._plugs.get(link)
                    if plug is None:  # the engine gave this link up later in the same turn, or it never had a socket
                        if self._ends is not None:
                            self._ends.send(link, frames)
                    elif plug.is_routed:
                        self._send_routed(plug, effect)
                    else:
                        turn.send(plug.socket, frames)
                case Open():
                    self._open(effect)
                case Listen(link=link, prefix=prefix, on=on):
                    plug = self._plugs[link]
                    plug.socket.setsockopt(zmq.SUBSCRIBE if on else zmq.UNSUBSCRIBE, prefix)
                case Close():
                    self._close(effect)

    def _send_routed(self, plug: Plug, effect: Send) -> None:
        if turn.send_routed(plug.socket, effect.peer, effect.frames) == zmq.EHOSTUNREACH:
            self._engine.peer_gone(effect.link, effect.peer, clock())  # type: ignore[attr-defined]
            self.perform()

    def _open(self, effect: Open) -> None:
        if effect.address.startswith(MEMORY):
            self._ends = self._ends or Ends(self._engine, self._watch, self._unwatch)
            self._ends.open(effect.link, effect.address)
            self.has_new = True
            return
        context = self._context()
        monitor = watch = None
        match self._kind:
            case SocketKind.DEALER:
                socket, monitor = sockets.make_dealer(context, effect.address)
            case SocketKind.ROUTER:
                from patterns.io.watched import bind_watched  # ctypes and dataclasses: who does not bind need not wait

                socket = sockets.bare_router(context)
                watch = bind_watched(socket, effect.address, self.cuts)
            case SocketKind.XPUB if self._binds:
                from patterns.io.watched import SUBSCRIPTIONS_BYTES_MAX, bind_watched

                socket = sockets.direct_xpub(context, binds=True)
                watch = bind_watched(socket, effect.address, self.cuts, SUBSCRIPTIONS_BYTES_MAX)
            case SocketKind.XPUB:
                socket = sockets.make_xpub(context, effect.address, binds=False)
            case SocketKind.SUB:
                socket, monitor = sockets.make_sub(context, effect.address, binds=self._binds)
        if self._binds:
            self.bound = sockets.last_endpoint(socket)
        plug = self._plugs[effect.link] = Plug(effect.link, self._kind, socket, monitor)
        plug.watch = watch
        self._plugs_by_fd[plug.socket_fd] = plug
        self.has_new = True
        self._watch(plug.socket_fd)
        if monitor is not None:
            self._watch(plug.monitor_fd)

    def _close(self, effect: Close) -> None:
        if effect.peer:
            return  # a ROUTER forgets a peer when its connection goes
        plug = self._plugs.pop(effect.link, None)
        if plug is not None:
            self._unplug(plug, self._linger_ms if self._engine.closed else 0)
        elif self._ends is not None:
            self._ends.close(effect.link)

    def _unplug(self, plug: Plug, linger_ms: int) -> None:
        self._unwatch(plug.socket_fd)
        del self._plugs_by_fd[plug.socket_fd]
        if plug.watch is not None:
            plug.watch.close()  # while the socket is open: libzmq's I/O thread blocks on a monitor that nobody reads
        if plug.monitor is not None:
            self._unwatch(plug.monitor_fd)
            sockets.close(plug.socket, plug.monitor, linger_ms=linger_ms)
        else:
            sockets.close(plug.socket, linger_ms=linger_ms)

    def is_readable(self) -> bool:
        """The descriptors are edge-triggered, so after a send only the sockets themselves know."""
        for plug in self._plugs.values():  # any() over a generator takes twice as long
            if turn.is_readable(plug.socket):
                return True
        return self._ends is not None and self._ends.is_readable

    def close(self) -> None:
        """Close all sockets."""
        for plug in self._plugs.values():
            self._unplug(plug, self._linger_ms)
        self._plugs.clear()
        if self._ends is not None:
            self._ends.close_all()
