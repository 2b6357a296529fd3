from __future__ import annotations

import msgspec
import pytest

from patterns.wire.messages import Codec, Lost, Publish
from tests.unit.core.serving import JSON, Bench
from zbroker.core import plain_publishers
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import PLAIN_PUBLISHERS, PLAIN_SUBSCRIBERS, Offer
from zbroker.core.events import PlainDropped

NONCE = b"n" * 16


def bench_of(label: Codec = Codec.RAW) -> Bench:
    bench = Bench()
    bench.engine = BrokerEngine("test", bench.now, epoch=7, nonce=NONCE, plain_codec=label)
    return bench


def arrive(bench: Bench, *messages: list[bytes]) -> None:
    """These come in one turn."""
    for frames in messages:
        bench.engine.receive(PLAIN_PUBLISHERS, b"20", frames, bench.now)
    bench.settle()


def listener(bench: Bench, pattern: str = ">", **hello):
    subscriber = bench.client("subscriber", **hello)
    subscriber.subscribe(pattern)
    return subscriber


def counters(bench: Bench) -> dict[str, int]:
    return bench.engine.status(bench.now)["counters"]


def test_a_turns_messages_of_one_channel_travel_as_one_batch():
    bench = bench_of()
    subscriber = listener(bench)
    arrive(bench, [b"orders.eu", b"1"], [b"orders.us", b"22"], [b"orders.eu", b""])
    (message,) = subscriber.messages(Publish)
    assert message.header == Publish(publisher=NONCE, sequence=0, count=3, codec=Codec.RAW)
    assert message.payload == b"122"
    columns = msgspec.msgpack.decode(message.columns)
    assert columns == {"sizes": [1, 2, 0], "topics": ["orders.eu", "orders.us"], "topic": [0, 1, 0]}
    assert counters(bench)["plain_published"] == 3


def test_a_single_message_needs_no_columns():
    bench = bench_of()
    subscriber = listener(bench)
    arrive(bench, [b"orders.eu", b"x"])
    (message,) = subscriber.messages(Publish)
    assert (message.header.topic, message.columns, message.payload) == ("orders.eu", b"", b"x")


def test_sequences_go_on_over_turns_and_nobody_sees_a_gap():
    bench = bench_of()
    subscriber = listener(bench)
    arrive(bench, [b"a", b"1"], [b"a", b"2"])
    arrive(bench, [b"a", b"3"], [b"zebra", b"1"])
    found = [(message.key, message.header.sequence) for message in subscriber.messages(Publish)]
    assert [sequence for _, sequence in found] == [0, 2, 0]
    assert not subscriber.take(Lost)


def test_loss_is_counted_exactly_from_the_broker_on():
    bench = bench_of()
    slow = listener(bench, messages=0)
    for _ in range(30):
        arrive(bench, [b"a", b"x" * 900_000])
    waiting = len(slow.bench.engine._sessions.at((0, slow.peer)).outbox) - 1  # and a LOST behind them
    assert counters(bench)["live_dropped"] == 30 - waiting


def test_wildcards_of_ours_filter_plain_messages():
    bench = bench_of()
    subscriber = listener(bench, "*.eu")
    arrive(bench, [b"orders.us", b"1"])
    assert not subscriber.messages(Publish)


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        ([b"topic"], "shape"),
        ([b"topic", b"body", b"more"], "shape"),
        ([b"", b"x"], "topic"),
        ([b"orders eu", b"x"], "topic"),
        ([b"orders..eu", b"x"], "topic"),
        ([b"orders.*", b"x"], "topic"),
        ([b"\xff\xfe", b"x"], "topic"),
        ([b"t" * 256, b"x"], "topic"),
        ([b"topic", b"x" * (1024 * 1024 + 1)], "size"),
    ],
)
def test_what_cannot_be_a_message_of_ours_is_counted_by_kind_and_dropped(frames, kind):
    bench = bench_of()
    subscriber = listener(bench)
    arrive(bench, frames)
    assert not subscriber.messages(Publish)
    assert counters(bench) == {f"plain_dropped.{kind}": 1}


