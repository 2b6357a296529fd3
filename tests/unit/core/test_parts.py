from __future__ import annotations

import msgspec
import pytest

from patterns.wire.limits import REPLIES_UNREAD_CUT
from patterns.wire.messages import Cancel, Codec, Credit, ErrorHeader, Goodbye, Partial, Ping, Pong, Reply, Request
from tests.unit.core.serving import JSON, MSGPACK, Bench
from zbroker.core import services


@pytest.fixture
def bench() -> Bench:
    return Bench()


def asked(bench, *, credit=4, size=10_000, codec=Codec.MSGPACK, requester=None, **more):
    """A requester, a replier, and the id under which that one got a request for parts."""
    replier = bench.client("replier")
    replier.offer()
    requester = requester or bench.client("requester", form=JSON if codec is Codec.JSON else MSGPACK, codec=codec)
    requester.request(1, credit_messages=credit, credit_bytes=size, **more)
    (request,) = replier.take(Request)
    return requester, replier, request


def part(replier, id, sequence, body=0, codec=Codec.MSGPACK):
    encode = msgspec.msgpack.encode if codec is Codec.MSGPACK else msgspec.json.encode
    replier.send(Partial(id=id, sequence=sequence, codec=codec), payload=encode([body]))


def test_parts_reach_the_requester_under_its_own_id_and_a_reply_without_a_body_ends_them(bench):
    requester, replier, request = asked(bench)
    assert (request.credit_messages, request.credit_bytes) == (4, 10_000)
    for sequence in range(3):
        part(replier, request.id, sequence)
    replier.send(Reply(id=request.id, count=0, parts=3))
    assert requester.take(Partial) == [Partial(id=1, sequence=n) for n in range(3)]
    assert requester.take(Reply) == [Reply(id=1, count=0, parts=3)]
    assert bench.engine.status(bench.now)["counters"]["parts"] == 3


def test_credit_of_a_requester_reaches_its_replier_under_the_brokers_id(bench):
    requester, replier, request = asked(bench)
    requester.send(Credit(8, 20_000, 1))
    assert replier.take(Credit) == [Credit(8, 20_000, request.id)]
    requester.send(Credit(9, 20_000, 77))  # of no request: it has had its outcome
    assert not replier.take(Credit)


def test_credit_in_bytes_is_written_as_the_replier_counts(bench):
    requester, replier, request = asked(bench, codec=Codec.JSON)
    part(replier, request.id, 0, {"name": "x" * 100})
    sent = len(requester.messages(Partial)[0].payload)
    requester.send(Credit(8, 10_000 + sent, 1))
    (credit,) = replier.take(Credit)
    assert credit.bytes == 10_000 + len(msgspec.msgpack.encode([{"name": "x" * 100}]))


def test_each_part_is_translated(bench):
    requester, replier, request = asked(bench, codec=Codec.JSON)
    part(replier, request.id, 0, {"row": 1})
    (message,) = requester.messages(Partial)
    assert (message.header.codec, message.payload) == (Codec.JSON, b'[{"row":1}]')


def test_a_part_that_cannot_be_translated_is_the_outcome_after_those_before_it(bench):
    requester, replier, request = asked(bench, codec=Codec.JSON)
    part(replier, request.id, 0, 1)
    part(replier, request.id, 1, b"\0")
    assert [one.sequence for one in requester.take(Partial)] == [0]
    assert [error.name for error in requester.take(ErrorHeader)] == ["UNTRANSLATABLE"]
    assert replier.take(Cancel) == [Cancel(request.id)]
    part(replier, request.id, 2, 2)
    assert not requester.take(Partial)


def test_a_replier_beyond_the_credit_is_cut_off(bench):
    requester, replier, request = asked(bench, credit=2)
    for sequence in range(3):
        part(replier, request.id, sequence)
    assert [(error.name, error.scope) for error in replier.take(ErrorHeader)] == [("CREDIT_EXCEEDED", "session")]
    assert len(requester.take(Partial)) == 2
    assert [error.name for error in requester.take(ErrorHeader)] == ["REPLIER_LOST"]


