"""One that stands still: the latency of the others, at a fixed rate, with it and without."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

import msgspec

from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.live import PUBLISH, native, summed
from zbroker.bench.rows.plan import RAW, STAMPED, Plan, Settings, bars, broker

_OTHERS: Final = 2
_TAKE: Final = "Producer.post() -> Consumer.batches()"


def _live(settings: Settings, *, stalled: bool) -> Sample:
    paced = msgspec.structs.replace(settings, rate=settings.steady())
    with broker(settings) as address, ExitStack() as stack:
        if stalled:
            stack.enter_context(Worker("stop-reading", address=address)).said()
        found = native(paced, lambda: address, address, receivers=_OTHERS)
    return msgspec.structs.replace(found, offered=paced.rate)


def _durable(settings: Settings, *, stalled: bool) -> Sample:
    paced = msgspec.structs.replace(settings, rate=settings.steady())
    with broker(settings, durable=True) as address, ExitStack() as stack:
        if stalled:
            stack.enter_context(Worker("stop-taking", address=address, group="stalled")).said()
        told = {"body": STAMPED, "size": settings.size, "windows": [], "warm_up_s": settings.warm_up_s}
        consumers = [
            stack.enter_context(Worker("take-paced", address=address, group=f"other-{number}", **told))
            for number in range(_OTHERS)
        ]
        for consumer in consumers:
            consumer.said()
        producer = stack.enter_context(
            Worker("post-steadily", address=address, size=settings.size, seconds=settings.seconds, rate=paced.rate)
        )
        sent = producer.said(settings.patience_s)
        received = [consumer.said(settings.patience_s) for consumer in consumers]
    return msgspec.structs.replace(summed([sent], received), offered=paced.rate)


def _live_none(settings: Settings) -> Sample:
    return _live(settings, stalled=False)


def _live_one(settings: Settings) -> Sample:
    return _live(settings, stalled=True)


def _durable_none(settings: Settings) -> Sample:
    return _durable(settings, stalled=False)


def _durable_one(settings: Settings) -> Sample:
    return _durable(settings, stalled=True)


_HONOURS: Final = frozenset(("size", "transport", "rate"))

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="stalled", label=label, api=api, body=RAW, run=run, honours=_HONOURS)
    for name, label, api, run in (
        ("stalled-live-none", "two subscribers, 20,000 messages/s", PUBLISH, _live_none),
        ("stalled-live", "the same beside one that takes nothing", PUBLISH, _live_one),
        ("stalled-durable-none", "two groups, 20,000 messages/s", _TAKE, _durable_none),
        ("stalled-durable", "the same beside one that takes nothing", _TAKE, _durable_one),
    )
)

BARS: Final = bars(
    ("stalled-live", "p99_us", ("stalled-live-none",), 1.2, False, "p99 of subscribers beside a stalled one / without"),
    (
        "stalled-durable",
        "p99_us",
        ("stalled-durable-none",),
        1.2,
        False,
        "p99 of groups beside a stalled one / without",
    ),
)
