"""Bad input and bad luck at every command: numbers that are none, pipes that close, narrow terminals, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patterns.sync import Producer, Publisher
from tests.processes import Broker, Program, until
from tests.sockets.terminal import CTRL_C, Terminal

ZBROKER = [sys.executable, "-m", "zbroker"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("input")) as running:
        with Producer(running.url, "orders") as producer:
            producer.send_many(range(1_000))
        yield running


def shell(script: str, broker: Broker) -> subprocess.CompletedProcess[str]:
    """Run by bash with $Z for `zbroker`, and the broker's address in the environment."""
    prelude = f"Z='{' '.join(ZBROKER)}'; export ZBROKER_URL={broker.url}; "
    return subprocess.run(["bash", "-c", prelude + script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("$Z receive orders | head -n 1 > /dev/null", 141),
        ("$Z status --json | true", (0, 141)),
        ("$Z top --json --interval 0.1 | head -n 1 > /dev/null", 141),
        ("$Z top --interval 0.1 | head -n 1 > /dev/null", 141),
        ("$Z config show | true", (0, 141)),
        ("$Z --help | true", (0, 1, 141)),
    ],
)
def test_a_pipe_that_closes_ends_a_command_quietly(broker: Broker, script: str, status: int | tuple[int, ...]) -> None:
    done = shell(f"{script}; echo ${{PIPESTATUS[0]}}", broker)
    assert done.stderr == ""
    assert int(done.stdout) in (status if isinstance(status, tuple) else (status,))


def test_a_subscriber_whose_reader_has_gone_ends_at_the_next_message(broker: Broker) -> None:
    command = [*ZBROKER, "sub", "t", "--url", broker.url]
    with (
        Publisher(broker.url) as publisher,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        publisher.wait_for_subscribers(1, 30)
        publisher.publish("t", 1)
        publisher.flush()
        assert process.stdout is not None
        assert process.stdout.readline() == b"t 1\n"
        process.stdout.close()
        publisher.publish("t", 2)
        publisher.flush()
        assert process.wait(30) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    "command", [("status",), ("top", "--count", "1"), ("config", "show", "--origin"), ("--help",), ("run", "--help")]
)
def test_a_terminal_of_40_columns_breaks_nothing(broker: Broker, command: tuple[str, ...]) -> None:
    with Terminal(*command, columns=40, environment={"ZBROKER_URL": broker.url, "NO_COLOR": "1"}) as terminal:
        assert terminal.end() == 0
        assert b"Traceback" not in terminal.drawn
        assert not re.search(rb"\x1b\[[0-9;]*m", terminal.drawn)
        assert terminal.is_whole


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("sub", ">"), 130),
        (("receive", "quiet"), 130),
        (("reply", "quiet"), 130),
        (("top",), 0),
        (("send", "quiet", "-"), 130),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_ctrl_c_without_a_broker_is_quiet_too(tmp_path: Path, command: tuple[str, ...], status: int) -> None:
    with Broker(tmp_path, durable=False) as broker:
        pass
    with Program(["-m", "zbroker", *command, "--url", broker.url], tmp_path / "err") as program:
        until(lambda: is_up(program) or program.process.poll() is not None)
        program.signal(signal.SIGINT)
        assert program.wait() in (status, 130, 69)
        assert "Traceback" not in program.errors


def is_up(program: Program) -> bool:
    """Whether its sockets are made: then what it waits for is a broker."""
    try:
        return len(list(Path(f"/proc/{program.process.pid}/task").iterdir())) > 2
    except OSError:
        return False


def test_a_large_file_shows_a_bar_on_a_terminal_and_nothing_in_a_pipe(broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(f"{number}\n" for number in range(20_000)))
    with Terminal("send", "barred", "--file", str(file), "--url", broker.url) as terminal:
        assert terminal.end() == 0
        assert b"sending many.jsonl" in terminal.drawn
        assert b"100%" in terminal.drawn
    piped = shell(f"$Z send barred --file {file} --json", broker)
    assert (piped.returncode, piped.stderr) == (0, "")
    assert json.loads(piped.stdout.splitlines()[-1])["offset"] == 39_999


def test_ctrl_c_at_a_bar_leaves_the_terminal_whole(broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "more.jsonl"
    file.write_text("1\n" * 2_000_000)
    with Terminal("send", "stopped", "--file", str(file), "--url", broker.url) as terminal:
        terminal.read_until(lambda drawn: b"sending more.jsonl" in drawn)
        terminal.press(CTRL_C)
        assert terminal.end() == 130
        assert b"Traceback" not in terminal.drawn
        assert terminal.is_whole


def test_a_body_of_exactly_the_limit_says_what_it_became(broker: Broker) -> None:
    script = "head -c 1048576 /dev/zero | tr '\\0' x > $D/x; (printf '\"'; cat $D/x; printf '\"\\n') | $Z send large -"
    done = shell(f"D=$(mktemp -d); {script}; s=$?; rm -r $D; exit $s", broker)
    assert done.returncode == 1
    assert "1048576" in done.stderr


HEEDING_HANG_UP = (
    "import runpy, signal as s; s.signal(s.SIGHUP, s.SIG_DFL); runpy.run_module('zbroker', run_name='__main__')"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_messages_back_at_once_and_without_an_attempt(
    broker: Broker, tmp_path: Path, number: signal.Signals
) -> None:
    words = ["receive", "orders", "--group", f"stopped-{number}", "--no-ack", "--json", "--url", broker.url]
    command = ["-c", HEEDING_HANG_UP, *words]  # the tests may run under nohup
    with Program(command, tmp_path / "err") as first:
        assert json.loads(first.line())["offset"] == 0
        first.signal(number)
        assert first.wait() == 128 + number
        assert first.errors == ""
    with Program([*command, "--count", "1"], tmp_path / "err") as second:
        again = json.loads(second.line())
        assert (again["offset"], again["attempt"]) == (0, 1)


@pytest.mark.parametrize(
    ("words", "expected"), [("zbroker ", "top"), ("zbroker config ", "show"), ("zbroker config show --", "--origin")]
)
def test_completion_knows_the_commands_and_their_options(words: str, expected: str) -> None:
    asked = {"_ZBROKER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    code = "from zbroker.cli.main import main; main(prog_name='zbroker')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"plain,{expected}" in done.stdout.splitlines()
