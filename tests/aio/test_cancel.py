"""Cancelling any await loses nothing: each call is cancelled at its first await, its second, and so on, early and late."""

from __future__ import annotations

import asyncio

import pytest

from patterns.aio import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import Closed, ReplierLost
from tests.aio.loops import IDLE_S, attempts, in_a_loop, serving
from tests.processes import Broker
from tests.sockets.places import Place


async def _stored(broker: Broker, stream: str, count: int) -> list[object]:
    async with Consumer(broker.url, stream, idle_timeout_s=IDLE_S) as reader:
        return [(await reader.receive(IDLE_S)).body for _ in range(count)]


@in_a_loop
async def test_receive_of_a_consumer(broker: Broker) -> None:
    for attempt in attempts():
        async with Consumer(broker.url, attempt.name, group="g") as consumer, Producer(broker.url, attempt.name) as out:
            receiving = asyncio.create_task(attempt(consumer.receive(IDLE_S)))
            await attempt.waits.wait()
            await out.send_many(range(10))
            found = [await receiving]
            while len([one for one in found if one]) < 10:
                found.append(await consumer.receive(IDLE_S))
            assert [(d.body, d.attempt) for d in found if d] == [(number, 1) for number in range(10)]


@in_a_loop
async def test_an_iterator_of_a_consumer_goes_on(broker: Broker) -> None:
    for attempt in attempts():
        async with Consumer(broker.url, attempt.name, group="g") as consumer, Producer(broker.url, attempt.name) as out:
            messages = aiter(consumer)
            receiving = asyncio.create_task(attempt(anext(messages)))
            await attempt.waits.wait()
            await out.send_many(range(10))
            found = [await receiving]
            while len([one for one in found if one]) < 10:
                found.append(await anext(messages))
            assert [d.body for d in found if d] == list(range(10))


@in_a_loop
async def test_receive_of_a_subscriber(place: Place) -> None:
    async with Publisher(place.bind) as publisher:
        for attempt in attempts():
            async with Subscriber(place.of(publisher), f"{attempt.name}.>") as subscriber:
                await subscriber.ready()
                receiving = asyncio.create_task(attempt(subscriber.receive(IDLE_S)))
                await attempt.waits.wait()
                for number in range(10):
                    await publisher.publish(f"{attempt.name}.x", number)
                found = [await receiving]
                while len([one for one in found if one]) < 10:
                    found.append(await subscriber.receive(IDLE_S))
                assert [message.body for message in found if message] == list(range(10))
                assert (subscriber.lost, subscriber.interruptions) == (0, 0)


@in_a_loop
async def test_publish_and_flush(place: Place) -> None:
    for attempt in attempts():
        async with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), ">") as subscriber:
            await subscriber.ready()

            taken: list[int] = []

            async def publish(publisher: Publisher = publisher, taken: list[int] = taken) -> None:
                for number in range(3_000):
                    await publisher.publish("n.x", number)
                    taken.append(number)
                await publisher.flush()

            await attempt(publish())
            await publisher.publish("n.x", "end")
            assert [(await subscriber.receive(IDLE_S)).body for _ in [*taken, "end"]] == [*taken, "end"]


@in_a_loop
async def test_send_stores_once(broker: Broker) -> None:
    for attempt in attempts():
        async with Producer(broker.url, attempt.name) as out:
            await attempt(out.send(0))
            assert (await out.send(1)).offset == 1
            assert await _stored(broker, attempt.name, 2) == [0, 1]


@in_a_loop
async def test_send_many_stores_a_beginning_without_gaps(broker: Broker) -> None:
    for attempt in attempts():
        async with Producer(broker.url, attempt.name) as out:
            receipts = await attempt(out.send_many(range(2_000)))
            end = (await out.send("end")).offset
            assert await _stored(broker, attempt.name, end + 1) == [*range(end), "end"]
            assert receipts is None or end == 2_000


@in_a_loop
async def test_posted_messages_and_room(broker: Broker) -> None:
    for attempt in attempts():
        async with Producer(broker.url, attempt.name) as out:
            posted = [out.post(number) for number in range(100)]

            async def wait(out: Producer = out, posted: list = posted) -> None:
                await out.room()
                await posted[0]
                await out.flush()

            await attempt(wait())
            assert [(await one).offset for one in posted] == list(range(100))


@in_a_loop
async def test_a_request(place: Place) -> None:
    async with serving(place.bind, "echo", lambda body: body) as replier, Requester(place.of(replier)) as asker:
        for attempt in attempts():
            assert await attempt(asker.request("echo", attempt.name)) in (None, attempt.name)
            assert await asker.request("echo", "next") == "next"
            assert not asker._outcomes


@in_a_loop
async def test_a_repliers_next_request(place: Place) -> None:
    for attempt in attempts():
        async with Replier(place.bind, "slow") as replier, Requester(place.of(replier)) as asker:
            await replier.ready()
            receiving = asyncio.create_task(attempt(replier.receive(IDLE_S)))
            await attempt.waits.wait()
            asking = asyncio.create_task(asker.request("slow", 1, timeout_s=IDLE_S))
            request = await receiving or await replier.receive(IDLE_S)
            request.reply("here")
            assert await asking == "here"


@in_a_loop
async def test_a_handler_that_is_cancelled_says_so(place: Place) -> None:
    for concurrency in (1, 4):
        began = asyncio.Event()

        async def handler(body: object, began: asyncio.Event = began) -> None:
            began.set()
            await asyncio.Event().wait()

        async with Replier(place.bind, "slow", handler, concurrency=concurrency) as replier:
            await replier.ready()
            serving = asyncio.create_task(replier.serve_forever())
            async with Requester(place.of(replier)) as asker:
                asking = asyncio.create_task(asker.request("slow", 1, timeout_s=IDLE_S))
                await began.wait()
                serving.cancel()
                with pytest.raises(ReplierLost):
                    await asking


@in_a_loop
async def test_an_ack_with_confirm_is_told_nevertheless(broker: Broker) -> None:
    for attempt in attempts():
        async with Producer(broker.url, attempt.name) as out, Consumer(broker.url, attempt.name, group="g") as consumer:
            await out.send(0)
            d = await consumer.receive(IDLE_S)
            await attempt(d.ack(confirm=True))
            await out.send(1)
            assert (await consumer.receive(IDLE_S)).body == 1
            assert not consumer._confirms
        async with Consumer(broker.url, attempt.name, group="g") as other:
            assert (await other.receive(IDLE_S)).body == 1


@in_a_loop
async def test_ready(place: Place) -> None:
    for attempt in attempts():
        async with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), ">") as subscriber:
            await attempt(subscriber.ready())
            await subscriber.ready()
            await publisher.publish("n.x", 1)
            assert (await subscriber.receive(IDLE_S)).body == 1


@in_a_loop
async def test_close_lets_go_at_once(place: Place) -> None:
    for attempt in attempts():
        publisher = Publisher(place.bind)
        async with Subscriber(place.of(publisher), ">") as subscriber:
            await subscriber.ready()
            await publisher.publish("n.x", 1)
            await attempt(publisher.close())
            assert publisher.closed
            with pytest.raises(Closed):
                await publisher.flush()
