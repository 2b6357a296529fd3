from __future__ import annotations

from itertools import accumulate

import pytest

from patterns.core import publish
from patterns.core.publish import FIELDS, AudienceChanged, Lanes, PeerPublisherEngine, PublisherEngine
from patterns.wire.codec import decode
from patterns.wire.errors import BadBody, BadName, TooLarge
from patterns.wire.frames import ECHO_PREFIX, columns_of, parse
from patterns.wire.limits import COLUMNS_BYTES_TARGET
from patterns.wire.messages import Audience, Codec, Echo, Limits, Publish
from patterns.wire.names import channel_of
from tests.unit.core_clients.wire import BROKER, NONCE, PEER, Wire, calm

LISTENER = bytes(range(16, 32))


def filled(codec, *messages):
    lanes = Lanes(NONCE, codec)
    for topic, body, headers in messages:
        lanes.lane(topic).items.extend((topic, body, headers))
    return lanes


def opened(batches):
    """(header, columns, bodies) of each batch."""
    found = []
    for _messages, _size, frames in batches:
        message = parse(frames)
        header = message.header
        columns = columns_of(message, header.count)
        found.append(
            (message, header, columns, decode(header.codec, message.payload, header.count, columns.sizes or None))
        )
    return found


def publishing(engine, topic, *bodies):
    lane = engine.lanes.lane(topic)
    for body in bodies:
        lane.items.extend((topic, body, None))
    return engine.lanes.drain_all()


def test_messages_of_one_topic_need_no_columns():
    ((message, header, _columns, bodies),) = opened(filled(Codec.MSGPACK, ("a", 1, None), ("a", 2, None)).drain_all())
    assert (header.topic, header.sequence, header.count, message.columns) == ("a", 0, 2, b"")
    assert bodies == [1, 2]


def test_topics_of_one_channel_travel_in_order_in_one_batch():
    lanes = filled(Codec.RAW, ("a.x", b"1", None), ("a.y", b"", {"h": "v"}), ("a.x", b"33", None))
    ((message, header, columns, bodies),) = opened(lanes.drain_all())
    assert (header.topic, columns.topics, columns.topic) == (None, ["a.x", "a.y"], [0, 1, 0])
    assert (columns.headers, columns.sizes) == ([None, {"h": "v"}, None], [1, 0, 2])
    assert bodies == [b"1", b"", b"33"]
    assert message.key == bytes([channel_of("a")])


def test_channels_have_batches_and_sequences_of_their_own():
    lanes = filled(Codec.MSGPACK, ("a", 1, None), ("b", 2, None), ("a", 3, None))
    assert [(header.topic, header.sequence, header.count) for _, header, _, _ in opened(lanes.drain_all())] == [
        ("a", 0, 2),
        ("b", 0, 1),
    ]
    assert lanes.sequences() == {str(channel_of("a")): 2, str(channel_of("b")): 1}
    assert lanes.is_empty


def test_sequences_count_messages_on_from_batch_to_batch():
    engine = PublisherEngine(BROKER, NONCE, Codec.MSGPACK, calm)
    batches = publishing(engine, "a", 1, 2, 3) + publishing(engine, "a", 4)
    assert [header.sequence for _, header, _, _ in opened(batches)] == [0, 3]


@pytest.mark.parametrize(("codec", "bad", "error"), [
    (Codec.MSGPACK, 2**70, BadBody), (Codec.RAW, "text", BadBody), (Codec.MSGPACK, "x" * (1 << 21), TooLarge),
])  # fmt: skip
def test_a_bad_body_is_left_out_and_reported_and_leaves_no_gap(codec, bad, error):
    good = b"1" if codec is Codec.RAW else 1
    lanes = filled(codec, ("a.x", good, None), ("a.y", bad, None), ("a.z", good, None))
    ((_message, header, columns, bodies),) = opened(lanes.drain_all())
    assert (header.count, columns.topics, bodies) == (2, ["a.x", "a.z"], [good, good])
    (told,) = lanes.errors
    assert isinstance(told, error)
    assert "topic 'a.y'" in told.detail
    assert lanes.sequences() == {str(channel_of("a")): 2}


def test_nothing_but_bad_bodies_is_no_batch():
    lanes = filled(Codec.MSGPACK, ("a", 2**70, None))
    assert lanes.drain_all() == []
    assert len(lanes.errors) == 1


def test_a_lanes_limit_follows_the_size_of_its_messages():
    lanes = filled(Codec.RAW, *[("a", b"x" * 1_000, None)] * 10)
    lane = lanes.lane("a")
    lanes.drain(lane)
    assert lane.limit == 65 * FIELDS
    lane.items.extend(("a", b"", None))
    lanes.drain(lane)
    assert lane.limit == 8_192 * FIELDS


def test_without_room_every_lane_stops_the_next_message_and_goes_on_as_before():
    lanes = filled(Codec.RAW, *[("a", b"x" * 1_000, None)] * 10)
    lane = lanes.lane("a")
    lanes.drain(lane)
    lanes.admit(False)
    assert (lane.limit, lanes.lane("b").limit) == (0, 0)
    lane.items.extend(("a", b"x" * 2_000, None))
    lanes.drain(lane)
    assert lane.limit == 0
    lanes.admit(True)
    assert (lane.limit, lanes.lane("b").limit) == (32 * FIELDS, 128 * FIELDS)


