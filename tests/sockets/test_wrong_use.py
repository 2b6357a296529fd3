"""What people do wrong in their first hour, and what they are told."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from pathlib import Path

import pytest

import patterns.aio
from patterns.sync import Admin, Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import BadAddress, BadArgument, BadName, Closed, LocalProtocolError, StaleLease, Unavailable
from tests.processes import Broker, until

NOBODY = "zb://127.0.0.1:1"  # a port that nobody listens at


@pytest.fixture
def broker(tmp_path: Path):
    with Broker(tmp_path) as broker:
        yield broker


@pytest.mark.parametrize("kind", ["subscriber", "consumer", "batches"])
def test_a_second_thread_is_refused_and_the_first_goes_on(broker: Broker, kind: str) -> None:
    make = (
        (lambda: Subscriber(broker.url, ">")) if kind == "subscriber" else lambda: Consumer(broker.url, "s", group="g")
    )
    with make() as role, Producer(broker.url, "s") as producer, Publisher(broker.url) as publisher:
        role.ready()
        batches = iter(role.batches()) if kind == "batches" else None
        taken: list[object] = []
        first = threading.Thread(target=lambda: taken.append(next(batches if batches is not None else iter(role))))
        first.start()
        until(lambda: role._driver.is_led, 10, "the first thread's waiting")
        for _ in range(3):
            with pytest.raises(LocalProtocolError, match="belongs to one thread"):
                next(batches) if batches is not None else role.receive(0.1)
        publisher.publish("a", 1)
        producer.send(1)
        first.join(10)
        assert len(taken) == 1


def test_ready_after_a_restart_is_about_the_new_session(broker: Broker) -> None:
    with Subscriber(broker.url, ">", idle_timeout_s=5) as subscriber:
        subscriber.ready()
        for number in range(3):
            broker.kill()
            broker.start()
            subscriber.ready(10)
            with Publisher(broker.url) as publisher:
                publisher.publish("a", number)
                publisher.flush()
            message = subscriber.receive(5)
            assert message is not None
            assert message.body == number
        assert subscriber.interruptions == 3


def test_an_empty_result_is_not_what_a_missing_broker_looks_like() -> None:
    with Subscriber(NOBODY, ">", idle_timeout_s=0.3) as subscriber, pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        list(subscriber)
    with Consumer(NOBODY, "s", idle_timeout_s=0.3) as consumer, pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        list(consumer)


def test_who_waits_for_nobody_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with Subscriber(NOBODY, ">") as subscriber, pytest.raises(Unavailable):
        subscriber.receive(2.5)
    said = [record.getMessage() for record in caplog.records if record.name == "zbroker"]
    assert len(said) == 1
    assert "no broker answers at zb://127.0.0.1:1" in said[0]


def test_an_ack_after_the_end_is_refused(broker: Broker) -> None:
    with Producer(broker.url, "s") as producer, Consumer(broker.url, "s", group="g") as consumer:
        producer.send(1)
        delivery = next(iter(consumer))
    with pytest.raises(Closed):
        delivery.ack()


def test_a_message_is_settled_once(broker: Broker) -> None:
    with Producer(broker.url, "s") as producer, Consumer(broker.url, "s", group="g") as consumer:
        producer.send_many(range(3))
        messages = iter(consumer)
        acked, confirmed, nacked = (next(messages) for _ in range(3))
        acked.ack()
        confirmed.ack(confirm=True)
        nacked.nack(60.0)
        for again in (acked.ack, acked.nack, lambda: acked.ack(confirm=True), lambda: acked.extend(1)):
            with pytest.raises(StaleLease, match="offset 0 of stream 's', group 'g' is acked already"):
                again()
        with pytest.raises(StaleLease, match=r"offset 1 .* is acked already"):
            confirmed.ack()
        with pytest.raises(StaleLease, match=r"offset 2 .* is nacked already"):
            nacked.reject("no")
        assert consumer.stale == 0


def test_a_batch_is_settled_once_and_may_be_acked_bit_by_bit(broker: Broker) -> None:
    with Producer(broker.url, "s") as producer:
        producer.send_many(range(20))
    with Consumer(broker.url, "s", group="g") as consumer:
        taken = 0
        for batch in consumer.batches():
            taken += len(batch)
            for upto in range(len(batch)):
                batch.ack(upto=upto)  # each says again what the one before has said
            with pytest.raises(StaleLease if len(batch) > 1 else BadArgument):
                batch.nack([len(batch) - 1, 0 if len(batch) > 1 else 1])
            batch.ack()
            for again in (batch.ack, batch.nack):
                with pytest.raises(StaleLease, match="settled already"):
                    again()
            batch.ack(upto=len(batch))
            if taken == 20:
                break
    with Consumer(broker.url, "s", group="g", idle_timeout_s=0.5) as consumer:
        assert [d.offset for d in consumer] == []


def test_nack_of_some_and_ack_of_the_rest(broker: Broker) -> None:
    with Producer(broker.url, "s") as producer:
        producer.send_many(range(10))
    with Consumer(broker.url, "s", group="g") as consumer:
        nacked, seen = [], 0
        for batch in consumer.batches():
            seen += len(batch)
            nacked.append(batch.offsets[0])
            batch.nack([0], delay_s=600)
            batch.ack()
            if seen == 10:
                break
        consumer.close()
        assert consumer.stale == 0
    with Admin(broker.url) as admin:
        group = admin.status()["groups"]["s/g"]
    assert (group["acked"], group["pending"]) == (10 - len(nacked), len(nacked))


def test_a_reader_without_a_group_has_nothing_to_ack(broker: Broker) -> None:
    with Producer(broker.url, "s") as producer, Consumer(broker.url, "s") as reader:
        producer.send_many(range(2))
        delivery = next(iter(reader))
        for settle in (delivery.ack, delivery.nack, lambda: delivery.ack(confirm=True)):
            with pytest.raises(LocalProtocolError, match="reads stream 's' without a group"):
                settle()
        with pytest.raises(LocalProtocolError, match="give it group="):
            next(reader.batches()).ack()


@pytest.mark.parametrize("address", [NOBODY, "tcp://127.0.0.1:1"])
def test_a_subscriber_asks_whoever_writes_wildcards_of_others(address: str) -> None:
    with pytest.raises(BadName, match=r"did you mean 'orders\.>'"):
        Subscriber(address, "orders.#")

    async def awaited() -> None:
        patterns.aio.Subscriber(address, "a.>", "orders.+.#")

    with pytest.raises(BadName, match=r"did you mean 'orders\.\*\.>'"):
        asyncio.run(awaited())


@pytest.mark.parametrize("one", ["abc", b"abc", bytearray(b"abc"), {"sku": 7}, 7])
def test_one_body_is_not_taken_for_many(one: object) -> None:
    with Producer(NOBODY, "s") as producer, pytest.raises(BadArgument, match=f"of one {type(one).__name__}"):
        producer.send_many(one)

    async def awaited() -> None:
        async with patterns.aio.Producer(NOBODY, "s") as producer:
            await producer.send_many(one)

    with pytest.raises(BadArgument, match=f"of one {type(one).__name__}"):
        asyncio.run(awaited())


def test_closing_says_what_was_left_out(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(broker.url) as publisher:
        publisher.publish("a", object())
    with Producer(broker.url, "s") as producer:
        producer.post(object())
    with caplog.at_level(logging.WARNING), Producer(NOBODY, "s") as lonely:
        lonely.post(1)
        lonely.close(0.2)
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "1 published message left out" in said
    assert "1 posted message left out" in said
    assert "closed while 1 batch had no confirm; no broker answers" in said


def test_closing_at_once_loses_nothing_of_what_was_published(broker: Broker, tmp_path: Path) -> None:
    free = f"zb+ipc://{tmp_path}/nobody"  # the first address is a dead one
    with Subscriber(broker.url, ">") as subscriber:
        subscriber.ready(30)
        for number, address in enumerate([broker.url] * 20 + [f"{free},{broker.url}"] * 3):
            with Publisher(address) as publisher:
                publisher.publish("a", number)
                publisher.close(30)
            message = subscriber.receive(30)
            assert message is not None
            assert message.body == number


@pytest.mark.parametrize("codec", ["msgpack", "raw"])
def test_closing_without_a_broker_says_how_many_messages_are_lost(codec: str, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(NOBODY, codec=codec)
    for topic in ("a.first", "a.second", "b"):
        publisher.publish(topic, b"")
    with caplog.at_level(logging.WARNING):
        publisher.close(0.3)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "zbroker.publisher"]
    assert "closed while 3 published messages, the first on topic 'a.first', had not left" in said
    assert NOBODY in said


def test_a_handler_that_cannot_serve_is_refused_at_once() -> None:
    async def later(body: object) -> object:
        return body

    async def parts(body: object):
        yield body

    for make in (Replier, patterns.aio.Replier):
        with pytest.raises(BadArgument, match=r"handler='echo'.*a function"):
            make(NOBODY, "x", "echo")  # type: ignore[arg-type]
    for handler in (later, parts, functools.partial(later), Later()):
        with pytest.raises(BadArgument, match=r"patterns\.aio"):
            Replier(NOBODY, "x", handler)
    for handler in (print, dict, functools.partial(print), max):  # some have no signature that could be read
        Replier(NOBODY, "x", handler).close()


class Later:
    """A coroutine function in disguise."""

    async def __call__(self, body: object) -> object:
        return body


def test_what_is_closed_says_which_class_it_is() -> None:
    requester, publisher = Requester(NOBODY), Publisher(NOBODY)
    requester.close()
    publisher.close()
    with pytest.raises(Closed, match="this Requester is closed"):
        requester.request("x", 1)
    with pytest.raises(Closed, match="this Publisher is closed"):
        publisher.publish("x", 1)


def test_wrong_types_are_refused_in_words() -> None:
    with pytest.raises(BadAddress, match="type int"):
        Requester(5)  # type: ignore[arg-type]
    with pytest.raises(BadName, match=r"type list: patterns are arguments of their own"):
        Subscriber(NOBODY, ["a", "b"])  # type: ignore[arg-type]
    with Requester(NOBODY) as requester:
        with pytest.raises(BadName, match="type int"):
            requester.request(7, 1)  # type: ignore[arg-type]
        for more in ({"timeout_s": None}, {"timeout_s": "5"}, {"wait_s": "1"}):
            with pytest.raises(BadArgument, match=f"{next(iter(more))}={next(iter(more.values()))!r}"):
                requester.request("x", 1, **more)
        with pytest.raises(BadArgument, match="part_timeout_s"):
            requester.stream("x", 1, part_timeout_s="5")  # type: ignore[arg-type]
        with pytest.raises(BadArgument, match="timeout_s=None"):
            requester.close(None)  # type: ignore[arg-type]
        with pytest.raises(BadArgument, match="header 'a'"):
            requester.request("x", 1, headers={"a": 1})  # type: ignore[dict-item]
    with Publisher(NOBODY) as publisher, pytest.raises(BadArgument, match="header 'a'"):
        publisher.publish("t", 1, headers={"a": 1})  # type: ignore[dict-item]
    with Subscriber(NOBODY, ">") as subscriber, pytest.raises(BadArgument, match="timeout_s"):
        subscriber.ready("5")  # type: ignore[arg-type]
