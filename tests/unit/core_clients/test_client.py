from __future__ import annotations

import pytest

from patterns.core.client import Failed, SessionLost, SessionReady
from patterns.core.publish import PublisherEngine
from patterns.wire.engine import Unreachable
from patterns.wire.errors import BadAddress, Fenced, Unavailable
from patterns.wire.messages import (
    Codec,
    Credit,
    ErrorHeader,
    Goodbye,
    Hello,
    NoSessionHeader,
    Ping,
    Pong,
    Publish,
    Resume,
)
from tests.unit.core_clients.wire import BROKER, BROKERS, MS, NONCE, PEER, PEERS, Wire, calm, ready


def wired(addresses=BROKER, jitter=calm):
    return Wire(PublisherEngine(addresses, NONCE, Codec.MSGPACK, jitter))


@pytest.fixture
def wire():
    return wired()


def test_a_connection_begins_with_hello_and_ready_opens_the_session(wire):
    assert not wire.sent(Hello)
    wire.connect()
    (hello,) = wire.sent(Hello)
    assert (hello.nonce, hello.resume) == (NONCE, None)
    wire.say(ready())
    assert wire.heard(SessionReady) == [SessionReady(False)]
    assert wire.engine.is_ready


def test_a_second_connected_says_no_second_hello(wire):
    wire.connect()
    wire.connect()
    assert len(wire.sent(Hello)) == 1


def test_no_session_leads_to_a_new_link_and_a_hello_that_resumes(wire):
    wire.greet(epoch=7)
    wire.sent(Hello)
    first = wire.link
    wire.say(NoSessionHeader(7))
    wire.wait(0)
    assert wire.closed[-1].link == first
    assert wire.link != first
    wire.connect()
    assert wire.sent(Hello)[0].resume == Resume(7)
    assert wire.heard(SessionLost)


def test_what_comes_late_on_a_link_that_was_given_up_is_nothing(wire):
    wire.greet()
    first = wire.link
    wire.disconnect()
    wire.say(ready(), first)
    assert not wire.engine.is_ready


def test_after_a_loss_hello_is_spread_in_time(wire):
    wire = wired(jitter=lambda: 0.5)
    wire.greet()
    wire.disconnect()
    wire.sent(Hello)
    wire.wait(100)
    wire.connect()
    assert not wire.sent(Hello)
    wire.wait(250)
    assert len(wire.sent(Hello)) == 1


