from __future__ import annotations

from typing import Any

import pytest

from patterns.wire import server
from patterns.wire.engine import Close, Send
from patterns.wire.errors import Fenced, NotPermitted
from patterns.wire.frames import JSON, MSGPACK, pack, parse
from patterns.wire.limits import EXPIRY_MS, GRACE_MS, REPLIES_UNREAD_CUT, REPLIES_UNREAD_MAX, UNREAD_BYTES_MAX
from patterns.wire.messages import (
    Admin,
    Credit,
    Goodbye,
    Hello,
    Limits,
    NoSessionHeader,
    Ping,
    Pong,
    Ready,
    Reply,
    Result,
    Resume,
    Role,
)
from patterns.wire.server import Sessions
from patterns.wire.session import ServerState

S = 1_000_000


class House:
    """A host that admits everybody but admins called "nobody", and a wire that remembers."""

    def __init__(self) -> None:
        self.effects: list[Any] = []
        self.gone: list[tuple[bytes, str]] = []
        self.sessions = Sessions(self, self.effects, 7, {Role.CONSUMER: GRACE_MS * 1_000})
        self.now = 1 * S

    def admit(self, session, hello, now):
        if hello.name == "nobody":
            raise NotPermitted("not here")
        return Ready(version=1, epoch=7, limits=Limits(1, 1), credit_messages=4, credit_bytes=100)

    def ended(self, session, reason, now):
        self.gone.append((session.nonce[:1], reason))

    def say(self, peer, header, form=MSGPACK):
        return self.sessions.receive(0, peer, pack(header, form=form), self.now)

    def hello(self, peer=b"p1", nonce=b"n", role=Role.CONSUMER, form=MSGPACK, **more):
        self.say(peer, Hello(role=role, nonce=nonce * 16, **more), form)
        return self.sessions.at((0, peer))

    def batches_sent(self):
        """How many batches left that post() was given whole."""
        batches = [effect for effect in self.effects if isinstance(effect, Send) and len(effect.frames[1]) == 1 << 20]
        self.effects.clear()
        return len(batches)

    def told(self, peer=b"p1"):
        found = [parse(effect.frames) for effect in self.effects if isinstance(effect, Send) and effect.peer == peer]
        self.effects[:] = [effect for effect in self.effects if not (isinstance(effect, Send) and effect.peer == peer)]
        return found

    def headers(self, peer=b"p1"):
        return [message.header for message in self.told(peer)]


@pytest.fixture
def house():
    return House()


def test_hello_is_answered_by_ready_with_the_first_credit(house):
    session = house.hello(credit_messages=9, credit_bytes=90)
    (ready,) = house.headers()
    assert isinstance(ready, Ready)
    assert (session.into.messages_max, session.into.bytes_max) == (4, 100)
    assert (session.out.messages_max, session.out.bytes_max) == (9, 90)


def test_anything_but_hello_without_a_session_gets_no_session(house):
    assert house.say(b"p1", Ping(1)) is None
    assert house.headers() == [NoSessionHeader(7)]


def test_of_strangers_only_the_latest_are_remembered(house, monkeypatch):
    monkeypatch.setattr(server, "_PEERS_REMEMBERED", 3)
    for _ in range(REPLIES_UNREAD_MAX + 1):
        house.say(b"loud", Ping(1))
    house.effects.clear()
    house.say(b"loud", Ping(1))
    assert house.effects == []
    for number in range(3):
        house.say(b"p%d" % number, Ping(1))
    assert len(house.sessions._strangers) == 3
    house.say(b"loud", Ping(1))
    assert house.headers(b"loud") == [NoSessionHeader(7)]


def test_the_answer_has_the_form_of_the_last_hello(house):
    house.hello(form=JSON)
    house.say(b"p1", Ping(1))
    assert [message.form for message in house.told()] == [JSON, JSON]
    house.hello(form=MSGPACK)
    assert house.told()[0].form is MSGPACK


