from __future__ import annotations

import pytest

from patterns.core.subscribe import Loss, PeerSubscriberEngine, Received, SubscriberEngine
from patterns.wire.engine import Close
from patterns.wire.errors import BadName, SlowSubscriber, Unavailable
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import (
    Codec,
    Columns,
    Credit,
    Echo,
    ErrorHeader,
    Hello,
    Lost,
    Overflow,
    Publish,
    Subscribe,
    Subscribed,
)
from patterns.wire.names import channel_of
from tests.unit.core_clients.wire import BROKER, NONCE, PEER, PEERS, Wire, calm

ONE, OTHER = b"1" * 16, b"2" * 16
CHANNEL = channel_of("a")
KEY = bytes([CHANNEL])


@pytest.fixture
def wire():
    wire = Wire(SubscriberEngine(BROKER, ["a.*", "b"], NONCE, Codec.MSGPACK, calm))
    wire.greet()
    return wire


@pytest.fixture
def peer():
    wire = Wire(PeerSubscriberEngine(PEER, ["a.>"], NONCE))
    wire.say(Echo(ONE, {}), 1, key=NONCE)
    return wire


def publish(wire, sequence, count=1, topic="a.b", publisher=ONE, link=1):
    header = Publish(publisher=publisher, sequence=sequence, count=count, topic=topic)
    wire.say(header, link, key=KEY, payload=b"\x90")


def echo(wire, publisher=ONE, following=0, link=1):
    wire.say(Echo(publisher, {str(CHANNEL): following}), link, key=NONCE)


def test_every_pattern_is_subscribed_at_ready(wire):
    assert wire.sent(Subscribe) == [Subscribe(1, "a.*"), Subscribe(2, "b")]
    wire.say(Subscribed(1))
    assert not wire.engine.is_listening
    wire.say(Subscribed(2))
    assert wire.engine.is_listening


def test_ten_thousand_patterns_are_asked_for_a_few_at_a_time():
    wire = Wire(SubscriberEngine(BROKER, [f"a.{number}" for number in range(10_000)], NONCE, Codec.MSGPACK, calm))
    wire.greet()
    asked = wire.sent(Subscribe)
    assert len(asked) == 256
    for number in range(1, 10_001):
        assert not wire.engine.is_listening
        assert number <= len(asked) <= number + 255
        wire.say(Subscribed(number))
        asked += wire.sent(Subscribe)
    assert wire.engine.is_listening
    assert [header.id for header in asked] == list(range(1, 10_001))


def test_who_waits_for_many_patterns_is_told_how_many_are_confirmed(wire):
    wire.say(Subscribed(1))
    assert "1 of 2 patterns" in str(wire.engine.unavailable())


def test_patterns_are_subscribed_again_after_a_loss_which_is_an_interruption(wire):
    wire.sent(Subscribe)
    wire.back(epoch=8)
    assert len(wire.sent(Subscribe)) == 2
    assert wire.engine.loss.interruptions == 1
    assert not wire.engine.is_listening


def test_a_bad_pattern_is_refused_before_anything_is_sent():
    with pytest.raises(BadName):
        SubscriberEngine(BROKER, ["a.>.b"], NONCE, Codec.MSGPACK, calm)


def test_a_pattern_that_the_broker_refuses_is_the_engines_error(wire):
    wire.say(ErrorHeader(number=200, scope="subscription", id=1, detail="no"))
    assert isinstance(wire.engine.error, BadName)


def test_what_no_pattern_matches_is_dropped(wire):
    publish(wire, 0, topic="a.b.c")
    publish(wire, 0, topic="a.b")
    (batch,) = wire.heard(Received)
    assert (batch.topic, batch.wanted) == ("a.b", None)


def test_of_a_mixed_batch_the_wanted_ones_are_marked(wire):
    columns = pack_columns(Columns(topics=["a.b", "a.b.c", "a.d"], topic=[2, 1, 0]), MSGPACK)
    wire.say(Publish(publisher=ONE, sequence=0, count=3), key=KEY, columns=columns, payload=b"\x93\x01\x02\x03")
    (batch,) = wire.heard(Received)
    assert (batch.wanted, batch.topics) == ([0, 2], ["a.d", "a.b.c", "a.b"])


@pytest.mark.parametrize("topics", [["b"], ["a.b", "b"]])
def test_a_topic_of_another_channel_than_frame_1_says_is_refused(wire, topics):
    columns = pack_columns(Columns(topics=topics, topic=[0] * 3), MSGPACK) if len(topics) > 1 else b""
    header = Publish(publisher=ONE, sequence=0, count=3, topic=None if columns else topics[0])
    wire.say(header, key=KEY, columns=columns, payload=b"\x93\x01\x02\x03")
    assert wire.heard(Received) == []
    assert wire.engine.counters["malformed"] == 1


@pytest.mark.parametrize("columns", [b"", b"\x01", b"\x81\xa4keys\x91\xa1k"])
def test_a_batch_that_cannot_be_read_is_counted(wire, columns):
    wire.say(Publish(publisher=ONE, sequence=0, count=2), key=KEY, columns=columns, payload=b"\x92\x01\x02")
    assert wire.heard(Received) == []
    assert wire.engine.counters["malformed"] == 1


def test_raw_sizes_are_checked_at_the_door(wire):
    columns = pack_columns(Columns(sizes=[1, 1]), MSGPACK)
    header = Publish(publisher=ONE, sequence=0, count=2, codec=Codec.RAW, topic="b")
    wire.say(header, key=KEY, columns=columns, payload=b"abc")
    assert wire.heard(Received) == []


