"""Delayed messages: the broker's CPU for each, from its post to its ack, and how late it comes, of a few and of many that wait."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from patterns.sync import Admin, GroupConfig
from zbroker.bench.ends.durable import GROUP, STREAM
from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.account import last_said
from zbroker.bench.rows.plan import RAW, SPARE_S, Plan, Settings, bars, running_broker

_FEW: Final = 20  # one part in so many of what the other row has
_RATE: Final = 4_000.0  # that become due in a second: each leaves alone, and half of what two cores carry
_POSTED: Final = 100_000.0  # in a second, at the least: by then all wait
_MARGIN_S: Final = 2.0


def _delayed(settings: Settings, count: int) -> Sample:
    spread_s = count / _RATE
    wait_s = count / _POSTED + _MARGIN_S
    with running_broker(settings, durable=True) as running, ExitStack() as stack:
        address = running.address()
        with Admin(address) as admin:
            admin.create_group(GroupConfig(STREAM, GROUP, unsettled_max=2 * count))
        taker = stack.enter_context(
            Worker("take-delayed", address=address, count=count, idle_s=wait_s + spread_s + SPARE_S)
        )
        taker.said()
        before = running.usage()
        told = {"size": settings.size, "count": count, "wait_s": wait_s, "spread_s": spread_s}
        sender = stack.enter_context(Worker("post-delayed", address=address, **told))
        sent = sender.said(settings.patience_s + wait_s)
        held = running.usage().resident_bytes
        patient = Settings(seconds=wait_s + spread_s + SPARE_S, repeat=1, size=settings.size, folder=settings.folder)
        taken = last_said(taker, patient)
        used = running.usage().cpu_s - before.cpu_s
    return Sample(
        rate=sent["rate"],
        p50_us=taken["p50_us"],
        p99_us=taken["p99_us"],
        max_us=taken["max_us"],
        cpu_us=used / count * 1e6,
        messages=taken["received"],
        lost=count - taken["received"],
        damaged=taken["damaged"],
        held_bytes=float(held - before.resident_bytes),
    )


def _few(settings: Settings) -> Sample:
    return _delayed(settings, max(100, settings.backlog // _FEW))


def _many(settings: Settings) -> Sample:
    return _delayed(settings, settings.backlog)


_API: Final = "Producer.post(delay_s=) -> Consumer.batches()"

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(
        name=name,
        group="delayed",
        label=label,
        api=_API,
        body=RAW,
        run=run,
        honours=frozenset(("size", "transport", "backlog")),
    )
    for name, label, run in (
        ("delayed-few", "a twentieth of the backlog, each due at its own time", _few),
        ("delayed-many", "the backlog, likewise", _many),
    )
)

BARS: Final = bars(
    (
        "delayed-many",
        "cpu_us",
        ("delayed-few",),
        2.0,
        False,
        "broker's CPU a delayed message, many / a twentieth of them (--backlog 1000000)",
    ),
)
