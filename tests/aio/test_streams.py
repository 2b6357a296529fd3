"""Publisher, Subscriber, Producer and Consumer under asyncio: exact loss, receipts, acks, and who is slow pushes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patterns.aio import Consumer, Producer, Publisher, Requester, SendManyError, Subscriber
from patterns.wire.errors import (
    BadBody,
    BufferFull,
    Closed,
    LocalProtocolError,
    OutcomeUnknown,
    Overloaded,
    StaleLease,
    Unavailable,
)
from tests.aio.loops import IDLE_S, in_a_loop, serving
from tests.processes import Broker
from tests.sockets.places import Place


@in_a_loop
async def test_what_is_published_after_ready_arrives_in_order(place: Place) -> None:
    async with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), "n.>") as subscriber:
        await subscriber.ready()
        await publisher.wait_for_subscribers(1)
        for number in range(5_000):
            await publisher.publish("n.x", number)
        assert [(await subscriber.receive(IDLE_S)).body for _ in range(5_000)] == list(range(5_000))
        assert (subscriber.lost, subscriber.interruptions) == (0, 0)


@in_a_loop
async def test_a_message_leaves_though_the_publisher_never_calls_again(place: Place) -> None:
    async with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), ">") as subscriber:
        await subscriber.ready()
        for number in range(20):
            await publisher.publish("n.x", number)
            assert (await subscriber.receive(IDLE_S)).body == number


@in_a_loop
async def test_a_publisher_without_a_pause_leaves_the_loop_to_others(place: Place) -> None:
    async with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), ">") as subscriber:
        await subscriber.ready()
        receiving = asyncio.create_task(subscriber.receive(IDLE_S))
        number = 0
        while not receiving.done():
            await publisher.publish(f"n.{number % 5_000}", number)  # no topic's batch is ever full
            number += 1
        assert (await receiving).body == 0


@in_a_loop
async def test_each_message_arrives_or_is_counted_as_lost(place: Place) -> None:
    total = 200_000
    async with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), ">") as subscriber:
        await subscriber.ready()
        for number in range(total):  # and nobody takes them meanwhile
            await publisher.publish("n.x", number)
        await publisher.flush()
        found = 0
        while True:
            message = await subscriber.receive(1.0)
            if message is None:
                break
            found += 1
        await publisher.publish("n.x", "end")  # whose sequence tells of a loss at the end
        assert (await subscriber.receive(IDLE_S)).body == "end"
        assert found + subscriber.lost == total
        assert subscriber.interruptions == 0


@in_a_loop
async def test_each_way_to_send_is_confirmed_and_consumed_in_order(broker: Broker) -> None:
    async with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g") as consumer:
        await consumer.ready()
        assert (await out.send(0)).offset == 0
        assert [receipt.offset for receipt in await out.send_many(range(1, 1_000))] == list(range(1, 1_000))
        posted = [out.post(number) for number in range(1_000, 2_000)]
        assert [(await one).offset for one in posted] == list(range(1_000, 2_000))
        found = []
        async for d in consumer:
            found.append(d.body)
            d.ack()
            if len(found) == 2_000:
                break
        assert found == list(range(2_000))


@in_a_loop
async def test_batches_are_acked_as_a_whole_or_in_part(broker: Broker) -> None:
    async with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g") as consumer:
        await out.send_many(range(100))
        batch = await anext(consumer.batches())
        some = min(10, len(batch))  # the first one may be a slice: it was sent before we asked for batches
        batch.ack(upto=some)
        batch.nack(range(some, len(batch)))
        again: list[int] = []
        async for batch in consumer.batches():
            again.extend(batch.offsets)
            batch.ack()
            if len(again) == 100 - some:
                break
        assert sorted(again) == list(range(some, 100))


@in_a_loop
async def test_another_task_acks_and_it_leaves_at_once(broker: Broker) -> None:
    async with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g", credit=1) as consumer:
        await out.send_many(range(50))
        async with asyncio.TaskGroup() as tasks:
            offsets = []

            async def ack(d) -> None:
                await d.ack()

            async for d in consumer:  # the next one comes only when the ack of another task has left: credit is 1
                offsets.append(d.offset)
                tasks.create_task(ack(d))
                if len(offsets) == 50:
                    break
        assert offsets == list(range(50))


@in_a_loop
async def test_tasks_share_a_consumer_and_none_gets_anothers_message(broker: Broker) -> None:
    async with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g") as consumer:
        found: list[int] = []

        async def take() -> None:
            while len(found) < 500:
                d = await consumer.receive(2)
                if d is not None:
                    found.append(d.body)
                    d.ack()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(take())
            await out.send_many(range(500))
        assert sorted(found) == list(range(500))


@in_a_loop
async def test_nack_reject_and_an_old_token(broker: Broker) -> None:
    async with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g") as consumer:
        await out.send_many(["again", "never"])
        seen: list[tuple[object, int]] = []
        while (d := await consumer.receive(2)) is not None:
            seen.append((d.body, d.attempt))
            if d.body == "never":
                await d.reject("cannot be done", confirm=True)
            elif d.attempt == 1:
                first = d
                d.nack()
            else:
                with pytest.raises(StaleLease):
                    await first.ack(confirm=True)
                await d.ack(confirm=True)
        assert sorted(seen) == [("again", 1), ("again", 2), ("never", 1)]


@in_a_loop
async def test_a_post_without_room_is_refused_and_not_taken(broker: Broker) -> None:
    async with Producer(broker.url, "work", timeout_s=0.3, unconfirmed_bytes_max=100_000) as out:
        await out.send("first")
        broker.pause()
        taken = 0
        with pytest.raises(BufferFull):  # noqa: PT012  one of them has no room
            for _ in range(1_000):
                out.post("x" * 1_000)
                taken += 1
        with pytest.raises(BufferFull):
            await out.room()
        broker.resume()
        await out.room(IDLE_S)
        last = out.post("last")
        assert (await last).offset == taken + 1


@in_a_loop
async def test_send_many_tells_how_far_it_came(broker: Broker) -> None:
    async with Producer(broker.url, "work") as out:
        with pytest.raises(SendManyError) as stopped:
            await out.send_many([1, 2, object(), 4])
        assert stopped.value.index == 2
        with pytest.raises(BadBody):
            await out.post(object())
        assert (await out.send(3)).offset == 2


@in_a_loop
async def test_close_says_what_was_not_confirmed(broker: Broker) -> None:
    out = Producer(broker.url, "work")
    await out.send(0)
    broker.pause()
    posted = out.post(1)
    called: list[object] = []
    posted.add_done_callback(called.append)
    await out.close(0.3)
    broker.resume()
    with pytest.raises(OutcomeUnknown):
        await posted
    await asyncio.sleep(0)
    assert called == [posted]


@in_a_loop
async def test_close_says_that_published_messages_have_not_left(broker: Broker, caplog) -> None:
    publisher = Publisher(broker.url, timeout_s=0.3)
    await publisher.publish("n.x", 0)
    await publisher.flush()
    broker.pause()
    with pytest.raises(Overloaded):  # noqa: PT012  one of them has no room
        while True:
            await publisher.publish("n.x", "x" * 10_000)
    with caplog.at_level(logging.WARNING, "zbroker.publisher"):
        await publisher.close(0.3)
    broker.resume()
    assert "had not left" in caplog.text


@in_a_loop
async def test_closing_at_once_loses_nothing_of_what_was_published(broker: Broker) -> None:
    async with Subscriber(broker.url, ">") as subscriber:
        await subscriber.ready(30)
        for number in range(20):
            publisher = Publisher(broker.url)
            await publisher.publish("a", number)
            await publisher.close(30)
            message = await subscriber.receive(30)
            assert message is not None
            assert message.body == number


@in_a_loop
async def test_a_slow_consumer_holds_no_more_than_its_credit(broker: Broker) -> None:
    async with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g", credit=10) as consumer:
        await out.send_many(range(1_000))
        async for d in consumer:
            await asyncio.sleep(0)
            assert sum(one.count for one in consumer._delivered) <= 10
            d.ack()
            if d.offset == 999:
                break


@in_a_loop
async def test_many_roles_in_one_loop(broker: Broker) -> None:
    async def lives(who: int) -> None:
        name = f"s{who}"
        async with (
            serving(broker.url, name, lambda body: [who, body]),
            Requester(broker.url) as asker,
            Publisher(broker.url) as publisher,
            Subscriber(broker.url, f"{name}.>") as subscriber,
            Producer(broker.url, name) as out,
            Consumer(broker.url, name, group="g") as consumer,
        ):
            await subscriber.ready(IDLE_S)
            for number in range(10):
                assert await asker.request(name, number, timeout_s=IDLE_S) == [who, number]
                await publisher.publish(f"{name}.x", number)
                assert (await subscriber.receive(IDLE_S)).body == number
                await out.send(number)
                d = await consumer.receive(IDLE_S)
                assert d.body == number
                await d.ack(confirm=True)

    async with asyncio.TaskGroup() as tasks:
        for who in range(15):
            tasks.create_task(lives(who))


@in_a_loop
async def test_roles_go_on_after_a_broker_restart(broker: Broker) -> None:
    async with (
        Producer(broker.url, "work", timeout_s=IDLE_S) as out,
        Consumer(broker.url, "work", group="g") as consumer,
    ):
        await out.send(0)
        await (await consumer.receive(IDLE_S)).ack(confirm=True)
        await asyncio.to_thread(broker.restart)
        await out.send(1)
        assert (await consumer.receive(IDLE_S)).body == 1


@in_a_loop
async def test_close_from_another_task_ends_iteration(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        for role in (Consumer(broker.url, "work", group="g"), Subscriber(broker.url, ">")):
            await role.ready()

            async def take(role: Consumer | Subscriber = role) -> list[object]:
                return [message async for message in role]

            taking = asyncio.create_task(take())
            await asyncio.sleep(0)
            await role.close()
            assert await taking == []
            with pytest.raises(Closed):
                await role.ready()


@in_a_loop
async def test_nobody_there_is_unavailable() -> None:
    async with Subscriber("tcp://127.0.0.1:9", ">") as subscriber:
        with pytest.raises(Unavailable):
            await subscriber.ready(0.3)
    producer = Producer("zb://127.0.0.1:9", "work", timeout_s=0.3)
    with pytest.raises(Unavailable):
        await producer.send(1)
    await producer.close(0.1)


class _HandlerFailed(Exception):
    pass


@pytest.mark.parametrize(("failure", "attempt"), [(_HandlerFailed, 2), (asyncio.CancelledError, 1)])
@in_a_loop
async def test_leaving_counts_an_attempt_for_what_was_given_if_an_exception_does_it(
    broker: Broker, failure: type[BaseException], attempt: int
) -> None:
    async with Producer(broker.url, "left") as out:
        await out.send_many(range(100))

    async def work() -> None:
        async with Consumer(broker.url, "left", group="g") as consumer:
            async for d in consumer:
                if d.offset == 20:
                    raise failure
                await d.ack()

    with pytest.raises(failure):
        await work()
    async with Consumer(broker.url, "left", group="g") as consumer:
        found = [await consumer.receive(IDLE_S) for _ in range(80)]
    assert {d.offset: d.attempt for d in found if d} == {20: attempt, **dict.fromkeys(range(21, 100), 1)}


@in_a_loop
async def test_a_message_is_settled_once_and_only_in_a_group(broker: Broker) -> None:
    async with Producer(broker.url, "once") as out:
        await out.send_many(range(2))
    async with Consumer(broker.url, "once", group="g") as consumer:
        first, second = [await consumer.receive(IDLE_S) for _ in range(2)]
        await first.ack()
        await second.ack(confirm=True)
        for delivery in (first, second):
            with pytest.raises(StaleLease, match="is acked already"):
                await delivery.ack(confirm=True)
    async with Consumer(broker.url, "once") as reader:
        read = await reader.receive(IDLE_S)
        with pytest.raises(LocalProtocolError, match="without a group"):
            await read.ack()


@in_a_loop
async def test_an_async_generator_may_yield_what_is_sent(broker: Broker) -> None:
    async def numbers(count: int, bad: int = -1) -> AsyncIterator[object]:
        for number in range(count):
            if number % 500 == 0:
                await asyncio.sleep(0)
            yield object() if number == bad else number

    async with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g") as consumer:
        receipts = await out.send_many(numbers(1_000))
        assert [receipt.offset for receipt in receipts] == list(range(1_000))
        assert [(await consumer.receive(IDLE_S)).body for _ in range(1_000)] == list(range(1_000))
        assert list(await out.send_many(numbers(0))) == []
        with pytest.raises(SendManyError) as stopped:
            await out.send_many(numbers(900, bad=600))
        assert (stopped.value.index, len(stopped.value.receipts)) == (600, 600)
