"""What somebody meets who tries the commands for the first time: nobody there, a typo, nothing to read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from patterns.sync import Admin, Producer, Publisher, Replier, Subscriber
from tests.processes import Broker
from tests.sockets.terminal import CTRL_C, Terminal
from zbroker.cli import stream_names
from zbroker.cli.receive import receive
from zbroker.cli.send import send

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


@pytest.mark.parametrize("command", [("pub", "a", "1"), ("send", "a", "1")])
def test_that_nobody_is_there_is_said_once(command: tuple[str, ...]) -> None:
    with Replier("tcp://127.0.0.1:*", "x") as free:
        nobody = free.address.replace("tcp://", "zb://")
    done = run(*command, "--timeout", "1.2", url=nobody)
    assert done.returncode == 69
    assert done.stderr.count(b"nobody listens") == 1


def test_to_look_into_a_stream_that_is_not_there_does_not_make_it(broker: Broker) -> None:
    done = run("receive", "nosuch", "--count", "1", "--timeout", "0.3", url=broker.url)
    assert done.returncode == 75
    with Admin(broker.url) as admin:
        assert "nosuch" not in admin.status()["streams"]


@pytest.mark.parametrize("command", ["receive kept", "receive kept --group g", "sub 'live.>'"])
def test_it_ends_with_the_reader_of_its_output_though_nothing_more_comes(broker: Broker, command: str) -> None:
    with Producer(broker.url, "kept") as producer:
        producer.send(1)
    script = f"{' '.join(ZBROKER)} {command} --url {broker.url} | head -n 1; echo ${{PIPESTATUS[0]}}"
    with Publisher(broker.url) as publisher, subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE) as shell:
        if command.startswith("sub"):
            publisher.wait_for_subscribers(1, 30)
            publisher.publish("live.a", 1)
        output, _ = shell.communicate(timeout=60)
    assert output.split() in ([b"1", b"141"], [b"live.a", b"1", b"141"])


@pytest.mark.parametrize(
    ("command", "words"), [("receive", b"reading stream 'quiet'"), ("sub", b"listening for 'quiet'")]
)
def test_on_a_terminal_it_is_said_that_nothing_is_wrong(broker: Broker, command: str, words: bytes) -> None:
    with Terminal(command, "quiet", "--url", broker.url) as terminal:
        terminal.read_until(lambda drawn: words in drawn and b"Ctrl-C ends it" in drawn)
        terminal.press(CTRL_C)
        assert terminal.end() == 130


def test_in_a_pipe_nothing_of_the_kind_is_said(broker: Broker) -> None:
    with Producer(broker.url, "piped") as producer:
        producer.send(1)
    assert run("receive", "piped", "--count", "1", url=broker.url).stderr == b""


def completions(words: str, url: str) -> list[str]:
    """What bash would offer for the last of these words."""
    environment = {
        **os.environ, "_ZBROKER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
        "ZBROKER_URL": url,
    }  # fmt: skip
    done = subprocess.run(ZBROKER, env=environment, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    return [line.partition(",")[2] for line in done.stdout.decode().split()]


def test_the_shell_completes_streams_of_a_broker_that_answers(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_names, "_ANSWER_S", 30.0)  # this machine may be busy; a person's is not
    with Producer(broker.url, "invoices") as producer:
        producer.send(1)
    for command in (send, receive):
        context = click.Context(command)
        context.params["url"] = broker.url
        offered = command.params[0].shell_complete(context, "invo")
        assert [one.value for one in offered] == ["invoices"]


def test_the_shell_is_told_nothing_where_no_broker_answers() -> None:
    assert completions("zbroker receive invo", "zb://127.0.0.1:1") == []
    assert completions("zbroker send invo", "no address") == []


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
