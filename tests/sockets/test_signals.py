"""An exception of a signal's handler, at any instant of any call: the role stays usable, and what it has said is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from patterns.io.shield import Shield, shield
from patterns.sync import Replier, Requester
from patterns.wire.errors import ReplierLost
from tests.processes import DEADLINE_S, LONG, Broker
from tests.sockets.places import Crowd, Place

_SECONDS = 30.0 if LONG else 1.0
_SEEDS = range(10) if LONG else range(1)


@pytest.mark.parametrize("role", ["producer", "requester", "replier", "consumer", "publisher"])
@pytest.mark.parametrize("seed", _SEEDS)
def test_a_role_is_usable_and_true_after_exceptions_of_a_handler(broker: Broker, role: str, seed: int) -> None:
    arguments = ["-m", "tests.sockets.raised_at", role, broker.url, str(seed), str(_SECONDS)]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S + _SECONDS * 2,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout)
    assert told["interrupted"] > 0
    assert (told["errors"], told["wrong"]) == ([], [])
    assert told.get("twice", 0) == 0
    assert told.get("lost", 0) == 0
    assert told.get("last", 1) == 1


class _Raised(Exception):
    pass


def _raising(*_: object) -> None:
    raise _Raised


@pytest.fixture
def raising():
    before = [(number, signal.signal(number, _raising)) for number in (signal.SIGUSR1, signal.SIGUSR2)]
    yield
    for number, theirs in before:
        signal.signal(number, theirs)


def test_a_handler_waits_until_the_shield_is_lowered_and_is_in_its_place_again(raising: None) -> None:
    raised = shield.raise_()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert shield.has_news
    with pytest.raises(_Raised):
        shield.lower(raised)
    assert signal.getsignal(signal.SIGUSR1) is signal.getsignal(signal.SIGUSR2) is _raising
    with pytest.raises(_Raised):
        os.kill(os.getpid(), signal.SIGUSR1)


def test_of_two_that_waited_the_second_is_called_at_the_next_occasion(raising: None) -> None:
    raised = shield.raise_()
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    with pytest.raises(_Raised):
        shield.lower(raised)
    raised = shield.raise_()
    with pytest.raises(_Raised):
        shield.lower(raised)
    assert not shield.has_news


def test_a_handler_that_was_set_meanwhile_stays(raising: None) -> None:
    raised = shield.raise_()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    shield.lower(raised)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


def test_a_stand_in_that_was_left_behind_steps_aside(raising: None) -> None:
    mine = Shield()
    mine.raise_()
    mine._is_up = False  # as if an exception had come before the handlers were put back
    with pytest.raises(_Raised):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is _raising
    mine.lower(mine.raise_())
    assert signal.getsignal(signal.SIGUSR2) is _raising


def test_a_handler_may_use_the_role_that_it_has_interrupted(broker: Broker) -> None:
    answers: list[object] = []
    with Replier(broker.url, "slow") as replier, Requester(broker.url) as asker:
        replier.ready(DEADLINE_S)

        def ask_too(*_: object) -> None:
            answers.append(replier.receive(DEADLINE_S).reply("now"))

        before = signal.signal(signal.SIGALRM, ask_too)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            assert asker.request("slow", 1, timeout_s=DEADLINE_S) == "now"
        finally:
            signal.signal(signal.SIGALRM, before)
    assert answers == [None]


def test_a_request_that_is_let_go_of_without_an_answer_is_answered(place: Place) -> None:
    with Replier(place.bind, "drops") as replier, Requester(place.of(replier)) as asker:
        replier.ready(DEADLINE_S)
        for _ in range(3):  # and each time its place is free again
            crowd = Crowd()
            crowd.run(lambda: asker.request("drops", 1, timeout_s=DEADLINE_S))
            assert replier.receive(DEADLINE_S) is not None
            replier.receive(0)
            with pytest.raises(ReplierLost, match="let go"):
                crowd.join()
