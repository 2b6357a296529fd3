from __future__ import annotations

import pytest

from patterns.core.reply import PeerReplierEngine, ReplierEngine, RequestCancelled, Requested, ServiceReady
from patterns.wire.engine import Send
from patterns.wire.errors import ApplicationError
from patterns.wire.frames import JSON, MSGPACK, columns_of, pack, pack_columns, parse
from patterns.wire.messages import (
    Cancel,
    Codec,
    Columns,
    ErrorHeader,
    Goodbye,
    Hello,
    Offer,
    Offered,
    Ping,
    Pong,
    Ready,
    Reply,
    Request,
    Resume,
    Role,
    Subscribe,
    Withdraw,
)
from tests.unit.core_clients.wire import BROKER, NONCE, PEER, S, Wire, calm

MIB = 1 << 20


@pytest.fixture
def wire():
    wire = Wire(ReplierEngine(BROKER, ["price", "stock"], NONCE, Codec.MSGPACK, calm, concurrency=3))
    wire.greet()
    return wire


def request(id=1, service="price", timeout_ms=5_000):
    return Request(id=id, service=service, timeout_ms=timeout_ms)


class Bound:
    """A replier that binds, and its requesters."""

    def __init__(self) -> None:
        self.engine = PeerReplierEngine(PEER[0], ["price"], 7, Codec.MSGPACK)
        self.now = 1 * S
        self.engine.start(self.now)

    def say(self, header, peer=b"p1", form=MSGPACK, **more):
        self.engine.receive(1, peer, pack(header, form=form, **more), self.now)

    def hello(self, peer=b"p1", form=MSGPACK, role=Role.REQUESTER, messages=4_096, size=8 * MIB):
        self.say(Hello(role=role, nonce=peer * 8, credit_messages=messages, credit_bytes=size), peer, form)
        return self.told(peer)

    def told(self, peer=b"p1"):
        effects = [effect for effect in self.engine.effects() if isinstance(effect, Send) and effect.peer == peer]
        return [parse(effect.frames) for effect in effects]

    def heard(self, kind):
        return [event for event in self.engine.events() if type(event) is kind]


@pytest.fixture
def bound():
    bound = Bound()
    bound.hello()
    return bound


def test_every_service_is_offered_at_ready(wire):
    assert wire.sent(Offer) == [Offer(1, "price"), Offer(2, "stock")]
    assert not wire.engine.is_offered
    wire.say(Offered(1))
    wire.say(Offered(2))
    assert wire.heard(ServiceReady) == [ServiceReady("price"), ServiceReady("stock")]
    assert wire.engine.is_offered


def test_many_services_are_offered_no_faster_than_they_are_answered():
    names = [f"s{number}" for number in range(150)]
    wire = Wire(ReplierEngine(BROKER, [*names, "s7"], NONCE, Codec.MSGPACK, calm))
    wire.greet()
    offered, ahead = [], []
    while sent := wire.sent(Offer):
        offered += sent
        ahead.append(len(sent))
        assert not wire.engine.is_offered
        for offer in sent:
            wire.say(Offered(offer.id))
    assert [offer.service for offer in offered] == names
    assert max(ahead) <= 64
    assert wire.engine.is_offered


def test_a_withdrawal_in_the_midst_of_offering_takes_back_what_was_offered_and_offers_no_more():
    wire = Wire(ReplierEngine(BROKER, [f"s{number}" for number in range(150)], NONCE, Codec.MSGPACK, calm))
    wire.greet()
    sent = wire.sent(Offer)
    wire.engine.withdraw(wire.now)
    wire.settle()
    assert len(wire.sent(Withdraw)) == len(sent) == 64
    wire.say(Offered(1))
    assert not wire.sent(Offer)
    wire.engine.offer(wire.now)
    wire.settle()
    assert wire.sent(Offer)[0] == Offer(1, "s0")


def test_the_credit_in_hello_is_the_concurrency():
    wire = Wire(ReplierEngine(BROKER, ["price"], NONCE, Codec.MSGPACK, calm, concurrency=3))
    wire.connect()
    assert wire.sent(Hello)[0].credit_messages == 3


def test_services_are_offered_again_after_a_loss(wire):
    wire.sent(Offer)
    wire.back()
    assert len(wire.sent(Offer)) == 2


def test_a_request_is_answered_with_its_own_id(wire):
    wire.say(request(77), payload=b"\x91\x01")
    (asked,) = wire.heard(Requested)
    assert (asked.service, asked.payload, asked.deadline) == ("price", b"\x91\x01", wire.now + 5 * S)
    wire.engine.reply(asked.token, Codec.MSGPACK, b"\x91\x02", b"", wire.now)
    wire.settle()
    assert wire.sent(Reply) == [Reply(id=77)]


def test_a_failure_is_an_error_of_the_request(wire):
    wire.say(request(77))
    wire.engine.fail(wire.heard(Requested)[0].token, ApplicationError("none left", code="no_such_sku"), wire.now)
    wire.settle()
    (error,) = wire.sent(ErrorHeader)
    assert (error.number, error.scope, error.id, error.code) == (700, "request", 77, "no_such_sku")


