"""Streams on disk: a Producer and a Consumer at the same time, each in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from patterns.sync import Consumer, Producer
from zbroker.bench.bodies import DISTINCT, END, raw_bodies
from zbroker.bench.figures import steady_rate
from zbroker.bench.live import differing_bytes
from zbroker.bench.requests import latency

Say = Callable[[dict[str, Any]], None]
STREAM: Final = "bench"
GROUP: Final = "bench"
CREDIT: Final = 65_536  # about 100 batches of 64 KiB at 100 B: the consumer never waits for its own word
_TIMEOUT_S: Final = 10.0
_PART: Final = 1_024


def produce(say: Say, *, address: str, size: int, seconds: float) -> None:
    """One send_many() over a generator: pipelined, it returns when all is confirmed as on disk."""
    pool = raw_bodies(size)
    parts = [pool[at : at + _PART] for at in range(0, len(pool), _PART)]

    def bodies() -> Iterator[bytes]:
        until = time.monotonic_ns() + int(seconds * 1e9)
        while True:
            for part in parts:
                yield from part
                if time.monotonic_ns() >= until:
                    return

    with Producer(address, STREAM, codec="raw", timeout_s=_TIMEOUT_S) as producer:
        producer.send(END)  # the session stands, the stream is made
        begin = time.monotonic_ns()
        receipts = producer.send_many(bodies())
        elapsed = time.monotonic_ns() - begin
        producer.send(END)
        say({"sent": len(receipts), "confirmed_rate": len(receipts) * 1e9 / elapsed})


def consume(say: Say, *, address: str, size: int, warm_up_s: float) -> None:
    """Consumer.batches(), each acked whole after all its bodies were compared."""
    pool = raw_bodies(size)
    twice = pool * (1 + -(-DISTINCT // len(pool)))  # a batch may begin anywhere in the pool
    points: list[tuple[int, int]] = []
    received = damaged = batches = ends = 0
    with Consumer(
        address, STREAM, group=GROUP, credit=CREDIT, codec="raw", idle_timeout_s=_TIMEOUT_S
    ) as consumer:  # fmt: skip
        consumer.ready(timeout_s=_TIMEOUT_S)
        say({"ready": True})
        for batch in consumer.batches():
            bodies = batch.bodies
            if len(bodies) == 1 and bodies[0] == END:
                batch.ack()
                ends += 1
                if ends == 2:
                    break
                points.append((time.monotonic_ns(), 0))
                continue
            at = received % len(pool)
            damaged += differing_bytes(bodies, twice[at : at + len(bodies)])
            batch.ack()
            received += len(bodies)
            batches += 1
            points.append((time.monotonic_ns(), received))
    rate = steady_rate(points, int(warm_up_s * 1e9))
    say(
        {
            "received": received,
            "damaged": damaged,
            "rate": rate,
            "bytes_rate": rate * size,
            "per_batch": received / max(1, batches),
        }
    )


def send_each(say: Say, *, address: str, size: int, seconds: float, warm_up_s: float) -> None:
    """Producer.send() for each: it returns when the message is on disk."""
    pool = raw_bodies(size)
    clock = time.perf_counter_ns
    times: list[int] = []
    sent = wrong = 0
    with Producer(address, STREAM, codec="raw", timeout_s=_TIMEOUT_S) as producer:
        producer.send(END)
        warm = clock() + int(warm_up_s * 1e9)
        until = clock() + int(seconds * 1e9)
        end = clock()
        while end < until or not times:
            body = pool[sent % len(pool)]
            begin = clock()
            receipt = producer.send(body)
            end = clock()
            sent += 1
            wrong += receipt.offset != sent
            if begin >= warm:
                times.append(end - begin)
    say(latency(times, sent, wrong))
