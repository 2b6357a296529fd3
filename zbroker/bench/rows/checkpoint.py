"""One confirmed message at a time beside bulk of 1 KiB: while a checkpoint is being written, and while none is.

The broker is not told: while its journal writes a checkpoint, the folder holds a draft, and a process looks for that. Both rows
have the same load; each keeps its part of what was timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from zbroker.bench.ends.asking import latency
from zbroker.bench.processes import Broker, Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.durable import bulk
from zbroker.bench.rows.plan import KIB, Plan, Settings, bars
from zbroker.bench.rows.request import asker
from zbroker.store.checkpoint import DRAFT

_SINGLE: Final = "single"  # the stream of what is sent one by one
_LONGER_S: Final = (
    1.0  # and twice as long as the bulk, whose process takes a moment to start; only what is beside it counts
)
_SEND: Final = "Producer.send() beside send_many()"
Span = tuple[int, int]


def _run(settings: Settings, *, during: bool) -> Sample:
    times: list[int] = []
    damaged: list[int] = []

    def beside(running: Broker, stack: ExitStack) -> Callable[[dict[str, Any]], None]:
        watcher = stack.enter_context(Worker("watch-for", folder=running.folder, name=DRAFT))
        longer = msgspec.structs.replace(settings, size=KIB, seconds=2 * settings.seconds + _LONGER_S)
        asking = stack.enter_context(asker(longer, "send-each", running.connects_to, stream=_SINGLE, is_beside=True))
        for worker in (watcher, asking):
            worker.said()
        asking.go()

        def ended(sent: dict[str, Any]) -> None:
            single = asking.said(longer.patience_s)
            watcher.go()
            begin, end = sent["span"]
            beside_bulk = [(one[0], one[1]) for one in single["spans"] if begin <= one[0] and one[1] <= end]
            times.extend(kept(beside_bulk, watcher.said()["times"], during=during))
            damaged.append(single["damaged"])

        return ended

    found = bulk(msgspec.structs.replace(settings, size=KIB), beside=beside)
    figures = latency(times, len(times), 0) if times else {}
    return Sample(
        rate=found.rate,
        bytes_rate=found.bytes_rate,
        p50_us=figures.get("p50_us"),
        p99_us=figures.get("p99_us"),
        p999_us=figures.get("p999_us"),
        max_us=figures.get("max_us"),
        messages=found.messages,
        lost=found.lost,
        damaged=found.damaged + sum(damaged),
    )


def kept(operations: Sequence[Span], spans: Sequence[Sequence[int]], *, during: bool) -> list[int]:
    """How long those operations took, ns, that overlap with any of the spans; else those that overlap with none.

    Args:
        operations: (begin, end) of each, one after the other.
        spans: in order.
    """
    times = []
    at = 0
    for begin, end in operations:
        while at < len(spans) and spans[at][1] < begin:
            at += 1
        overlaps = at < len(spans) and spans[at][0] <= end
        if overlaps is during:
            times.append(end - begin)
    return times


def _during(settings: Settings) -> Sample:
    return _run(settings, during=True)


def _none(settings: Settings) -> Sample:
    return _run(settings, during=False)


_HONOURS: Final = frozenset(("size", "transport"))

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="checkpoint", label=label, api=_SEND, body="raw, 1 KiB in bulk", run=run, honours=_HONOURS)
    for name, label, run in (
        ("checkpoint-none", "one confirmed message at a time beside bulk, no checkpoint", _none),
        ("checkpoint-during", "the same while one is being written", _during),
    )
)

BARS: Final = bars(
    ("checkpoint-during", "p99_us", ("checkpoint-none",), 3.0, False, "confirm p99 during a checkpoint / without one"),
)