def test_a_second_answer_goes_nowhere(wire):
    wire.say(request(77))
    token = wire.heard(Requested)[0].token
    for _ in range(2):
        wire.engine.reply(token, Codec.MSGPACK, b"\x91\x02", b"", wire.now)
    wire.settle()
    assert len(wire.sent(Reply)) == 1
    assert wire.engine.counters["late_replies"] == 1


def test_a_request_with_columns_that_cannot_be_read_is_answered_with_the_error(wire):
    wire.say(request(77), columns=b"\x01", payload=b"\x91\x01")
    assert wire.heard(Requested) == []
    (error,) = wire.sent(ErrorHeader)
    assert (error.name, error.id) == ("PROTOCOL_ERROR", 77)


def test_headers_of_a_request_are_handed_over(wire):
    wire.say(request(), columns=pack_columns(Columns(headers=[{"a": "b"}]), MSGPACK), payload=b"\x91\x01")
    assert wire.heard(Requested)[0].headers == {"a": "b"}


def test_a_lost_connection_cancels_what_is_open(wire):
    wire.say(request(77))
    token = wire.heard(Requested)[0].token
    wire.back()
    assert wire.heard(RequestCancelled) == [RequestCancelled(token)]
    wire.engine.reply(token, Codec.MSGPACK, b"\x91\x02", b"", wire.now)
    wire.settle()
    assert wire.sent(Reply) == []


def test_cancel_is_told(wire):
    wire.say(request(77))
    token = wire.heard(Requested)[0].token
    wire.say(Cancel(78))
    wire.say(Cancel(77))
    assert wire.heard(RequestCancelled) == [RequestCancelled(token)]


def test_a_bound_replier_names_its_services_in_ready():
    (message,) = Bound().hello()
    assert isinstance(message.header, Ready)
    assert message.header.services == ["price"]


def test_only_requesters_connect_to_a_replier():
    (message,) = Bound().hello(role=Role.CONSUMER)
    assert message.header.name == "WRONG_ROLE"


def test_a_bound_replier_answers_with_the_requesters_id_and_renews_its_credit(bound):
    bound.say(request(5), payload=b"\x91\x01")
    (asked,) = bound.heard(Requested)
    bound.engine.reply(asked.token, Codec.MSGPACK, b"\x91\x02", b"", bound.now)
    (message,) = bound.told()
    assert (message.header, message.payload) == (Reply(id=5), b"\x91\x02")


def test_a_reply_to_a_json_peer_is_json_to_its_columns():
    bound = Bound()
    bound.hello(form=JSON)
    bound.say(request(5), form=JSON, payload=b"\x91\x01")
    columns = pack_columns(Columns(headers=[{"a": "b"}]), MSGPACK)
    bound.engine.reply(bound.heard(Requested)[0].token, Codec.MSGPACK, b"\x91\x02", columns, bound.now)
    (message,) = bound.told()
    assert message.form is JSON
    assert columns_of(message, 1).headers == [{"a": "b"}]


def test_a_service_that_is_not_offered_is_no_replier(bound):
    bound.say(request(5, "weather"))
    (message,) = bound.told()
    assert (message.header.name, message.header.scope, message.header.id) == ("NO_REPLIER", "request", 5)


def test_a_bound_replier_survives_columns_that_cannot_be_read(bound):
    bound.say(request(5), columns=b"\x01", payload=b"\x91\x01")
    (message,) = bound.told()
    assert (message.header.name, message.header.id) == ("PROTOCOL_ERROR", 5)
    assert bound.heard(Requested) == []


def test_a_kind_that_no_requester_sends_is_refused(bound):
    bound.say(Subscribe(1, "a"))
    assert bound.told()[0].header.name == "WRONG_ROLE"


def test_requests_beyond_the_credit_end_the_session(bound):
    for number in range(1_025):
        bound.say(request(number))
    last = bound.told()[-1].header
    assert (last.name, last.scope) == ("CREDIT_EXCEEDED", "session")
    assert len(bound.heard(RequestCancelled)) == 1_024


def test_cancelled_requests_give_their_credit_back(bound):
    for number in range(3_000):
        bound.say(request(number))
        bound.say(Cancel(number))
    assert bound.told() == []
    events = bound.engine.events()
    assert sum(isinstance(event, RequestCancelled) for event in events) == 3_000


def test_an_id_in_use_is_refused_and_the_older_request_keeps_its_outcome(bound):
    bound.say(request(5))
    bound.say(request(5))
    (asked,) = bound.heard(Requested)
    (message,) = bound.told()
    assert (message.header.name, message.header.scope) == ("PROTOCOL_ERROR", "command")
    bound.engine.reply(asked.token, Codec.MSGPACK, b"\x91\x01", b"", bound.now)
    assert [message.header.id for message in bound.told()] == [5]
    bound.say(request(5))
    assert len(bound.heard(Requested)) == 1


