"""Streams on disk, in bulk and one confirmed message at a time, and what the disk does by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from zbroker.bench.processes import Broker, Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.account import DiskAccount, last_said
from zbroker.bench.rows.live import SEND
from zbroker.bench.rows.plan import DICT, KIB, RAW, Plan, Settings, bars, broker, running_broker, timed
from zbroker.bench.rows.request import ask

_TOGETHER: Final = 100  # connections
BULK: Final = "Producer.send_many() -> Consumer.batches(), acked"


def bulk(
    settings: Settings,
    *,
    body: str = RAW,
    codecs: tuple[str, str] = ("raw", "raw"),
    held: int = 0,
    flags: tuple[str, ...] = (),
    beside: Callable[[Broker, ExitStack], Callable[[dict[str, Any]], None]] | None = None,
) -> Sample:
    """One producer, one consumer, at the same time.

    Args:
        held: messages that the consumer does not ack, the last third of each batch until it has so many.
        flags: of `zbroker run`.
        beside: starts what else runs, before the producer; what it returns is called with the producer's words at its end.
    """
    told = {"body": body, "size": 0 if body == DICT else settings.size, "api": settings.api}
    with ExitStack() as stack:
        running = stack.enter_context(running_broker(settings, *flags, durable=True))
        address = running.address()
        consumer = stack.enter_context(
            Worker("consume", address=address, codec=codecs[1], warm_up_s=settings.warm_up_s, held=held, **told)
        )
        consumer.said()
        account = DiskAccount(running, address)
        ended = beside(running, stack) if beside is not None else None
        producer = stack.enter_context(
            Worker("produce", address=address, codec=codecs[0], seconds=settings.seconds, **told)
        )
        sent = producer.said(settings.patience_s)
        if ended is not None:
            ended(sent)
        received = consumer.said()
        factors = account.of(sent["sent"], received["body_bytes"])
    rate = min(received["rate"], sent["confirmed_rate"])
    return Sample(
        rate=rate,
        bytes_rate=received["bytes_rate"] * rate / received["rate"] if received["rate"] else 0.0,
        messages=received["received"],
        lost=sent["sent"] - received["received"],
        damaged=received["damaged"],
        per_batch=received["per_batch"],
        **factors,
    )


def _kib(settings: Settings) -> Sample:
    return bulk(msgspec.structs.replace(settings, size=KIB))


def _confirm_one(settings: Settings) -> Sample:
    with broker(settings, durable=True) as address:
        return ask(settings, "send-each", address)


def together(settings: Settings) -> Sample:
    """A hundred connections of one process, each with one confirmed message at a time; read back and compared afterwards."""
    count = min(_TOGETHER, settings.connections)
    with running_broker(settings, durable=True) as running:
        address = running.address()
        told = {"count": count, "size": settings.size, "seconds": settings.seconds, "warm_up_s": settings.warm_up_s}
        with Worker("send-together", address=address, waits=True, **told) as senders:
            senders.said()
            account, before = DiskAccount(running, address), running.usage()
            senders.go()
            sent = senders.said(settings.patience_s)
            used = running.usage().cpu_s - before.cpu_s
            factors = account.of(sent["sent"], sent["sent"] * settings.size)
        with Worker("take-singles", address=address, streams=1, messages=sent["sent"]) as taker:
            taken = last_said(taker, settings)
    return timed(
        {**sent, "damaged": sent["damaged"] + taken["damaged"]},
        settings.size,
        lost=sent["sent"] - taken["received"],
        cpu_us=used / sent["sent"] * 1e6,
        per_commit=factors["per_commit"],
    )


def _router_echo(settings: Settings) -> Sample:
    with Worker("serve-bare", kind="router", address=settings.endpoint(), binds=True) as server:
        return ask(settings, "ask-bare", server.said()["address"], kind="dealer")


def disk(settings: Settings, record_bytes: int, **told: bool) -> Sample:
    """pwrite and fdatasync, nothing else."""
    with Worker(
        "write-and-sync", folder=str(settings.folder), record_bytes=record_bytes, seconds=settings.seconds, **told
    ) as worker:
        return timed(worker.said(settings.patience_s), record_bytes)


def disk_4k(settings: Settings) -> Sample:
    """The least that is ever synced."""
    return disk(settings, 4 * KIB)


def _disk_64k(settings: Settings) -> Sample:
    return disk(settings, 64 * KIB)


def _disk_64k_new(settings: Settings) -> Sample:
    return disk(settings, 64 * KIB, grows=True)


_SIZED: Final = frozenset(("size", "transport"))
_FIXED: Final = frozenset(("transport",))
_PACED: Final = frozenset(("size", "transport", "rate"))
_DISK: Final[frozenset[str]] = frozenset()

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(name=name, group=group, label=label, api=api, body=body, run=run, honours=honours)
    for name, group, label, api, body, run, honours in (
        ("durable", "durable", "zbroker, on disk, 1 to 1", BULK, RAW, bulk, _SIZED),
        ("durable-1k", "durable", "zbroker, on disk, 1 to 1, 1 KiB", BULK, "raw, 1 KiB", _kib, _FIXED),
        ("disk-64k", "durable", "the disk: 64 KiB pwrite + fdatasync", "os.pwrite", "64 KiB", _disk_64k, _DISK),
        ("disk-64k-new", "durable", "the same into new files, as a log does", "os.pwrite", "64 KiB", _disk_64k_new, _DISK),
        ("confirm-one", "confirm", "zbroker, one confirmed message at a time", "Producer.send()", RAW, _confirm_one, _PACED),
        ("confirm-many", "confirm", "zbroker, 100 connections, each the same", "patterns.aio: Producer.send()", RAW, together, _SIZED),
        ("router-echo", "confirm", "bare DEALER - ROUTER round trip", SEND, RAW, _router_echo, _PACED),
        ("disk-4k", "confirm", "the disk: 4 KiB pwrite + fdatasync", "os.pwrite", "4 KiB", disk_4k, _DISK),
    )
)  # fmt: skip

BARS: Final = bars(
    ("durable", "rate", (), 1e6, True, "durable, confirmed and acked, messages/s"),
    ("durable-1k", "bytes_rate", ("disk-64k",), 0.6, True, "durable 1 KiB / the disk's 64 KiB records, bytes/s"),
    ("durable-1k", "bytes_rate", ("disk-64k-new",), 0.6, True, "durable 1 KiB / the same into new files, bytes/s"),
    ("durable-1k", "write_factor", (), 2.5, False, "durable 1 KiB, bytes written / bytes of bodies"),
    ("durable-1k", "space_factor", (), 2.0, False, "durable 1 KiB, bytes on disk / bytes of bodies kept"),
    ("confirm-one", "p50_us", ("router-echo", "disk-4k"), 1.8, False, "confirm p50 / (ROUTER round trip + fdatasync)"),
    ("confirm-many", "rate", (), 2e4, True, "100 connections, one confirmed message at a time each, messages/s"),
)