def test_tries_are_spaced_by_growing_waits(wire):
    waits = []
    for _ in range(5):
        wire.engine.unreachable(wire.link, wire.now)
        waits.append((wire.engine.next_timeout() - wire.now) // MS)
        wire.wait(waits[-1])
    assert waits == [100, 200, 400, 800, 1_000]


def test_a_handshake_that_never_comes_is_given_up(wire):
    wire.connect()
    first = wire.link
    wire.wait(5_200)
    assert wire.link != first
    assert "no answer" in wire.engine.detail


def test_several_brokers_are_tried_one_after_the_other():
    wire = wired(BROKERS)
    for _ in range(3):
        wire.engine.unreachable(wire.link, wire.now)
        wire.wait(1_000)
    assert [one.address[6:7] for one in wire.opened] == ["a", "b", "a", "b"]


def test_a_goodbye_of_the_broker_leads_to_its_next_address():
    wire = wired(BROKERS)
    wire.greet()
    wire.say(Goodbye("restart", 60_000))
    wire.wait(200)
    assert wire.opened[-1].address == "tcp://b:7700"


def test_a_goodbye_of_the_only_broker_waits_as_it_asked(wire):
    wire.greet()
    wire.say(Goodbye("restart", 3_000))
    wire.wait(2_900)
    assert len(wire.opened) == 1
    wire.wait(200)
    assert len(wire.opened) == 2


@pytest.mark.parametrize(("asked_ms", "waits_ms"), [(1, 100), ((1 << 53) - 1, 60_000)])
@pytest.mark.parametrize("scope", ["goodbye", "refusal"])
def test_nobody_is_told_to_stay_away_for_ever_or_hardly_at_all(wire, scope, asked_ms, waits_ms):
    wire.connect()
    if scope == "goodbye":
        wire.say(ready())
        wire.say(Goodbye("restart", asked_ms))
    else:
        wire.say(ErrorHeader(number=503, retryable=True, retry_after_ms=asked_ms))
    wire.wait(waits_ms - 1)
    assert len(wire.opened) == 1
    wire.wait(1)
    assert len(wire.opened) == 2


def test_no_session_in_answer_to_hello_is_tried_again_after_growing_waits(wire):
    for wait_ms in (100, 200, 400):
        wire.connect()
        tries = len(wire.opened)
        wire.say(NoSessionHeader(7))
        wire.wait(wait_ms - 1)
        assert len(wire.opened) == tries
        wire.wait(1)
        assert len(wire.opened) == tries + 1


def test_peers_have_a_session_each():
    wire = wired(PEERS)
    wire.greet(1)
    assert [one.link for one in wire.opened] == [1, 2]
    assert [session.is_ready for session in wire.engine.sessions] == [True, False]


def test_a_silent_peer_is_pinged_and_given_up(wire):
    wire.greet()
    wire.wait(2_000)
    assert wire.sent(Ping)
    first = wire.link
    wire.wait(4_200)
    assert wire.heard(SessionLost)
    assert wire.link != first


@pytest.mark.parametrize(
    ("heartbeat_ms", "expiry_ms", "asks_ms", "ends_ms"),
    [
        (500, 1_500, 500, 1_500),
        (0, 0, 100, 200),
        (3_600_000, 7_200_000, 60_000, 180_000),
        (10_000, 1_000, 10_000, 20_000),
    ],
)
def test_ready_says_how_much_silence_is_too_much_within_reason(wire, heartbeat_ms, expiry_ms, asks_ms, ends_ms):
    wire.greet(heartbeat_ms=heartbeat_ms, expiry_ms=expiry_ms)
    wire.wait(asks_ms - 1)
    assert not wire.sent(Ping)
    wire.wait(1)
    assert len(wire.sent(Ping)) == 1
    wire.wait(ends_ms - asks_ms - 1)
    assert not wire.heard(SessionLost)
    wire.wait(1)
    assert wire.heard(SessionLost)


def test_a_peer_that_answers_pings_is_kept(wire):
    wire.greet()
    for _ in range(10):
        wire.wait(2_000)
        assert wire.sent(Ping)
        wire.say(Pong(1))
    assert not wire.heard(SessionLost)


def test_a_ping_is_answered_with_its_token(wire):
    wire.greet()
    wire.say(Ping(99))
    assert wire.sent(Pong) == [Pong(99)]


def test_a_client_that_sends_nothing_is_heard_of_all_the_same(wire):
    wire.greet()
    for _ in range(8):
        wire.wait(500)
        wire.say(Ping(1))
        wire.inbox.clear()
    assert not wire.heard(SessionLost)


def test_an_unknown_kind_is_answered_and_the_session_goes_on(wire):
    wire.greet()
    wire.engine.receive(wire.link, b"", [b"ZB1z", b"\x80"], wire.now)
    wire.settle()
    assert wire.sent(ErrorHeader)[0].name == "UNKNOWN_COMMAND"
    assert wire.engine.is_ready


@pytest.mark.parametrize("frames", [[b"junk"], [b"ZB1h", b"\x80"], [b"ZB1G"], [b"ZB1P\x01", b"\x80"]])
def test_malformed_frames_are_counted_and_dropped(wire, frames):
    wire.greet()
    wire.engine.receive(wire.link, b"", frames, wire.now)
    assert wire.engine.counters["malformed"] == 1
    assert wire.engine.is_ready


def test_ready_before_hello_is_the_peers_mistake(wire):
    wire.say(ready())
    assert wire.engine.counters["malformed"] == 1
    assert not wire.engine.is_ready


def test_a_refusal_for_good_is_said_once_and_closes(wire):
    wire.connect()
    wire.say(ErrorHeader(number=106, detail="another has your name"))
    (failed,) = wire.heard(Failed)
    assert isinstance(failed.error, Fenced)
    assert wire.engine.closed
    assert wire.engine.unavailable() is failed.error


def test_a_refusal_that_may_pass_is_tried_again_when_it_says(wire):
    wire.connect()
    wire.say(ErrorHeader(number=403, retryable=True, retry_after_ms=700))
    wire.wait(699)
    assert len(wire.opened) == 1
    wire.wait(1)
    assert len(wire.opened) == 2


def test_unavailable_names_the_addresses_and_the_reason(wire):
    wire.engine.unreachable(wire.link, wire.now)
    error = wire.engine.unavailable()
    assert isinstance(error, Unavailable)
    assert "nobody listens at zb://a:7700" in error.detail


@pytest.mark.parametrize(
    ("why", "text"), [(Unreachable.NO_NAME, "zb://a:7700 does not resolve"), (Unreachable.STRANGER, "handshake")]
)
def test_unavailable_says_why_as_far_as_it_is_known(wire, why, text):
    wire.engine.unreachable(wire.link, wire.now, why)
    assert text in wire.engine.unavailable().detail


def test_a_refusal_that_may_pass_leads_to_the_next_broker_without_waiting_for_this_one():
    wire = wired(BROKERS)
    wire.connect()
    wire.say(ErrorHeader(number=403, retryable=True, retry_after_ms=60_000))
    wire.wait(100)
    assert [one.address for one in wire.opened] == ["tcp://a:7700", "tcp://b:7700"]


def test_a_broker_at_a_peers_address_is_an_error_that_says_what_to_write():
    wire = wired(PEER)
    wire.greet(cluster="c")
    assert isinstance(wire.engine.error, BadAddress)
    assert "write zb://a:1" in wire.engine.error.detail
    assert wire.engine.closed


def test_leaving_says_goodbye_and_waits_for_the_last_word(wire):
    wire.greet()
    wire.engine.leave(wire.now)
    wire.settle()
    assert wire.sent(Goodbye)
    assert not wire.engine.closed
    wire.say(Goodbye())
    assert wire.engine.closed


def test_leaving_ends_though_the_last_word_never_comes(wire):
    wire.greet()
    wire.engine.leave(wire.now)
    wire.wait(2_000)
    assert wire.engine.closed


def test_leaving_before_a_session_is_at_once(wire):
    wire.engine.leave(wire.now)
    assert wire.engine.closed


def test_credit_bounds_what_is_sent_and_a_grant_opens_it(wire):
    wire.greet(messages=1)
    for topic in ("a.1", "a.2"):
        lane = wire.engine.lanes.lane(topic)
        lane.items.extend((topic, 1, None))
        wire.engine.publish(wire.engine.lanes.drain_all(), wire.now)
    wire.settle()
    assert [header.sequence for header in wire.sent(Publish)] == [0]
    wire.say(Credit(2, 1 << 20))
    assert [header.sequence for header in wire.sent(Publish)] == [1]


def test_a_message_of_ours_that_was_malformed_is_the_end(wire):
    wire.greet()
    wire.say(ErrorHeader(number=100, detail="columns of 2000000 bytes", scope="command"))
    (failed,) = wire.heard(Failed)
    assert failed.error is wire.engine.error
    assert "2000000" in failed.error.detail
    assert wire.engine.closed


@pytest.mark.parametrize("header", [ErrorHeader(number=104, scope="command"), ErrorHeader(number=100, scope="lease")])
def test_what_is_not_about_the_form_of_a_message_is_the_roles_matter(wire, header):
    wire.greet()
    wire.say(header)
    assert wire.engine.is_ready
