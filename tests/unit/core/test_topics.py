from __future__ import annotations

import msgspec
import pytest

from patterns.wire.frames import JSON as JSON_FORM
from patterns.wire.frames import pack_columns
from patterns.wire.identity import publisher_of
from patterns.wire.messages import (
    Audience,
    Codec,
    Columns,
    Credit,
    ErrorHeader,
    Goodbye,
    Lost,
    Publish,
    Subscribed,
    Unsubscribe,
)
from patterns.wire.names import channel_of
from tests.unit.core.serving import JSON, MSGPACK, Bench
from zbroker.core import topics as topics_module
from zbroker.core.broker import BrokerEngine


@pytest.fixture
def bench() -> Bench:
    return Bench()


def listener(bench: Bench, pattern: str = "orders.>", **hello):
    subscriber = bench.client("subscriber", **hello)
    subscriber.subscribe(pattern)
    return subscriber


def test_a_batch_goes_unchanged_to_each_session_that_a_topic_matches(bench):
    publisher = bench.client("publisher")
    first, second, other = listener(bench), listener(bench, "*.eu"), listener(bench, "orders.us")
    publisher.publish(["orders.eu", "orders.asia"])
    for subscriber in (first, second):
        assert len(subscriber.messages(Publish)) == 1
    assert first.raw[-1] is second.raw[-1]
    assert not other.messages(Publish)


def test_subscribe_is_answered_and_a_bad_pattern_refused(bench):
    subscriber = listener(bench, "a.*")
    assert subscriber.take(Subscribed) == [Subscribed(1)]
    subscriber.subscribe("a.>.b", id=2)
    (error,) = subscriber.take(ErrorHeader)
    assert (error.name, error.scope, error.id) == ("BAD_NAME", "subscription", 2)


def test_a_session_with_two_matching_patterns_gets_the_batch_once(bench):
    publisher, subscriber = bench.client("publisher"), listener(bench)
    subscriber.subscribe("*.*", id=2)
    publisher.publish(["orders.eu"])
    assert len(subscriber.messages(Publish)) == 1


def test_after_unsubscribe_nothing_comes(bench):
    publisher, subscriber = bench.client("publisher"), listener(bench)
    publisher.publish(["orders.eu"])
    subscriber.send(Unsubscribe(1))
    publisher.publish(["orders.eu"], sequence=1)
    assert len(subscriber.messages(Publish)) == 1


def test_publishers_hear_their_audience_at_ready_and_when_it_changes(bench):
    publisher = bench.client("publisher")
    assert publisher.take(Audience) == [Audience(0)]
    subscriber = listener(bench)
    subscriber.subscribe("b", id=2)
    assert publisher.take(Audience) == [Audience(1)]
    subscriber.send(Goodbye())
    assert publisher.take(Audience) == [Audience(0)]


def test_a_stalled_subscriber_loses_batches_alone_and_learns_exactly_how_many_messages(bench):
    publisher = bench.client("publisher")
    slow, fast = listener(bench, messages=1), listener(bench, messages=1_000, size=1 << 30)
    for number in range(12):
        publisher.publish(["orders.eu", "orders.us"], sequence=2 * number, body=b"x" * 500_000)
    assert len(fast.messages(Publish)) == 12
    assert len(slow.messages(Publish)) == 1
    slow.send(Credit(1_000, 1 << 30))
    received = 2 * len(slow.messages(Publish))
    (lost,) = slow.take(Lost)
    assert received + lost.messages == 24
    assert 0 < lost.messages < 24


def test_the_account_of_losses_comes_before_the_next_batch(bench):
    publisher, slow = bench.client("publisher"), listener(bench, messages=1)
    for number in range(20):
        publisher.publish(["orders.eu"], sequence=number, body=b"x" * 1_000_000)
    slow.inbox.clear()
    slow.send(Credit(1_000, 1 << 30))
    publisher.publish(["orders.eu"], sequence=20)
    assert [type(message.header) for message in slow.inbox][-2:] == [Lost, Publish]


def test_only_messages_that_matched_count_as_lost(bench):
    publisher, slow = bench.client("publisher"), listener(bench, "orders.eu", messages=0)
    for number in range(12):
        publisher.publish(["orders.eu", "orders.us"], sequence=2 * number, body=b"x" * 500_000)
    slow.send(Credit(1_000, 1 << 30))
    assert len(slow.messages(Publish)) + slow.take(Lost)[-1].messages == 12


def test_a_gap_in_a_publishers_sequence_is_told_to_all_who_listen_to_the_channel(bench):
    publisher, subscriber, other = bench.client("publisher"), listener(bench), listener(bench, "zebra.>")
    everything = listener(bench, "*.jp")
    assert channel_of("orders") != channel_of("zebra")
    publisher.publish(["orders.eu"])
    publisher.publish(["orders.eu"], sequence=8)
    assert subscriber.take(Lost) == everything.take(Lost) == [Lost(upstream=7)]
    assert not other.take(Lost)


