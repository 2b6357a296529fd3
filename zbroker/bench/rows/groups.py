"""Many groups on one stream: the broker's CPU for each message that a group is given and acks, of few groups and of many.

All rows have the same number of deliveries a second, so the fewer groups there are the more messages are stored.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.account import last_said
from zbroker.bench.rows.connections import crowds
from zbroker.bench.rows.plan import RAW, Plan, Settings, bars, running_broker

_TAKE: Final = "patterns.aio: Producer.send() -> Consumer.batches()"
_PRODUCERS: Final = 50  # that one message a batch is sent fast enough by awaiting each
_SOME: Final = 30


def _paced(settings: Settings, groups: int) -> Sample:
    rate = settings.steady()
    with running_broker(settings, durable=True) as running, ExitStack() as stack:
        address = running.address()
        takers = [
            stack.enter_context(Worker("take-groups", address=address, first=first, count=share))
            for first, share in crowds(groups)
        ]
        told = {"size": settings.size, "seconds": settings.seconds, "warm_up_s": settings.warm_up_s, "waits": True}
        sender = stack.enter_context(
            Worker("send-together", address=address, count=_PRODUCERS, rate=rate / groups, **told)
        )
        for worker in (*takers, sender):
            worker.said()
        before = running.usage()
        sender.go()
        sent = sender.said(settings.patience_s)
        for taker in takers:
            taker.go()
        taken = [last_said(taker, settings) for taker in takers]
        used = running.usage().cpu_s - before.cpu_s
    received, wanted = sum(one["received"] for one in taken), sent["sent"] * groups
    return Sample(
        rate=sent["rate"] * groups,
        offered=rate,
        cpu_us=used / max(1, received) * 1e6,
        messages=received,
        lost=wanted - received,
        damaged=sum(one["damaged"] for one in taken),
        per_batch=received / max(1, sum(one["batches"] for one in taken)),
    )


def _one(settings: Settings) -> Sample:
    return _paced(settings, 1)


def _some(settings: Settings) -> Sample:
    return _paced(settings, min(_SOME, settings.connections))


def _many(settings: Settings) -> Sample:
    return _paced(settings, settings.connections)


_PACED: Final = frozenset(("size", "transport", "rate"))

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="groups", label=label, api=_TAKE, body=RAW, run=run, honours=_PACED | {"connections"})
    for name, label, run in (
        ("groups-1", "one group, 20,000 deliveries/s", _one),
        ("groups-30", "30 groups of the stream, as many deliveries/s together", _some),
        ("groups-1000", "a group for each of many connections, likewise", _many),
    )
)

BARS: Final = bars(
    ("groups-1000", "cpu_us", ("groups-1",), 1.5, False, "broker's CPU a delivery, many groups / 1"),
)
