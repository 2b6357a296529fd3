"""The requester's engine, asking for a reply in parts."""

from __future__ import annotations

import pytest

from patterns.core.request import Outcome, PartReceived, RequesterEngine
from patterns.wire.errors import CreditExceeded, OutcomeUnknown, ProtocolError, ReplierLost, TimedOut
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Cancel, Codec, Columns, Credit, ErrorHeader, Partial, Reply, Request
from tests.unit.core_clients.wire import BROKER, NONCE, PEERS, S, Wire, calm
from tests.unit.wire import spec


def wired(addresses=BROKER):
    return Wire(RequesterEngine(addresses, NONCE, Codec.MSGPACK, calm))


@pytest.fixture
def wire():
    wire = wired()
    wire.greet()
    return wire


def ask(wire, parts=(3, 100), **more):
    number = wire.engine.request(
        "rows", Codec.MSGPACK, b"\x91\x01", b"", timeout_us=5 * S, parts=parts, now=wire.now, **more
    )
    wire.settle()
    return number


def part(wire, number, sequence, payload=b"\x91\x01", link=None, **more):
    wire.say(Partial(id=number, sequence=sequence), link, payload=payload, **more)


def outcome(wire):
    (found,) = wire.heard(Outcome)
    return found


def test_the_request_says_how_many_parts_may_come(wire):
    ask(wire, parts=(3, 100))
    (header,) = wire.sent(Request)
    assert (header.credit_messages, header.credit_bytes) == (3, 100)


def test_parts_are_handed_over_in_order_and_a_reply_without_a_body_ends_them(wire):
    number = ask(wire)
    columns = pack_columns(Columns(headers=[{"a": "b"}]), MSGPACK)
    part(wire, number, 0, b"\x91\x07", columns=columns)
    part(wire, number, 1)
    wire.say(Reply(id=number, count=0, parts=2))
    first, second = wire.heard(PartReceived)
    assert first == PartReceived(number, Codec.MSGPACK, b"\x91\x07", {"a": "b"}, len(columns) + 2)
    assert second.headers is None
    assert outcome(wire) == Outcome(number, None, has_body=False)


def test_a_reply_with_a_body_is_the_last_part(wire):
    number = ask(wire)
    part(wire, number, 0)
    wire.say(Reply(id=number, parts=1), payload=b"\x91\x02")
    assert outcome(wire) == Outcome(number, None, payload=b"\x91\x02")


def test_an_error_after_parts_is_the_outcome(wire):
    number = ask(wire)
    part(wire, number, 0)
    wire.say(ErrorHeader(number=700, scope="request", id=number, code="no_more"))
    assert len(wire.heard(PartReceived)) == 1
    assert outcome(wire).error.code == "no_more"


def test_widen_tells_the_totals_and_only_while_there_is_somebody_to_tell(wire):
    number = ask(wire)
    wire.engine.widen(number, 5, 200, wire.now)
    wire.settle()
    assert wire.sent(Credit) == [Credit(5, 200, number)]
    wire.say(Reply(id=number, count=0))
    wire.engine.widen(number, 9, 300, wire.now)
    wire.settle()
    assert wire.sent(Credit) == []


@pytest.mark.parametrize(("sequence", "count"), [(0, 1), (2, 1), (1, 2)])
def test_a_part_that_is_not_the_next_is_the_outcome_and_the_replier_is_told(wire, sequence, count):
    number = ask(wire)
    part(wire, number, 0)
    wire.say(Partial(id=number, sequence=sequence, count=count), payload=b"\x91\x01")
    assert isinstance(outcome(wire).error, ProtocolError)
    assert wire.sent(Cancel) == [Cancel(number)]
    part(wire, number, 1)
    assert len(wire.heard(PartReceived)) == 1


def test_a_reply_that_counts_other_parts_is_the_outcome(wire):
    number = ask(wire)
    part(wire, number, 0)
    wire.say(Reply(id=number, count=0, parts=2))
    assert "2 parts came before it, 1 did" in outcome(wire).error.detail


