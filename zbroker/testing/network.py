"""A network in memory that behaves as libzmq's DEALER and ROUTER do where our engines rely on it.

FIFO per connection; a cut loses a suffix each way, though it was accepted; a reconnection is a new routing id; a half-open
connection takes messages and loses them; routing ids repeat over the lives of a router. Randomness comes from outside.
"""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from patterns.wire.frames import Frames
from zbroker.testing.scheduler import Scheduler

CONNECTED: Final = "connected"
DISCONNECTED: Final = "disconnected"
UNREACHABLE: Final = "unreachable"
_FIRST_ROUTING_ID: Final = 0x6B8B4567  # libzmq's own, in each process the same
_RETRY_US: Final = 100_000  # RECONNECT_IVL


def _nothing() -> None:
    """Nobody to wake."""


class Weather:
    """How a network behaves at present.

    Attributes:
        latency_us: least and most; each message draws its own, order is kept.
        delay_share: how many messages in a thousand take `delay_us` longer, and all behind them.
        notice_us: until an end hears that its connection was cut.
    """

    def __init__(self) -> None:
        self.latency_us = (50, 500)
        self.delay_share = 0
        self.delay_us = 0
        self.notice_us = (1_000, 20_000)


class Pipe:
    """One direction of a connection: messages in order, as far as it stands."""

    __slots__ = ("accepted", "delivered", "last_at", "limit")

    def __init__(self) -> None:
        self.accepted = 0
        self.delivered = 0
        self.last_at = 0
        self.limit: int | None = None  # what was accepted beyond it is lost

    def cut(self, random: Random) -> int:
        """Lose a suffix of what is under way; returns how many messages."""
        if self.limit is not None:
            return 0
        under_way = self.accepted - self.delivered
        self.limit = self.delivered + (random.randint(0, under_way) if under_way else 0)
        return self.accepted - self.limit


class Connection:
    """A TCP connection between a dealer and a router."""

    def __init__(self, dealer: Dealer, router: Router, routing_id: bytes) -> None:
        self.dealer = dealer
        self.router = router
        self.routing_id = routing_id
        self.up = Pipe()
        self.down = Pipe()
        self.is_cut = False


class Router:
    """The bound end.

    Attributes:
        inbox: (routing id, frames, arrived at), oldest first.
        gone: routing ids whose connection libzmq's monitor says is gone.
        is_open: bound.
    """

    def __init__(self, network: Network, endpoint: str, wake: Callable[[], None]) -> None:
        self.network = network
        self.endpoint = endpoint
        self.inbox: deque[tuple[bytes, Frames, int]] = deque()
        self.gone: deque[bytes] = deque()
        self.is_open = True
        self.wake = wake
        self.connections: dict[bytes, Connection] = {}
        self._next_id = _FIRST_ROUTING_ID

    def accept(self, dealer: Dealer) -> Connection:
        """A new connection with a routing id that this life of the router has not given before."""
        routing_id = b"\0" + self._next_id.to_bytes(4, "big")
        self._next_id += 1
        connection = self.connections[routing_id] = Connection(dealer, self, routing_id)
        return connection

    def send(self, routing_id: bytes, frames: Sequence[bytes], lag: int = 0) -> int | None:
        """As turn.send_routed: None when libzmq took it, EHOSTUNREACH when that connection is known to be gone.

        Args:
            lag: microseconds that the sender's clock is ahead of the scheduler's.
        """
        connection = self.connections.get(routing_id)
        if connection is None:
            return errno.EHOSTUNREACH
        self.network.carry(connection, connection.down, list(frames), lag, to_dealer=True)
        return None

    def close(self, random: Random, *, silent: bool = False) -> None:
        """The process is gone. `silent`: nobody tells the other ends, as when the power fails."""
        self.is_open = False
        self.network.unbind(self)
        for connection in list(self.connections.values()):
            self.network.cut(connection, random, tell_dealer=not silent, tell_router=False)
        self.connections.clear()
        self.inbox.clear()


class Dealer:
    """A connecting end: one socket to one endpoint, IMMEDIATE, reconnecting by itself until it is closed.

    Attributes:
        inbox: messages, oldest first.
        notices: CONNECTED, DISCONNECTED, UNREACHABLE as the monitor tells them, oldest first.
    """

    def __init__(self, network: Network, endpoint: str, wake: Callable[[], None]) -> None:
        self.network = network
        self.endpoint = endpoint
        self.inbox: deque[Frames] = deque()
        self.notices: deque[str] = deque()
        self.wake = wake
        self.connection: Connection | None = None
        self.is_open = True
        network.connect(self)

    def send(self, frames: Sequence[bytes]) -> bool:
        """False without a connection: IMMEDIATE = 1."""
        connection = self.connection
        if connection is None:
            return False
        self.network.carry(connection, connection.up, list(frames), 0, to_dealer=False)
        return True

    def tell(self, notice: str) -> None:
        """The monitor has something to say."""
        if self.is_open:
            self.notices.append(notice)
            self.wake()

    def close(self, random: Random | None = None) -> None:
        """The socket is closed; with a `random` it is lost, and a suffix of what it sent with it."""
        self.is_open = False
        self.wake = _nothing
        connection, self.connection = self.connection, None
        if connection is not None:
            self.network.hang_up(connection, random)


