"""Many streams: the broker's CPU a message, one message a batch, from the same producers to one stream and to many."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.account import DiskAccount, last_said
from zbroker.bench.rows.connections import crowds
from zbroker.bench.rows.plan import RAW, Plan, Settings, bars, running_broker

_SEND: Final = "patterns.aio: Producer.send()"


def _paced(settings: Settings, streams: int) -> Sample:
    rate, count = settings.steady(), settings.connections
    with running_broker(settings, durable=True) as running, ExitStack() as stack:
        address = running.address()
        told: dict[str, Any] = {"size": settings.size, "seconds": settings.seconds, "warm_up_s": settings.warm_up_s}
        told |= {"streams": streams, "waits": True}
        senders = [
            stack.enter_context(
                Worker("send-together", address=address, first=first, count=share, rate=rate * share / count, **told)
            )
            for first, share in crowds(count)
        ]
        for sender in senders:
            sender.said()
        account, before = DiskAccount(running, address), running.usage()
        for sender in senders:
            sender.go()
        sent = [sender.said(settings.patience_s) for sender in senders]
        used = running.usage().cpu_s - before.cpu_s
        messages = sum(one["sent"] for one in sent)
        per_commit = account.of(messages, 0)["per_commit"]
        received, damaged = _read_back(settings, address, streams, [one["sent"] for one in sent])
    return Sample(
        rate=sum(one["rate"] for one in sent),
        offered=rate,
        p50_us=max(one["p50_us"] for one in sent),
        p99_us=max(one["p99_us"] for one in sent),
        cpu_us=used / messages * 1e6,
        messages=messages,
        lost=messages - received,
        damaged=damaged + sum(one["damaged"] for one in sent),
        per_commit=per_commit,
    )


def _read_back(settings: Settings, address: str, streams: int, sent: list[int]) -> tuple[int, int]:
    """(messages that are there, how many of them are wrong): every stream is read. `sent`: by each process of producers."""
    expected = sent if streams > 1 else [sum(sent)]  # a stream for each: those of one process are read by one
    with ExitStack() as stack:
        takers = []
        for (first, share), messages in zip(crowds(streams), expected, strict=True):
            told = {"first": first, "streams": share, "messages": messages}
            takers.append(stack.enter_context(Worker("take-singles", address=address, **told)))
        taken = [last_said(taker, settings) for taker in takers]
    return sum(one["received"] for one in taken), sum(one["damaged"] for one in taken)


def _one(settings: Settings) -> Sample:
    return _paced(settings, 1)


def _many(settings: Settings) -> Sample:
    return _paced(settings, settings.connections)


_ALL: Final = frozenset(("size", "transport", "rate", "connections"))

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="streams", label=label, api=_SEND, body=RAW, run=run, honours=_ALL)
    for name, label, run in (
        ("streams-1", "many producers, 1 stream, 20,000 messages/s together", _one),
        ("streams-1000", "the same, a stream for each", _many),
    )
)

BARS: Final = bars(
    ("streams-1000", "cpu_us", ("streams-1",), 1.5, False, "broker's CPU a stored message, many streams / 1"),
)
