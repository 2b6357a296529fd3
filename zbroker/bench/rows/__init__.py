"""The rows of `zbroker bench`, a file a group: what each runs, and the bars that they are held against."""

from __future__ import annotations

from typing import Final

from zbroker.bench.report import Bar
from zbroker.bench.rows import (
    awaited,
    backlog,
    connections,
    delayed,
    durable,
    fan,
    groups,
    latency,
    live,
    nats,
    ready,
    request,
    stalled,
    stores,
    streams,
    translate,
    upkeep,
)
from zbroker.bench.rows.plan import Plan, Settings

__all__ = ["BARS", "FIRST_GROUPS", "PLANS", "Plan", "Settings"]

_FILES: Final = (
    live,
    request,
    durable,
    awaited,
    fan,
    translate,
    nats,
    latency,
    connections,
    stalled,
    streams,
    groups,
    delayed,
    stores,
    upkeep,
    ready,
    backlog,
)
PLANS: Final[tuple[Plan, ...]] = tuple(plan for file in _FILES for plan in file.PLANS)
BARS: Final[tuple[Bar, ...]] = tuple(bar for file in _FILES for bar in file.BARS)
FIRST_GROUPS: Final = ("live", "device", "request", "durable", "confirm")  # what is run when nothing is named
