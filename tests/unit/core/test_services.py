from __future__ import annotations

from collections import Counter

import pytest

from patterns.wire.messages import (
    Cancel,
    Codec,
    Credit,
    ErrorHeader,
    Goodbye,
    Offered,
    Partial,
    Reply,
    Request,
    Withdraw,
)
from tests.unit.core.serving import JSON, MS, Bench
from zbroker.core.requests import ANSWERS_OWED_MAX
from zbroker.core.schedule import Schedule


@pytest.fixture
def bench() -> Bench:
    return Bench()


def pair(bench: Bench, **hello: int):
    replier = bench.client("replier", **hello)
    replier.offer()
    return bench.client("requester"), replier


def test_a_request_reaches_the_replier_under_the_brokers_own_id_with_what_time_remains(bench):
    requester = bench.client("requester")
    requester.request(41, timeout_ms=5_000)
    bench.wait(300)
    replier = bench.client("replier")
    replier.offer()
    (asked,) = replier.take(Request)
    assert asked.id != 41
    assert asked.timeout_ms == 4_700
    assert asked.service == "price"


def test_a_reply_comes_back_under_the_requesters_id_with_the_same_body(bench):
    requester, replier = pair(bench)
    requester.request(41)
    replier.reply(replier.take(Request)[0].id, {"eur": 3})
    (message,) = requester.messages(Reply)
    assert message.header.id == 41
    assert message.payload == b"\x91\x81\xa3eur\x03"


def test_an_offer_is_answered_and_a_bad_service_name_refused(bench):
    replier = bench.client("replier")
    replier.offer("price")
    assert replier.take(Offered) == [Offered(1)]
    replier.offer("a/b")
    (error,) = replier.take(ErrorHeader)
    assert (error.name, error.scope, error.id) == ("BAD_NAME", "offer", 1)


def test_without_any_replier_the_request_fails_after_wait_ms_and_not_before(bench):
    requester = bench.client("requester")
    requester.request(1, wait_ms=200)
    bench.wait(199)
    assert not requester.take(ErrorHeader)
    bench.wait(1)
    (error,) = requester.take(ErrorHeader)
    assert (error.name, error.scope, error.id, error.retryable) == ("NO_REPLIER", "request", 1, True)


def test_a_request_waits_for_a_busy_replier_beyond_wait_ms(bench):
    requester, replier = pair(bench, messages=1)
    requester.request(1)
    requester.request(2, wait_ms=100)
    bench.wait(1_000)
    assert not requester.take(ErrorHeader)
    replier.reply(replier.take(Request)[0].id)
    assert len(replier.take(Request)) == 1


def test_nothing_is_sent_after_the_deadline_and_cancel_renews_the_credit(bench):
    requester, replier = pair(bench)
    requester.request(1, timeout_ms=100)
    (asked,) = replier.take(Request)
    requester.inbox.clear()
    bench.wait(100)
    replier.reply(asked.id)
    assert not requester.messages(Reply)
    assert not requester.messages(ErrorHeader)
    assert replier.take(Cancel) == [Cancel(asked.id)]
    session = bench.engine._sessions.at((0, requester.peer))
    assert session.into.messages_left == 65_535
    requester.send(Cancel(1))
    requester.send(Cancel(1))
    assert session.into.messages_left == 65_536


def test_a_reply_that_comes_at_the_deadline_and_before_the_timer_is_too_late(bench):
    """After a stall a loop reads what is there first, and looks at the clock then."""
    requester, replier = pair(bench)
    requester.request(41, timeout_ms=100)
    (asked,) = replier.take(Request)
    bench.now += 100 * MS
    replier.reply(asked.id)
    assert requester.take(Reply) == requester.take(ErrorHeader) == []
    requester.request(42, timeout_ms=100)
    (asked,) = replier.take(Request)
    bench.now += 99 * MS
    replier.reply(asked.id)
    assert [reply.id for reply in requester.take(Reply)] == [42]


def test_the_replier_with_the_most_credit_left_is_asked(bench):
    small, large = bench.client("replier", messages=2), bench.client("replier", messages=9)
    small.offer()
    large.offer()
    requester = bench.client("requester")
    for id in range(7):
        requester.request(id)
    assert len(large.take(Request)) == 7
    assert not small.take(Request)


def test_ties_go_to_the_replier_that_is_idle_longest(bench):
    repliers = [bench.client("replier", messages=5) for _ in range(3)]
    for replier in repliers:
        replier.offer()
    requester = bench.client("requester")
    for id in range(6):
        requester.request(id)
    assert [len(replier.take(Request)) for replier in repliers] == [2, 2, 2]