def test_a_publisher_that_comes_back_continues_its_sequence(bench):
    publisher, subscriber = bench.client("publisher"), listener(bench)
    publisher.publish(["orders.eu"])
    bench.disconnect(publisher)
    publisher.hello()
    publisher.publish(["orders.eu"], sequence=4)
    assert subscriber.take(Lost) == [Lost(upstream=3)]


def test_the_publishers_credit_is_granted_again(bench):
    publisher = bench.client("publisher")
    for number in range(12):
        publisher.publish(["orders.eu"], sequence=number, body=b"x" * 900_000)
    credit = publisher.take(Credit)[-1]
    assert credit.bytes > 12 * 900_000
    assert not publisher.take(ErrorHeader)


@pytest.mark.parametrize("topic", ["orders..eu", "a b", "*", "orders.>"])
def test_a_bad_topic_is_refused_and_goes_nowhere(bench, topic):
    publisher, subscriber = bench.client("publisher"), listener(bench, ">")
    publisher.publish([topic])
    assert [error.name for error in publisher.take(ErrorHeader)] == ["BAD_NAME"]
    assert not subscriber.messages(Publish)


def test_a_topic_of_another_channel_than_frame_1_is_refused(bench):
    publisher = bench.client("publisher")
    publisher.publish(["orders.eu", "zebra.eu"])
    assert [error.name for error in publisher.take(ErrorHeader)] == ["PROTOCOL_ERROR"]


def test_a_batch_in_anothers_name_is_refused(bench):
    publisher = bench.client("publisher")
    header = Publish(publisher=bytes(16), sequence=0, count=1, codec=Codec.RAW, topic="a")
    publisher.send(header, payload=b"x", key=bytes([channel_of("a")]))
    assert [error.name for error in publisher.take(ErrorHeader)] == ["PROTOCOL_ERROR"]


def test_a_json_subscriber_gets_json_header_columns_and_bodies(bench):
    publisher = bench.client("publisher")
    subscriber = listener(bench, form=JSON, codec=Codec.JSON)
    columns = pack_columns(Columns(topics=["orders.eu"], topic=[0]), publisher.form)
    header = Publish(publisher=publisher_of(publisher.nonce), sequence=0, count=1)
    publisher.send(
        header, payload=msgspec.msgpack.encode([{"a": 1}]), columns=columns, key=bytes([channel_of("orders")])
    )
    (message,) = subscriber.messages(Publish)
    assert message.form is JSON_FORM
    assert message.header.codec is Codec.JSON
    assert message.payload == b'[{"a":1}]'
    assert msgspec.json.decode(message.columns) == {"topics": ["orders.eu"], "topic": [0]}


def test_a_batch_that_cannot_be_translated_is_delivered_as_it_is_labelled_and_counted(bench):
    publisher = bench.client("publisher")
    subscriber = listener(bench, codec=Codec.JSON)
    header = Publish(publisher=publisher_of(publisher.nonce), sequence=0, count=1, topic="orders.eu")
    publisher.send(header, payload=msgspec.msgpack.encode([b"\0"]), key=bytes([channel_of("orders")]))
    (message,) = subscriber.messages(Publish)
    assert message.header.codec is Codec.MSGPACK
    assert bench.engine.status(bench.now)["counters"]["live_untranslated"] == 1


def test_a_batch_is_translated_once_for_all_forms(bench):
    made = []

    def translate(payload, source, target):
        made.append(target)
        return b'["seen"]'

    bench.engine = BrokerEngine("test", bench.now, epoch=7, translate=translate)
    publisher = bench.client("publisher")
    subscribers = [listener(bench, form=form, codec=Codec.JSON) for form in (JSON, MSGPACK, JSON)]
    header = Publish(publisher=publisher_of(publisher.nonce), sequence=0, count=1, topic="orders.eu")
    publisher.send(header, payload=msgspec.msgpack.encode([1]), key=bytes([channel_of("orders")]))
    assert [one.messages(Publish)[0].payload for one in subscribers] == [b'["seen"]'] * 3
    assert made == [Codec.JSON]


def test_the_patterns_of_a_session_and_of_all_are_bounded_by_what_they_cost(monkeypatch):
    monkeypatch.setattr(topics_module, "PATTERN_BYTES_MAX", 1_100)
    monkeypatch.setattr(topics_module, "PATTERN_BYTES_ALL_MAX", 1_500)
    bench = Bench()
    one, other = bench.client("subscriber"), bench.client("subscriber")
    one.subscribe("a.b.c", 1)  # 256 + 5 + 3 * 128
    one.subscribe("a.b.d", 2)
    (error,) = one.take(ErrorHeader)
    assert (error.name, error.scope, error.id) == ("TOO_LARGE", "subscription", 2)
    other.subscribe("a.b.c", 1)
    one.subscribe("x", 3)
    (error,) = one.take(ErrorHeader)
    assert (error.name, error.retryable) == ("OVERLOADED", True)
    one.send(Unsubscribe(1))
    one.subscribe("a.b.d", 4)
    assert not one.take(ErrorHeader)
    bench.disconnect(one)
    bench.disconnect(other)
    assert bench.engine._topics._pattern_bytes == 0
