from __future__ import annotations

import gc
import weakref

import pytest

from patterns.core.client import Failed
from patterns.core.request import Outcome, RequesterEngine
from patterns.wire.errors import (
    ApplicationError,
    Fenced,
    NoReplier,
    OutcomeUnknown,
    ProtocolError,
    ReplierLost,
    ShuttingDown,
    TimedOut,
    Unavailable,
)
from patterns.wire.messages import Cancel, Codec, Credit, ErrorHeader, Hello, Reply, Request
from tests.unit.core_clients.wire import BROKER, BROKERS, NONCE, PEER, PEERS, S, Wire, calm


def wired(addresses=BROKER):
    return Wire(RequesterEngine(addresses, NONCE, Codec.MSGPACK, calm))


def ask(wire, service="price", timeout_us=5 * S, **more):
    number = wire.engine.request(service, Codec.MSGPACK, b"\x91\x01", b"", timeout_us=timeout_us, now=wire.now, **more)
    wire.settle()
    return number


def outcome(wire):
    (found,) = wire.heard(Outcome)
    return found


@pytest.fixture
def wire():
    wire = wired()
    wire.greet()
    return wire


@pytest.fixture
def peers():
    wire = wired(PEERS)
    wire.greet(1, services=["price"], messages=10)
    wire.greet(2, services=["price", "stock"], messages=5)
    return wire


def test_a_reply_is_the_outcome(wire):
    number = ask(wire)
    assert wire.sent(Request)[0].timeout_ms == 5_000
    wire.say(Reply(id=number), payload=b"\x91\x02")
    assert outcome(wire) == Outcome(number, None, Codec.MSGPACK, b"\x91\x02")
    assert wire.engine.outstanding == 0


def test_an_error_is_the_outcome(wire):
    number = ask(wire)
    wire.say(ErrorHeader(number=700, scope="request", id=number, code="no_such_sku"))
    error = outcome(wire).error
    assert isinstance(error, ApplicationError)
    assert error.code == "no_such_sku"


def test_the_deadline_is_the_outcome_and_the_replier_is_told(wire):
    number = ask(wire, timeout_us=1 * S)
    wire.wait(1_000)
    assert isinstance(outcome(wire).error, TimedOut)
    assert wire.sent(Cancel) == [Cancel(number)]


def test_a_late_reply_meets_nobody(wire):
    number = ask(wire, timeout_us=1 * S)
    wire.wait(1_000)
    wire.heard(Outcome)
    wire.say(Reply(id=number), payload=b"\x91\x02")
    assert wire.heard(Outcome) == []
    assert wire.engine.counters["late_replies"] == 1


def test_a_second_reply_meets_nobody(wire):
    number = ask(wire)
    wire.say(Reply(id=number))
    wire.say(Reply(id=number))
    outcome(wire)


def test_a_reply_to_a_request_that_was_not_sent_meets_nobody(wire):
    wire = wired()
    wire.greet(messages=0)
    number = ask(wire)
    wire.say(Reply(id=number))
    assert wire.heard(Outcome) == []
    wire.say(Credit(1, 100))
    assert [request.id for request in wire.sent(Request)] == [number]


def test_a_reply_with_columns_that_cannot_be_read_is_an_outcome_too(wire):
    number = ask(wire)
    wire.say(Reply(id=number), columns=b"\x01", payload=b"\x91\x02")
    assert isinstance(outcome(wire).error, ProtocolError)


def test_a_lost_broker_leaves_the_outcome_unknown(wire):
    ask(wire)
    wire.disconnect()
    assert isinstance(outcome(wire).error, OutcomeUnknown)


def test_a_lost_broker_is_asked_again_for_what_is_idempotent(wire):
    number = ask(wire, idempotent=True)
    wire.sent(Request)
    wire.back(epoch=8)
    (again,) = wire.sent(Request)
    assert again.id == number
    assert again.timeout_ms < 5_000
    wire.say(Reply(id=number))
    assert outcome(wire).error is None


def test_what_was_not_sent_waits_for_the_session():
    wire = wired()
    number = ask(wire)
    wire.greet()
    assert [request.id for request in wire.sent(Request)] == [number]


def test_without_a_broker_the_deadline_says_so():
    wire = wired()
    ask(wire, timeout_us=1 * S)
    wire.wait(1_000)
    assert isinstance(outcome(wire).error, Unavailable)


