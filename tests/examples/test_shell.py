"""The scripts of examples/shell, with a broker and, where they can, without."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patterns.sync import Admin
from tests.processes import Broker, until

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


def test_the_list_of_the_readme_works_as_printed(tmp_path: Path) -> None:
    readme = (SHELL.parents[1] / "README.md").read_text()
    section = readme[readme.index("## From a shell") :]
    listeners, others = (block.splitlines() for block in re.findall(r"(?:    zbroker .*\n)+", section)[:2])
    with Broker(tmp_path) as broker, contextlib.ExitStack() as stack, Admin(broker.url) as admin:
        path = os.pathsep.join([os.fspath(Path(sys.prefix) / "bin"), os.environ["PATH"]])
        environment = {**os.environ, "PATH": path, "ZBROKER_URL": broker.url}
        waiting = [
            stack.enter_context(
                subprocess.Popen(f"{line} --count 1", shell=True, stdout=subprocess.PIPE, env=environment)
            )
            for line in listeners
        ]
        for process in waiting:
            stack.callback(process.kill)
        until(lambda: bool(admin.status()["services"]) and bool(admin.status()["subscriptions"]), what="who listens")
        said = [subprocess.check_output(line, shell=True, env=environment, timeout=60) for line in others]
        heard = [process.communicate(timeout=60)[0] for process in waiting]
    assert said[0] == b"42\n"
    assert heard == [b"", b'orders.eu {"order":1}\n', b'{"invoice":1}\n']
