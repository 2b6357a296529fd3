"""Many producers in one process, each message a batch and a commit's worth of its own; and consumers that take such messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final

import msgspec

from patterns.aio import Consumer, Producer
from zbroker.bench.ends.bodies import END, body_of, first_number, number_of
from zbroker.bench.ends.durable import GROUP, STREAM, TIMEOUT_S
from zbroker.bench.ends.starting import go
from zbroker.bench.ends.tally import said_of
from zbroker.bench.ends.window import START_MS
from zbroker.bench.figures import Histogram, steady_rate

Say = Callable[[dict[str, Any]], None]
_AT_ONCE: Final = 50  # that connect at the same time: their arrival is not what is measured
_TELL_S: Final = 0.5  # between two words on how far it is
_CREDIT: Final = 4_096  # of each stream: what is on its way to a slow consumer is memory of the broker, and no backlog
_POINTS_EVERY: Final = 256  # messages


def stream_of(number: int, streams: int) -> str:
    """Which stream a producer or consumer has."""
    return f"{STREAM}-{number % streams}"


class Sends(msgspec.Struct, frozen=True, kw_only=True):
    """What the producers are to do.

    Attributes:
        count: of producers, each with a connection of its own.
        first: the number of the first: bodies carry it.
        streams: of which each producer has one.
        size: of a body, bytes.
        seconds: how long, unless `messages` says how many.
        messages: of all producers together; None: as many as fit into the time.
        under_way: sends of each producer that wait for their confirms at the same time, each a batch of its own.
        rate: of all together, a second; None: each sends when one of its last is confirmed.
        warm_up_s: what is not measured at the beginning.
        waits: until it is told to begin.
    """

    count: int
    size: int
    seconds: float
    first: int = 0
    streams: int = 1
    messages: int | None = None
    under_way: int = 1
    rate: float | None = None
    warm_up_s: float = 0.0
    waits: bool = False


def send_together(say: Say, *, address: str, **told: Any) -> None:
    """Producers of patterns.aio, each of one task or several that await send() after send()."""
    asyncio.run(_Senders(msgspec.convert(told, Sends)).run(say, address))


class _Senders:
    """The tasks, and what they have in common."""

    def __init__(self, sends: Sends) -> None:
        self._sends = sends
        self._clock = time.perf_counter_ns
        self._counts: dict[int, int] = {}
        self._places: dict[str, bytearray] = {}  # of each stream, a byte for each offset that was confirmed
        self._twice = 0  # two confirms of one place: one of the messages is not there
        self._left = -1 if sends.messages is None else sends.messages
        self._confirmed = self._sum = 0

    async def run(self, say: Say, address: str) -> None:
        sends, clock = self._sends, self._clock
        async with AsyncExitStack() as stack:
            numbers = range(sends.first, sends.first + sends.count)
            streams = [stream_of(number, sends.streams) for number in numbers]
            made = [Producer(address, stream, codec="raw", timeout_s=TIMEOUT_S) for stream in streams]
            for producer in made:
                await stack.enter_async_context(producer)
            for at in range(0, sends.count, _AT_ONCE):  # sessions stand, streams are made
                await asyncio.gather(*(producer.send(END) for producer in made[at : at + _AT_ONCE]))
            if sends.waits:
                say({"ready": True})
                await asyncio.to_thread(go.wait)
            begin = clock()
            telling = asyncio.ensure_future(self._tell(say)) if sends.messages is not None else None
            each = zip(made, numbers, streams, (count() for _ in numbers), strict=True)
            await asyncio.gather(*(self._one(*one, begin) for one in each for _ in range(sends.under_way)))
            elapsed_s = (clock() - begin) / 1e9
            if telling is not None:
                telling.cancel()
            say(self._account(elapsed_s))
            if sends.waits:
                await asyncio.Event().wait()  # leaving would be work of the broker that no message caused

    def _account(self, elapsed_s: float) -> dict[str, Any]:
        sends, found = self._sends, Histogram(self._counts)
        rate = self._confirmed / elapsed_s
        if sends.rate is None and sends.messages is None:
            rate = found.total / (elapsed_s - sends.warm_up_s)
        return {
            "sent": self._confirmed,
            "received": self._confirmed,
            "damaged": self._twice,
            "sum": self._sum,
            "rate": rate,
            "confirmed_rate": rate,
            **said_of(found),
        }

    async def _tell(self, say: Say) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            say({"done": self._confirmed})

    async def _one(self, producer: Producer, number: int, stream: str, turns: Iterator[int], begin: int) -> None:
        """A task of one producer, whose tasks take turns. At a fixed rate a message counts from its intended time."""
        sends, clock = self._sends, self._clock
        warm, until = begin + int(sends.warm_up_s * 1e9), begin + int(sends.seconds * 1e9)
        warm = begin if sends.messages is not None else warm
        each_ns = 1e9 * sends.count / sends.rate if sends.rate else 0.0
        end = clock()
        for done in turns:
            meant = begin + int((number - sends.first + sends.count * done) * each_ns / sends.count)
            if each_ns and meant > end:
                await asyncio.sleep((meant - end) / 1e9)
            if not self._left or (self._left < 0 and max(end, meant if each_ns else 0) >= until):
                return
            self._left -= self._left > 0
            at = meant if each_ns else end
            index = first_number(number) + done
            receipt = await producer.send(body_of(index, sends.size))
            end = clock()
            assert receipt.offset is not None, "of a producer without a journal of its own"
            self._confirm(stream, receipt.offset, index)
            if at >= warm or end >= until:
                micros = (end - at) // 1_000
                self._counts[micros] = self._counts.get(micros, 0) + 1

    def _confirm(self, stream: str, offset: int, index: int) -> None:
        self._confirmed += 1
        self._sum += index
        places = self._places.setdefault(stream, bytearray())
        if offset >= len(places):
            places.extend(bytes(offset + 1 - len(places)))
        self._twice += places[offset]
        places[offset] = 1


def take_singles(say: Say, *, address: str, **told: Any) -> None:
    """Consumers of patterns.aio, one a stream: every body compared with what its number says, and acked."""
    asyncio.run(_Takers(msgspec.convert(told, Takes)).run(say, address))


class Takes(msgspec.Struct, frozen=True, kw_only=True):
    """What the consumers are to do.

    Attributes:
        streams: how many, `first` and the following.
        messages: that are to come in all.
        every: of the messages it acks one in so many, and holds the others.
        warm_up_s: what a rate leaves out at the beginning.
        idle_s: silence of each stream that ends it too: what is missing is lost.
        stays: until the process ends, with what it holds.
    """

    streams: int
    messages: int
    first: int = 0
    every: int = 1
    warm_up_s: float = 0.0
    idle_s: float = START_MS / 1_000
    stays: bool = False


class _Takers:
    """The tasks, and what they have in common. Bodies are counted by their numbers' sum: each was sent once."""

    def __init__(self, takes: Takes) -> None:
        self._takes = takes
        self._points: list[tuple[int, int]] = []
        self._received = self._acked = self._damaged = self._ends = 0
        self._sum = self._acked_sum = 0
        self._last = 0.0

    async def run(self, say: Say, address: str) -> None:
        takes = self._takes
        async with AsyncExitStack() as stack:
            consumers = []
            for number in range(takes.first, takes.first + takes.streams):
                consumer = Consumer(
                    address, f"{STREAM}-{number}", group=GROUP, credit=_CREDIT, codec="raw", idle_timeout_s=takes.idle_s
                )
                consumers.append(await stack.enter_async_context(consumer))
            for consumer in consumers:
                await consumer.ready(timeout_s=TIMEOUT_S)
            say({"ready": True})
            self._last = time.monotonic()
            telling = asyncio.ensure_future(self._tell(say))
            tasks = [asyncio.ensure_future(self._take(consumer)) for consumer in consumers]
            await self._end(tasks)
            telling.cancel()
            say(self._account())
            if takes.stays:
                await asyncio.Event().wait()

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until everything is here, or all are silent."""
        pending: set[asyncio.Task[None]] = set(tasks)
        while pending and self._received < self._takes.messages:
            done, pending = await asyncio.wait(pending, timeout=0.02)
            for task in done:
                task.result()
        for task in pending:
            task.cancel()

    def _account(self) -> dict[str, Any]:
        self._points.append((time.monotonic_ns(), self._received))
        return {
            "received": self._received,
            "acked": self._acked,
            "ends": self._ends,
            "damaged": self._damaged,
            "sum": self._sum,
            "acked_sum": self._acked_sum,
            "rate": steady_rate(self._points, int(self._takes.warm_up_s * 1e9)),
        }

    async def _tell(self, say: Say) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            say({"done": self._received})

    async def _take(self, consumer: Consumer) -> None:
        async for batch in consumer.batches():
            if not self._points:
                self._points.append((time.monotonic_ns(), 0))
            bodies = [body for body in batch.bodies if body != END]
            self._ends += len(batch) - len(bodies)
            numbers = [number_of(body) for body in bodies]
            self._damaged += numbers.count(0)
            before, self._received = self._received, self._received + len(bodies)
            self._sum += sum(numbers)
            if not bodies or batch.offsets[0] % self._takes.every == 0:  # single messages, where some are held
                batch.ack()
                self._acked += len(bodies)
                self._acked_sum += sum(numbers)
            if before // _POINTS_EVERY != self._received // _POINTS_EVERY:
                self._points.append((time.monotonic_ns(), self._received))