def test_nothing_is_sent_for_a_request_whose_time_is_over():
    wire = wired()
    ask(wire, timeout_us=1 * S)
    wire.now += 2 * S  # the process stood still; sockets are drained before timers
    wire.engine.connected(wire.link, wire.now)
    wire.greet()
    assert wire.sent(Request) == []
    wire.wait(0)
    assert isinstance(outcome(wire).error, TimedOut)


def test_an_outcome_renews_the_credit_of_its_request(wire):
    wire = wired()
    wire.greet(messages=1)
    first, second = ask(wire), ask(wire)
    assert [request.id for request in wire.sent(Request)] == [first]
    wire.say(Reply(id=first))
    assert [request.id for request in wire.sent(Request)] == [second]


@pytest.mark.parametrize("leaves", [True, False], ids=["forgotten", "timed out"])
def test_a_request_that_ends_without_an_outcome_renews_its_credit(wire, leaves):
    wire = wired()
    wire.greet(messages=1)
    first, second = ask(wire, timeout_us=1 * S), ask(wire)
    if leaves:
        wire.engine.forget(first, wire.now)
        wire.settle()
    else:
        wire.wait(1_000)
    assert [request.id for request in wire.sent(Request)] == [first, second]
    assert wire.sent(Cancel) == [Cancel(first)]


def test_a_forgotten_request_has_no_outcome(wire):
    number = ask(wire)
    wire.engine.forget(number, wire.now)
    wire.say(Reply(id=number))
    wire.wait(6_000)
    assert wire.heard(Outcome) == []


def test_the_credit_for_replies_is_renewed_as_they_are_read(wire):
    for _ in range(3_000):
        wire.say(Reply(id=ask(wire)))
    assert wire.sent(Credit)


def test_of_several_peers_the_one_with_the_most_credit_is_asked(peers):
    ask(peers)
    assert len(peers.sent(Request, link=1)) == 1


def test_only_a_peer_that_offers_the_service_is_asked(peers):
    ask(peers, "stock")
    assert len(peers.sent(Request, link=2)) == 1


def test_a_service_that_nobody_offers_is_no_replier_after_the_wait(peers):
    ask(peers, "weather", wait_ms=300)
    peers.wait(299)
    assert peers.heard(Outcome) == []
    peers.wait(1)
    error = outcome(peers).error
    assert isinstance(error, NoReplier)
    assert "tcp://a:1, tcp://b:2" in error.detail


def test_the_wait_for_a_replier_ends_before_the_deadline(wire, peers):
    ask(wire, wait_ms=60_000, timeout_us=S)
    assert wire.sent(Request)[0].wait_ms == 900
    ask(peers, "weather", wait_ms=60_000, timeout_us=S)
    peers.wait(900)
    assert isinstance(outcome(peers).error, NoReplier)


def test_a_request_that_waited_for_the_broker_leaves_that_one_time_to_say_no(wire):
    wire = wired()
    ask(wire, wait_ms=1_000, timeout_us=S)
    wire.wait(500)
    wire.greet()
    (request,) = wire.sent(Request)
    assert request.wait_ms <= request.timeout_ms * 9 // 10 <= 450


def test_no_replier_from_one_peer_leads_to_the_next(peers):
    number = ask(peers)
    peers.sent(Request)
    peers.say(ErrorHeader(number=202, scope="request", id=number), 1)
    assert [request.id for request in peers.sent(Request, link=2)] == [number]
    peers.say(ErrorHeader(number=202, scope="request", id=number), 2)
    peers.wait(2_000)
    assert isinstance(outcome(peers).error, NoReplier)


def test_a_peer_that_was_not_asked_has_no_say(peers):
    number = ask(peers)
    peers.sent(Request)
    peers.say(ErrorHeader(number=202, scope="request", id=number), 2)
    peers.say(Reply(id=number), 2)
    assert peers.heard(Outcome) == []
    assert peers.sent(Request) == []


def test_a_lost_replier_is_the_outcome(peers):
    ask(peers)
    peers.disconnect(1)
    assert isinstance(outcome(peers).error, ReplierLost)


def test_a_lost_replier_leads_to_another_for_what_is_idempotent(peers):
    number = ask(peers, idempotent=True)
    peers.sent(Request)
    peers.disconnect(1)
    assert [request.id for request in peers.sent(Request, link=2)] == [number]