def test_a_replier_never_gets_more_than_its_credit_and_its_reply_grants_again(bench):
    requester, replier = pair(bench, messages=2)
    for id in range(5):
        requester.request(id)
    asked = replier.take(Request)
    assert len(asked) == 2
    replier.reply(asked[0].id)
    assert len(replier.take(Request)) == 1
    replier.send(Credit(10, 1 << 20))
    assert len(replier.take(Request)) == 2


def test_a_lost_repliers_requests_fail_with_replier_lost(bench):
    requester, replier = pair(bench)
    requester.request(1)
    bench.disconnect(replier)
    (error,) = requester.take(ErrorHeader)
    assert (error.name, error.id) == ("REPLIER_LOST", 1)


def test_an_idempotent_request_moves_to_another_replier(bench):
    requester, replier = pair(bench)
    requester.request(1, body="again", idempotent=True)
    other = bench.client("replier")
    other.offer()
    replier.send(Goodbye())
    (message,) = other.messages(Request)
    assert message.payload == b"\x91\xa5again"
    assert not requester.take(ErrorHeader)


def test_a_withdrawn_service_gets_no_new_requests_and_finishes_old_ones(bench):
    requester, replier = pair(bench)
    requester.request(1)
    replier.send(Withdraw("price"))
    requester.request(2, wait_ms=0)
    bench.wait(0)
    replier.reply(replier.take(Request)[0].id)
    assert [reply.id for reply in requester.take(Reply)] == [1]
    assert [error.name for error in requester.take(ErrorHeader)] == ["NO_REPLIER"]


def test_a_handlers_failure_reaches_the_requester_as_it_is(bench):
    requester, replier = pair(bench)
    requester.request(5)
    asked = replier.take(Request)[0]
    replier.send(ErrorHeader(number=700, scope="request", id=asked.id, code="no_such_sku", detail="sku 7"))
    (error,) = requester.take(ErrorHeader)
    assert (error.number, error.id, error.code, error.detail) == (700, 5, "no_such_sku", "sku 7")


def test_parts_pass_only_when_the_request_gave_credit_for_them(bench):
    requester, replier = pair(bench)
    requester.request(1, credit_messages=9, credit_bytes=1_000)
    requester.request(2)
    first, second = replier.take(Request)
    for asked in (first, second):
        replier.send(Partial(id=asked.id, sequence=0), payload=b"\x91\x01")
    assert [part.id for part in requester.take(Partial)] == [1]
    (error,) = replier.take(ErrorHeader)
    assert (error.name, error.id) == ("PROTOCOL_ERROR", second.id)


def test_cancel_reaches_the_replier_and_its_reply_meets_nobody(bench):
    requester, replier = pair(bench)
    requester.request(1)
    asked = replier.take(Request)[0]
    requester.send(Cancel(1))
    assert replier.take(Cancel) == [Cancel(asked.id)]
    replier.reply(asked.id)
    assert not requester.take(Reply)


def test_a_requester_beyond_its_credit_is_cut_off(bench):
    requester = bench.client("requester")
    body = "x" * 1_000_000
    for id in range(6):
        requester.request(id, body=body, wait_ms=60_000, timeout_ms=60_000)
    errors = requester.take(ErrorHeader)
    assert [(error.name, error.scope) for error in errors] == [("CREDIT_EXCEEDED", "session")]
    requester.request(9)
    assert bench.engine.status(bench.now)["refused"] == {"CREDIT_EXCEEDED": 1, "NO_SESSION": 1}


def test_an_outcome_grants_the_request_again(bench):
    requester, replier = pair(bench, size=200_000)
    for id in range(60):  # 6 MB in all; the first credit is 4 MiB
        requester.request(id, body="x" * 100_000)
        replier.reply(replier.take(Request)[0].id)
        assert [reply.id for reply in requester.take(Reply)] == [id]


def test_replies_without_credit_wait_and_beyond_the_budget_become_overloaded(bench):
    replier = bench.client("replier")
    replier.offer()
    requester = bench.client("requester", messages=1)
    body = "y" * 1_000_000
    for id in range(11):
        requester.request(id)
    for asked in replier.take(Request):
        replier.reply(asked.id, body)
    assert [reply.id for reply in requester.take(Reply)] == [0]
    assert [error.id for error in requester.take(ErrorHeader) if error.name == "OVERLOADED"] == [9, 10]
    requester.send(Credit(100, 1 << 30))
    assert [reply.id for reply in requester.take(Reply)] == list(range(1, 9))


