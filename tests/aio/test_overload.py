"""The awaited Publisher behind a broker that takes too slowly: who raises, or is cancelled, has not handed over its message."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from patterns.aio import Publisher
from patterns.wire.errors import Overloaded
from tests.aio.loops import in_a_loop
from tests.processes import until
from tests.sockets.stingy import StingyBroker

FILLER = "x" * 100_000


@pytest.fixture
def stingy() -> Iterator[StingyBroker]:
    with StingyBroker() as broker:
        yield broker


async def _fill(publisher: Publisher) -> list[object]:
    """Publish until there is no room; what was taken."""
    taken: list[object] = []
    with pytest.raises(Overloaded, match="not taken"):  # noqa: PT012  one of them has no room
        while True:
            await publisher.publish("n.x", [len(taken), FILLER])
            taken.append(len(taken))
    return taken


def _numbers(broker: StingyBroker, count: int) -> list[object]:
    until(lambda: len(broker.bodies) >= count)
    return [body[0] if isinstance(body, list) else body for body in broker.bodies]


@in_a_loop
async def test_a_publish_that_raises_has_not_taken_its_message(stingy: StingyBroker) -> None:
    async with Publisher(stingy.url, timeout_s=0.1) as publisher:
        taken = await _fill(publisher)
        for topic in ("n.x", "other"):
            with pytest.raises(Overloaded):
                await publisher.publish(topic, "refused")
        stingy.give()
        publisher._timeout_s = 30.0
        await publisher.publish("n.x", "waited")
        await publisher.flush(30)
        assert _numbers(stingy, len(taken) + 1) == [*taken, "waited"]


@in_a_loop
async def test_a_publish_that_is_cancelled_as_it_waits_has_not_taken_its_message(stingy: StingyBroker) -> None:
    async with Publisher(stingy.url, timeout_s=0.1) as publisher:
        taken = await _fill(publisher)
        publisher._timeout_s = 30.0
        waiting = [asyncio.create_task(publisher.publish("n.x", number)) for number in range(3)]
        while len(publisher._driver._waiters) < len(waiting):
            await asyncio.sleep(0)
        waiting[1].cancel()
        stingy.give()
        assert [type(found) for found in await asyncio.gather(*waiting, return_exceptions=True)] == [
            type(None), asyncio.CancelledError, type(None),
        ]  # fmt: skip
        await publisher.flush(30)
        came = _numbers(stingy, len(taken) + 2)
        assert came[: len(taken)] == taken
        assert sorted(came[len(taken) :]) == [0, 2]
