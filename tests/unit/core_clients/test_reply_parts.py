"""The replier's engines, answering in parts."""

from __future__ import annotations

import pytest

from patterns.core import reply
from patterns.core.reply import ReplierEngine, RequestCancelled, Requested
from patterns.wire.errors import ApplicationError
from patterns.wire.messages import (
    Cancel,
    Codec,
    Credit,
    ErrorHeader,
    Goodbye,
    Partial,
    Ping,
    Pong,
    Reply,
    Request,
    Withdraw,
)
from tests.unit.core_clients.test_reply import Bound
from tests.unit.core_clients.wire import BROKER, NONCE, Wire, calm


class Behind:
    """A replier behind a broker, with the verbs of Bound."""

    def __init__(self) -> None:
        self.wire = Wire(ReplierEngine(BROKER, ["price"], NONCE, Codec.MSGPACK, calm, concurrency=3))
        self.wire.greet()
        self.engine, self.now = self.wire.engine, self.wire.now

    def say(self, header, **more):
        self.wire.say(header, **more)

    def told(self):
        self.wire.settle()
        found, self.wire.inbox = [message for _, message in self.wire.inbox], []
        return found

    def heard(self, kind):
        return self.wire.heard(kind)


@pytest.fixture(params=["bound", "behind a broker"])
def end(request):
    end = Bound() if request.param == "bound" else Behind()
    if isinstance(end, Bound):
        end.hello()
    end.told()
    return end


def asked(end, messages=2, size=100, id=5):
    end.say(Request(id=id, service="price", timeout_ms=5_000, credit_messages=messages, credit_bytes=size))
    (event,) = end.heard(Requested)
    return event


def send(end, token, payload=b"\x91\x01"):
    end.engine.part(token, Codec.MSGPACK, payload, b"", end.now)


def headers(end, kind):
    return [message.header for message in end.told() if type(message.header) is kind]


def test_parts_are_numbered_and_the_end_counts_them(end):
    event = asked(end)
    assert event.takes_parts
    send(end, event.token)
    send(end, event.token)
    end.engine.end(event.token, end.now)
    first, second, last = (message.header for message in end.told())
    assert (first, second) == (Partial(id=5, sequence=0), Partial(id=5, sequence=1))
    assert last == Reply(id=5, count=0, parts=2)


def test_a_reply_after_parts_is_the_last_one(end):
    event = asked(end)
    send(end, event.token)
    end.engine.reply(event.token, Codec.MSGPACK, b"\x91\x02", b"", end.now)
    assert headers(end, Reply) == [Reply(id=5, parts=1)]


def test_a_failure_after_parts_is_an_error_of_the_request(end):
    event = asked(end)
    send(end, event.token)
    end.engine.fail(event.token, ApplicationError("no more", code="no_more"), end.now)
    assert [type(message.header) for message in end.told()] == [Partial, ErrorHeader]
    assert not end.engine.has_room(event.token)


@pytest.mark.parametrize(("messages", "size"), [(2, 100), (9, 3)])
def test_there_is_room_as_far_as_both_totals_go(end, messages, size):
    event = asked(end, messages, size)
    send(end, event.token)
    assert end.engine.has_room(event.token)
    send(end, event.token)
    assert not end.engine.has_room(event.token)
    end.say(Credit(messages + 1, size + 2, 5))
    assert end.engine.has_room(event.token)
    end.say(Credit(1, 1, 5))  # totals never fall
    assert end.engine.has_room(event.token)


def test_credit_for_a_request_that_is_over_changes_nothing(end):
    event = asked(end)
    end.engine.end(event.token, end.now)
    end.say(Credit(9, 900, 5))
    assert not end.engine.has_room(event.token)


def test_who_asked_for_one_reply_takes_no_parts(end):
    event = asked(end, messages=0, size=0)
    assert not event.takes_parts
    assert not end.engine.has_room(event.token)
    send(end, event.token)
    assert headers(end, Partial) == []


def test_a_cancelled_request_has_no_room_and_sends_no_parts(end):
    event = asked(end)
    end.say(Cancel(5))
    assert end.heard(RequestCancelled) == [RequestCancelled(event.token)]
    assert not end.engine.has_room(event.token)
    send(end, event.token)
    assert headers(end, Partial) == []


def test_bound_there_is_room_only_for_who_reads():
    bound = Bound()
    bound.hello(messages=1)
    event = asked(bound, messages=9)
    send(bound, event.token)
    send(bound, event.token)  # waits for credit of the session
    assert not bound.engine.has_room(event.token)
    bound.say(Credit(100, 1 << 20))
    assert bound.engine.has_room(event.token)


def test_bound_an_error_waits_behind_the_parts_that_wait():
    bound = Bound()
    bound.hello(messages=1)
    event = asked(bound, messages=9)
    send(bound, event.token)
    send(bound, event.token)
    bound.engine.fail(event.token, ApplicationError("no more"), bound.now)
    assert [type(message.header) for message in bound.told()] == [Partial]
    bound.say(Credit(100, 1 << 20))
    assert [type(message.header) for message in bound.told()] == [Partial, ErrorHeader]


def test_bound_a_requester_that_leaves_stops_its_streams():
    bound = Bound()
    bound.hello()
    event = asked(bound)
    bound.say(Goodbye())
    assert bound.heard(RequestCancelled) == [RequestCancelled(event.token)]
    assert not bound.engine.has_room(event.token)


def test_behind_a_broker_a_lost_connection_stops_all_streams_and_leaving_withdraws():
    behind = Behind()
    event = asked(behind)
    behind.engine.withdraw(behind.now)
    assert headers(behind, Withdraw) == [Withdraw("price")]
    behind.wire.back()
    assert behind.heard(RequestCancelled) == [RequestCancelled(event.token)]
    assert not behind.engine.has_room(event.token)


def test_a_bound_repliers_errors_to_who_gives_no_credit_are_bounded(monkeypatch):
    monkeypatch.setattr(reply, "_REPLY_BYTES_HELD", 20_000)
    bound = Bound()
    bound.hello(messages=1, size=1)
    send(bound, asked(bound, id=1).token)
    send(bound, asked(bound, id=2).token)
    for id in range(3, 1_000):
        bound.engine.fail(asked(bound, id=id).token, ApplicationError("x" * 100), bound.now)
        for ping in headers(bound, Ping):
            bound.say(Pong(ping.token))
    (session,) = bound.engine._sessions
    assert 20_000 < session.outbox_bytes < 20_500
    assert bound.engine.counters["answers_withheld"] == 998 - len(session.outbox)


@pytest.mark.parametrize("credit", [(1_025, 1), (1, (1 << 20) + 1), ((1 << 53) - 1, (1 << 53) - 1)])
def test_a_bound_replier_refuses_too_much_credit_at_once(credit):
    bound = Bound()
    bound.hello()
    bound.say(Request(id=5, service="price", timeout_ms=5_000, credit_messages=credit[0], credit_bytes=credit[1]))
    assert [(error.name, error.id) for error in headers(bound, ErrorHeader)] == [("BAD_ARGUMENT", 5)]
    assert not bound.engine._parts
    event = asked(bound, id=6)
    bound.say(Credit(*credit, 6))
    assert [(error.name, error.id) for error in headers(bound, ErrorHeader)] == [("BAD_ARGUMENT", 6)]
    assert bound.heard(RequestCancelled) == [RequestCancelled(event.token)]
    send(bound, event.token)
    assert not headers(bound, Partial)
