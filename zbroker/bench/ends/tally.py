"""A receiver's account: checks each body, tells senders how far it is, and what came of it. The sockets are somebody else's."""

from __future__ import annotations

import time
from typing import Any, Protocol

import msgspec

from zbroker.bench.ends.bodies import END, STAMP, differing_bytes, differing_records, filling, pool_of, sender_of
from zbroker.bench.ends.feed import parts_of
from zbroker.bench.ends.window import TIMEOUT_MS, ReceiverWindow, window_of
from zbroker.bench.figures import Histogram, steady_rate


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver is told by its parent.

    Attributes:
        body: "raw", "dict" or "stamped".
        size: of a raw or stamped body, bytes.
        windows: addresses of the senders' windows.
        who: this receiver's number.
        warm_up_s: what a rate leaves out at the beginning.
        publishers: of stamped bodies; several are not in order, and each ends its own stream.
        idle_s: silence that ends the stream.
    """

    body: str
    size: int
    windows: list[str]
    who: int = 0
    warm_up_s: float = 0.0
    publishers: int = 1
    idle_s: float = TIMEOUT_MS / 1_000


class Tally(Protocol):
    """Takes bodies until the stream has ended."""

    ended: bool

    @property
    def wanted(self) -> int:
        """How many to take next; 1: one by one, as they come."""

    def start(self) -> None:
        """Tell all senders that this receiver listens."""

    def add(self, got: list[Any]) -> None:
        """Bodies in the order in which they came; fewer than wanted: no more come."""

    def said(self) -> dict[str, Any]:
        """What the parent hears."""

    def close(self) -> None: ...


def tally_of(expected: Expected) -> Tally:
    """The one that fits."""
    if expected.body == "stamped":
        return LatencyTally(expected)
    if len(expected.windows) > 1:
        return SortingTally(expected)
    return PlainTally(expected)


class _Windows:
    """What all tallies share: the senders' windows, and the rate."""

    def __init__(self, expected: Expected) -> None:
        self.ended = False
        self._windows = [ReceiverWindow(address, expected.who) for address in expected.windows]
        self._warm_up_ns = int(expected.warm_up_s * 1e9)
        self._points: list[tuple[int, int]] = []
        self._received = 0
        self._damaged = 0
        self._wire_size = expected.size

    def start(self) -> None:
        for window in self._windows:
            window.tell(0)

    def _point(self) -> None:
        self._points.append((time.monotonic_ns(), self._received))

    def said(self) -> dict[str, Any]:
        rate = steady_rate(self._points, self._warm_up_ns)
        return {
            "received": self._received,
            "damaged": self._damaged,
            "rate": rate,
            "bytes_rate": rate * self._wire_size,
        }

    def close(self) -> None:
        for window in self._windows:
            window.close()


class PlainTally(_Windows):
    """One sender's pool, over and over: compared a part at a time, since that costs least."""

    def __init__(self, expected: Expected) -> None:
        super().__init__(expected)
        pool, self._end, self._wire_size = pool_of(expected.body, expected.size)
        self._every = window_of(self._wire_size)[1]
        self._parts = parts_of(pool, self._every)
        self._differing = differing_records if expected.body == "dict" else differing_bytes
        self._begun: list[Any] = []

    @property
    def wanted(self) -> int:
        return self._every - len(self._begun) if self._begun else 1

    def add(self, got: list[Any]) -> None:
        """The first of a part comes alone: the stream ends there, or the clock starts."""
        if not self._begun and (not got or got[0] == self._end):
            self.ended = True
            return
        if not self._points:
            self._point()
        if not self._begun and self._every > 1:
            self._begun = got
        else:
            self._add_part(self._begun + got)
            self._begun = []

    def _add_part(self, got: list[Any]) -> None:
        self.ended = len(got) < self._every
        if self._end in got[-1:]:
            got.pop()
            self.ended = True
        self._damaged += self._differing(got, self._parts[self._received // self._every % len(self._parts)])
        self._received += len(got)
        if not self.ended:
            self._windows[0].tell(self._received)
            self._point()


class SortingTally(_Windows):
    """Pools of several senders, mixed: sorted by the number that each body carries, then compared."""

    def __init__(self, expected: Expected) -> None:
        super().__init__(expected)
        count = len(expected.windows)
        self._every = window_of(expected.size, count)[1]
        pools = [pool_of("raw", expected.size, sender)[0] for sender in range(count)]
        self._pool_size = len(pools[0])
        self._pools = [pool + pool[: self._every] for pool in pools]  # what is taken at once may pass the end
        self._got: list[int] = [0] * count
        self._told: list[int] = [0] * count
        self._ends = 0

    @property
    def wanted(self) -> int:
        return self._every  # fewer when a stream ends

    def add(self, got: list[Any]) -> None:
        if not self._points:
            self._point()
        self.ended = not got
        by_sender: list[list[bytes]] = [[] for _ in self._got]
        for body in got:
            if len(body) < STAMP.size:
                self._ends += body == END  # not a probe of another bare sender
            else:
                by_sender[sender_of(body)].append(body)
        for sender, bodies in enumerate(by_sender):
            self._add_of(sender, bodies)
        self._point()
        self.ended = self.ended or self._ends == len(self._got)

    def _add_of(self, sender: int, bodies: list[bytes]) -> None:
        at = self._got[sender] % self._pool_size
        self._damaged += differing_bytes(bodies, self._pools[sender][at : at + len(bodies)])
        self._got[sender] += len(bodies)
        self._received += len(bodies)
        if self._got[sender] - self._told[sender] >= self._every:
            self._told[sender] = self._got[sender]
            self._windows[sender].tell(self._got[sender])


class LatencyTally(_Windows):
    """Stamped bodies, one by one: how long after the intended time each is here."""

    wanted = 1

    def __init__(self, expected: Expected) -> None:
        super().__init__(expected)
        self._every = window_of(expected.size)[1]
        self._tail = filling(expected.size)
        self._clock = time.monotonic_ns
        self._counts: dict[int, int] = {}
        self._from = 0  # what was meant before it is warm-up
        self._next = 0
        self._publishers = self._open = expected.publishers

    def add(self, got: list[Any]) -> None:
        for body in got:
            self.note(body)
        self.ended = self.ended or not got

    def note(self, body: bytes) -> bool:
        """One body, now; whether it was the last."""
        now = self._clock()
        if len(body) < STAMP.size:
            self._open -= 1
            self.ended = self._open == 0
            return self.ended
        at, number = STAMP.unpack_from(body)
        if (number < self._next and self._publishers == 1) or body[STAMP.size :] != self._tail:
            self._damaged += 1
        self._next = number + 1
        self._received += 1
        if not self._points:
            self._from = at + self._warm_up_ns
        if at >= self._from:
            micros = (now - at) // 1_000
            self._counts[micros] = self._counts.get(micros, 0) + 1
        if (self._received - 1) % self._every == 0:
            self._look_up()
        return False

    def _look_up(self) -> None:
        for window in self._windows:
            window.tell(self._received)
        self._point()

    def said(self) -> dict[str, Any]:
        self._point()
        return {**super().said(), **said_of(Histogram(self._counts))}


def said_of(histogram: Histogram) -> dict[str, Any]:
    """The percentiles that a report has, us."""
    if not histogram.total:
        return {}
    p50, p99, p999, most = histogram.percentiles(50, 99, 99.9, 100)
    return {"p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": most}
