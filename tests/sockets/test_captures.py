"""Topics and streams together: stored messages told live, live ones stored, and ids that are stored once; over kills of the broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import zmq

from patterns import aio
from patterns.sync import Admin, Consumer, Producer, Publisher, StreamConfig, Subscriber
from patterns.wire.errors import BadArgument
from tests.processes import Broker, until


def _create(broker: Broker, name: str, *topics: str, **fields: object) -> None:
    with Admin(broker.url) as admin:
        admin.create_stream(StreamConfig(name, topics=list(topics), **fields))  # type: ignore[arg-type]


def _bodies(broker: Broker, stream: str, count: int) -> list[tuple[str | None, object]]:
    found: list[tuple[str | None, object]] = []
    with Consumer(broker.url, stream, start="first") as reader:
        for delivery in reader:
            found.append((delivery.topic, delivery.body))
            if len(found) == count:
                break
    return found


def _stored(broker: Broker, stream: str) -> int:
    with Admin(broker.url) as admin:
        messages: int = admin.status()["streams"][stream]["messages"]
        return messages


def test_what_a_subscriber_heard_is_what_the_stream_stored(broker: Broker) -> None:
    _create(broker, "audit", "orders.>")
    with Subscriber(broker.url, "orders.>") as subscriber, Publisher(broker.url) as publisher:
        subscriber.ready()
        for number in range(300):
            publisher.publish(("orders.eu", "news.eu", "orders.us.new")[number % 3], number, headers={"n": str(number)})
        messages = iter(subscriber)
        heard = [(one.topic, one.body) for one in (next(messages) for _ in range(200))]
    assert _bodies(broker, "audit", 200) == heard
    assert _stored(broker, "audit") == 200


def test_plain_publishers_are_stored_too(tmp_path: Path) -> None:
    with Broker(tmp_path, "--xsub", "tcp://127.0.0.1:0") as broker:
        _create(broker, "audit", "plain.*")
        with zmq.Context() as context, context.socket(zmq.PUB, socket_class=zmq.Socket) as socket:
            socket.linger = 0
            socket.connect(broker.addresses["xsub"])
            until(lambda: _sent(socket, broker), what="a plain message to be stored")
        assert _bodies(broker, "audit", 1) == [("plain.x", b"body")]


def _sent(socket: zmq.Socket[bytes], broker: Broker) -> bool:
    socket.send_multipart([b"plain.x", b"body"])
    return _stored(broker, "audit") > 0


def test_a_stored_message_is_told_live_and_by_streams_that_capture_it(broker: Broker) -> None:
    _create(broker, "orders", "orders.>")
    _create(broker, "audit", ">")
    with Subscriber(broker.url, "orders.>") as subscriber, Producer(broker.url, "orders") as out:
        subscriber.ready()
        out.send(1, topic="orders.eu")
        out.send(2)
        for number in range(3, 7):
            out.post(number, topic=f"orders.{number % 2}")
        out.flush()
        messages = iter(subscriber)
        heard = [(one.topic, one.body) for one in (next(messages) for _ in range(5))]
    assert heard == [("orders.eu", 1), *((f"orders.{number % 2}", number) for number in range(3, 7))]
    assert _bodies(broker, "audit", 5) == heard
    assert _bodies(broker, "orders", 6) == [heard[0], (None, 2), *heard[1:]]
    assert _stored(broker, "orders") == 6


def test_an_id_is_stored_once_over_a_kill_of_the_broker(broker: Broker) -> None:
    with Producer(broker.url, "orders") as out:
        first = out.send("a", message_id="1", key="k")
    broker.kill()
    broker.restart()
    with Producer(broker.url, "orders") as out:
        again = out.send("a", message_id="1", key="k")
        posted = [out.post(body, message_id=body) for body in ("2", "1", "3", "2")]
        out.flush(30)
        receipts = [(one.result().offset, one.result().duplicate) for one in posted]
    assert (again.offset, again.duplicate) == (first.offset, True)
    assert receipts == [(1, False), (0, True), (2, False), (1, True)]


def test_a_stream_refuses_less_safety_than_it_wants(broker: Broker) -> None:
    _create(broker, "ledger", confirm_min="durable")
    with Producer(broker.url, "ledger", confirm="written") as out, pytest.raises(BadArgument, match="'durable'"):
        out.send(1)
    with Producer(broker.url, "notes", confirm="received") as out:
        assert out.send(1).offset == 0


def test_aio_sends_topics_and_ids(broker: Broker) -> None:
    async def run() -> None:
        async with aio.Subscriber(broker.url, "a.*") as subscriber, aio.Producer(broker.url, "s") as out:
            await subscriber.ready()
            receipts = [await out.send(1, topic="a.b", message_id="x") for _ in range(2)]
            out.post(2, topic="a.c")
            await out.flush()
            heard = []
            async for message in subscriber:
                heard.append((message.topic, message.body))
                if len(heard) == 2:
                    break
        assert [(one.offset, one.duplicate) for one in receipts] == [(0, False), (0, True)]
        assert heard == [("a.b", 1), ("a.c", 2)]

    asyncio.run(run())
