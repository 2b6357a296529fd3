"""Who gives up on a request, or leaves, is heard; and a replier that leaves finishes what it has begun."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import zmq

from patterns.sync import Admin, Replier, Requester
from patterns.wire.errors import Closed, NoReplier, OutcomeUnknown, ReplierLost, ShuttingDown, TimedOut
from tests.processes import Broker, until
from tests.sockets.hostile import Peer, hello_of
from tests.sockets.places import Crowd, Place, serving


class Gate:
    """A handler that lets nobody out until it is opened, and what it was given."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)
        self.begun: list[object] = []

    def __call__(self, body: object) -> object:
        self.begun.append(body)
        self.entered.release()
        assert self.opened.wait(30)
        return body


def _queued(replier: Replier, count: int) -> None:
    """Until so many requests wait for the handler."""
    until(lambda: len(replier._requests) >= count, what="the requests")


def test_a_request_that_was_given_up_before_it_was_begun_never_runs(place: Place) -> None:
    gate = Gate()
    with serving(place.bind, "gate", gate) as replier, Requester(place.of(replier)) as asker:
        crowd = Crowd()
        crowd.run(asker.request, "gate", "first")
        assert gate.entered.acquire(timeout=30)
        with pytest.raises(TimedOut):
            asker.request("gate", "given up", timeout_s=0.2)
        gate.opened.set()
        assert asker.request("gate", "last", timeout_s=20) == "last"
        crowd.join()
        assert gate.begun == ["first", "last"]


@pytest.mark.parametrize("leave", ["lost", "goodbye", "hello"])
def test_a_requester_that_leaves_a_thousand_requests_unbegun_costs_nobody_else_an_answer(leave: str) -> None:
    gate, context = Gate(), zmq.Context()
    with serving("tcp://127.0.0.1:0", "gate", gate) as replier, Requester(replier.address) as asker:
        peer = Peer(context, replier.address).hello("requester")
        for number in range(1, 1_025):
            header = {"id": number, "service": "gate", "timeout_ms": 600_000}
            peer.send("Q", header, b"", msgspec.msgpack.encode([number]))
        _queued(replier, 1_023)
        if leave == "goodbye":
            peer.send("G", {})
        elif leave == "hello":
            peer.send("H", hello_of("requester", peer.nonce))
        else:
            peer.socket.close()
        gate.opened.set()
        assert asker.request("gate", "another", timeout_s=30) == "another"
    context.destroy(linger=0)


def test_a_handler_sees_that_nobody_waits_and_how_long_somebody_will(place: Place) -> None:
    remaining: list[float] = []
    stopped = threading.Event()

    def handler(body: object, request: Any) -> None:
        remaining.append(request.remaining_s)
        assert not request.is_cancelled
        until(lambda: request.is_cancelled, what="the giving up")
        stopped.set()

    with serving(place.bind, "slow", handler) as replier:
        for how in ("time is up", "leaves"):
            with Requester(place.of(replier)) as asker:
                crowd = Crowd()
                if how == "leaves":
                    crowd.run(_ignoring, asker, 25.0)
                    until(lambda: len(remaining) == 2, what="the handler")
                else:
                    _ignoring(asker, 0.3)
            assert stopped.wait(30)
            stopped.clear()
            crowd.join()
    assert 0 < remaining[0] <= 0.3 < remaining[1] <= 25


def _ignoring(asker: Requester, timeout_s: float) -> None:
    """A reply may come at the last moment, from a handler that saw that nobody would wait any more."""
    with suppress(TimedOut, Closed, OutcomeUnknown):
        asker.request("slow", 1, timeout_s=timeout_s)


def test_a_handler_may_take_the_body_alone_or_the_request_too() -> None:
    def both(body: int, request: Any, unit: str = "eur") -> object:
        return [body, request.service, request.headers, unit]

    with (
        serving("tcp://127.0.0.1:0", "both", both) as one,
        serving("tcp://127.0.0.1:0", "alone", lambda body, by=2: body * by) as two,
        serving("tcp://127.0.0.1:0", "builtin", str) as three,
        Requester(",".join(replier.address for replier in (one, two, three))) as asker,
    ):
        assert asker.request("both", 1, headers={"a": "b"}) == [1, "both", {"a": "b"}, "eur"]
        assert asker.request("alone", 4) == 8
        assert asker.request("builtin", 4) == "4"


def test_close_lets_the_handler_finish_and_refuses_what_was_not_begun(place: Place) -> None:
    gate = Gate()
    replier = Replier(place.bind, "gate", gate)
    replier.ready()
    serving = Crowd()
    serving.run(replier.serve_forever)
    with Requester(place.of(replier)) as asker:
        crowd, refused = Crowd(), Crowd()
        answers: list[object] = []
        crowd.run(lambda: answers.append(asker.request("gate", "begun", timeout_s=25)))
        assert gate.entered.acquire(timeout=30)
        if not place.brokered:  # a broker gives it no more than it has credit for
            refused.run(asker.request, "gate", "not begun")
            _queued(replier, 1)
        closing = Crowd()
        closing.run(replier.close, 25)
        until(lambda: replier._is_leaving, what="the closing")
        if not place.brokered:
            with pytest.raises(ShuttingDown, match="not begun"):
                refused.join()
        gate.opened.set()
        crowd.join()
        closing.join()
        serving.join()
        assert answers == ["begun"]
        assert gate.begun == ["begun"]


def test_close_says_what_was_not_answered_in_time(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    replier = Replier(place.bind, "gate", gate)
    replier.ready()
    serving = Crowd()
    serving.run(replier.serve_forever)
    with Requester(place.of(replier)) as asker:
        crowd = Crowd()
        crowd.run(asker.request, "gate", 1)
        assert gate.entered.acquire(timeout=30)
        with caplog.at_level(logging.WARNING):
            replier.close(0.1)
        assert "closed while 1 request had no reply" in caplog.text
        with pytest.raises(ReplierLost):
            crowd.join()
        gate.opened.set()
        serving.join()


def test_a_handler_may_close_its_own_replier(place: Place) -> None:
    made: list[Replier] = []
    serving = Crowd()
    made.append(Replier(place.bind, "stop", lambda body: made[0].close(25)))
    made[0].ready()
    serving.run(made[0].serve_forever)
    with Requester(place.of(*made)) as asker:
        with pytest.raises(ReplierLost):
            asker.request("stop", 1, timeout_s=25)
        serving.join(20)  # and does not wait 25 s for itself


def test_what_crosses_the_leave_of_its_replier_was_not_begun(broker: Broker) -> None:
    """A reply lends the replier the next request; who leaves right then has not begun with it, and says so."""
    with Requester(broker.url) as requester, Admin(broker.url) as admin:
        for _ in range(8):
            told: list[object] = []

            def ask(told: list[object] = told) -> None:
                try:
                    told.append(requester.request("s", 1, timeout_s=60))
                except NoReplier as error:
                    told.append(type(error))

            crowd = Crowd()
            with Replier(broker.url, "s") as replier:
                replier.ready(30)
                crowd.run(ask)
                crowd.run(ask)
                request = replier.receive(30)
                assert request is not None
                until(lambda: admin.status()["services"]["s"]["waiting"] == 1, what="the second request")
                request.reply(1)
            crowd.join()
            assert crowd.errors == []
            assert sorted(told, key=str) == [1, NoReplier]