def test_losses_that_the_broker_reports_are_totals_of_the_session(wire):
    wire.say(Lost(messages=10, upstream=1))
    wire.say(Lost(messages=15, upstream=1))
    wire.back()
    wire.say(Lost(messages=3))
    loss = wire.engine.loss
    assert (loss.dropped, loss.upstream, loss.lost) == (18, 1, 19)


def test_credit_is_granted_as_batches_are_taken(wire):
    wire.engine.taken(wire.now)
    wire.settle()
    assert wire.sent(Credit) == []
    for number in range(3):
        wire.say(Publish(publisher=ONE, sequence=number * 50_000, count=50_000, topic="a.b"), key=KEY)
    wire.engine.taken(wire.now)
    wire.settle()
    (credit,) = wire.sent(Credit)
    assert credit.messages == 150_000 + 262_144


def test_a_direct_subscriber_listens_to_channels_and_last_to_its_echo():
    wire = Wire(PeerSubscriberEngine(PEERS, ["a.>", "a", "b"], NONCE))
    prefixes = [one.prefix for one in wire.listened if one.link == 2]
    assert prefixes[-1] == b"ZB1e" + NONCE
    assert prefixes[:-1] == sorted(b"ZB1P" + bytes([channel_of(topic)]) for topic in ("a", "b"))


def test_a_wildcard_first_listens_to_everything():
    wire = Wire(PeerSubscriberEngine(PEER, ["a", "*.b"], NONCE))
    assert wire.listened[0].prefix == b"ZB1P"


def test_ready_means_that_every_address_has_echoed():
    wire = Wire(PeerSubscriberEngine(PEERS, ["a"], NONCE))
    echo(wire, link=1)
    assert not wire.engine.is_listening
    assert wire.engine.missing == "tcp://b:2"
    assert isinstance(wire.engine.unavailable(), Unavailable)
    echo(wire, OTHER, link=2)
    assert wire.engine.is_listening


def test_a_gap_in_a_publishers_sequence_is_counted_exactly(peer):
    publish(peer, 0, 10)
    publish(peer, 15, 5)
    assert peer.engine.loss.upstream == 5


def test_a_total_that_is_lower_than_one_before_says_nothing(wire):
    wire.say(Lost(messages=10))
    wire.say(Lost(messages=4, upstream=2))
    wire.say(Lost(messages=11))
    assert (wire.engine.loss.dropped, wire.engine.loss.upstream) == (11, 2)


def test_each_hello_says_what_to_lose():
    wire = Wire(SubscriberEngine(BROKER, ["a"], NONCE, Codec.MSGPACK, calm, Overflow.DROP_OLDEST))
    wire.greet()
    wire.back()
    assert [hello.overflow for hello in wire.sent(Hello)] == [Overflow.DROP_OLDEST] * 2


def test_a_session_that_ended_for_being_slow_is_not_opened_again_and_its_losses_count(wire):
    publish(wire, 0)
    wire.say(Lost(messages=9))
    wire.say(ErrorHeader(number=404, name="SLOW_SUBSCRIBER", detail="8 MiB waited"))
    assert isinstance(wire.engine.error, SlowSubscriber)
    assert wire.engine.closed
    assert wire.engine.loss.lost == 9
    assert len(wire.heard(Received)) == 1


def test_what_was_filtered_out_is_no_loss(peer):
    publish(peer, 0, 10, topic="axe")
    publish(peer, 10, 1)
    assert peer.engine.loss.lost == 0
    assert len(peer.heard(Received)) == 1


def test_an_echo_after_a_reconnect_tells_what_was_missed(peer):
    publish(peer, 0, 10)
    peer.disconnect(1)
    assert not peer.engine.is_listening
    echo(peer, following=25)
    assert (peer.engine.loss.upstream, peer.engine.loss.interruptions) == (15, 0)
    publish(peer, 25)
    assert peer.engine.loss.upstream == 15


def test_an_echo_of_another_publisher_is_one_interruption(peer):
    publish(peer, 0, 10)
    peer.disconnect(1)
    echo(peer, OTHER, 500)
    assert (peer.engine.loss.upstream, peer.engine.loss.interruptions) == (0, 1)
    publish(peer, 500, publisher=OTHER)
    assert peer.engine.loss.upstream == 0


def test_a_batch_that_comes_twice_is_no_loss(peer):
    for sequence in (0, 10, 0, 20):
        publish(peer, sequence, 10)
    assert peer.engine.loss.upstream == 0


def test_publishers_are_counted_apart():
    loss = Loss()
    loss.saw(ONE, 1, 100, 1)
    loss.saw(OTHER, 1, 500, 1)
    loss.saw(ONE, 2, 900, 1)
    assert loss.lost == 0
    loss.forget(ONE)
    loss.saw(ONE, 1, 200, 1)  # of what it published meanwhile nobody knows: that is the interruption
    assert (loss.lost, loss.interruptions) == (0, 1)
    loss.saw(OTHER, 1, 503, 1)
    assert loss.lost == 2


def test_frames_that_cannot_be_read_are_counted(peer):
    for frames in ([b"ZB1P" + KEY, b"\x80"], [b"junk"], [b"ZB1e" + NONCE, b"\x80"]):
        peer.engine.receive(1, b"", frames, peer.now)
    assert peer.engine.counters["malformed"] == 3


def test_leaving_closes_every_link(peer):
    peer.engine.leave(peer.now)
    peer.settle()
    assert peer.closed == [Close(1)]
    assert peer.engine.closed
