"""Many connections in few processes: clients of patterns.aio, which need no thread each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any, Final

from patterns.aio import Publisher, Subscriber
from zbroker.bench.ends.bodies import END, TOPIC
from zbroker.bench.ends.feed import FixedRate
from zbroker.bench.ends.starting import go
from zbroker.bench.ends.window import START_MS

Say = Callable[[dict[str, Any]], None]
_IDLE_PATTERN: Final = "idle.>"  # nobody publishes there
_AT_ONCE: Final = 50  # that connect at the same time: a crowd's arrival is not what is measured


def listen(say: Say, *, address: str, count: int) -> None:
    """So many Subscribers to what nobody publishes. Runs until the process ends."""
    asyncio.run(_listen(say, address, count))


async def _listen(say: Say, address: str, count: int) -> None:
    async with AsyncExitStack() as stack:
        for first in range(0, count, _AT_ONCE):
            made = [Subscriber(address, _IDLE_PATTERN) for _ in range(first, min(count, first + _AT_ONCE))]
            for subscriber in made:
                await stack.enter_async_context(subscriber)
            await asyncio.gather(*(subscriber.ready(START_MS / 1_000) for subscriber in made))
        say({"ready": True})
        await asyncio.Event().wait()


def publish(say: Say, *, address: str, count: int, size: int, seconds: float, rate: float) -> None:
    """So many Publishers, by turns, at a fixed rate together: each message leaves by itself, whoever sends it.

    Otherwise one connection would send larger batches than a thousand do, and the row would show batching.
    """
    asyncio.run(_publish(say, address, count, size, seconds, rate))


async def _publish(say: Say, address: str, count: int, size: int, seconds: float, rate: float) -> None:
    async with AsyncExitStack() as stack:
        publishers = [await stack.enter_async_context(Publisher(address, codec="raw")) for _ in range(count)]
        for publisher in publishers:
            await publisher.wait_for_subscribers(1, START_MS / 1_000)
        say({"ready": True})
        await asyncio.to_thread(go.wait)
        begin = time.monotonic()
        feed = FixedRate(rate, size, None, seconds)
        turns = cycle(publishers)
        while (part := feed.next()) is not None:
            for body, publisher in zip(part, turns, strict=False):
                await publisher.publish(TOPIC, body)
                await publisher.flush()
            if (left := feed.left_s()) > 0:
                await asyncio.sleep(left)
        batches = sum(publisher.batches for publisher in publishers)
        say({"sent": feed.sent, "rate": feed.sent / (time.monotonic() - begin), "batches": batches})
        for publisher in publishers:
            await publisher.publish(TOPIC, END)
            await publisher.flush()
        await asyncio.Event().wait()  # leaving at once would be work of the broker that no message caused
