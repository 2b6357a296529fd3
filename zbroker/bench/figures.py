"""The arithmetic of the bench: percentiles, medians, spread and paired ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from statistics import median

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """Several measurements of one thing: the middle and both ends, since a mean hides a noisy machine."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """How far the ends lie apart, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def figure(values: Sequence[float]) -> Figure | None:
    """Their middle and ends; None when there are none."""
    if not values:
        return None
    return Figure(float(median(values)), float(min(values)), float(max(values)))


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least so many percent do not exceed (nearest rank); nothing is interpolated."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile of nothing")
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ratios of what was measured in the same round: a machine that slows down slows both."""
    return [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]


def steady_rate(points: Sequence[tuple[int, int]], warm_up_ns: int) -> float:
    """Messages per second from the first point after the warm-up to the last.

    Args:
        points: (instant in ns, messages so far), in order.
        warm_up_ns: what is left out at the beginning; ignored if nothing else were left.
    """
    if len(points) < 2:
        return 0.0
    begin = points[0][0] + warm_up_ns
    first = next((point for point in points[:-1] if point[0] >= begin), points[0])
    last = points[-1]
    elapsed = last[0] - first[0]
    return (last[1] - first[1]) * 1e9 / elapsed if elapsed > 0 else 0.0


class Histogram:
    """Counts of whole microseconds: percentiles of millions of values in little memory; nothing is interpolated."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self._counts = sorted(counts.items())
        self.total = sum(counts.values())

    def percentiles(self, *percents: float) -> list[float]:
        """The smallest value that at least so many percent do not exceed, for each (ascending)."""
        found: list[float] = []
        ranks = [max(1, ceil(self.total * percent / 100)) for percent in percents]
        seen = 0
        for value, count in self._counts:
            seen += count
            while len(found) < len(ranks) and seen >= ranks[len(found)]:
                found.append(float(value))
        return found
