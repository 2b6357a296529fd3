"""Delayed messages: a Producer that posts them, each due at another instant, and a Consumer that sees how late each comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from patterns.sync import Consumer, Producer
from zbroker.bench.ends.bodies import STAMP, filling
from zbroker.bench.ends.durable import CREDIT, GROUP, STREAM, TIMEOUT_S
from zbroker.bench.ends.tally import said_of
from zbroker.bench.figures import Histogram

Say = Callable[[dict[str, Any]], None]
_LAST_S: Final = 600.0  # for the last confirm
_MICROSECOND: Final = timedelta(microseconds=1)
_EARLY_MAX: Final = 1_000  # us: two clocks of one machine, read to the millisecond
_SEED: Final = 7  # the same delays in each run


def post_delayed(say: Say, *, address: str, size: int, count: int, wait_s: float, spread_s: float) -> None:
    """So many messages, due at instants of their own in a span that begins `wait_s` from now; each says how long it is to wait."""
    chance, tail = Random(_SEED), filling(size)
    with Producer(address, STREAM, codec="raw", timeout_s=_LAST_S) as producer:
        begin = time.monotonic_ns()
        first = begin + int(wait_s * 1e9)
        for number in range(count):
            due = first + int(chance.random() * spread_s * 1e9)
            delay_ms = max(0, due - time.monotonic_ns()) // 1_000_000
            producer.post(STAMP.pack(delay_ms, number) + tail, delay_s=delay_ms / 1_000)
        producer.flush(_LAST_S)
        done = time.monotonic_ns()
        say({"sent": count, "rate": count * 1e9 / (done - begin), "late": done > first})


def take_delayed(say: Say, *, address: str, count: int, idle_s: float) -> None:
    """Deliveries until all are here: how much longer each waited than it was to; early ones, and those that come twice, are damage."""
    late: dict[int, int] = {}
    seen = bytearray(count)
    damaged = received = 0
    with Consumer(address, STREAM, group=GROUP, credit=CREDIT, codec="raw", idle_timeout_s=idle_s) as consumer:
        consumer.ready(timeout_s=TIMEOUT_S)
        say({"ready": True})
        for batch in consumer.batches():
            waited = (
                datetime.now(UTC) - batch.published_at
            ) // _MICROSECOND  # by the clock of a broker on this machine
            for body in batch.bodies:
                delay_ms, number = STAMP.unpack_from(body)
                micros = waited - delay_ms * 1_000
                damaged += seen[number] or micros < -_EARLY_MAX
                seen[number] = 1
                late[max(0, micros)] = late.get(max(0, micros), 0) + 1
            batch.ack()
            received += len(batch)
            if received >= count:
                break
    say({"received": sum(seen), "damaged": damaged, **said_of(Histogram(late))})