def test_the_same_id_may_be_open_for_two_requesters(bound):
    bound.hello(b"p2")
    bound.say(request(5))
    bound.say(request(5), b"p2")
    first, second = bound.heard(Requested)
    bound.say(Cancel(5), b"p2")
    assert bound.heard(RequestCancelled) == [RequestCancelled(second.token)]
    bound.engine.reply(first.token, Codec.MSGPACK, b"\x91\x01", b"", bound.now)
    assert [message.header.id for message in bound.told()] == [5]


def test_what_a_requester_asked_before_it_came_back_is_cancelled_and_its_ids_are_free(bound):
    bound.say(request(5))
    bound.say(Hello(role=Role.REQUESTER, nonce=b"p1" * 8, credit_messages=9, credit_bytes=MIB, resume=Resume(7)), b"px")
    bound.say(request(5), b"px")
    events = bound.engine.events()
    assert [type(event) for event in events][-3:] == [Requested, RequestCancelled, Requested]


def test_nothing_is_kept_of_requests_that_are_over(bound):
    for number in range(3):
        bound.say(request(number))
    bound.say(Cancel(0))
    bound.engine.reply(bound.heard(Requested)[1].token, Codec.MSGPACK, b"\x91\x01", b"", bound.now)
    bound.say(Goodbye())
    assert not len(bound.engine._open)


def test_a_requester_that_leaves_cancels_what_it_asked(bound):
    bound.say(request(5))
    (asked,) = bound.heard(Requested)
    bound.say(Goodbye())
    assert bound.heard(RequestCancelled) == [RequestCancelled(asked.token)]
    bound.engine.reply(asked.token, Codec.MSGPACK, b"", b"", bound.now)
    assert [type(message.header) for message in bound.told()] == [Goodbye]


def test_a_requester_that_cannot_be_reached_is_forgotten(bound):
    bound.say(request(5))
    bound.engine.peer_gone(1, b"p1", bound.now)
    assert len(bound.heard(RequestCancelled)) == 1


def test_replies_that_nobody_reads_give_way_to_errors():
    bound = Bound()
    bound.hello(messages=1, size=1)
    for number in range(12):
        bound.say(request(number))
    for asked in bound.heard(Requested):
        bound.engine.reply(asked.token, Codec.RAW, bytes(MIB), b"", bound.now)
    headers = [message.header for message in bound.told()]
    assert [type(header) for header in headers].count(Reply) == 1
    assert [header.name for header in headers if isinstance(header, ErrorHeader)] == ["OVERLOADED"] * 4


def test_a_replier_that_leaves_says_goodbye(bound):
    bound.engine.leave(bound.now)
    assert [type(message.header) for message in bound.told()] == [Goodbye]
    assert bound.engine.closed


def test_peer_to_peer_a_reply_is_in_the_codec_of_who_asked(bound):
    bound.say(Hello(role=Role.REQUESTER, nonce=b"j" * 16, codec=Codec.JSON, credit_messages=9), b"p2", JSON)
    bound.say(Hello(role=Role.REQUESTER, nonce=b"r" * 16, codec=Codec.RAW, credit_messages=9), b"p3")
    for peer in (b"p1", b"p2", b"p3"):
        bound.say(request(), peer, payload=b"\x91\x01")
    tokens = [event.token for event in bound.heard(Requested)]
    assert [bound.engine.codec_to(token) for token in tokens] == [Codec.MSGPACK, Codec.JSON, Codec.MSGPACK]


def test_through_a_broker_a_reply_is_in_our_own_codec(wire):
    assert wire.engine.codec_to(1) is Codec.MSGPACK


def test_a_replier_leaves_when_its_last_replies_are_read(bound):
    bound.hello(b"p2")
    bound.say(request(5))
    bound.engine.reply(bound.heard(Requested)[0].token, Codec.MSGPACK, b"\x91\x02", b"", bound.now)
    bound.engine.leave(bound.now)
    *_, reply, ping = bound.told()
    assert (type(reply.header), type(ping.header)) == (Reply, Ping)
    assert not bound.engine.closed
    bound.say(Pong(ping.header.token))
    assert [type(message.header) for message in bound.told()] == [Goodbye]
    assert bound.engine.closed


def test_a_replier_does_not_wait_long_for_who_does_not_read(bound):
    bound.say(request(5))
    bound.engine.fail(bound.heard(Requested)[0].token, ApplicationError("no"), bound.now)
    bound.engine.leave(bound.now)
    bound.engine.handle_timeout(bound.engine.next_timeout())
    assert bound.engine.closed
    assert type(bound.told()[-1].header) is Goodbye


def test_it_is_withdrawn_when_what_the_broker_sent_before_is_here(wire):
    wire.sent(Ping)
    assert wire.engine.is_withdrawn
    wire.engine.withdraw(wire.now)
    wire.settle()
    (ping,) = wire.sent(Ping)
    wire.say(Pong(1))  # of a heartbeat
    wire.say(request(77))
    assert not wire.engine.is_withdrawn
    wire.say(Pong(ping.token))
    assert wire.engine.is_withdrawn
    assert [asked.service for asked in wire.heard(Requested)] == ["price"]


def test_who_loses_its_broker_while_it_withdraws_waits_for_nothing(wire):
    wire.engine.withdraw(wire.now)
    wire.disconnect()
    assert wire.engine.is_withdrawn
