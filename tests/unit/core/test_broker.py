from __future__ import annotations

import msgspec
import pytest

from patterns.wire.engine import Send
from patterns.wire.frames import pack
from patterns.wire.messages import (
    Admin,
    Codec,
    ErrorHeader,
    Goodbye,
    NoSessionHeader,
    Ping,
    Pong,
    Ready,
    Reply,
    Request,
    Result,
    Subscribe,
)
from tests.unit.core.serving import JSON, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("role", ["requester", "replier", "publisher", "subscriber", "admin"])
def test_each_live_role_gets_ready_with_epoch_limits_and_credit_only_to_send(bench, role):
    (ready,) = bench.client(role).take(Ready)
    assert (ready.epoch, ready.cluster, ready.limits.body_bytes_max) == (7, "test", 1 << 20)
    assert (ready.credit_messages > 0) is (role in ("requester", "publisher"))


@pytest.mark.parametrize("role", ["producer", "consumer"])
def test_without_a_journal_durable_roles_are_told_so(bench, role):
    (error,) = bench.client(role).take(ErrorHeader)
    assert (error.name, error.scope) == ("NOT_IN_THIS_DEPLOYMENT", "session")


def test_a_kind_of_another_role_is_refused(bench):
    requester = bench.client("requester")
    requester.send(Subscribe(1, "a"))
    assert [error.name for error in requester.take(ErrorHeader)] == ["WRONG_ROLE"]


def test_a_kind_that_only_the_broker_sends_is_refused(bench):
    replier = bench.client("replier")
    replier.send(Result(id=1))
    assert [error.name for error in replier.take(ErrorHeader)] == ["WRONG_ROLE"]


def test_anything_but_hello_on_a_new_connection_gets_no_session(bench):
    requester = bench.client("requester")
    bench.disconnect(requester)
    requester.request(1)
    assert requester.take(NoSessionHeader) == [NoSessionHeader(7)]


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_status_has_every_section_in_the_admins_codec(bench, form):
    admin = bench.client("admin", form=JSON, codec=Codec(form))
    bench.engine.inform("journal", {"epoch": 7})
    bench.engine.warn("disk", "nearly full")
    admin.send(Admin(3, "status"))
    (message,) = admin.messages(Result)
    decode = msgspec.json.decode if form == "json" else msgspec.msgpack.decode
    (status,) = decode(message.payload)
    wanted = {"streams", "groups", "services", "subscriptions", "sessions", "counters", "journal", "warnings"}
    assert wanted | {"epoch", "uptime_ms", "cluster"} <= set(status)
    assert (message.header.id, status["journal"], status["warnings"]) == (3, {"epoch": 7}, ["nearly full"])


def test_a_verb_about_streams_is_refused_where_there_are_none(bench):
    admin = bench.client("admin")
    admin.send(Admin(3, "explode"))
    (error,) = admin.take(ErrorHeader)
    assert (error.name, error.scope, error.id) == ("NOT_IN_THIS_DEPLOYMENT", "command", 3)


def test_draining_refuses_the_new_and_lets_the_dispatched_finish(bench):
    replier, requester = bench.client("replier", messages=1), bench.client("requester")
    replier.offer()
    requester.request(1)
    requester.request(2)
    bench.engine.drain(bench.now)
    bench.settle()
    requester.request(3)
    errors = requester.take(ErrorHeader)
    assert [(error.name, error.id, error.retryable) for error in errors] == [
        ("SHUTTING_DOWN", 2, True),
        ("SHUTTING_DOWN", 3, True),
    ]
    assert not bench.engine.is_drained
    replier.reply(replier.take(Request)[0].id)
    assert requester.take(Reply)
    assert bench.engine.is_drained
    bench.engine.farewell()
    bench.settle()
    assert requester.take(Goodbye)[0].reason
    assert [error.name for error in bench.client("requester").take(ErrorHeader)] == ["SHUTTING_DOWN"]


def test_a_suspected_connection_gets_one_ping_as_the_proof(bench):
    requester = bench.client("requester")
    bench.engine.suspect(0, requester.peer)
    bench.settle()
    assert requester.take(Ping)


def test_the_ping_to_a_suspect_is_in_the_form_that_it_reads(bench):
    admin = bench.client("admin", form=JSON)
    bench.engine.suspect(0, admin.peer)
    bench.settle()
    (ping,) = admin.messages(Ping)
    assert ping.form is JSON


def test_a_suspect_without_a_session_is_left_alone(bench):
    requester = bench.client("requester")
    bench.disconnect(requester)
    bench.engine.suspect(0, requester.peer)
    bench.settle()
    assert not requester.take(Ping)


def test_a_session_that_moves_to_a_new_connection_begins_anew(bench):
    replier, requester = bench.client("replier"), bench.client("requester")
    replier.offer()
    requester.request(1)
    moved = bench.client("replier")
    moved.nonce = replier.nonce
    moved.hello(resume={"epoch": 7})
    assert [error.name for error in requester.take(ErrorHeader)] == ["REPLIER_LOST"]


def test_a_silent_session_ends_as_if_its_connection_were_lost(bench):
    replier, requester = bench.client("replier"), bench.client("requester")
    replier.offer()
    requester.request(1, timeout_ms=60_000)
    for _ in range(6):
        bench.wait(1_900)
        requester.send(Ping(1))
    assert requester.take(Pong)
    assert [error.name for error in requester.take(ErrorHeader)] == ["REPLIER_LOST"]


def test_ten_thousand_requests_that_had_their_outcome_hold_no_memory(bench):
    replier, requester = bench.client("replier"), bench.client("requester", messages=1 << 20)
    replier.offer()
    for id in range(10_000):
        requester.request(id, timeout_ms=3_600_000)
        replier.reply(replier.take(Request)[0].id)
    assert len(bench.engine._services._due) < 2_000


def test_effects_are_handed_out_once(bench):
    bench.engine.receive(0, b"new", pack(Ping(1)), bench.now)
    assert [type(effect) for effect in bench.engine.effects()] == [Send]
    assert bench.engine.effects() == []


def test_who_comes_and_goes_and_what_is_warned_of_is_told_once(bench):
    replier = bench.client("replier")
    bench.engine.warn("key", "text")
    bench.engine.warn("key", "text, and more")
    bench.engine.warn("key", "")
    bench.engine.warn("key", "")
    replier.send(Goodbye())
    began, raised, gone, ended = bench.engine.events()
    assert (began.role, began.session, ended.reason) == ("replier", ended.session, "goodbye")
    assert (raised.key, raised.text, gone.key) == ("key", "text", "key")
    assert not bench.engine.has_events


def test_a_refused_hello_is_told_of(bench):
    bench.engine.drain(bench.now)
    bench.client("replier")
    (refused,) = bench.engine.events()
    assert (refused.role, refused.error) == ("replier", "SHUTTING_DOWN")
