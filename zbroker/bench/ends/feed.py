"""What a sender sends next and when: as fast as the window allows, or at a fixed rate. The sockets are somebody else's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from zbroker.bench.ends.bodies import END, STAMP, filling, pool_of
from zbroker.bench.ends.window import SenderWindow, Stalled, window_of

TICK_NS: Final = 1_000_000  # what is due within it leaves at its beginning: nobody sleeps more precisely than that
_PATIENCE: Final = 2.0  # who cannot keep the rate stops after so many times the time that was asked for


class Feed(Protocol):
    """Parts of what is to be sent."""

    sent: int

    def next(self) -> Any:
        """What to send now; None when the time is up."""

    @property
    def must_wait(self) -> bool:
        """Whether wait() would block."""

    def wait(self) -> None:
        """Return when the next part may be sent. Raises Stalled."""


def parts_of(pool: list[Any], every: int) -> list[list[Any]]:
    """The pool, cut."""
    return [pool[at : at + every] for at in range(0, len(pool), every)]


class FullSpeed:
    """The same parts over and over, never further ahead than the window, until the time is up."""

    def __init__(self, parts: Sequence[Any], every: int, window: SenderWindow | None, seconds: float) -> None:
        self._parts = parts
        self._every = every
        self._window = window
        self._until = time.monotonic_ns() + int(seconds * 1e9)
        self.sent = 0

    def next(self) -> Any:
        if time.monotonic_ns() >= self._until:
            return None
        part = self._parts[self.sent // self._every % len(self._parts)]
        self.sent += self._every
        return part

    @property
    def must_wait(self) -> bool:
        return self._window is not None and self._window.is_behind(self.sent)

    def wait(self) -> None:
        if self._window is not None:
            self._window.keep(self.sent)


class StampedFullSpeed(FullSpeed):
    """Bodies that carry when they were sent, as fast as possible: the peak that a fixed rate is a part of."""

    def __init__(self, size: int, every: int, window: SenderWindow | None, seconds: float) -> None:
        super().__init__((), every, window, seconds)
        self._tail = filling(size)
        self.intended = 0

    def next(self) -> list[bytes] | None:
        now = time.monotonic_ns()
        if now >= self._until:
            return None
        self.intended = now
        first, self.sent = self.sent, self.sent + self._every
        return stamped(now, first, self.sent, self._tail)


class FixedRate:
    """So many a second, whatever the other side does: each body carries when it should have been sent.

    A sender that was held up sends what is overdue at once, with the times that were meant: the wait counts as latency
    (coordinated omission is what leaves it out). All that is due within TICK_NS is meant for its beginning.

    Args:
        rate: messages a second.
        window: None: nobody tells, as for a producer, whose confirms do.
    """

    def __init__(self, rate: float, size: int, window: SenderWindow | None, seconds: float) -> None:
        self._rate = rate
        self._tick_ns = max(TICK_NS, int(1e9 / rate))
        self._tail = filling(size)
        self._window = window
        self._begin = time.monotonic_ns()
        self._length_ns = int(seconds * 1e9)
        self._tick = 0
        self.sent = 0
        self.intended = 0  # the instant that the last part was meant for, ns

    def next(self) -> list[bytes] | None:
        at = self._tick * self._tick_ns
        self.intended = self._begin + at
        if at >= self._length_ns or time.monotonic_ns() - self._begin > self._length_ns * _PATIENCE:
            return None
        self._tick += 1
        due = max(self.sent + 1, int(self._rate * self._tick * self._tick_ns / 1e9))
        first, self.sent = self.sent, due
        return stamped(self.intended, first, due, self._tail)

    @property
    def must_wait(self) -> bool:
        return self.left_s() > 0 or (self._window is not None and self._window.is_behind(self.sent))

    def wait(self) -> None:
        if self._window is not None:
            self._window.keep(self.sent)
        left = self.left_s()
        if left > 0:
            time.sleep(left)

    def left_s(self) -> float:
        """Until the next part is due; 0 or less: it is overdue."""
        return (self._begin + self._tick * self._tick_ns - time.monotonic_ns()) / 1e9


def stamped(at: int, first: int, end: int, tail: bytes) -> list[bytes]:
    """Bodies with the numbers from `first` to before `end`, all meant for one instant."""
    pack = STAMP.pack
    return [pack(at, number) + tail for number in range(first, end)]


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender is told by its parent.

    Attributes:
        body: "raw", "dict" or "stamped".
        size: of a raw or stamped body, bytes.
        seconds: how long.
        sender: its number.
        senders: how many there are; they share the window.
        receivers: how many tell how far they are.
        rate: messages a second; None: as fast as the window allows.
    """

    body: str
    size: int
    seconds: float
    sender: int = 0
    senders: int = 1
    receivers: int = 1
    rate: float | None = None

    def prepare(self) -> tuple[SenderWindow, Callable[[], Feed], Any]:
        """(the window, what makes the feed once the receivers listen, what ends the stream)."""
        if self.body == "stamped":
            ahead, every = window_of(self.size, self.senders)
            window = SenderWindow(ahead, every, self.receivers)
            return window, lambda: self._stamping(every, window), END
        pool, end, wire_size = pool_of(self.body, self.size, self.sender)
        ahead, every = window_of(wire_size, self.senders)
        window = SenderWindow(ahead, every, self.receivers)
        parts = parts_of(pool, every)
        return window, lambda: FullSpeed(parts, every, window, self.seconds), end

    def _stamping(self, every: int, window: SenderWindow) -> Feed:
        if self.rate is None:
            return StampedFullSpeed(self.size, every, window, self.seconds)
        return FixedRate(self.rate, self.size, window, self.seconds)


def run(feed: Feed, step: Callable[[Any], None]) -> int:
    """Send all of it; how many messages that was."""
    try:
        while (part := feed.next()) is not None:
            step(part)
            feed.wait()
    except Stalled:
        pass  # the receiver's account tells how much is missing
    return feed.sent