def test_a_part_that_is_not_the_next_is_the_outcome(bench):
    requester, replier, request = asked(bench)
    part(replier, request.id, 1)
    assert [error.name for error in requester.take(ErrorHeader)] == ["PROTOCOL_ERROR"]
    assert replier.take(Cancel) == [Cancel(request.id)]


@pytest.mark.parametrize(("parts", "count"), [(0, 0), (1, 1), (3, 0), ((1 << 53) - 1, 1)])
def test_a_reply_that_miscounts_its_parts_is_an_error_for_both_ends(bench, parts, count):
    requester, replier, request = asked(bench)
    part(replier, request.id, 0)
    part(replier, request.id, 1)
    replier.send(Reply(id=request.id, count=count, parts=parts), payload=b"\x91\x01" if count else b"")
    assert not requester.take(Reply)
    (error,) = requester.take(ErrorHeader)
    assert (error.name, error.scope, error.id) == ("PROTOCOL_ERROR", "request", 1)
    assert f"{parts} parts came before it, and 2 did" in error.detail
    assert [(error.name, error.scope, error.id) for error in replier.take(ErrorHeader)] == [
        ("PROTOCOL_ERROR", "request", request.id)
    ]
    requester.request(2)
    assert len(replier.take(Request)) == 1  # its credit is there again


def test_a_reply_with_parts_to_who_takes_none_is_an_error(bench):
    replier = bench.client("replier")
    replier.offer()
    requester = bench.client("requester")
    requester.request(1)
    (request,) = replier.take(Request)
    replier.send(Reply(id=request.id, parts=1), payload=b"\x91\x01")
    assert not requester.take(Reply)
    assert [error.name for error in requester.take(ErrorHeader)] == ["PROTOCOL_ERROR"]


def test_too_much_credit_at_once_is_refused(bench):
    requester, replier, request = asked(bench)
    requester.send(Credit(2_000, 1, 1))
    assert [(error.name, error.id) for error in requester.take(ErrorHeader)] == [("BAD_ARGUMENT", 1)]
    assert replier.take(Cancel) == [Cancel(request.id)]
    requester.request(2, credit_messages=2_000)
    assert [(error.name, error.id) for error in requester.take(ErrorHeader)] == [("BAD_ARGUMENT", 2)]


def test_a_replier_lost_in_the_middle_is_lost_even_if_idempotent(bench):
    requester, replier, request = asked(bench, idempotent=True)
    part(replier, request.id, 0)
    other = bench.client("replier")
    other.offer()
    bench.disconnect(replier)
    assert not other.take(Request)
    assert len(requester.take(Partial)) == 1
    assert [error.name for error in requester.take(ErrorHeader)] == ["REPLIER_LOST"]


def test_before_the_first_part_an_idempotent_request_moves_with_its_credit(bench):
    requester, replier, _ = asked(bench, idempotent=True)
    requester.send(Credit(6, 12_000, 1))
    other = bench.client("replier")
    other.offer()
    replier.send(Goodbye())
    (request,) = other.take(Request)
    assert (request.credit_messages, request.credit_bytes) == (6, 12_000)


@pytest.mark.parametrize("end", ["cancel", "goodbye", "disconnect", "deadline"])
def test_whoever_leaves_a_reply_stops_its_replier(bench, end):
    requester, replier, request = asked(bench, timeout_ms=1_000)
    part(replier, request.id, 0)
    if end == "cancel":
        requester.send(Cancel(1))
    elif end == "goodbye":
        requester.send(Goodbye())
    elif end == "disconnect":
        bench.disconnect(requester)
    else:
        bench.wait(1_000)
    assert replier.take(Cancel) == [Cancel(request.id)]
    part(replier, request.id, 1)
    assert bench.engine.status(bench.now)["counters"]["late_replies"] == 1