@pytest.mark.parametrize(
    ("more", "name"),
    [({"versions": (2, 3)}, "VERSION_UNSUPPORTED"), ({"require": ["warp"]}, "FEATURE_UNSUPPORTED"), ({"name": "nobody"}, "NOT_PERMITTED")],
)  # fmt: skip
def test_a_refused_hello_leaves_no_session(house, more, name):
    assert house.hello(**more) is None
    (error,) = house.headers()
    assert (error.name, error.scope) == (name, "session")
    assert len(house.sessions) == 0


def test_a_refused_hello_ends_what_the_client_had(house):
    house.hello()
    house.hello(name="nobody", resume=Resume(7))
    assert house.gone == [(b"n", "refused")]


def test_an_offer_is_not_a_requirement(house):
    assert house.hello(offer=["warp"], versions=(1, 9)) is not None


def test_a_hello_with_resume_moves_the_session_to_the_new_connection(house):
    first = house.hello()
    assert house.hello(b"p2", resume=Resume(7)) is first
    assert house.sessions.at((0, b"p1")) is None
    assert house.gone == []


@pytest.mark.parametrize("more", [{}, {"resume": Resume(7)}])
def test_a_hello_in_another_role_is_refused_and_costs_the_session_of_that_nonce_nothing(house, more):
    first = house.hello()
    assert house.hello(b"p2", role=Role.PRODUCER, **more) is None
    assert house.sessions.refused == {"WRONG_ROLE": 1}
    assert (first.state, house.gone) == (ServerState.READY, [])


def test_a_refused_hello_never_ends_the_session_of_another_connection(house):
    first = house.hello()
    assert house.hello(b"p2", require=["warp"]) is None
    assert house.hello(b"p2", versions=(2, 3), resume=Resume(7)) is None
    assert (first.state, house.gone) == (ServerState.READY, [])
    assert house.sessions.at((0, b"p1")) is first


def test_a_hello_without_resume_begins_the_session_anew(house):
    first = house.hello()
    assert house.hello(b"p2") is not first
    assert house.gone == [(b"n", "replaced")]
    assert len(house.sessions) == 1


def test_a_second_hello_on_the_connection_with_another_nonce_ends_the_first(house):
    house.hello()
    house.hello(nonce=b"m")
    assert house.gone == [(b"n", "replaced")]
    assert [session.nonce[:1] for session in house.sessions] == [b"m"]


def test_a_resumed_session_counts_credit_from_zero(house):
    session = house.hello(credit_messages=9, credit_bytes=9)
    session.out.spend(9, 9)
    session.into.spend(4, 100)
    house.sessions.post(session, 1, 1, pack(Ping(1)))
    house.hello(b"p2", resume=Resume(7), credit_messages=5, credit_bytes=5)
    assert (session.out.messages_left, session.into.messages_left) == (5, 4)
    assert (len(session.outbox), session.outbox_bytes) == (0, 0)


def test_ping_is_answered_by_pong_with_its_token(house):
    house.hello()
    house.say(b"p1", Ping(77))
    assert house.headers()[-1] == Pong(77)


def test_goodbye_is_answered_and_ends_the_session_at_once(house):
    session = house.hello()
    house.say(b"p1", Goodbye())
    assert house.headers()[-1] == Goodbye()
    assert house.gone == [(b"n", "goodbye")]
    assert session.state is ServerState.CLOSED


def test_a_message_of_a_role_is_the_hosts(house):
    session = house.hello()
    found, message = house.say(b"p1", Admin(1, "status"))
    assert found is session
    assert message.header == Admin(1, "status")


def test_an_unknown_kind_gets_an_error_and_the_session_goes_on(house):
    session = house.hello()
    house.told()
    house.sessions.receive(0, b"p1", [b"ZB1z", b"\x80"], house.now)
    (error,) = house.headers()
    assert (error.name, error.scope) == ("UNKNOWN_COMMAND", "command")
    assert session.state is ServerState.READY