@pytest.mark.parametrize(
    ("label", "good", "bad"),
    [
        (Codec.JSON, [b"1", b' {"a": "\xc3\xa9"} '], [b"", b"[1", b"2],3", b"1,2", b"\xff", b"nul", b'"\xff"']),
        (Codec.MSGPACK, [b"\x01", b"\x81\xa1a\xc0"], [b"", b"\x92\x01", b"\x01\x01", b"\xc1"]),
    ],
)
def test_a_label_is_checked_body_by_body(label, good, bad):
    bench = bench_of(label)
    subscriber = listener(bench, codec=label)
    arrive(bench, *([b"a", body] for body in (*bad, *good)))
    (message,) = subscriber.messages(Publish)
    assert (message.header.codec, message.header.count) == (label, len(good))
    assert counters(bench)["plain_dropped.body"] == len(bad)


def test_labelled_bodies_are_translated_for_whoever_wants_the_other():
    bench = bench_of(Codec.JSON)
    subscriber = listener(bench, codec=Codec.MSGPACK)
    arrive(bench, [b"a", b'{"a": 1}'], [b"a", b"2"])
    (message,) = subscriber.messages(Publish)
    assert msgspec.msgpack.decode(message.payload) == [{"a": 1}, 2]


def test_a_json_client_gets_headers_and_columns_in_its_form():
    bench = bench_of(Codec.JSON)
    subscriber = listener(bench, form=JSON, codec=Codec.JSON)
    arrive(bench, [b"a.b", b"1"], [b"a.c", b"2"])
    (message,) = subscriber.messages(Publish)
    assert msgspec.json.decode(message.columns) == {"topics": ["a.b", "a.c"], "topic": [0, 1]}
    assert message.payload == b"[1,2]"


def test_a_lane_that_is_full_leaves_at_once_and_order_is_kept():
    bench = bench_of()
    subscriber = listener(bench, messages=1_000, size=1 << 30)
    bodies = [bytes([number]) * 30_000 for number in range(5)]
    arrive(bench, *([b"a", body] for body in bodies))
    messages = subscriber.messages(Publish)
    assert [message.header.count for message in messages] == [2, 2, 1]
    assert b"".join(message.payload for message in messages) == b"".join(bodies)


def test_plain_subscribers_hear_plain_publishers():
    bench = bench_of()
    bench.engine.receive(PLAIN_SUBSCRIBERS, b"21", [b"\1orders."], bench.now)
    for frames in ([b"orders.eu", b"1"], [b"zebra", b"2"]):
        bench.engine.receive(PLAIN_PUBLISHERS, b"20", frames, bench.now)
    bench.engine.turn(bench.now)
    assert bench.engine.effects() == [Offer([[b"orders.eu", b"1"]])]


def test_more_topics_than_are_remembered_are_served_all_the_same(monkeypatch):
    monkeypatch.setattr(plain_publishers, "_TOPICS_KNOWN", 2)
    bench = bench_of()
    arrive(bench, *([b"a.%d" % number, b"x"] for number in range(10)))
    assert counters(bench)["plain_published"] == 10


def test_status_counts_connections():
    bench = bench_of()
    bench.engine.connected(PLAIN_PUBLISHERS, b"20", bench.now)
    bench.engine.connected(PLAIN_PUBLISHERS, b"21", bench.now)
    bench.engine.disconnected(PLAIN_PUBLISHERS, b"20", bench.now)
    assert bench.engine.status(bench.now)["plain"]["publishers"] == 1


def test_people_are_told_of_the_first_message_dropped_for_a_fault_and_then_ever_more_rarely():
    bench = bench_of()
    arrive(bench, *([b"orders.eu hello"] for _ in range(9)), [b"not a topic", b""])
    told = [event for event in bench.engine.events() if isinstance(event, PlainDropped)]
    assert [(event.fault, event.count) for event in told] == [*(("shape", n) for n in (1, 2, 4, 8)), ("topic", 1)]
    assert told[0].wanted == "two frames, topic and body"
