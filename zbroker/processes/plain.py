"""The two sockets of a broker for plain ZeroMQ programs: what the loop does with them. What it means, the engine knows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import zmq

from patterns.io import sockets, turn
from patterns.io.guard import Guard
from patterns.io.guard_account import SLACK_BYTES
from patterns.io.guard_monitor import Notice
from patterns.wire.errors import Unavailable
from patterns.wire.frames import Frames
from patterns.wire.limits import BODY_BYTES_MAX, KIB, PLAIN_WAITING_MESSAGES_MAX
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import PLAIN_PUBLISHERS, PLAIN_SUBSCRIBERS
from zbroker.processes.outlet import Outlet

_BURST: Final = 64  # messages that are read before we look how much that was
_BURST_BYTES: Final = 256 * KIB  # a turn reads on while a burst was smaller ..
_BURSTS_MAX: Final = 16  # .. and not for longer than this: sessions wait meanwhile
_PUBLISHER_BYTES_MAX: Final = PLAIN_WAITING_MESSAGES_MAX * (BODY_BYTES_MAX + KIB) + SLACK_BYTES
"""What an honest publisher may have inside libzmq, a pipe full of the largest messages; what waits in the kernel does not count."""
_SUBSCRIBE_ALL: Final = [b"\1"]


class PlainPorts:
    """XSUB and XPUB; each may be closed. All calls in the loop's thread.

    Args:
        context: the broker's.
        guard: watches their connections.

    Attributes:
        sockets: those that the loop polls.
        xsub_endpoint, xpub_endpoint: where they are bound; None: not open.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], guard: Guard) -> None:
        self._context = context
        self._guard = guard
        self._xsub: zmq.Socket[bytes] | None = None
        self._outlet: Outlet | None = None
        self.sockets: tuple[zmq.Socket[bytes], ...] = ()
        self.xsub_endpoint: str | None = None
        self.xpub_endpoint: str | None = None

    def bind(self, xsub: str | None, xpub: str | None) -> None:
        """Open what is wanted; None: not.

        Raises:
            Unavailable: an address is in use.
            BadAddress: it is none.
        """
        if xsub is not None:
            self._xsub = sockets.bare_xsub(self._context)
            self._guard.watch(self._xsub, _PUBLISHER_BYTES_MAX)
            with _named("xsub"):
                self.xsub_endpoint = sockets.bind(self._xsub, xsub)
            # for good, and to everything: what is only asked for with the first subscriber would come after its ready()
            turn.send(self._xsub, _SUBSCRIBE_ALL)
            self.sockets += (self._xsub,)
        if xpub is not None:
            with _named("xpub"):
                self._outlet = Outlet(self._context, self._guard, xpub)
            self.xpub_endpoint = self._outlet.endpoint
            self.sockets += (self._outlet.inside,)
            self._outlet.start()

    def receive(self, socket: zmq.Socket[bytes], engine: BrokerEngine, now: int) -> None:
        """Hand what is there to the engine, up to a turn's worth."""
        if socket is self._xsub:
            self._receive_messages(socket, engine, now)
            return
        assert self._outlet is not None
        for peer, frames in self._outlet.reports():
            engine.receive(PLAIN_SUBSCRIBERS, peer, frames, now)

    def _receive_messages(self, xsub: zmq.Socket[bytes], engine: BrokerEngine, now: int) -> None:
        for _ in range(_BURSTS_MAX):
            burst = turn.receive_from_many(xsub, _BURST)
            total = 0
            for _, frames, fd in burst:
                size = sum(map(len, frames))
                total += size
                if fd >= 0:
                    self._guard.delivered(fd, size, len(frames))
                engine.receive(PLAIN_PUBLISHERS, b"", frames, now)
            if len(burst) < _BURST or total > _BURST_BYTES:
                return

    def noticed(self, notice: Notice, engine: BrokerEngine, now: int) -> None:
        """A connection came or went, as libzmq's monitor says."""
        link = PLAIN_PUBLISHERS if notice.bound is self._xsub else PLAIN_SUBSCRIBERS
        tell = engine.connected if notice.connected else engine.disconnected
        tell(link, b"%d" % notice.fd, now)

    def offer(self, messages: Sequence[Frames]) -> int:
        """Give messages to plain subscribers. Returns how many could not even be offered."""
        return self._outlet.offer(messages) if self._outlet is not None else 0

    def close_peer(self, peer: bytes) -> None:
        """Cut a subscriber's connection, as far as there is a guard."""
        assert self._outlet is not None
        self._guard.cut(self._outlet.bound, int(peer))

    def stop(self) -> bool:
        """Hand all that was offered to libzmq; before the guard's close(). False: libzmq is too busy to come to an end."""
        return self._outlet is None or self._outlet.stop()

    def close(self, linger_ms: int) -> None:
        """Close both; what libzmq has taken has `linger_ms` to leave. After stop() and the guard's close()."""
        if self._xsub is not None:
            self._xsub.close(0)
        if self._outlet is not None:
            self._outlet.close(linger_ms)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Says which setting an address in use is of, and what else it can be."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable(f"{error.detail}; --{name} names another address, or off") from error
