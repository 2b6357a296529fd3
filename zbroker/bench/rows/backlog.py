"""A backlog of single messages, every second one acked: what the broker holds, how soon it is back after SIGKILL, how fast it drains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from patterns.sync import Admin
from zbroker.bench.processes import BenchFailed, Broker, Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.account import DiskAccount, fresh_journal, last_said
from zbroker.bench.rows.plan import RAW, Plan, Settings, bars, running_broker

_PRODUCERS: Final = 100
_UNDER_WAY: Final = 32  # sends of each: who waits for each sync of a busy disk takes hours for ten million
_PER_STREAM: Final = (
    1_000_000  # a group takes nothing new beyond a million that it has not settled, and half of these are not
)
_FILLED: Final = 0.7  # of a sample's time, as the bar shows it
_TAKEN: Final = 0.9
_MIB: Final = 1 << 20
_SETTLE_S: Final = 60.0
_LOOK_S: Final = 0.05


def _streams(messages: int) -> int:
    return -(-messages // _PER_STREAM)


def _progress(settings: Settings, begin: float, end: float, messages: int) -> Callable[[int], None]:
    return lambda done: settings.tell(begin + (end - begin) * min(1.0, done / messages))


def _backlog(settings: Settings) -> Sample:
    """Filled, then taken by a consumer that acks every second message and holds the others, then killed, then drained."""
    messages, streams = settings.backlog, _streams(settings.backlog)
    with running_broker(settings, durable=True) as running:
        address = running.address()
        account = DiskAccount(running, address)
        sent = _fill(settings, address, streams)
        factors = account.of(sent["sent"], sent["sent"] * settings.size)
        held = [running.usage().resident_bytes]
        with Worker("take-singles", address=address, streams=streams, messages=messages, every=2, stays=True) as taker:
            taken = last_said(taker, settings, _progress(settings, _FILLED, _TAKEN, messages))
            _until_acked(address, taken["acked"] + taken["ends"])
            held.append(running.usage().resident_bytes)
            running.kill()
        begin = time.monotonic()
        with Broker(running.bound, running.folder) as again:
            again.address()
            ready_s, ready_cpu_s = time.monotonic() - begin, again.usage().cpu_s
            left = messages - taken["acked"]
            drained = _drain(settings, address, streams, left)
            held.append(again.usage().resident_bytes)
    is_same = sent["sum"] == taken["acked_sum"] + drained["sum"]
    return Sample(
        rate=drained["rate"],
        bytes_rate=drained["rate"] * settings.size,
        messages=messages,
        lost=left - drained["received"],
        damaged=sent["damaged"] + taken["damaged"] + drained["damaged"] + (not is_same),
        held_bytes=float(max(held)),
        ready_s=ready_s,
        ready_cpu_s=ready_cpu_s,
        **factors,
    )


def _fill(settings: Settings, address: str, streams: int) -> dict[str, Any]:
    told = {"count": _PRODUCERS, "under_way": _UNDER_WAY, "streams": streams, "size": settings.size}
    with Worker(
        "send-together", address=address, messages=settings.backlog, seconds=settings.seconds, **told
    ) as senders:
        return last_said(senders, settings, _progress(settings, 0.0, _FILLED, settings.backlog))


def _drain(settings: Settings, address: str, streams: int, left: int) -> dict[str, Any]:
    with Worker("take-singles", address=address, streams=streams, messages=left, warm_up_s=0.0) as taker:
        return last_said(taker, settings, _progress(settings, _TAKEN, 1.0, left))


def _until_acked(address: str, acked: int) -> None:
    """Until the broker knows of all acks, and its journal has nothing more to write."""
    deadline = time.monotonic() + _SETTLE_S
    with Admin(address) as admin:
        known = 0
        while known < acked or fresh_journal(admin)["waiting_records"]:
            if time.monotonic() > deadline:
                raise BenchFailed(f"{known} of {acked} acks are on disk after {_SETTLE_S:.0f} s")
            time.sleep(_LOOK_S)
            known = sum(group["acked"] for group in admin.status()["groups"].values())


def _durable(settings: Settings) -> Sample:
    """The same producers, and a consumer that takes and acks all, at the same time."""
    streams = _streams(settings.backlog)
    with running_broker(settings, durable=True) as running:
        address = running.address()
        with Worker("take-singles", address=address, streams=streams, messages=settings.backlog) as taker:
            taker.said()
            sent = _fill(settings, address, streams)
            taken = last_said(taker, settings)
        held = running.usage().resident_bytes
    rate = min(sent["confirmed_rate"], taken["rate"])
    return Sample(
        rate=rate,
        bytes_rate=rate * settings.size,
        messages=taken["received"],
        lost=sent["sent"] - taken["received"],
        damaged=sent["damaged"] + taken["damaged"] + (sent["sum"] != taken["sum"]),
        held_bytes=float(held),
    )


_HONOURS: Final = frozenset(("size", "transport", "backlog"))
_API: Final = "patterns.aio: Producer.send(), Consumer.batches()"

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group="backlog", label=label, api=_API, body=RAW, run=run, honours=_HONOURS)
    for name, label, run in (
        ("backlog-none", "single messages of 100 producers, taken at once", _durable),
        ("backlog-half", "the same kept, every second acked, SIGKILL, drained", _backlog),
    )
)

BARS: Final = bars(
    (
        "backlog-half",
        "held_bytes",
        (),
        500.0 * _MIB,
        False,
        "backlog, resident bytes (the bar is for --backlog 10000000)",
    ),
    ("backlog-half", "ready_s", (), 5.0, False, "backlog, ready after SIGKILL, s (the bar is for --backlog 10000000)"),
    ("backlog-half", "rate", ("backlog-none",), 0.8, True, "backlog, drained / stored and taken one by one"),
)
