"""A key, header or message id that cannot travel is refused at the call, and nobody else's message suffers."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.sync import Consumer, Posted, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import BadArgument, ProtocolError, TooLarge
from tests.processes import Broker, until
from tests.sockets.places import Place

LARGE = {"a": "v" * 2_000_000}
BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"headers": LARGE}, TooLarge),
    ({"headers": {"a\ud800": "b"}}, BadArgument),
    ({"key": "\ud800"}, BadArgument),
    ({"message_id": "\ud800"}, BadArgument),
    ({"key": "k" * 70_000}, TooLarge),
    ({"key": 5}, BadArgument),
    ({"key": b"k"}, BadArgument),
    ({"message_id": 5}, BadArgument),
]
BAD_HEADERS = [(more["headers"], error) for more, error in BAD if "headers" in more]


def test_a_producer_refuses_one_message_and_stores_its_neighbours(broker: Broker) -> None:
    with Producer(broker.url, "s") as producer:
        stored: list[Posted] = []
        for more, error in BAD:
            stored.append(producer.post(len(stored)))
            for call in (producer.post, producer.send):
                with pytest.raises(error):
                    call("bad", **more)
            stored.append(producer.post(len(stored)))
        assert [one.result(30).offset for one in stored] == list(range(len(stored)))
        assert producer.send("last", key="k", headers={"a": "b"}, message_id="m").offset == len(stored)
    with Consumer(broker.url, "s", idle_timeout_s=30) as consumer:
        found = [next(iter(consumer)) for _ in range(len(stored) + 1)]
    assert [one.body for one in found] == [*range(len(stored)), "last"]
    assert (found[-1].key, found[-1].headers) == ("k", {"a": "b"})


def test_many_messages_with_headers_are_as_many_batches_as_they_need(broker: Broker) -> None:
    headers = {"a": "v" * 1_000}
    with Producer(broker.url, "s") as producer:
        posted = [producer.post(number, headers=headers) for number in range(3_000)]
        assert [one.result(30).offset for one in posted] == list(range(3_000))
    with Consumer(broker.url, "s", idle_timeout_s=30) as consumer:
        messages = iter(consumer)
        found = [next(messages) for _ in range(3_000)]
    assert [one.body for one in found] == list(range(3_000))
    assert all(one.headers == headers for one in found)


def test_a_publisher_refuses_one_message_and_publishes_its_neighbours(place: Place) -> None:
    with (
        Publisher(place.bind, timeout_s=30) as publisher,
        Subscriber(place.of(publisher), "z.>") as subscriber,
    ):
        subscriber.ready(30)
        published: list[int] = []
        for headers, error in BAD_HEADERS:
            publisher.publish("z.a", len(published))
            with pytest.raises(error):
                publisher.publish("z.b", "bad", headers)
            published.append(len(published))
        for _ in range(1_000):
            publisher.publish(f"z.{'t' * 200}{len(published)}", len(published), {"a": "v" * 1_000})
            published.append(len(published))
        publisher.flush(30)
        found = [subscriber.receive(30) for _ in published]
        assert [one.body for one in found if one is not None] == published
        assert subscriber.lost == 0


def test_a_requester_and_a_replier_refuse_what_cannot_travel(place: Place) -> None:
    with Replier(place.bind, "s") as replier, Requester(place.of(replier)) as requester:
        replier.ready(30)
        for headers, error in BAD_HEADERS:
            with pytest.raises(error):
                requester.request("s", 1, headers=headers)
            with pytest.raises(error):
                requester.stream("s", 1, headers=headers)
        parts = requester.stream("s", 1, headers={"a": "b"}, part_timeout_s=30)
        request = replier.receive(30)
        assert request is not None
        for headers, error in BAD_HEADERS:
            with pytest.raises(error):
                request.send_part(1, headers)
            with pytest.raises(error):
                request.reply(1, headers)
        request.send_part(1, {"a": "b"})
        request.reply(2, {"a": "b"})
        assert list(parts) == [1, 2]


def test_what_the_broker_refuses_as_malformed_ends_the_producer_and_not_in_silence(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fault of this library would: then nobody waits for a confirm that cannot come."""
    for place in ("patterns.sync.producer", "patterns.roles.producer"):
        monkeypatch.setattr(f"{place}.check_attributes", lambda *_: None)
    with Producer(broker.url, "s", timeout_s=60) as producer:
        assert producer.send(0).offset == 0
        told: list[object] = []
        first = producer.post(1, headers=LARGE)
        first.add_done_callback(told.append)
        second = producer.post(2)
        for posted in (first, second):
            with pytest.raises(ProtocolError, match="columns of 20"):
                posted.result(60)
        with pytest.raises(ProtocolError, match="columns of 20"):
            producer.send(3)
        assert first.done()
        until(lambda: told == [first], what="the callback")
    with Producer(broker.url, "s") as producer:
        producer.send(1)
