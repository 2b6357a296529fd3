from __future__ import annotations

import pytest

from patterns.core.admin import AdminEngine, Answered
from patterns.wire.errors import BadArgument, OutcomeUnknown
from patterns.wire.messages import Admin, Codec, ErrorHeader, Hello, Result, Role
from tests.unit.core_clients.wire import BROKER, NONCE, Wire, calm


@pytest.fixture
def wire():
    return Wire(AdminEngine(BROKER, NONCE, calm))


def ask(wire, verb="status"):
    number = wire.engine.ask(verb, {"of": "streams"}, wire.now)
    wire.settle()
    return number


def test_a_verb_waits_for_the_session_and_is_sent_once(wire):
    number = ask(wire)
    wire.connect()
    assert wire.sent(Hello)[0].role is Role.ADMIN
    assert wire.sent(Admin) == []
    wire.greet()
    assert wire.sent(Admin) == [Admin(number, "status", {"of": "streams"})]
    wire.back()
    assert wire.sent(Admin) == []


def test_a_result_is_the_answer(wire):
    wire.greet()
    number = ask(wire)
    wire.say(Result(id=number, codec=Codec.JSON), payload=b"[1]")
    assert wire.heard(Answered) == [Answered(number, None, Codec.JSON, b"[1]")]


def test_a_refusal_is_the_answer(wire):
    wire.greet()
    number = ask(wire, "explode")
    wire.say(ErrorHeader(number=304, scope="command", id=number))
    (answered,) = wire.heard(Answered)
    assert isinstance(answered.error, BadArgument)


def test_a_lost_connection_leaves_the_outcome_unknown(wire):
    wire.greet()
    number = ask(wire)
    wire.disconnect()
    (answered,) = wire.heard(Answered)
    assert (answered.id, type(answered.error)) == (number, OutcomeUnknown)


@pytest.mark.parametrize("forgotten", [True, False])
def test_an_answer_that_nobody_waits_for_is_counted(wire, forgotten):
    wire.greet()
    number = ask(wire)
    if forgotten:
        wire.engine.forget(number)
    else:
        number += 1
    wire.say(Result(id=number))
    assert wire.heard(Answered) == []
    assert wire.engine.counters["unexpected"] == 1
