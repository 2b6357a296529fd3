"""A key, header or message id that cannot travel is refused at the call, and nobody else's message suffers."""

from __future__ import annotations

import pytest

from patterns.aio import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from tests.aio.loops import IDLE_S, in_a_loop
from tests.processes import Broker
from tests.sockets.places import Place
from tests.sockets.test_attributes import BAD, BAD_HEADERS


@in_a_loop
async def test_a_producer_refuses_one_message_and_stores_its_neighbours(broker: Broker) -> None:
    async with Producer(broker.url, "s") as producer:
        stored = []
        for more, error in BAD:
            stored.append(producer.post(len(stored)))
            with pytest.raises(error):
                producer.post("bad", **more)
            with pytest.raises(error):
                await producer.send("bad", **more)
            stored.append(producer.post(len(stored), headers={"a": "v" * 60_000}))
        assert [(await one.result(IDLE_S)).offset for one in stored] == list(range(len(stored)))
    async with Consumer(broker.url, "s") as consumer:
        for number in range(len(stored)):
            delivery = await consumer.receive(IDLE_S)
            assert delivery is not None
            assert delivery.body == number


@in_a_loop
async def test_a_publisher_refuses_one_message_and_publishes_its_neighbours(place: Place) -> None:
    async with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), "z.>") as subscriber:
        await subscriber.ready(IDLE_S)
        for number, (headers, error) in enumerate(BAD_HEADERS):
            await publisher.publish("z.a", number)
            with pytest.raises(error):
                await publisher.publish("z.b", "bad", headers)
        await publisher.publish("z.c", len(BAD_HEADERS))
        for number in range(len(BAD_HEADERS) + 1):
            message = await subscriber.receive(IDLE_S)
            assert message is not None
            assert message.body == number
        assert subscriber.lost == 0


@in_a_loop
async def test_a_requester_and_a_replier_refuse_what_cannot_travel(place: Place) -> None:
    async with Replier(place.bind, "s") as replier, Requester(place.of(replier)) as requester:
        await replier.ready(IDLE_S)
        for headers, error in BAD_HEADERS:
            with pytest.raises(error):
                await requester.request("s", 1, headers=headers)
        parts = requester.stream("s", 1, headers={"a": "b"}, part_timeout_s=IDLE_S)
        request = await replier.receive(IDLE_S)
        assert request is not None
        for headers, error in BAD_HEADERS:
            with pytest.raises(error):
                await request.send_part(1, headers)
            with pytest.raises(error):
                request.reply(1, headers)
        request.reply(2, {"a": "b"})
        assert [part async for part in parts] == [2]