def test_a_lane_whose_messages_fill_a_batch_each_stops_every_one_so_that_it_leaves_in_its_own_call():
    lanes = filled(Codec.RAW, ("a", b"x" * 70_000, None))
    lane = lanes.lane("a")
    lanes.drain(lane)
    assert (lane.full, lane.limit) == (FIELDS, 0)
    lanes.admit(False)
    lanes.admit(True)
    assert lane.limit == 0


def test_a_bad_topic_has_no_lane():
    with pytest.raises(BadName):
        Lanes(NONCE, Codec.RAW).lane("a..b")


def test_the_brokers_limit_of_a_body_holds_for_the_lanes():
    wire = Wire(PublisherEngine(BROKER, NONCE, Codec.RAW, calm))
    wire.greet(limits=Limits(100, 65_636))
    assert publishing(wire.engine, "a", bytes(101)) == []
    assert isinstance(wire.engine.lanes.errors[0], TooLarge)


def test_what_is_published_before_ready_leaves_in_order_then():
    wire = Wire(PublisherEngine(BROKER, NONCE, Codec.MSGPACK, calm))
    for number in range(3):
        wire.engine.publish(publishing(wire.engine, "a", number), wire.now)
    assert wire.engine.unsent > 0
    wire.greet()
    assert [header.sequence for header in wire.sent(Publish)] == [0, 1, 2]
    assert wire.engine.unsent == 0


def test_room_ends_where_too_much_waits_for_the_broker():
    wire = Wire(PublisherEngine(BROKER, NONCE, Codec.RAW, calm))
    for _ in range(8):
        assert wire.engine.room
        wire.engine.publish(publishing(wire.engine, "a", bytes(1 << 20)), wire.now)
    assert not wire.engine.room


def test_the_audience_is_told_and_gone_with_the_connection():
    wire = Wire(PublisherEngine(BROKER, NONCE, Codec.MSGPACK, calm))
    wire.greet()
    wire.say(Audience(3))
    assert wire.heard(AudienceChanged) == [AudienceChanged(3)]
    assert wire.engine.audience == 3
    wire.disconnect()
    assert wire.engine.audience == 0


@pytest.fixture
def peer():
    return Wire(PeerPublisherEngine(PEER[0], NONCE, Codec.MSGPACK))


def subscription(wire, frame):
    wire.engine.receive(1, b"", [frame], wire.now)
    wire.settle()


def test_a_subscription_to_an_echo_is_answered_with_the_next_sequences(peer):
    publishing(peer.engine, "a", 1, 2)
    subscription(peer, b"\x01" + ECHO_PREFIX + LISTENER)
    (message,) = peer.messages(Echo)
    assert message.key == LISTENER
    assert message.header == Echo(NONCE, {str(channel_of("a")): 2})
    assert peer.engine.audience == 1


def test_the_audience_is_the_number_of_echo_subscriptions_that_live(peer):
    subscription(peer, b"\x01" + ECHO_PREFIX + LISTENER)
    subscription(peer, b"\x00" + ECHO_PREFIX + LISTENER)
    assert peer.heard(AudienceChanged) == [AudienceChanged(1), AudienceChanged(0)]


def test_more_subscribers_than_may_be_counted_get_no_echo(peer, monkeypatch):
    monkeypatch.setattr(publish, "SUBSCRIBERS_MAX", 2)
    for number in (1, 2, 2, 3):
        subscription(peer, b"\x01" + ECHO_PREFIX + bytes([number]) * 16)
    assert [message.key[0] for message in peer.messages(Echo)] == [1, 2, 2]
    assert (peer.engine.audience, peer.engine.counters) == (2, {"subscribers_refused": 1})


@pytest.mark.parametrize("frame", [b"", b"\x01", b"\x01ZB1P\x03", b"\x01ZB1e", b"\x01ZB1e" + bytes(17), b"\x02ZB1x"])
def test_other_subscriptions_are_not_answered(peer, frame):
    subscription(peer, frame)
    assert peer.inbox == []
    assert peer.engine.audience == 0


def test_a_bound_publisher_sends_at_once_in_order(peer):
    for number in range(3):
        peer.engine.publish(publishing(peer.engine, "a", number), peer.now)
    peer.settle()
    assert [header.sequence for header in peer.sent(Publish)] == [0, 1, 2]
    peer.engine.leave(peer.now)
    assert peer.engine.closed


@pytest.mark.parametrize("headers", [{"a": "v" * 1_000}, None])
def test_batches_are_closed_before_their_columns_are_too_large(headers):
    topics = [
        f"a.{number:05}.{'t' * 200}" for number in range(8_000)
    ]  # or else the distinct topics alone pass the limit
    lanes = filled(Codec.MSGPACK, *((topic, at, headers) for at, topic in enumerate(topics)))
    batches = lanes.drain_all()
    read = opened(batches)
    assert max(len(frames[2]) for _, _, frames in batches) <= COLUMNS_BYTES_TARGET
    assert [header.sequence for _, header, _, _ in read] == [*accumulate([0, *(h.count for _, h, _, _ in read[:-1])])]
    assert [columns.topics[at] for _, _, columns, _ in read for at in columns.topic] == topics
    assert [body for _, _, _, bodies in read for body in bodies] == list(range(8_000))
