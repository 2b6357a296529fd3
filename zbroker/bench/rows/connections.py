"""Many connections: what an idle one holds, what all cost, and how fast they are back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from patterns.sync import Admin
from zbroker.bench.processes import READY_S, BenchFailed, Broker, Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.live import PUBLISH
from zbroker.bench.rows.plan import RAW, STAMPED, Plan, Settings, bars, running_broker

_PER_PROCESS: Final = 250  # each client has two sockets, and a ZeroMQ context has 1,023
_LOOK_S: Final = 0.02
KIB: Final = 1_024


def crowds(count: int) -> list[tuple[int, int]]:
    """(number of the first client, how many) of each process."""
    return [(first, min(_PER_PROCESS, count - first)) for first in range(0, count, _PER_PROCESS)]


@contextmanager
def _crowd(address: str, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker("listen", address=address, count=share)) for _, share in crowds(count)]
        for worker in workers:
            worker.said()
        yield


def _idle_percent(broker: Broker, seconds: float) -> float:
    before, begin = broker.usage(), time.monotonic()
    time.sleep(seconds)
    return (broker.usage().cpu_s - before.cpu_s) / (time.monotonic() - begin) * 100


def _idle_broker(settings: Settings) -> Sample:
    with running_broker(settings, durable=True) as running:
        running.address()
        return Sample(cpu_percent=_idle_percent(running, settings.seconds))


def _idle_connections(settings: Settings) -> Sample:
    with running_broker(settings) as running:
        address = running.address()
        before = running.usage().resident_bytes
        with _crowd(address, settings.connections):
            held = running.usage().resident_bytes - before
            percent = _idle_percent(running, settings.seconds)
    return Sample(messages=settings.connections, cpu_percent=percent, resident_bytes=held / settings.connections)


def _reconnect(settings: Settings) -> Sample:
    """From the start of the next broker until it has all sessions again."""
    with running_broker(settings) as running:
        address = running.address()
        with _crowd(address, settings.connections):
            running.kill()
            begin = time.monotonic()
            with Broker(running.bound, None) as again:
                _wait_for_sessions(again.address(), settings.connections)
                back_s = time.monotonic() - begin
    return Sample(messages=settings.connections, back_s=back_s)


def _wait_for_sessions(address: str, count: int) -> None:
    deadline = time.monotonic() + READY_S
    with Admin(address) as admin:
        while (found := admin.status()["sessions"].get("subscriber", 0)) < count:
            if time.monotonic() > deadline:
                raise BenchFailed(f"{found} of {count} clients are back after {READY_S:.0f} s")
            time.sleep(_LOOK_S)


def _paced(settings: Settings, connections: int) -> Sample:
    """CPU of the broker per message, each in a batch of its own, at a fixed rate."""
    rate = settings.steady()  # of all connections together
    with running_broker(settings) as running, ExitStack() as stack:
        address = running.address()
        told = {"body": STAMPED, "size": settings.size, "windows": [], "publishers": connections, "idle_s": READY_S}
        receiver = stack.enter_context(
            Worker("receive-native", api="sync", address=address, codec="raw", warm_up_s=settings.warm_up_s, **told)
        )
        senders = [
            stack.enter_context(
                Worker(
                    "publish-by-turns",
                    address=address,
                    count=share,
                    size=settings.size,
                    seconds=settings.seconds,
                    rate=rate * share / connections,
                )
            )
            for _, share in crowds(connections)
        ]
        for sender in senders:
            sender.said()
        before = running.usage()
        for sender in senders:
            sender.go()
        sent = [sender.said(settings.patience_s) for sender in senders]
        used = running.usage().cpu_s - before.cpu_s
        received = receiver.said()
    messages = sum(one["sent"] for one in sent)
    return Sample(
        rate=sum(one["rate"] for one in sent),
        offered=rate,
        cpu_us=used / messages * 1e6,
        messages=received["received"],
        lost=messages - received["received"],
        damaged=received["damaged"],
        per_batch=messages / sum(one["batches"] for one in sent),
    )


def _one(settings: Settings) -> Sample:
    return _paced(settings, 1)


def _many(settings: Settings) -> Sample:
    return _paced(settings, settings.connections)


_IDLE: Final = frozenset(("transport", "connections"))
_ALONE: Final = frozenset(("transport",))
_PACED: Final = frozenset(("size", "transport", "rate"))
_ALL: Final = _PACED | {"connections"}
_NOTHING: Final = "nothing"
_LISTEN: Final = "patterns.aio.Subscriber"

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="connections", label=label, api=api, body=body, run=run, honours=honours)
    for name, label, api, body, run, honours in (
        ("connections-none", "an idle broker with a journal", _NOTHING, _NOTHING, _idle_broker, _ALONE),
        ("connections-idle", "an idle broker, many idle subscribers", _LISTEN, _NOTHING, _idle_connections, _IDLE),
        ("connections-back", "many clients, after SIGKILL and a restart", _LISTEN, _NOTHING, _reconnect, _IDLE),
        ("connections-1", "1 publisher, 20,000 messages/s", PUBLISH, RAW, _one, _PACED),
        ("connections-many", "many publishers, 20,000 messages/s together", PUBLISH, RAW, _many, _ALL),
    )
)

BARS: Final = bars(
    ("connections-none", "cpu_percent", (), 1.0, False, "idle broker, % of a core"),
    ("connections-idle", "resident_bytes", (), 64.0 * KIB, False, "idle connection, resident bytes"),
    ("connections-back", "back_s", (), 5.0, False, "clients back after a restart, s"),
    ("connections-many", "cpu_us", ("connections-1",), 1.5, False, "broker's CPU a message, many connections / 1"),
)