def test_a_json_requester_and_a_msgpack_replier_understand_each_other(bench):
    replier = bench.client("replier")
    replier.offer()
    requester = bench.client("requester", form=JSON, codec=Codec.JSON)
    requester.request(1, body={"sku": 7})
    (message,) = replier.messages(Request)
    assert (message.header.codec, message.payload) == (Codec.MSGPACK, b"\x91\x81\xa3sku\x07")
    replier.reply(message.header.id, {"eur": 3})
    (answer,) = requester.messages(Reply)
    assert (answer.header.codec, answer.payload) == (Codec.JSON, b'[{"eur":3}]')


def test_a_reply_that_cannot_be_translated_is_an_error_with_the_path(bench):
    replier = bench.client("replier")
    replier.offer()
    requester = bench.client("requester", form=JSON, codec=Codec.JSON)
    requester.request(1)
    replier.reply(replier.take(Request)[0].id, {"blob": b"\0"})
    (error,) = requester.take(ErrorHeader)
    assert error.name == "UNTRANSLATABLE"
    assert "[0].blob in" in error.detail


@pytest.mark.parametrize("payload", [b"", b"\x92\x01\x02", b"\xc1", b"\x91"])
def test_a_body_that_is_none_is_refused_as_the_requests_outcome(bench, payload):
    requester, _ = pair(bench)
    requester.send(Request(id=3, service="price", timeout_ms=1_000), payload=payload)
    (error,) = requester.take(ErrorHeader)
    assert (error.name, error.scope, error.id) == ("BAD_BODY", "request", 3)


def test_an_id_in_use_is_refused_and_the_older_request_keeps_its_outcome(bench):
    requester, replier = pair(bench)
    requester.request(1, body="first")
    requester.request(1, body="second")
    assert [error.name for error in requester.take(ErrorHeader)] == ["PROTOCOL_ERROR"]
    replier.reply(replier.take(Request)[0].id)
    assert [reply.id for reply in requester.take(Reply)] == [1]


def test_services_nobody_uses_cost_no_memory(bench):
    requester = bench.client("requester")
    for number in range(100):
        requester.request(number, service=f"nobody{number}", wait_ms=10)
    bench.wait(10)
    assert bench.engine.status(bench.now)["services"] == {}


def test_idle_services_beside_a_busy_one_cost_no_memory_and_no_work(bench, monkeypatch):
    pushed = Counter()
    push = Schedule.push
    monkeypatch.setattr(Schedule, "push", lambda self, *entry: pushed.update(pushes=1) or push(self, *entry))
    replier, requester = bench.client("replier", messages=1_000), bench.client("requester")
    for service in ["busy", *(f"idle{number}" for number in range(200))]:
        replier.offer(service)
    for id in range(500):
        requester.request(id, service="busy")
        replier.reply(replier.take(Request)[0].id)
    assert pushed["pushes"] <= 3 * 500  # the request's deadline, its replier's readiness, and timers
    assert sum(len(service.free) for service in bench.engine._services._services.values()) < 100


def test_a_freed_replier_takes_what_waits_for_its_services_by_turns(bench):
    replier, requester = bench.client("replier", messages=1), bench.client("requester")
    services = ["a", "b", "c"]
    for service in services:
        replier.offer(service)
    for id in range(10):
        requester.request(id, service="a" if id < 6 else services[id % 2 + 1])
    order = []
    while asked := replier.take(Request):
        order.append(asked[0].service)
        replier.reply(asked[0].id)
    assert "".join(order) == "aabcabcaaa"


def test_who_owes_too_many_answers_that_nobody_waits_for_is_asked_no_more_until_it_answers(bench):
    silent, other = bench.client("replier", messages=1 << 40, size=1 << 50), bench.client("replier", messages=1)
    silent.offer()
    requester = bench.client("requester")
    for id in range(ANSWERS_OWED_MAX + 10):
        requester.request(id)
        requester.send(Cancel(id))
    asked = silent.take(Request)
    assert len(asked) == ANSWERS_OWED_MAX
    assert bench.engine.status(bench.now)["services"]["price"] == {"repliers": 1, "waiting": 0, "credit": 0}
    other.offer()
    requester.request(10_000)
    requester.request(10_001)
    assert len(other.take(Request)) == 1
    assert not silent.take(Request)
    silent.reply(asked[0].id)
    assert len(silent.take(Request)) == 1
