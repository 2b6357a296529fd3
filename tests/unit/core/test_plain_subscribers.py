from __future__ import annotations

import msgspec
import pytest

from patterns.wire.engine import Close
from patterns.wire.frames import pack_columns
from patterns.wire.identity import publisher_of
from patterns.wire.messages import Codec, Columns, Publish
from patterns.wire.names import channel_of
from tests.unit.core.serving import Bench
from zbroker.core import prefixes
from zbroker.core.effects import PLAIN_SUBSCRIBERS, Offer

PEER = b"20"


@pytest.fixture
def bench() -> Bench:
    return Bench()


def listens(bench: Bench, prefix: bytes, peer: bytes = PEER) -> None:
    bench.engine.receive(PLAIN_SUBSCRIBERS, peer, [b"\1" + prefix], bench.now)


def publish(bench: Bench, client, topics: list[str], codec: Codec, payload: bytes, **columns) -> list[list[bytes]]:
    """What is offered of a batch: one topic in the header, or several in columns."""
    header = Publish(publisher=publisher_of(client.nonce), sequence=0, count=len(topics), codec=codec)
    distinct = list(dict.fromkeys(topics))
    if len(distinct) == 1:
        header.topic = distinct[0]
        written = Columns(**columns)
    else:
        written = Columns(topics=distinct, topic=[distinct.index(topic) for topic in topics], **columns)
    client.send(header, payload=payload, columns=pack_columns(written, client.form), key=bytes([channel_of(topics[0])]))
    return [message for effect in bench.others if isinstance(effect, Offer) for message in effect.messages]


def test_each_message_that_a_prefix_matches_is_offered_as_topic_and_body(bench):
    publisher = bench.client("publisher")
    listens(bench, b"orders.e")
    offered = publish(bench, publisher, ["orders.eu", "orders.us", "orders.eu"], Codec.RAW, b"1223", sizes=[1, 2, 1])
    assert offered == [[b"orders.eu", b"1"], [b"orders.eu", b"3"]]
    assert bench.engine.status(bench.now)["counters"]["plain_offered"] == 2


def test_without_a_matching_prefix_a_batch_is_not_taken_apart(bench, monkeypatch):
    publisher = bench.client("publisher")
    listens(bench, b"zebra")
    monkeypatch.setattr("patterns.wire.codec.items_of", None)
    assert publish(bench, publisher, ["orders.eu"], Codec.RAW, b"1") == []


@pytest.mark.parametrize(
    ("codec", "encode"), [(Codec.JSON, msgspec.json.encode), (Codec.MSGPACK, msgspec.msgpack.encode)]
)
def test_a_body_is_offered_in_its_publishers_codec(bench, codec, encode):
    publisher = bench.client("publisher")
    listens(bench, b"")
    bodies = [{"a": "é"}, [1.5, None]]
    offered = publish(bench, publisher, ["a", "a"], codec, encode(bodies))
    assert offered == [[b"a", encode(body)] for body in bodies]


def test_a_view_of_a_payload_will_do(bench):
    engine = bench.engine
    listens(bench, b"")
    header = Publish(publisher=bytes(16), sequence=0, count=2, codec=Codec.RAW, topic="a")
    engine._plain_subscribers.offer(header, Columns(sizes=[1, 1]), ["a"], memoryview(b"xy"))
    assert engine.effects() == [Offer([[b"a", b"x"], [b"a", b"y"]])]


def test_native_subscribers_get_the_batch_all_the_same(bench):
    publisher, native = bench.client("publisher"), bench.client("subscriber")
    native.subscribe("orders.>")
    listens(bench, b"orders")
    publisher.publish(["orders.eu", "orders.us"])
    assert len(native.messages(Publish)) == 1


def test_one_that_holds_too_much_is_closed_and_counted(bench, monkeypatch):
    monkeypatch.setattr(bench.engine._plain_subscribers, "_prefixes", prefixes.Prefixes(100))
    for number in range(20):
        listens(bench, b"%d" % number)
    assert bench.engine.effects() == [Close(PLAIN_SUBSCRIBERS, PEER)]
    assert bench.engine.status(bench.now)["counters"]["plain_subscribers_closed"] == 1


@pytest.mark.parametrize("frames", [[b"hello"], [b""], [b"\1a", b"more"], [b"\0never"], []])
def test_what_is_no_subscription_is_ignored_and_counted(bench, frames):
    bench.engine.receive(PLAIN_SUBSCRIBERS, PEER, frames, bench.now)
    assert bench.engine.effects() == []
    assert bench.engine.status(bench.now)["counters"] == {"plain_ignored": 1}


def test_status_shows_who_is_there(bench):
    bench.engine.connected(PLAIN_SUBSCRIBERS, PEER, bench.now)
    listens(bench, b"a")
    listens(bench, b"a", b"21")
    assert bench.engine.status(bench.now)["plain"] == {"publishers": 0, "subscribers": 1, "prefixes": 1}
    bench.engine.disconnected(PLAIN_SUBSCRIBERS, PEER, bench.now)
    assert bench.engine.status(bench.now)["plain"]["subscribers"] == 0


def test_what_the_loop_could_not_even_offer_is_counted_apart(bench):
    listens(bench, b"")
    header = Publish(publisher=bytes(16), sequence=0, count=3, codec=Codec.RAW, topic="a")
    bench.engine._plain_subscribers.offer(header, Columns(sizes=[1, 1, 1]), ["a"], b"xyz")
    bench.engine.not_offered(2)
    counters = bench.engine.status(bench.now)["counters"]
    assert (counters["plain_offered"], counters["plain_dropped.behind"]) == (1, 2)
