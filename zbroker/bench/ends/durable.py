"""Streams on disk: Producers and Consumers, each in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from patterns.sync import Consumer, Producer
from zbroker.bench.ends.asking import Asking
from zbroker.bench.ends.bodies import DISTINCT, END, differing_bytes, differing_records, pool_of
from zbroker.bench.ends.feed import FixedRate, StampedFullSpeed, parts_of
from zbroker.bench.ends.tally import Expected, LatencyTally, said_of, tally_of
from zbroker.bench.ends.window import window_of
from zbroker.bench.figures import Histogram, steady_rate

Say = Callable[[dict[str, Any]], None]
STREAM: Final = "bench"
GROUP: Final = "bench"
CREDIT: Final = 65_536  # about 100 batches of 64 KiB at 100 B: the consumer never waits for its own word
TIMEOUT_S: Final = 10.0
_LAST_S: Final = 60.0  # for the last confirm: a slow disk still has to write what was posted at full speed
_PART: Final = 1_024


def produce(say: Say, *, address: str, codec: str, body: str, size: int, seconds: float) -> None:
    """One send_many() over a generator: pipelined, it returns when all is confirmed as on disk."""
    pool, end, _ = pool_of(body, size)
    parts = parts_of(pool, _PART)

    def bodies() -> Iterator[Any]:
        until = time.monotonic_ns() + int(seconds * 1e9)
        while True:
            for part in parts:
                yield from part
                if time.monotonic_ns() >= until:
                    return

    with Producer(address, STREAM, codec=codec, timeout_s=TIMEOUT_S) as producer:
        producer.send(end)  # the session stands, the stream is made
        begin = time.monotonic_ns()
        receipts = producer.send_many(bodies())
        elapsed = time.monotonic_ns() - begin
        producer.send(end)
        say({"sent": len(receipts), "confirmed_rate": len(receipts) * 1e9 / elapsed})


def consume(say: Say, *, address: str, codec: str, body: str, size: int, warm_up_s: float) -> None:
    """Consumer.batches(), each acked whole after all its bodies were compared."""
    pool, end, wire_size = pool_of(body, size)
    twice = pool * (1 + -(-DISTINCT // len(pool)))  # a batch may begin anywhere in the pool
    differing = differing_records if body == "dict" else differing_bytes
    points: list[tuple[int, int]] = []
    received = damaged = batches = ends = 0
    with Consumer(
        address, STREAM, group=GROUP, credit=CREDIT, codec=codec, idle_timeout_s=TIMEOUT_S
    ) as consumer:  # fmt: skip
        consumer.ready(timeout_s=TIMEOUT_S)
        say({"ready": True})
        for batch in consumer.batches():
            bodies = batch.bodies
            if len(bodies) == 1 and bodies[0] == end:
                batch.ack()
                ends += 1
                if ends == 2:
                    break
                points.append((time.monotonic_ns(), 0))
                continue
            at = received % len(pool)
            damaged += differing(bodies, twice[at : at + len(bodies)])
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
            "bytes_rate": rate * wire_size,
            "per_batch": received / max(1, batches),
        }
    )


def send_each(say: Say, *, address: str, **told: Any) -> None:
    """Producer.send() for each: it returns when the message is on disk."""
    with Producer(address, STREAM, codec="raw", timeout_s=TIMEOUT_S) as producer:
        offset = producer.send(END).offset

        def send(body: bytes) -> bytes | None:
            nonlocal offset
            offset += 1
            return body if producer.send(body).offset == offset else None

        say(msgspec.convert(told, Asking).each(send))


def post_paced(say: Say, *, address: str, size: int, seconds: float, warm_up_s: float, rate: float | None) -> None:
    """Producer.post() at a fixed rate, or as fast as there is room: how long after its intended time each message is confirmed as on disk.

    Confirms come in order, so what is due in one tick is timed by its last message: no better than each one's own.
    """
    counts: dict[int, int] = {}
    clock = time.monotonic_ns
    with Producer(address, STREAM, codec="raw", timeout_s=TIMEOUT_S) as producer:
        producer.send(END)  # the session stands, the stream is made
        every = window_of(size)[1]
        feed = FixedRate(rate, size, None, seconds) if rate else StampedFullSpeed(size, every, None, seconds)
        begin = clock()
        warm = begin + int(warm_up_s * 1e9)

        def confirmed(intended: int, count: int) -> Callable[[Any], None]:
            def note(_posted: Any) -> None:
                micros = (clock() - intended) // 1_000
                counts[micros] = counts.get(micros, 0) + count

            return note

        posted = producer.post(END)
        while (part := feed.next()) is not None:
            for body in part:
                posted = producer.post(body)
            if feed.intended >= warm:
                posted.add_done_callback(confirmed(feed.intended, len(part)))
            feed.wait()
        posted.result(_LAST_S)  # raises if one was refused; confirms come in order
        elapsed = clock() - begin
    say({"received": feed.sent, "rate": feed.sent * 1e9 / elapsed, **said_of(Histogram(counts))})


def post_steadily(say: Say, *, address: str, size: int, seconds: float, rate: float) -> None:
    """Producer.post() at a fixed rate, each body stamped with its intended time; the consumers measure."""
    with Producer(address, STREAM, codec="raw", timeout_s=TIMEOUT_S) as producer:
        feed = FixedRate(rate, size, None, seconds)
        while (part := feed.next()) is not None:
            for body in part:
                producer.post(body)
            feed.wait()
        producer.post(END)
        producer.flush(_LAST_S)
        say({"sent": feed.sent})


def take_paced(say: Say, *, address: str, group: str, **told: Any) -> None:
    """Deliveries of stamped bodies to a group: how long after the intended time each is here; acked one by one."""
    tally = tally_of(msgspec.convert(told, Expected))
    assert isinstance(tally, LatencyTally)
    with Consumer(address, STREAM, group=group, credit=CREDIT, codec="raw", idle_timeout_s=TIMEOUT_S) as consumer:
        consumer.ready(timeout_s=TIMEOUT_S)
        say({"ready": True})
        for batch in consumer.batches():
            ended = [tally.note(body) for body in batch.bodies]
            batch.ack()
            if ended[-1]:
                break
    say(tally.said())
    tally.close()


def stop_taking(say: Say, *, address: str, group: str) -> None:
    """A Consumer that takes one batch and never acks or takes again. Runs until the process ends."""
    with Consumer(address, STREAM, group=group, credit=CREDIT, codec="raw") as consumer:
        consumer.ready(timeout_s=TIMEOUT_S)
        say({"ready": True})
        for _ in consumer.batches():
            time.sleep(86_400)