def test_a_stranger_is_refused_in_the_form_that_it_wrote(house):
    house.sessions.receive(0, b"p1", [b"ZB1H", b'{"role":"requester","nonce":"?"}'], house.now)
    house.sessions.receive(0, b"p1", [b"ZB1z", b"\x80"], house.now)
    assert [message.form for message in house.told()] == [JSON, MSGPACK]


@pytest.mark.parametrize(
    ("frames", "counted_as"),
    [
        ([b"junk"], "PROTOCOL_ERROR.frames"),
        ([b"JUNK", b"\x80"], "PROTOCOL_ERROR.frames"),
        ([b"ZB1H", b'{"jsonrpc": "2.0"}'], "PROTOCOL_ERROR.header"),
        ([b"ZB1H", bytes(70_000)], "PROTOCOL_ERROR.size"),
        ([b"ZB1Z", b"\x80"], "UNKNOWN_COMMAND"),
        ([b"ZB1I", b"\x80"], "NO_SESSION"),
    ],
)
def test_each_refusal_is_answered_and_counted_by_its_kind(house, frames, counted_as):
    house.sessions.receive(0, b"p1", frames, house.now)
    assert len(house.headers()) == 1
    assert house.sessions.refused == {counted_as: 1}


def test_a_lost_connection_keeps_a_consumers_session_for_its_grace(house):
    session = house.hello()
    house.sessions.disconnected((0, b"p1"), house.now)
    assert session.state is ServerState.DETACHED
    house.sessions.handle_timeout(house.now + GRACE_MS * 1_000 - 1)
    assert len(house.sessions) == 1
    house.sessions.handle_timeout(house.now + GRACE_MS * 1_000)
    assert house.gone == [(b"n", "expired")]


def test_a_lost_connection_ends_other_roles(house):
    house.hello(role=Role.PUBLISHER)
    house.sessions.disconnected((0, b"p1"), house.now)
    assert house.gone == [(b"n", "disconnected")]


def test_a_detached_session_comes_back_with_resume(house):
    session = house.hello()
    house.sessions.disconnected((0, b"p1"), house.now)
    assert house.hello(b"p2", resume=Resume(7)) is session
    assert session.state is ServerState.READY


def test_a_detached_session_is_told_nothing(house):
    session = house.hello()
    house.told()
    house.sessions.disconnected((0, b"p1"), house.now)
    house.sessions.tell(session, Ping(1))
    assert house.effects == []


def test_a_silent_session_ends_as_if_its_connection_were_lost(house):
    session = house.hello()
    house.sessions.handle_timeout(house.now + EXPIRY_MS * 1_000)
    assert session.state is ServerState.DETACHED
    assert Close(0, b"p1") in house.effects
    assert house.say(b"p1", Ping(1)) is None


def test_a_session_that_speaks_does_not_expire(house):
    session = house.hello()
    for _ in range(5):
        house.now += EXPIRY_MS * 1_000 - 1
        house.say(b"p1", Pong(1))
        house.sessions.handle_timeout(house.now)
    assert session.state is ServerState.READY


def test_counted_batches_wait_for_credit_in_order(house):
    session = house.hello(credit_messages=1, credit_bytes=100)
    house.told()
    for token in range(3):
        house.sessions.post(session, 1, 1, pack(Ping(token)))
    assert house.headers() == [Ping(0)]
    house.say(b"p1", Credit(3, 100))
    assert house.headers() == [Ping(1), Ping(2)]
    assert session.outbox_bytes == 0


def test_credit_is_opened_again_when_half_of_it_is_used(house):
    session = house.hello()
    house.told()
    house.sessions.regrant(session, 4, 100)
    assert house.headers() == []
    session.into.spend(2, 10)
    house.sessions.regrant(session, 4, 100)
    assert house.headers() == [Credit(6, 110)]


def test_answers_stop_when_the_peer_shows_no_sign_of_reading(house):
    session = house.hello()
    house.told()
    for number in range(2 * REPLIES_UNREAD_CUT):
        house.sessions.answer(session, Result(id=number))
    told = house.headers()
    assert len(told) == REPLIES_UNREAD_CUT + 1
    assert isinstance(told[REPLIES_UNREAD_MAX], Ping)
    assert house.sessions.counters["answers_withheld"] == REPLIES_UNREAD_CUT


