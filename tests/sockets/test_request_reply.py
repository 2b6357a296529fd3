"""Requester and Replier over real sockets: one outcome for each request, whatever dies."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import msgspec
import pytest

from patterns.roles import requester
from patterns.sync import Replier, Requester
from patterns.wire.errors import (
    ApplicationError,
    BadArgument,
    BadName,
    Closed,
    HandlerFailed,
    NoReplier,
    NotInThisDeployment,
    OutcomeUnknown,
    ReplierLost,
    TimedOut,
    Unavailable,
    ValidationFailed,
)
from tests.processes import Broker, Program, only_long, program, until
from tests.sockets.places import Crowd, Place, serving

DEAD = "tcp://127.0.0.1:9"  # the discard port: nobody listens, and no test takes it

REPLIER = """
import sys
from patterns.sync import Replier
with Replier(sys.argv[1], "slow") as replier:
    replier.ready()
    print(replier.address)
    for request in replier:
        print("got", request.body)
        if sys.stdin.readline().strip() == "answer":
            request.reply([sys.argv[2], request.body])
"""

HOG = """
import sys, time
from patterns.sync import Replier
def handler(body):
    end = time.monotonic() + body
    while time.monotonic() < end:
        sum(range(300_000))
    return "done"
with Replier(sys.argv[1], "hog", handler) as replier:
    replier.ready()
    print(replier.address)
    replier.serve_forever()