def test_a_refusal_by_one_peer_leaves_the_others(peers):
    number = ask(peers, idempotent=True)
    peers.sent(Request)
    peers.say(ErrorHeader(number=106), 1)
    assert peers.engine.error is None
    assert not peers.heard(Failed)
    assert [request.id for request in peers.sent(Request, link=2)] == [number]
    peers.say(ErrorHeader(number=106), 2)
    assert isinstance(peers.engine.error, Fenced)


def test_nothing_is_asked_again_of_a_session_that_was_refused(wire):
    ask(wire, idempotent=True)
    wire.sent(Request)
    wire.say(ErrorHeader(number=106))
    assert wire.sent(Request) == []
    wire.wait(5_000)
    assert isinstance(outcome(wire).error, Fenced)


def test_an_idempotent_request_waits_for_its_only_replier_to_come_back():
    wire = wired(PEER)
    wire.greet(services=["price"])
    number = ask(wire, idempotent=True)
    wire.sent(Request)
    wire.wait(1_500)
    wire.disconnect()
    wire.wait(1_000)
    assert wire.heard(Outcome) == []
    wire.greet(services=["price"])
    assert [request.id for request in wire.sent(Request)] == [number]


def test_a_request_that_waits_for_a_peers_credit_outlives_the_wait_for_a_service():
    wire = wired(PEER)
    wire.greet(services=["price"], messages=1)
    first, second = ask(wire), ask(wire, wait_ms=100)
    wire.sent(Request)
    wire.wait(500)
    wire.say(Reply(id=first))
    assert [request.id for request in wire.sent(Request)] == [second]


def test_every_request_has_one_outcome_whatever_happens(wire):
    numbers = {ask(wire, timeout_us=1 * S, idempotent=bool(n % 2)) for n in range(20)}
    for number in sorted(numbers)[:4]:
        wire.say(Reply(id=number))
    wire.back()
    wire.sent(Hello)
    wire.wait(2_000)
    assert sorted(found.id for found in wire.heard(Outcome)) == sorted(numbers)
    assert wire.engine.outstanding == 0


def refuse(wire, number, link=None):
    wire.say(ErrorHeader(number=403, scope="request", id=number, retryable=True, retry_after_ms=1_000), link)


def test_a_broker_that_shuts_down_is_left_for_the_next_address_and_the_request_goes_along():
    wire = wired(BROKERS)
    wire.greet()
    number = ask(wire)
    refuse(wire, number)
    wire.wait(0)
    assert [one.address for one in wire.opened] == ["tcp://a:7700", "tcp://b:7700"]
    wire.greet()
    assert [request.id for request in wire.sent(Request)] == [number, number]
    wire.say(Reply(id=number), payload=b"\x91\x02")
    assert outcome(wire).error is None


def test_what_such_a_broker_works_on_is_waited_for_first():
    wire = wired(BROKERS)
    wire.greet()
    slow, refused = ask(wire), ask(wire)
    refuse(wire, refused)
    third = ask(wire)
    assert len(wire.opened) == 1
    assert [request.id for request in wire.sent(Request)] == [slow, refused]  # nothing new is sent there
    wire.say(Reply(id=slow), payload=b"\x91\x02")
    assert outcome(wire).id == slow
    wire.wait(0)
    wire.greet()
    assert {request.id for request in wire.sent(Request)[-2:]} == {refused, third}


def test_the_time_of_a_request_goes_on_while_it_waits_for_another_broker():
    wire = wired(BROKERS)
    wire.greet()
    slow, refused = ask(wire), ask(wire, timeout_us=1 * S)
    refuse(wire, refused)
    wire.wait(1_000)
    found = outcome(wire)
    assert (found.id, type(found.error)) == (refused, TimedOut)
    assert wire.engine.outstanding == 1
    assert slow


def test_with_one_address_the_refusal_is_the_outcome(wire):
    refuse(wire, ask(wire))
    error = outcome(wire).error
    assert isinstance(error, ShuttingDown)
    assert (error.retryable, error.retry_after_ms) == (True, 1_000)


def test_a_peer_that_shuts_down_is_passed_over_for_another(peers):
    number = ask(peers)
    refuse(peers, number, 1)
    assert [link for link, message in peers.inbox if isinstance(message.header, Request)][-1] == 2
    peers.say(Reply(id=number), 2, payload=b"\x91\x02")
    assert outcome(peers).error is None


def test_an_engine_that_is_dropped_with_a_request_open_leaves_memory(wire):
    engine = weakref.ref(wire.engine)
    ask(wire)
    wire.engine = None
    gc.collect()
    assert engine() is None
