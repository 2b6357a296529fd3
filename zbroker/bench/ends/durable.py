"""Streams on disk: Producers and Consumers, each in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import msgspec

from patterns import aio
from patterns.roles.lending import Batch
from patterns.sync import Consumer, Producer
from zbroker.bench.ends.asking import Asking
from zbroker.bench.ends.bodies import DISTINCT, END, differing_bytes, differing_records, pool_of
from zbroker.bench.ends.feed import FixedRate, StampedFullSpeed, parts_of
from zbroker.bench.ends.starting import go
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
_HELD_OF: Final = 3  # one message in so many is held: of a half, segments would be at the edge of being compacted


def produce(
    say: Say,
    *,
    address: str,
    codec: str,
    body: str,
    size: int,
    seconds: float,
    api: str = "sync",
    most: int | None = None,
) -> None:
    """One send_many() over a generator: pipelined, it returns when all is confirmed as on disk. `most`: messages."""
    pool, end, _ = pool_of(body, size)
    bodies = _until(pool, seconds, most)
    if api == "aio":
        asyncio.run(_produce_awaited(say, address, codec, end, bodies))
        return
    with Producer(address, STREAM, codec=codec, timeout_s=TIMEOUT_S) as producer:
        producer.send(end)  # the session stands, the stream is made
        begin = time.monotonic_ns()
        receipts = producer.send_many(bodies())
        done = time.monotonic_ns()
        producer.send(end)
        say(_sent(len(receipts), begin, done))


def _until(pool: list[Any], seconds: float, most: int | None) -> Callable[[], Iterator[Any]]:
    parts = parts_of(pool, _PART)

    def bodies() -> Iterator[Any]:
        until = time.monotonic_ns() + int(seconds * 1e9)
        while True:
            for part in parts:
                yield from part
                if time.monotonic_ns() >= until:
                    return

    return bodies if most is None else lambda: islice(bodies(), most)


async def _produce_awaited(say: Say, address: str, codec: str, end: Any, bodies: Callable[[], Iterator[Any]]) -> None:
    async with aio.Producer(address, STREAM, codec=codec, timeout_s=TIMEOUT_S) as producer:
        await producer.send(end)
        begin = time.monotonic_ns()
        receipts = await producer.send_many(bodies())
        done = time.monotonic_ns()
        await producer.send(end)
        say(_sent(len(receipts), begin, done))


def _sent(count: int, begin: int, end: int) -> dict[str, Any]:
    return {"sent": count, "confirmed_rate": count * 1e9 / (end - begin), "span": [begin, end]}


def consume(
    say: Say, *, address: str, codec: str, body: str, size: int, warm_up_s: float, held: int = 0, api: str = "sync"
) -> None:
    """Consumer.batches(), each acked whole after all its bodies were compared.

    Args:
        held: messages that it does not ack: the last third of each batch, until it has so many.
    """
    taking = _Taking(body, size, warm_up_s, held)
    if api == "aio":
        asyncio.run(_consume_awaited(say, address, codec, taking))
    else:
        with Consumer(
            address, STREAM, group=GROUP, credit=CREDIT, codec=codec, idle_timeout_s=TIMEOUT_S
        ) as consumer:  # fmt: skip
            consumer.ready(timeout_s=TIMEOUT_S)
            say({"ready": True})
            for batch in consumer.batches():
                if taking.is_last(batch):
                    break
    say(taking.said())


async def _consume_awaited(say: Say, address: str, codec: str, taking: _Taking) -> None:
    async with aio.Consumer(
        address, STREAM, group=GROUP, credit=CREDIT, codec=codec, idle_timeout_s=TIMEOUT_S
    ) as consumer:  # fmt: skip
        await consumer.ready(timeout_s=TIMEOUT_S)
        say({"ready": True})
        async for batch in consumer.batches():
            if taking.is_last(batch):
                break


class _Taking:
    """The account of a consumer: an end, bodies of the pool over and over, an end."""

    def __init__(self, body: str, size: int, warm_up_s: float, held: int) -> None:
        self._pool, self._end, self._wire_size = pool_of(body, size)
        # a batch may begin anywhere in the pool
        self._twice = self._pool * (1 + -(-DISTINCT // len(self._pool)))
        self._differing = differing_records if body == "dict" else differing_bytes
        self._warm_up_ns = int(warm_up_s * 1e9)
        self._to_hold = held
        self._points: list[tuple[int, int]] = []
        self._received = self._damaged = self._batches = self._ends = 0

    def is_last(self, batch: Batch) -> bool:
        """Compare and ack it; whether it was the end."""
        bodies = batch.bodies
        if len(bodies) == 1 and bodies[0] == self._end:
            batch.ack()
            self._ends += 1
            if self._ends == 1:
                self._points.append((time.monotonic_ns(), 0))
            return self._ends == 2
        at = self._received % len(self._pool)
        self._damaged += self._differing(bodies, self._twice[at : at + len(bodies)])
        self._settle(batch)
        self._received += len(bodies)
        self._batches += 1
        self._points.append((time.monotonic_ns(), self._received))
        return False

    def _settle(self, batch: Batch) -> None:
        """Ack all of it, or what is not to be held."""
        held = min(len(batch) // _HELD_OF, self._to_hold)
        self._to_hold -= held
        batch.ack(upto=len(batch) - held if held else None)

    def said(self) -> dict[str, Any]:
        rate = steady_rate(self._points, self._warm_up_ns)
        return {
            "received": self._received,
            "damaged": self._damaged,
            "rate": rate,
            "bytes_rate": rate * self._wire_size,
            "per_batch": self._received / max(1, self._batches),
            "body_bytes": self._received * self._wire_size,
        }


def send_each(say: Say, *, address: str, stream: str = STREAM, waits: bool = False, **told: Any) -> None:
    """Producer.send() for each: it returns when the message is on disk; with `waits`, it begins when it is told to."""
    with Producer(address, stream, codec="raw", timeout_s=TIMEOUT_S) as producer:
        offset = producer.send(END).offset or 0  # None only where a producer has a journal of its own

        def send(body: bytes) -> bytes | None:
            nonlocal offset
            offset += 1
            return body if producer.send(body).offset == offset else None

        if waits:
            say({"ready": True})
            go.wait()
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