@pytest.mark.parametrize("parts", [(1, 100), (9, 2)])
def test_parts_beyond_the_credit_are_the_outcome(wire, parts):
    number = ask(wire, parts)
    part(wire, number, 0)
    part(wire, number, 1)
    assert isinstance(outcome(wire).error, CreditExceeded)


def test_who_asked_for_one_reply_takes_no_parts(wire):
    number = ask(wire, None)
    part(wire, number, 0)
    assert isinstance(outcome(wire).error, ProtocolError)
    number = ask(wire, None)
    wire.say(Reply(id=number, count=0))
    assert isinstance(outcome(wire).error, ProtocolError)


def test_the_deadline_is_for_the_whole(wire):
    number = ask(wire)
    part(wire, number, 0)
    wire.wait(5_000)
    assert isinstance(outcome(wire).error, TimedOut)
    assert wire.sent(Cancel) == [Cancel(number)]


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_broker_lost_after_the_first_part_leaves_the_outcome_unknown(wire, idempotent):
    number = ask(wire, idempotent=idempotent)
    part(wire, number, 0)
    wire.back()
    assert isinstance(outcome(wire).error, OutcomeUnknown)
    assert len(wire.sent(Request)) == 1


def test_before_the_first_part_an_idempotent_request_is_asked_again(wire):
    number = ask(wire, idempotent=True)
    wire.back()
    assert [request.credit_messages for request in wire.sent(Request)] == [3, 3]
    part(wire, number, 0)
    assert len(wire.heard(PartReceived)) == 1


def test_peer_to_peer_a_replier_lost_in_the_middle_is_lost():
    wire = wired(PEERS)
    wire.greet(1, services=["rows"], messages=10)
    wire.greet(2, services=["rows"], messages=5)
    number = ask(wire, idempotent=True)
    part(wire, number, 0, link=1)
    wire.disconnect(1)
    assert isinstance(outcome(wire).error, ReplierLost)
    assert len(wire.sent(Request)) == 1


def test_parts_count_against_the_sessions_credit_as_they_come(wire):
    number = ask(wire, parts=(10_000, 1 << 30))
    for sequence in range(2_049):
        part(wire, number, sequence)
    (credit,) = wire.sent(Credit)
    assert (credit.id, credit.messages) == (0, 2_049 + 4_096)


EVENTS = {
    "part, the next": lambda wire, number, came: part(wire, number, came),
    "part, another, or beyond credit": lambda wire, number, came: part(wire, number, came + 1),
    "reply, all counted": lambda wire, number, came: wire.say(Reply(id=number, count=0, parts=came)),
    "reply, otherwise": lambda wire, number, came: wire.say(Reply(id=number, count=0, parts=came + 1)),
    "error": lambda wire, number, came: wire.say(ErrorHeader(number=700, scope="request", id=number)),
    "lost": lambda wire, number, came: wire.disconnect(),
    "deadline, or left": lambda wire, number, came: wire.wait(5_000),
}
TABLE = spec.rows("| state of a streamed reply, as C sees it |")


@pytest.mark.parametrize("state", ["ASKED", "FLOWING", "OVER"])
@pytest.mark.parametrize("event", TABLE[0][1:])
def test_each_state_of_the_spec_with_each_event(wire, state, event):
    cell = next(row for row in TABLE[1:] if row[0] == state)[TABLE[0].index(event)]
    number = ask(wire, idempotent="idempotent" in event)
    came = {"ASKED": 0, "FLOWING": 1, "OVER": 0}[state]
    if came:
        part(wire, number, 0)
    if state == "OVER":
        wire.say(Reply(id=number, count=0))
    wire.seen.clear()
    wire.sent(Request)
    EVENTS[event.removesuffix(", idempotent")](wire, number, came)
    if event.startswith("lost"):
        wire.wait(200)
        wire.greet()
    outcomes, parts = wire.heard(Outcome), wire.heard(PartReceived)
    assert [outcome.error is not None for outcome in outcomes] == (
        ["error" in cell] if cell.startswith("OVER") and state != "OVER" else []
    )
    assert bool(wire.sent(Cancel)) == ("CANCEL" in cell)
    assert bool(parts) == (cell == "FLOWING")
    assert bool(wire.sent(Request)) == (cell == "ASKED again")
