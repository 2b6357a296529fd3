"""`zbroker reply` that is told to go: what it has begun is answered, and what it has not is nobody's loss."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Replier, Requester
from patterns.wire.errors import ZbrokerError
from tests.processes import Program, until
from tests.sockets.places import Place, place_of


@pytest.fixture(params=["peer", "broker"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with place_of(request.param, tmp_path) as found:
        yield found


class Service:
    """`zbroker reply` with a command that says that it has begun, and ends when it is told to."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._begun, self._may_end = folder / "begun", folder / "may_end"
        command = f"touch {self._begun}; while ! test -e {self._may_end}; do sleep 0.02; done; echo 7"
        arguments = ["-m", "zbroker", "reply", "slow", "--url", place.bind, "--command", command]
        self.program = Program(arguments, folder / "reply.err")
        until(lambda: "is offered at" in self.program.errors)
        self.address = self.program.errors.split()[-1]

    def wait_until_begun(self) -> None:
        until(self._begun.exists)

    def let_end(self) -> None:
        self._may_end.touch()


def test_sigterm_while_idle_is_a_goodbye_with_status_0(place: Place, tmp_path: Path) -> None:
    service = Service(place, tmp_path)
    with service.program as program:
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert "0 requests were answered" in program.errors
        assert "Traceback" not in program.errors


def test_sigterm_lets_the_request_under_way_be_answered(place: Place, tmp_path: Path) -> None:
    service = Service(place, tmp_path)
    outcomes: list[Any] = []
    with service.program as program, Requester(service.address) as requester:
        asking = threading.Thread(target=lambda: outcomes.append(requester.request("slow", 1, timeout_s=60)))
        asking.start()
        service.wait_until_begun()
        program.signal(signal.SIGTERM)
        service.let_end()
        asking.join(60)
        assert outcomes == [7]
        assert program.wait() == 0
        assert "1 request was answered" in program.errors


def test_a_second_sigterm_does_not_wait(place: Place, tmp_path: Path) -> None:
    service = Service(place, tmp_path)
    with service.program as program, Requester(service.address) as requester:

        def ask() -> None:
            with pytest.raises(ZbrokerError):
                requester.request("slow", 1, timeout_s=60)

        asking = threading.Thread(target=ask)
        asking.start()
        service.wait_until_begun()
        program.signal(signal.SIGTERM)
        until(lambda: "told to stop" in program.errors)
        program.signal(signal.SIGTERM)
        assert program.wait() == 143
        asking.join(60)


def test_close_in_another_thread_waits_for_what_receive_has_handed_out(place: Place) -> None:
    with Replier(place.bind, "taken") as replier:
        replier.ready(10)
        outcomes: list[Any] = []
        with Requester(place.of(replier)) as requester:
            asking = threading.Thread(target=lambda: outcomes.append(requester.request("taken", 1, timeout_s=60)))
            asking.start()
            request = replier.receive(30)
            assert request is not None
            closing = threading.Thread(target=replier.close, args=(30.0,))
            closing.start()
            assert replier.receive(30) is None
            assert not replier.closed
            request.reply(2)
            asking.join(30)
            closing.join(30)
            assert (outcomes, replier.closed) == ([2], True)
