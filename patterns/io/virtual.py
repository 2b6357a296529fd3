"""Connections in this process's memory: `memory://NAME` in the place of a socket, for programs under test.

Who answers there registers an Exchange; zbroker.testing has the one with a broker behind it. An end is woken as by a socket,
through a descriptor (a pipe), so that drivers sleep, wake and turn as ever.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, Final, Protocol

from patterns.wire.address import MEMORY, Address
from patterns.wire.engine import Link, PeerId, Unreachable
from patterns.wire.errors import Unavailable
from patterns.wire.frames import Frames

_TURN_MESSAGES: Final = 128  # as of a socket: then timers and sends have their turn


class Notice(Enum):
    """What a socket's monitor would tell."""

    CONNECTED = 1
    DISCONNECTED = 2
    UNREACHABLE = 3


class Exchange(Protocol):
    """The other side of all ends of one name. Any thread may call; it must not call back, but through the end."""

    def connect(self, end: End) -> None:
        """An end is there; it is told whether it is connected, now and whenever that changes."""

    def receive(self, end: End, frames: Frames) -> None:
        """A message from it; what does not come through an open connection is lost."""

    def disconnect(self, end: End) -> None:
        """It is closed."""


class VirtualEngine(Protocol):
    """What ends tell an engine; see patterns/io/links.py."""

    news: list[Any]

    def connected(self, link: Link, now: int) -> None: ...
    def disconnected(self, link: Link, now: int) -> None: ...
    def unreachable(self, link: Link, now: int, why: Unreachable) -> None: ...
    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None: ...


_exchanges: Final[dict[str, Exchange]] = {}


def register(name: str, exchange: Exchange) -> None:
    """From now on this exchange answers at memory://NAME. Raises ValueError when another one does."""
    if _exchanges.setdefault(name, exchange) is not exchange:
        raise ValueError(f"{MEMORY}{name} is in use in this process; choose another name, or none")


def unregister(name: str) -> None:
    """Nobody answers there."""
    _exchanges.pop(name, None)


def check(addresses: Iterable[Address]) -> None:
    """Raise Unavailable for a name that nobody has: no other process will ever answer there."""
    for address in addresses:
        if address.endpoint.startswith(MEMORY) and address.endpoint.removeprefix(MEMORY) not in _exchanges:
            raise Unavailable(
                f"{address}: no broker of that name in the memory of this process; it has ended, or lives in another process, "
                "which needs a real broker (zb://). `with zbroker.testing.MemoryBroker() as broker:` makes one, at broker.url"
            )


class End:
    """A connecting end.

    Attributes:
        engine: whose it is.
        routing_id: what the exchange calls its connection; empty without one.
        fd: readable when there is something to look at.
    """

    def __init__(self, engine: VirtualEngine, exchange: Exchange | None) -> None:
        self.engine = engine
        self.routing_id = b""
        self._exchange = exchange
        self._inbox: deque[Frames] = deque()
        self._notices: deque[Notice] = deque()
        self._lock = threading.Lock()  # of the bell
        self._is_rung = False
        self.fd, self._write_fd = os.pipe()
        if exchange is None:
            self.tell(Notice.UNREACHABLE)
        else:
            exchange.connect(self)

    # -- the exchange's side ---------------------------------------------------------------------------------------

    def put(self, frames: Sequence[bytes]) -> None:
        """A message for it."""
        self._inbox.append(list(frames))
        self._ring()

    def tell(self, notice: Notice) -> None:
        """Its connection is there, or gone; what was under way to it is lost with it."""
        if notice is not Notice.CONNECTED:
            self._inbox.clear()
        self._notices.append(notice)
        self._ring()

    def _ring(self) -> None:
        with self._lock:
            if not self._is_rung and self.fd >= 0:
                self._is_rung = True
                os.write(self._write_fd, b"!")

    # -- the driver's side -----------------------------------------------------------------------------------------

    @property
    def is_readable(self) -> bool:
        return bool(self._inbox or self._notices)

    def send(self, frames: Sequence[bytes]) -> None:
        """To the other side, before this returns."""
        if self._exchange is not None:
            self._exchange.receive(self, [bytes(frame) for frame in frames])

    def hush(self) -> None:
        """Before a look: what comes after it rings again."""
        with self._lock:
            if self._is_rung:
                self._is_rung = False
                os.read(self.fd, 1)

    def notices(self, link: Link, now: int) -> None:
        """Tell the engine what became of the connection."""
        while self._notices:
            notice = self._notices.popleft()
            if notice is Notice.CONNECTED:
                self.engine.connected(link, now)
            elif notice is Notice.DISCONNECTED:
                self.engine.disconnected(link, now)
            else:
                self.engine.unreachable(link, now, Unreachable.NOBODY)

    def receive(self, link: Link, now: int) -> int:
        """Hand messages to the engine until it has news; returns how many."""
        engine, inbox = self.engine, self._inbox
        for taken in range(_TURN_MESSAGES):
            try:
                frames = inbox.popleft()
            except IndexError:  # asked for: another thread clears it when the connection goes
                return taken
            engine.receive(link, b"", frames, now)
            if engine.news:
                return taken + 1
        return _TURN_MESSAGES

    def close(self) -> None:
        if self._exchange is not None:
            self._exchange.disconnect(self)
        with self._lock:
            os.close(self.fd)
            os.close(self._write_fd)
            self.fd = -1


class Ends:
    """The ends of one engine, by link; its driver has it to itself.

    Args:
        watch, unwatch: told the descriptors that wake a sleeper.
    """

    def __init__(self, engine: VirtualEngine, watch: Callable[[int], object], unwatch: Callable[[int], object]) -> None:
        self._engine = engine
        self._watch = watch
        self._unwatch = unwatch
        self._ends: dict[Link, End] = {}

    def open(self, link: Link, endpoint: str) -> None:
        """Connect; to a name that nobody has (any more), in vain."""
        end = self._ends[link] = End(self._engine, _exchanges.get(endpoint.removeprefix(MEMORY)))
        self._watch(end.fd)

    def send(self, link: Link, frames: Sequence[bytes]) -> None:
        """To what the link leads to; nothing, when it was given up in the same turn."""
        end = self._ends.get(link)
        if end is not None:
            end.send(frames)

    def hear(self, now: int) -> None:
        """What became of connections."""
        for link, end in list(self._ends.items()):
            end.hush()
            end.notices(link, now)

    def receive(self, now: int) -> int:
        """Messages, as many as a turn takes of each; returns how many."""
        return sum([end.receive(link, now) for link, end in list(self._ends.items())])

    @property
    def is_readable(self) -> bool:
        return any(end.is_readable for end in self._ends.values())

    def close(self, link: Link) -> None:
        end = self._ends.pop(link, None)
        if end is not None:
            self._unwatch(end.fd)
            end.close()

    def close_all(self) -> None:
        for link in list(self._ends):
            self.close(link)


os.register_at_fork(after_in_child=_exchanges.clear)  # the child has a copy of the broker that nobody drives
