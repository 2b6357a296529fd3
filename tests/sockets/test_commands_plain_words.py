"""What somebody meets who tries the commands for the first time: nobody there, a typo, nothing to read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from patterns.sync import Admin, Replier, Subscriber
from tests.processes import Broker

ZBROKER = [sys.executable, "-m", "zbroker"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("first")) as running:
        yield running


def run(*arguments: str, url: str) -> subprocess.CompletedProcess[bytes]:
    command = [*ZBROKER, *arguments, "--url", url]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


def test_pub_does_not_say_that_nobody_got_it_when_it_does_not_know(broker: Broker) -> None:
    with Subscriber(broker.url, "o.>") as subscriber:
        subscriber.ready(30)
        told = json.loads(run("pub", "o.x", "1", "--json", url=broker.url).stdout)
        waited = json.loads(run("pub", "o.x", "2", "--json", "--wait-for-subscribers", "1", url=broker.url).stdout)
    assert told["published"] == 1
    assert told["subscribers"] in (1, None)
    assert waited == {"published": 1, "subscribers": 1}


@pytest.mark.parametrize("command", [("pub", "a", "1"), ("send", "a", "1"), ("request", "a", "1"), ("receive", "a")])
def test_that_nobody_is_there_is_said_once(command: tuple[str, ...]) -> None:
    with Replier("tcp://127.0.0.1:*", "x") as free:
        nobody = free.address.replace("tcp://", "zb://")
    done = run(*command, "--timeout", "2", url=nobody)
    assert done.returncode == 69
    assert done.stderr.count(b"nobody listens") == 1


def test_to_look_into_a_stream_that_is_not_there_does_not_make_it(broker: Broker) -> None:
    done = run("receive", "nosuch", "--count", "1", "--timeout", "0.3", url=broker.url)
    assert done.returncode == 75
    with Admin(broker.url) as admin:
        assert "nosuch" not in admin.status()["streams"]


@pytest.mark.parametrize("imports", [5, 20, 50, 80, 110, 140, 170])
def test_ctrl_c_is_quiet_while_a_command_is_still_being_imported(imports: int) -> None:
    """The interpreter's own start is not ours; from the first import after our package's on there is no trace."""
    command = [sys.executable, "-X", "importtime", "-m", "zbroker", "receive", "s", "--url", "zb://127.0.0.1:1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.split()[-1] == b"zbroker":
                break
        for _ in range(imports):
            assert process.stderr.readline().startswith(b"import time:")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert [line for line in rest.splitlines() if not line.startswith(b"import time:")] == []
