"""Operations one after the other: what to do next, when, and how long each took. Who does them is somebody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from zbroker.bench.ends.bodies import raw_bodies
from zbroker.bench.figures import percentile


class Asking(msgspec.Struct, kw_only=True):
    """A series of operations.

    Attributes:
        size: of a raw body, bytes.
        seconds: how long.
        warm_up_s: what is not measured at the beginning.
        rate: operations a second, each timed from when it should have begun; None: each after the one before.
        spans: whether the parent hears when each began and ended, on the machine's monotonic clock, ns.
    """

    size: int
    seconds: float
    warm_up_s: float
    rate: float | None = None
    spans: bool = False

    def each(self, ask: Callable[[bytes], Any]) -> dict[str, Any]:
        """Do them; what the parent hears."""
        series = Series(self)
        while (body := series.next()) is not None:
            if (pause_s := series.pause_s()) > 0:
                time.sleep(pause_s)
            series.begin()
            series.done(ask(body) == body)
        return series.said()


class Series:
    """The account of an Asking; whoever runs it calls next(), pause_s(), begin() and done() by turns."""

    def __init__(self, asking: Asking) -> None:
        self._pool = raw_bodies(asking.size)
        self._clock = time.monotonic_ns  # processes agree on it
        self._period_ns = 1e9 / asking.rate if asking.rate else 0.0
        self._started = self._clock()
        self._warm = self._started + int(asking.warm_up_s * 1e9)
        self._until = self._started + int(asking.seconds * 1e9)
        self._times: list[int] = []
        self._spans: list[tuple[int, int]] | None = [] if asking.spans else None
        self._asked = self._damaged = 0
        self._begun = self._end = self._started

    def next(self) -> bytes | None:
        """A body; None when the time is up."""
        if self._is_over() and self._times:
            return None
        return self._pool[self._asked % len(self._pool)]

    def _is_over(self) -> bool:
        if not self._period_ns:
            return self._end >= self._until
        patience = 2 * self._until - self._started  # who cannot keep the rate stops after twice the time
        return self._intended() >= self._until or self._end >= patience

    def pause_s(self) -> float:
        """How long until the next one is due; 0 or less: now."""
        return (self._intended() - self._clock()) / 1e9 if self._period_ns else 0.0

    def _intended(self) -> int:
        return self._started + int(self._asked * self._period_ns)

    def begin(self) -> None:
        """The clock starts; at a fixed rate, at the instant that was meant."""
        self._begun = self._intended() if self._period_ns else self._clock()

    def done(self, is_right: bool) -> None:
        """It has been answered."""
        self._end = self._clock()
        self._asked += 1
        self._damaged += not is_right
        if self._spans is not None:
            self._spans.append((self._begun, self._end))
        if self._begun >= self._warm or self._end >= self._until:
            self._times.append(self._end - self._begun)

    def said(self) -> dict[str, Any]:
        """What the parent hears."""
        rate = None
        if self._period_ns:
            rate = self._asked * 1e9 / (self._end - self._started)
        said = latency(self._times, self._asked, self._damaged, rate)
        return said if self._spans is None else {**said, "spans": self._spans}


def latency(times_ns: list[int], messages: int, damaged: int, rate: float | None = None) -> dict[str, Any]:
    """What a worker says of operations that were made one after the other."""
    ordered = sorted(times_ns)
    return {
        "received": messages,
        "damaged": damaged,
        "rate": rate or len(ordered) * 1e9 / sum(ordered),
        "p50_us": percentile(ordered, 50) / 1_000,
        "p99_us": percentile(ordered, 99) / 1_000,
        "p999_us": percentile(ordered, 99.9) / 1_000,
        "max_us": ordered[-1] / 1_000,
    }