"""


def _replier(place: Place, folder: Path, name: str = "a") -> tuple[Program, str]:
    found = program(REPLIER, folder, place.bind, name)
    address = found.line()
    return found, place.broker.url if place.broker else address


def test_a_request_has_its_reply(place: Place) -> None:
    with serving(place.bind, "double", lambda body: body * 2) as replier, Requester(place.of(replier)) as asker:
        assert [asker.request("double", number) for number in range(100)] == list(range(0, 200, 2))


def test_a_reply_is_validated(place: Place) -> None:
    with serving(place.bind, "echo", lambda body: body) as replier, Requester(place.of(replier)) as asker:
        assert asker.request("echo", [1, 2], type=list[int]) == [1, 2]
        with pytest.raises(ValidationFailed):
            asker.request("echo", "text", type=int)


def test_what_a_requester_says_of_replies_holds_where_a_request_says_nothing_else(place: Place) -> None:
    with (
        serving(place.bind, "echo", lambda body: body) as replier,
        Requester(place.of(replier), type=list[int]) as asker,
    ):
        assert asker.request("echo", [1, 2]) == [1, 2]
        assert asker.request("echo", "text", type=str) == "text"
        with pytest.raises(ValidationFailed):
            asker.request("echo", "text")


def test_a_request_of_another_type_is_refused_by_itself(place: Place) -> None:
    class Order(msgspec.Struct):
        sku: int

    with (
        serving(place.bind, "order", lambda order: order.sku, type=Order) as replier,
        Requester(place.of(replier)) as asker,
    ):
        with pytest.raises(ValidationFailed):
            asker.request("order", {"sku": "seven"})
        assert asker.request("order", {"sku": 7}) == 7


def test_the_handlers_failures_are_typed(place: Place) -> None:
    def handler(body: str) -> object:
        if body == "known":
            raise ApplicationError("sku 7 is unknown", code="no_such_sku")
        raise KeyError(body)

    with serving(place.bind, "fails", handler) as replier, Requester(place.of(replier)) as asker:
        with pytest.raises(ApplicationError, match="sku 7") as known:
            asker.request("fails", "known")
        assert known.value.code == "no_such_sku"
        with pytest.raises(HandlerFailed, match="KeyError"):
            asker.request("fails", "other")


def test_a_reply_that_cannot_be_encoded_is_the_handlers_failure(place: Place) -> None:
    with serving(place.bind, "odd", lambda body: object()) as replier, Requester(place.of(replier)) as asker:
        with pytest.raises(HandlerFailed):
            asker.request("odd", 1)
        with pytest.raises(HandlerFailed):
            asker.request("odd", 2)


def test_no_replier_is_an_error_after_the_wait(place: Place) -> None:
    with serving(place.bind, "here", lambda body: body) as replier, Requester(place.of(replier)) as asker:
        with pytest.raises(NoReplier, match="elsewhere"):
            asker.request("elsewhere", 1, wait_s=0.1)
        assert asker.request("here", 1) == 1


def test_no_replier_is_told_though_the_wait_is_as_long_as_the_deadline(place: Place) -> None:
    with serving(place.bind, "here", lambda body: body) as replier, Requester(place.of(replier)) as asker:
        assert asker.request("here", 1, timeout_s=30) == 1
        with pytest.raises(NoReplier, match="elsewhere"):
            asker.request("elsewhere", 1, timeout_s=10, wait_s=10)


def test_a_replier_that_comes_within_the_wait_is_asked(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker, Requester(broker.url) as asker:
        answers: list[object] = []
        crowd = Crowd()
        crowd.run(lambda: answers.append(asker.request("late", 1, timeout_s=20, wait_s=20)))
        with serving(broker.url, "late", lambda body: body):
            crowd.join()
        assert answers == [1]


def test_a_silent_replier_times_out_and_its_late_reply_meets_nobody(place: Place) -> None:
    with Replier(place.bind, "slow") as replier:
        replier.ready()
        requests = iter(replier)
        with Requester(place.of(replier)) as asker:
            with pytest.raises(TimedOut):
                asker.request("slow", "first", timeout_s=0.3)
            crowd = Crowd()
            answers: list[object] = []
            crowd.run(lambda: answers.append(asker.request("slow", "second", timeout_s=10)))
            request = next(requests)
            if request.body == "first":  # whose time was up before we took it
                request.reply("late")
                request = next(requests)
            request.reply(f"{request.body} answered")
            crowd.join()
        assert answers == ["second answered"]


def test_a_killed_replier_is_lost(place: Place, tmp_path: Path) -> None:
    killed, address = _replier(place, tmp_path)
    with killed, Requester(address) as asker:
        outcomes: list[BaseException] = []

        def ask() -> None:
            try:
                asker.request("slow", 1, timeout_s=20)
            except ReplierLost as error:
                outcomes.append(error)

        crowd = Crowd()
        crowd.run(ask)
        assert killed.line() == "got 1"
        killed.kill()
        crowd.join()
        assert len(outcomes) == 1


def test_an_idempotent_request_goes_to_another_replier(place: Place, tmp_path: Path) -> None:
    first, first_address = _replier(place, tmp_path, "a")
    second, second_address = _replier(place, tmp_path, "b")
    address = first_address if place.brokered else f"{first_address},{second_address}"
    with first, second, Requester(address) as asker:
        answers: list[list[object]] = []
        crowd = Crowd()
        crowd.run(lambda: answers.append(asker.request("slow", 1, timeout_s=20, idempotent=True)))
        repliers = {"a": first, "b": second}
        asked = _who_got(repliers, "got 1")
        other = "b" if asked == "a" else "a"
        repliers[asked].kill()
        assert repliers[other].line() == "got 1"
        repliers[other].tell("answer")
        crowd.join()
        assert answers == [[other, 1]]


def _who_got(repliers: dict[str, Program], line: str) -> str:
    found: list[str] = []

    def look() -> bool:
        for name, one in repliers.items():
            if not one._lines.empty():
                found.append(name)
        return bool(found)

    until(look, 20, "the request")
    assert repliers[found[0]].line() == line
    return found[0]


def test_a_dead_address_beside_a_living_one_does_no_harm() -> None:
    with (
        serving("tcp://127.0.0.1:0", "echo", lambda body: body) as replier,
        Requester(f"{DEAD},{replier.address}") as asker,
    ):
        assert [asker.request("echo", number) for number in range(20)] == list(range(20))


def test_load_goes_to_all_addresses() -> None:
    gate = threading.Barrier(2, timeout=10)

    def meet(name: str):
        return lambda body: (gate.wait(), name)[1]

    with (
        serving("tcp://127.0.0.1:0", "meet", meet("a")) as one,
        serving("tcp://127.0.0.1:0", "meet", meet("b")) as two,
        Requester(f"{one.address},{two.address}") as asker,
    ):
        answers: list[object] = []
        until(lambda: all(session.is_ready for session in _turned(asker)), 10, "both sessions")
        crowd = Crowd()
        for number in range(2):
            crowd.run(lambda number=number: answers.append(asker.request("meet", number, timeout_s=10)))
        crowd.join()
        assert sorted(answers) == ["a", "b"]


def _turned(asker: Requester):
    asker._driver.run()
    return asker._engine.sessions


def test_nobody_there_is_unavailable_and_the_text_names_the_address() -> None:
    for address, named in ((DEAD, "127.0.0.1:9"), ("zb://127.0.0.1:9", "127.0.0.1:9")):
        with Requester(address) as asker, pytest.raises(Unavailable, match=named):
            asker.request("echo", 1, timeout_s=0.5)


def test_the_next_broker_is_asked_when_one_is_killed(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    with Broker(folders[0], durable=False) as a, Broker(folders[1], durable=False) as b:
        both = f"{a.url},{b.url}"
        with serving(both, "echo", lambda body: body), Requester(both) as asker:
            assert asker.request("echo", 1) == 1
            a.kill()
            assert asker.request("echo", 2, timeout_s=20, wait_s=15, idempotent=True) == 2


def test_a_lost_broker_leaves_the_outcome_unknown(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker:
        silent, address = _replier(Place(broker), tmp_path)
        with silent, Requester(address) as asker:
            crowd = Crowd()
            crowd.run(asker.request, "slow", 1)
            assert silent.line() == "got 1"
            broker.kill()
            with pytest.raises(OutcomeUnknown):
                crowd.join()


def test_requests_go_on_after_a_broker_restart(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker, serving(broker.url, "echo", lambda body: body):  # noqa: SIM117
        with Requester(broker.url) as asker:
            assert asker.request("echo", 1) == 1
            broker.restart()
            assert asker.request("echo", 2, timeout_s=20, wait_s=15, idempotent=True) == 2


def test_threads_that_share_a_requester_get_their_own_replies(place: Place) -> None:
    with serving(place.bind, "echo", lambda body: body) as replier, Requester(place.of(replier)) as asker:

        def ask(who: int) -> None:
            for number in range(100):
                assert asker.request("echo", [who, number], timeout_s=15) == [who, number]

        crowd = Crowd()
        for who in range(12):
            crowd.run(ask, who)
        crowd.join(40)


def test_a_threads_deadline_holds_while_another_waits_longer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requester, "_GRACE_US", 120_000_000)  # else the shell's own guard speaks after a second
    with Replier(place.bind, "slow") as replier:
        replier.ready()
        requests = iter(replier)
        with Requester(place.of(replier)) as asker:
            crowd = Crowd()
            crowd.run(lambda: asker.request("slow", "long", timeout_s=30.0))
            request = next(requests)
            with pytest.raises(TimedOut):
                asker.request("slow", "short", timeout_s=0.2)
            request.reply("at last")  # which comes too late if the shorter deadline has waited for the longer one
            crowd.join()


def test_ctrl_c_while_waiting_leaves_the_requester_usable(place: Place) -> None:
    with Replier(place.bind, "slow") as replier:
        replier.ready()
        with Requester(place.of(replier)) as asker:
            for number in range(5):
                crowd = Crowd()

                def interrupt() -> None:
                    request = next(iter(replier))
                    os.kill(os.getpid(), signal.SIGINT)
                    until(lambda: request.is_cancelled, 10, "the cancelling")
                    request.reply("late")

                crowd.run(interrupt)
                with pytest.raises(KeyboardInterrupt):
                    asker.request("slow", number, timeout_s=20)
                crowd.join()
            answered = Crowd()
            answered.run(lambda: next(iter(replier)).reply("in time"))
            assert asker.request("slow", "last", timeout_s=20) == "in time"
            answered.join()


def test_close_from_another_thread_ends_iteration(place: Place) -> None:
    replier = Replier(place.bind, "echo")
    replier.ready()
    crowd = Crowd()
    crowd.run(list, replier)
    until(lambda: replier._driver.is_led, 10, "the waiting")
    replier.close()
    crowd.join()
    with pytest.raises(Closed):
        replier.ready()


def test_close_from_another_thread_ends_a_request(place: Place) -> None:
    with Replier(place.bind, "slow") as replier:
        replier.ready()
        asker = Requester(place.of(replier))
        crowd = Crowd()
        crowd.run(asker.request, "slow", 1)
        next(iter(replier))
        asker.close()
        with pytest.raises((Closed, OutcomeUnknown)):
            crowd.join()


def test_iteration_ends_when_idle(place: Place) -> None:
    with Replier(place.bind, "echo", idle_timeout_s=0.2) as replier:
        assert list(replier) == []


def test_a_computing_handler_keeps_its_session(place: Place, tmp_path: Path) -> None:
    with program(HOG, tmp_path, place.bind) as hog:
        printed = hog.line()
        with Requester(place.broker.url if place.broker else printed) as asker:
            assert asker.request("hog", 10.0, timeout_s=40) == "done"
            assert asker.request("hog", 0.0, timeout_s=10) == "done"


def test_wrong_use_is_refused_at_once() -> None:
    with pytest.raises(NotInThisDeployment):
        Requester(DEAD, security="keys")
    with pytest.raises(NotInThisDeployment):
        Replier(DEAD, "x", security="keys")
    with pytest.raises(BadName):
        Replier("tcp://127.0.0.1:0", "no/slash")
    with Requester(DEAD) as asker:
        for timeout_s in (0, -1, float("nan")):
            with pytest.raises(BadArgument):
                asker.request("x", 1, timeout_s=timeout_s)
        with pytest.raises(BadName):
            asker.request("two words", 1)


def test_an_address_in_use_is_unavailable() -> None:
    with Replier("tcp://127.0.0.1:0", "x") as one, pytest.raises(Unavailable, match="in use"):
        Replier(one.address, "x")


@only_long
def test_a_thousand_requests_from_fifty_threads(place: Place) -> None:
    with serving(place.bind, "echo", lambda body: body) as replier, Requester(place.of(replier)) as asker:
        crowd = Crowd()
        for who in range(50):
            crowd.run(lambda who=who: [asker.request("echo", [who, n], timeout_s=60) for n in range(200)])
        crowd.join(100)
