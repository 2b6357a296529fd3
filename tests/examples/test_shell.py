"""The scripts of examples/shell, with a broker and, where they can, without."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Broker

SHELL = Path(__file__).parents[2] / "examples" / "shell"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("shell")) as running:
        yield running


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def run(script: str, url: str) -> list[str]:
    path = os.pathsep.join([os.fspath(Path(sys.prefix) / "bin"), os.environ["PATH"]])
    assert shutil.which("zbroker", path=path), "the package is not installed"
    done = subprocess.run(
        [SHELL / script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": path, "ZBROKER_URL": url},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("place", ["broker", "peer"])
def test_request_reply(broker: Broker, place: str) -> None:
    assert '"GOOD MORNING"' in run("request_reply.sh", broker.url if place == "broker" else free_address())


@pytest.mark.parametrize("place", ["broker", "peer"])
def test_publish_subscribe(broker: Broker, place: str) -> None:
    lines = run("publish_subscribe.sh", broker.url if place == "broker" else free_address())
    assert [line for line in lines if line.startswith("orders.eu")] == [
        'orders.eu {"order":1}',
        'orders.eu {"order":2}',
    ]


def test_work_queue(broker: Broker) -> None:
    lines = run("work_queue.sh", broker.url)
    assert lines[-3:] == ['{"job":1}', '{"job":2}', '{"job":3}']