def post(house, session):
    house.sessions.post(session, 1, 1, pack(Reply(id=1), payload=b"x"))


@pytest.mark.parametrize("reads", [False, True])
def test_answers_behind_batches_that_wait_are_bounded_in_number_and_in_bytes(house, reads):
    session = house.hello(credit_messages=1, credit_bytes=1)
    post(house, session)
    post(house, session)
    house.told()
    for number in range(4 * REPLIES_UNREAD_CUT):
        house.sessions.answer_in_turn(session, Result(id=number), 40_000)
        for ping in house.headers():  # nothing else leaves: it would overtake the batch
            if reads:
                house.say(b"p1", Pong(ping.token))
    held = len(session.outbox) - 1
    assert held + house.sessions.counters["answers_withheld"] == 4 * REPLIES_UNREAD_CUT
    assert session.outbox_bytes <= 40_100
    assert (held > REPLIES_UNREAD_CUT) if reads else (held == REPLIES_UNREAD_CUT)


def test_answers_in_turn_come_after_the_batches(house):
    session = house.hello(credit_messages=1, credit_bytes=1)
    post(house, session)
    post(house, session)
    house.sessions.answer_in_turn(session, Result(id=5), 1_000)
    house.told()
    house.say(b"p1", Credit(9, 9))
    assert [type(header) for header in house.headers()] == [Reply, Result]


def probe_of(house):
    (ping,) = [header for header in house.headers() if isinstance(header, Ping)]
    return ping.token


def test_the_pong_to_our_ping_proves_that_the_peer_reads_and_nothing_else_does(house):
    session = house.hello()
    for number in range(REPLIES_UNREAD_MAX + 10):
        house.sessions.answer(session, Result(id=number))
    token = probe_of(house)
    house.say(b"p1", Credit(1 << 40, 1 << 40))
    house.say(b"p1", Pong(token + 1))
    house.say(b"p1", Pong(0))
    assert session.unread == REPLIES_UNREAD_MAX + 10
    house.say(b"p1", Pong(token))
    assert session.unread == 10


def test_credit_counts_only_as_far_as_the_peer_has_proven_to_read(house):
    session = house.hello(credit_messages=1 << 50, credit_bytes=1 << 50)
    house.told()
    batch = [b"ZB1P", b"x" * (1 << 20)]
    for _ in range(20):
        house.sessions.post(session, 1, 1 << 20, batch)
    sent = house.batches_sent()
    assert sent == UNREAD_BYTES_MAX >> 20
    assert house.say(b"p1", Pong(session.probe))[1].header == Credit(1 << 50, 1 << 50)  # the host is woken
    assert 0 < house.batches_sent() < 8
    assert len(session.outbox) > 0


def test_hellos_without_end_on_one_connection_are_not_answered(house):
    for number in range(2 * REPLIES_UNREAD_MAX):
        house.hello(nonce=bytes([number % 250 + 1]))
    assert len([header for header in house.headers() if isinstance(header, Ready)]) == REPLIES_UNREAD_MAX
    assert house.sessions.counters["answers_withheld"] == REPLIES_UNREAD_MAX


def test_strangers_are_answered_a_bounded_number_of_times(house):
    for _ in range(2 * REPLIES_UNREAD_MAX):
        house.say(b"p1", Ping(1))
    assert len(house.headers()) == REPLIES_UNREAD_MAX


def test_end_says_why(house):
    session = house.hello()
    house.told()
    house.sessions.end(session, Fenced("another has your name"), house.now)
    (error,) = house.headers()
    assert (error.name, error.scope) == ("FENCED", "session")
    assert house.gone == [(b"n", "refused")]


def test_farewell_reaches_everybody(house):
    house.hello()
    house.hello(b"p2", b"m")
    house.sessions.farewell("restart", 500)
    assert house.headers()[-1] == house.headers(b"p2")[-1] == Goodbye("restart", 500)
