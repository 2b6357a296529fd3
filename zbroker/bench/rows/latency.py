"""Latency at a fixed rate, a part of the peak that is measured just before; from the time that was intended.

Coordinated omission: a sender that waits for the system leaves out of its times what the system made it wait. Here each message has
a time at which it should leave, and its latency counts from there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import msgspec

from zbroker.bench.ends.durable import STREAM
from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.durable import disk_4k
from zbroker.bench.rows.live import PUBLISH, native, through_broker
from zbroker.bench.rows.plan import RAW, STAMPED, Plan, Settings, bars, broker, timed
from zbroker.bench.rows.request import ASK, asker, request_broker

_HALF: Final = 0.5
_MOST: Final = 0.8
_GROUPS: Final = 2
_LONGER_S: Final = 0.5  # the bulk goes on beside the last request too: a session takes a moment to stand
_POST: Final = "Producer.post(), until its callback"


def at_rate(settings: Settings, rate: float | None, part: float) -> Settings:
    """The same at this part of a rate that was measured."""
    return msgspec.structs.replace(settings, rate=(rate or 0.0) * part)


def _live_at(part: float) -> Callable[[Settings], Sample]:
    def run(settings: Settings) -> Sample:
        peak = through_broker(settings, body=STAMPED)
        paced = at_rate(settings, peak.rate, part)
        return msgspec.structs.replace(through_broker(paced), offered=paced.rate)

    return run


def _request_half(settings: Settings) -> Sample:
    paced = at_rate(settings, request_broker(settings).rate, _HALF)
    return msgspec.structs.replace(request_broker(paced), offered=paced.rate)


def _request_beside_bulk(settings: Settings) -> Sample:
    """Requests one after the other, while live messages pass the same broker at 80 % of their peak."""
    found: list[Sample] = []
    with (
        broker(settings) as address,
        Worker("serve-native", api=settings.api, address=address) as server,
        asker(settings, "ask-native", address, api=settings.api, waits=True) as asking,
    ):
        server.said()
        asking.said()
        peak = native(settings, lambda: address, address, body=STAMPED)
        paced = at_rate(settings, peak.rate, _MOST)

        def ask_now() -> None:
            asking.go()
            found.append(timed(asking.said(settings.patience_s), settings.size))

        bulk = msgspec.structs.replace(paced, seconds=settings.seconds + _LONGER_S)
        native(bulk, lambda: address, address, meanwhile=ask_now)
    return msgspec.structs.replace(found[0], offered=paced.rate)


def _post(settings: Settings, groups: int = 0) -> Sample:
    with broker(settings, durable=True) as address, ExitStack() as stack:
        if groups:
            taker = stack.enter_context(Worker("take-groups", address=address, stream=STREAM, count=groups))
            taker.said()
        producer = stack.enter_context(
            Worker(
                "post-paced",
                address=address,
                size=settings.size,
                seconds=settings.seconds,
                warm_up_s=settings.warm_up_s,
                rate=settings.rate,
            )
        )
        return timed(producer.said(settings.patience_s), settings.size)


def _durable_half(settings: Settings, groups: int = 0) -> Sample:
    paced = at_rate(settings, _post(settings, groups).rate, _HALF)
    return msgspec.structs.replace(_post(paced, groups), offered=paced.rate)


def _grouped_half(settings: Settings) -> Sample:
    return _durable_half(settings, _GROUPS)


_SIZED: Final = frozenset(("size", "transport"))
_DISK: Final[frozenset[str]] = frozenset()

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="latency", label=label, api=api, body=body, run=run, honours=honours)
    for name, label, api, body, run, honours in (
        ("latency-live-50", "live through the broker at 50 % of its peak", PUBLISH, RAW, _live_at(_HALF), _SIZED),
        ("latency-live-80", "live through the broker at 80 % of its peak", PUBLISH, RAW, _live_at(_MOST), _SIZED),
        ("latency-request-idle", "request through the broker, nothing else", ASK, RAW, request_broker, _SIZED),
        ("latency-request-50", "the same at 50 % of its peak", ASK, RAW, _request_half, _SIZED),
        ("latency-request-bulk", "the same beside live traffic at 80 %", ASK, RAW, _request_beside_bulk, _SIZED),
        ("latency-durable-50", "durable posts at 50 % of their peak", _POST, RAW, _durable_half, _SIZED),
        ("latency-durable-groups", "the same beside two groups that take them", _POST, RAW, _grouped_half, _SIZED),
        ("latency-disk", "the disk: 4 KiB pwrite + fdatasync", "os.pwrite", "4 KiB", disk_4k, _DISK),
    )
)

BARS: Final = bars(
    ("latency-request-bulk", "p99_us", ("latency-request-idle",), 3.0, False, "request p99 beside bulk at 80 % / idle"),
    ("latency-durable-50", "p99_us", ("latency-disk",), 5.0, False, "p99 of durable posts at half of peak / of the disk's sync"),
    ("latency-durable-groups", "p99_us", ("latency-disk",), 5.0, False, "the same beside two groups"),
)  # fmt: skip