class Network:
    """All sockets.

    Args:
        scheduler: whose time it is.
        random: draws latencies.

    Attributes:
        counters: messages, lost, cuts, and so on; for the account of a run.
    """

    def __init__(self, scheduler: Scheduler, random: Random) -> None:
        self.scheduler = scheduler
        self.weather = Weather()
        self.counters: Counter[str] = Counter()
        self._random = random
        self._bound: dict[str, Router] = {}
        self.connections: dict[Connection, None] = {}

    # -- life ----------------------------------------------------------------------------------------------------

    def bind(self, endpoint: str, wake: Callable[[], None]) -> Router:
        """A router at an endpoint, in the place of the one that was there."""
        router = self._bound[endpoint] = Router(self, endpoint, wake)
        return router

    def unbind(self, router: Router) -> None:
        """Nobody answers there any more, unless another was bound meanwhile."""
        if self._bound.get(router.endpoint) is router:
            del self._bound[router.endpoint]

    def connect(self, dealer: Dealer, delay: int = 0) -> None:
        """Try to connect, and again as libzmq does."""
        self.scheduler.after(delay + self._latency(), lambda: self._connected(dealer))

    def _connected(self, dealer: Dealer) -> None:
        if not dealer.is_open or dealer.connection is not None:
            return
        router = self._bound.get(dealer.endpoint)
        if router is None:
            dealer.tell(UNREACHABLE)
            self.connect(dealer, _RETRY_US)
            return
        dealer.connection = router.accept(dealer)
        self.connections[dealer.connection] = None
        self.counters["connections"] += 1
        dealer.tell(CONNECTED)

    def hang_up(self, connection: Connection, random: Random | None) -> None:
        """The dealer's end is closed. What it had sent arrives, unless `random` loses a suffix."""
        connection.down.limit = connection.down.delivered
        if random is not None:
            self.counters["lost"] += connection.up.cut(random)
        connection.is_cut = True
        self.connections.pop(connection, None)
        delay = max(0, connection.up.last_at - self.scheduler.now) + self._notice()
        self.scheduler.after(delay, lambda: self._router_hears(connection))

    def cut(
        self, connection: Connection, random: Random, *, tell_dealer: bool = True, tell_router: bool = True
    ) -> None:
        """Break it. Who is not told goes on sending into the void (half-open), until its own clock says so."""
        if connection.is_cut:
            return
        connection.is_cut = True
        self.connections.pop(connection, None)
        self.counters["cuts"] += 1
        self.counters["lost"] += connection.up.cut(random) + connection.down.cut(random)
        if tell_dealer:
            self.scheduler.after(self._notice(), lambda: self.dealer_hears(connection))
        if tell_router:
            self.scheduler.after(self._notice(), lambda: self._router_hears(connection))

    def dealer_hears(self, connection: Connection) -> None:
        """The dealer's end learns that its connection is gone, and connects again."""
        dealer = connection.dealer
        if dealer.connection is connection:
            dealer.connection = None
            dealer.tell(DISCONNECTED)
            self.connect(dealer, _RETRY_US)

    def swap(self, connection: Connection, random: Random, silence_us: int) -> None:
        """A cut that libzmq mends before anybody hears of it: what is sent now goes to a router that knows nobody."""
        dealer = connection.dealer
        self.cut(connection, random, tell_dealer=False)
        router = self._bound.get(dealer.endpoint)
        if dealer.connection is not connection or router is None:
            self.dealer_hears(connection)
            return
        self.counters["swaps"] += 1
        dealer.connection = router.accept(dealer)
        self.connections[dealer.connection] = None
        self.scheduler.after(silence_us, lambda: dealer.tell(DISCONNECTED))
        self.scheduler.after(silence_us, lambda: dealer.tell(CONNECTED))

    def _router_hears(self, connection: Connection) -> None:
        router = connection.router
        if router.connections.pop(connection.routing_id, None) is not None and router.is_open:
            router.gone.append(connection.routing_id)
            router.wake()

    # -- messages ------------------------------------------------------------------------------------------------

    def carry(self, connection: Connection, pipe: Pipe, frames: Frames, lag: int, *, to_dealer: bool) -> None:
        """Take a message; it arrives in order, some time later, if the connection stands so long."""
        pipe.accepted += 1
        self.counters["messages"] += 1
        if pipe.limit is not None:
            self.counters["lost"] += 1
            return
        arrival = self.scheduler.now + lag + self._latency()
        weather = self.weather
        if weather.delay_share and self._random.randrange(1000) < weather.delay_share:
            self.counters["delayed"] += 1
            arrival += weather.delay_us
        pipe.last_at = arrival = max(arrival, pipe.last_at)
        self.scheduler.at(arrival, lambda: self._arrive(connection, pipe, frames, to_dealer))

    def _arrive(self, connection: Connection, pipe: Pipe, frames: Frames, to_dealer: bool) -> None:
        if pipe.limit is not None and pipe.delivered >= pipe.limit:
            return
        pipe.delivered += 1
        if to_dealer:
            if connection.dealer.connection is connection:
                connection.dealer.inbox.append(frames)
                connection.dealer.wake()
        elif connection.router.is_open:
            connection.router.inbox.append((connection.routing_id, frames, self.scheduler.now))
            connection.router.wake()

    def _latency(self) -> int:
        return self._random.randint(*self.weather.latency_us)

    def _notice(self) -> int:
        return self._random.randint(*self.weather.notice_us)