def test_credit_waits_while_the_requester_does_not_read_and_an_error_stays_behind_the_parts(bench):
    reader = bench.client("requester", messages=1)
    requester, replier, request = asked(bench, requester=reader)
    for sequence in range(3):
        part(replier, request.id, sequence)
    requester.send(Credit(8, 20_000, 1))
    assert not replier.take(Credit)
    replier.send(ErrorHeader(number=700, scope="request", id=request.id))
    assert [type(message.header) for message in requester.inbox if type(message.header) in (Partial, ErrorHeader)] == [
        Partial
    ]
    requester.inbox.clear()
    requester.send(Credit(100, 1 << 20))
    assert [type(message.header) for message in requester.inbox] == [Partial, Partial, ErrorHeader]


def test_credit_that_grows_in_small_steps_is_told_in_large_ones_and_none_is_lost(bench):
    requester, replier, request = asked(bench, credit=1, size=1)
    for step in range(1, 1_000):
        requester.send(Credit(step, step * 1_000, 1))
        requester.send(Credit(step, step * 1_000, 1))
    told = replier.take(Credit)
    assert len(told) < 20
    for sequence in range(999):  # it uses all that it was told, and is told the rest in time
        part(replier, request.id, sequence)
    assert len(requester.take(Partial)) == 999
    assert len(replier.take(Credit)) < 20


def test_a_replier_that_does_not_read_is_owed_one_credit_a_request(bench):
    reader = bench.client("requester", messages=10_000)
    requester, replier, request = asked(bench, requester=reader, credit=1, size=1_000)
    requester.request(2, credit_messages=1, credit_bytes=1_000)
    (second,) = replier.take(Request)
    replier.reads = False
    sequence = 0
    while not sequence or replier.take(Credit):
        part(replier, request.id, sequence)
        sequence += 1
        requester.send(Credit(sequence + 1, 1_000_000, 1))
    assert REPLIES_UNREAD_CUT - 5 < sequence <= REPLIES_UNREAD_CUT
    requester.send(Credit(500, 10_000, 2))
    requester.send(Credit(900, 20_000, 2))
    assert not replier.take(Credit)
    replier.reads = True
    for ping in replier.take(Ping):
        replier.send(Pong(ping.token))
    told = replier.take(Credit)
    assert [credit.messages for credit in told if credit.id == second.id] == [900]
    assert len(told) <= 2


def test_errors_behind_parts_that_nobody_reads_are_bounded(bench, monkeypatch):
    monkeypatch.setattr(services, "OUTBOX_BYTES_MAX", 20_000)
    reader = bench.client("requester", messages=1)
    requester, replier, request = asked(bench, requester=reader)
    part(replier, request.id, 0)
    part(replier, request.id, 1)
    for id in range(2, 1_000):  # they fail at once, and the PONGs of this requester come
        requester.request(id, service="nobody", wait_ms=0, credit_messages=1, credit_bytes=1)
        bench.wait(0)
    (session,) = (one for one in bench.engine._sessions if one.outbox)
    assert 20_000 < session.outbox_bytes < 20_500
    assert bench.engine.status(bench.now)["counters"]["answers_withheld"] == 1_000 - 1 - len(session.outbox)
    requester.send(Credit(100, 1 << 20))
    outcomes = [one.id for one in requester.take(ErrorHeader)]
    assert outcomes == list(range(2, 2 + len(outcomes)))


def test_credit_that_waited_goes_on_when_the_requester_reads(bench):
    reader = bench.client("requester", messages=1)
    requester, replier, request = asked(bench, requester=reader)
    for sequence in range(2):
        part(replier, request.id, sequence)
    requester.send(Credit(8, 20_000, 1))
    requester.request(2, credit_messages=4, credit_bytes=4_000)
    (second,) = replier.take(Request)
    assert (second.credit_messages, second.credit_bytes) == (1, 1)
    requester.send(Credit(100, 1 << 20))
    assert {(credit.id, credit.messages) for credit in replier.take(Credit)} == {(request.id, 8), (second.id, 4)}
