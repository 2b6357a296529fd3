"""`zbroker top` against a real broker: in a pipe, as JSON, on a terminal, and while the broker goes and comes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from patterns.sync import Consumer, Producer
from tests.processes import Broker, Program
from tests.sockets.terminal import CTRL_C, Terminal

TOP = ["-m", "zbroker", "top", "--interval", "0.1"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("top")) as running:
        with Producer(running.url, "orders") as producer:
            producer.send_many(range(100))
        with Consumer(running.url, "orders", group="billing") as consumer:
            consumer.receive(timeout_s=30).ack(confirm=True)
        yield running


def test_json_is_one_object_a_refresh(broker: Broker) -> None:
    done = subprocess.run(
        [sys.executable, *TOP, "--url", broker.url, "--json", "--count", "3"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr, len(frames)) == (0, b"", 3)
    assert set(frames[0]["rates"]) == {"requests", "published", "dropped", "refused"}
    assert frames[0]["streams"]["orders"]["messages"] == 100
    group = frames[-1]["groups"]["orders/billing"]
    assert (group["lag"], group["pending"], group["members"], group["paused"]) == (99, 99, 0, False)
    assert frames[0]["sessions"]["admin"] == 1
    assert frames[0]["memory_bytes"] > 0


def test_in_a_pipe_each_refresh_is_a_plain_block(broker: Broker) -> None:
    done = subprocess.run(
        [sys.executable, *TOP, "--url", broker.url, "--count", "2"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert done.stdout.count("\norders/billing ") == done.stdout.count("\norders ") == done.stdout.count("memory") == 2


def test_a_terminal_of_40_columns_is_drawn_over_and_left_whole(broker: Broker) -> None:
    with Terminal(*TOP[2:], "--url", broker.url, columns=40, lines=10) as terminal:
        terminal.read_until(lambda drawn: drawn.count(b"orders") >= 2)
        terminal.press(CTRL_C)
        assert terminal.end() == 0
        assert terminal.is_whole
        text = terminal.drawn.decode()
    assert "Traceback" not in text
    assert set(re.findall(r"\x1b\[[0-9;?]*[A-Za-z]", text)) == {"\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"}
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split("\r\n")
    assert max(map(len, lines)) <= 40


def test_a_dumb_terminal_gets_plain_blocks(broker: Broker) -> None:
    with Terminal(*TOP[2:], "--url", broker.url, "--count", "1", environment={"TERM": "dumb"}) as terminal:
        assert terminal.end() == 0
        assert b"\x1b" not in terminal.drawn


def test_it_goes_on_while_the_broker_goes_and_comes(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        watch = [*TOP, "--url", broker.url, "--json", "--timeout", "0.2"]
        with Program(watch, tmp_path / "top.err") as top:
            assert json.loads(top.line())["epoch"] == 1
            broker.kill()
            while "error" not in (frame := json.loads(top.line())):
                pass
            assert frame["error"] in ("UNAVAILABLE", "OUTCOME_UNKNOWN", "TIMED_OUT")
            assert frame["gone_s"] >= 0
            broker.start()
            while "error" in (frame := json.loads(top.line())):
                pass
            assert frame["epoch"] == 2
            assert frame["rates"]["requests"] is None
            while (json.loads(top.line()).get("rates") or {}).get("requests") is None:
                pass  # on a busy machine one more refresh may have waited too long


def test_nobody_there_at_first_is_69(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker:
        pass
    with Program([*TOP, "--url", broker.url, "--timeout", "0.2"], tmp_path / "none.err") as top:
        assert top.wait() == 69
        assert f"nobody listens at {broker.url}" in top.errors
