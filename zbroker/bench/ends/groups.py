"""Many groups of one stream in one process, each with a consumer of its own: every body is compared and acked, by every group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from patterns.aio import Consumer
from zbroker.bench.ends.bodies import END, number_of
from zbroker.bench.ends.durable import GROUP, TIMEOUT_S
from zbroker.bench.ends.singles import stream_of
from zbroker.bench.ends.starting import go

Say = Callable[[dict[str, Any]], None]
_AT_ONCE: Final = 50  # that connect at the same time: their arrival is not what is measured
_SILENCE_S: Final = 2.0  # after everything was sent: what is missing then is lost
_LOOK_S: Final = 0.05


def take_groups(say: Say, *, address: str, count: int, first: int = 0, stream: str = "") -> None:
    """Groups `first` and the following; they take until they are told that all was sent, and then until nothing comes."""
    asyncio.run(_Groups(stream or stream_of(0, 1), first, count).run(say, address))


class _Groups:
    """The tasks, and what they have in common."""

    def __init__(self, stream: str, first: int, count: int) -> None:
        self._stream = stream
        self._numbers = range(first, first + count)
        self._received = self._damaged = self._batches = 0
        self._last = 0.0

    async def run(self, say: Say, address: str) -> None:
        async with AsyncExitStack() as stack:
            made = [Consumer(address, self._stream, group=f"{GROUP}-{number}", codec="raw") for number in self._numbers]
            for consumer in made:
                await stack.enter_async_context(consumer)
            for at in range(0, len(made), _AT_ONCE):
                await asyncio.gather(*(consumer.ready(timeout_s=TIMEOUT_S) for consumer in made[at : at + _AT_ONCE]))
            tasks = [asyncio.ensure_future(self._take(consumer)) for consumer in made]
            say({"ready": True})
            await asyncio.to_thread(go.wait)
            self._last = time.monotonic()
            while time.monotonic() - self._last < _SILENCE_S:
                await asyncio.sleep(_LOOK_S)
            say({"received": self._received, "damaged": self._damaged, "batches": self._batches})
            for task in tasks:
                task.cancel()
            await asyncio.Event().wait()  # leaving would be work of the broker that no message caused

    async def _take(self, consumer: Consumer) -> None:
        async for batch in consumer.batches():
            bodies = [body for body in batch.bodies if body != END]
            self._damaged += [number_of(body) for body in bodies].count(0)
            self._received += len(bodies)
            self._batches += bool(bodies)
            batch.ack()
            self._last = time.monotonic()
