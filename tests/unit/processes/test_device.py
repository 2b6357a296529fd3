"""The supervisor against children that are scripts: what it makes of their words, deaths and refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from patterns.wire.errors import BadAddress, Unavailable
from zbroker.processes.device import Report, Supervisor
from zbroker.processes.proxy import Counts, Device, Failed, Ready, Said, Traffic

DEVICE = Device(kind="queue", frontend="tcp://127.0.0.1:0", backend="tcp://127.0.0.1:0")
READY = Ready("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", None)
SCRIPT = """
import sys
print(sys.argv[1], end="", flush=True)
if sys.argv[2] == "stay":
    for line in sys.stdin:
        if line == "stop\\n":
            break
"""


class Children:
    """A spawn() whose children say their lines, and stay until they are told to stop, or die."""

    def __init__(self, *lives: tuple[str, list[Said]]) -> None:
        self.lives = list(lives)
        self.devices: list[Device] = []

    def __call__(self, device: Device) -> subprocess.Popen[bytes]:
        self.devices.append(device)
        ending, said = self.lives.pop(0)
        text = "".join(f"{msgspec.json.encode(one).decode()}\n" for one in said)
        arguments = [sys.executable, "-c", SCRIPT, text, ending]
        return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


class Heard:
    """A listener; asks for the end once it was told of `last`."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def ready(self, where: Ready) -> None:
        self.said.append(where)

    def report(self, report: Report) -> None:
        self.said.append(report)

    def warn(self, text: str) -> None:
        self.said.append(text)


class Ended(Children):
    """The last of the lives is ended with SIGTERM as soon as it was spawned."""

    def __call__(self, device: Device) -> subprocess.Popen[bytes]:
        child = super().__call__(device)
        if not self.lives:
            os.kill(os.getpid(), signal.SIGTERM)
        return child


def test_refused_address_at_the_start_is_the_callers():
    for failed, error in ((Failed("in use", True), Unavailable), (Failed("what", False), BadAddress)):
        with pytest.raises(error, match=failed.text):
            Supervisor(DEVICE, Heard(), Children(("die", [failed]))).run()


def test_child_that_dies_before_it_was_ready_is_not_started_again():
    with pytest.raises(Unavailable, match="before it was ready"):
        Supervisor(DEVICE, Heard(), Children(("die", []), ("stay", [READY]))).run()


def test_next_life_gets_the_addresses_of_the_first_and_counts_go_on():
    heard = Heard()
    children = Ended(
        ("die", [READY, Counts(Traffic(5, 50))]),
        ("die", [Failed("somebody else is there", is_unavailable=True)]),
        ("stay", [READY, Counts(Traffic(2, 20))]),
    )
    Supervisor(DEVICE, heard, children).run()
    assert children.devices[1].frontend == children.devices[2].frontend == "tcp://127.0.0.1:1"
    assert heard.said[0] == READY
    assert "died" in heard.said[1]
    assert "somebody else is there" in heard.said[2]
    last = heard.said[-1]
    assert (last.restarts, last.is_final, last.counts.to_backend) == (2, True, Traffic(7, 70))
    assert heard.said.count(READY) == 1
