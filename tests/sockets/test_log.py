"""The log of a real broker: what it tells agrees with `status`, and nobody who reads it can hold it up."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patterns.sync import Admin, Requester
from patterns.wire.errors import ZbrokerError
from tests.processes import Program, until
from tests.sockets.flood import ENDLESS_MULTIPART, Flood
from zbroker.processes.logbook import BURST

RUN = ["run", "--bind", "tcp://127.0.0.1:0", "--json", "--no-data", "--log-format", "json"]


class Logged:
    """A broker, its address, and the records that it has written so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._file = folder / "log"
        self.program = Program(["-m", "zbroker", *RUN, *arguments], self._file)
        self.ready = json.loads(self.program.line())
        self.url = self.ready["addresses"]["native"].replace("tcp://", "zb://")

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["event"] == event]


@contextmanager
def logged(folder: Path, *arguments: str) -> Iterator[Logged]:
    broker = Logged(folder, *arguments)
    with broker.program:
        yield broker


def test_a_life_is_told_from_start_to_stop(tmp_path: Path) -> None:
    with logged(tmp_path) as broker:
        broker.program.signal(signal.SIGTERM)
        assert broker.program.wait() == 0
        assert [record["event"] for record in broker.records] == ["started", "draining", "drained", "stopped"]
        started = broker.records[0]
        assert (started["native"], started["epoch"]) == (broker.ready["addresses"]["native"], broker.ready["epoch"])
        assert all(list(record)[:3] == ["time", "level", "event"] for record in broker.records)


def test_cuts_in_the_log_agree_with_status(tmp_path: Path) -> None:
    count = BURST["warning"] + 5
    with logged(tmp_path) as broker:
        port = int(broker.url.rpartition(":")[2])
        with Flood(port, ENDLESS_MULTIPART, count, duration_s=30.0) as flood, Admin(broker.url) as admin:

            def agree() -> bool:
                found = admin.status()
                left_out = found["log"]["suppressed"].get("guard_cut", 0)
                cuts = sum(found["guard"]["cuts"].values())
                return cuts == count == len(broker.of("guard_cut")) + left_out

            until(agree, what="as many cuts in the log as in status")
            flood.join()
        cut = broker.of("guard_cut")[0]
        assert cut["level"] == "warning"
        assert cut["reason"] == "before_hello"
        assert cut["undelivered_bytes"] > cut["allowance_bytes"] > 0
        assert cut["remote"].startswith("127.0.0.1:")
        broker.program.signal(signal.SIGTERM)
        assert broker.program.wait() == 0
        told = sum(record["records"] for record in broker.of("suppressed"))
        assert len(broker.of("guard_cut")) + told == count


def test_sessions_are_told_of_at_debug_alone(tmp_path: Path) -> None:
    with logged(tmp_path, "--log-level", "debug") as broker:
        with Requester(broker.url) as requester:
            try:
                requester.request("nobody", 1, wait_s=0.01)
            except ZbrokerError:
                pass
        until(lambda: bool(broker.of("session_ended")))
        began, ended = broker.of("session_began")[0], broker.of("session_ended")[0]
        assert (began["role"], began["resumed"], ended["reason"]) == ("requester", False, "goodbye")
        assert began["session"] == ended["session"]


def test_a_reader_of_the_log_that_stops_does_not_stop_the_broker() -> None:
    command = [sys.executable, "-m", "zbroker", *RUN, "--log-level", "debug"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        if sys.platform == "linux":
            fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4_096)  # of 64 KiB, so that it is full sooner
        url = json.loads(process.stdout.readline())["addresses"]["native"].replace("tcp://", "zb://")
        with Admin(url) as admin:

            def drops() -> bool:  # nobody reads standard error: the pipe fills, then the queue
                for _ in range(20):
                    Requester(url).close()
                found = admin.status()
                return bool(found["log"]["dropped"] or found["log"]["suppressed"])

            until(drops, what="lines being left out")
            assert admin.status()["sessions"]["total"] >= 1
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_broker_that_cannot_start_says_why_in_the_form_of_the_log(tmp_path: Path) -> None:
    with logged(tmp_path) as first:
        address = first.ready["addresses"]["native"]
        command = [sys.executable, "-m", "zbroker", *RUN[:1], "--bind", address, *RUN[3:]]
        second = subprocess.run(command, capture_output=True, timeout=60, check=False)
    (record,) = [json.loads(line) for line in second.stderr.splitlines()]
    assert second.returncode == record["status"] == 69
    assert (record["level"], record["event"]) == ("error", "failed")
    assert address in record["text"]


def test_a_journal_that_fails_is_told_in_the_log_and_in_status(tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = [argument for argument in RUN if argument != "--no-data"]
    with Program(["-m", "zbroker", *arguments, "--data", str(data)], tmp_path / "log") as program:
        url = json.loads(program.line())["addresses"]["native"].replace("tcp://", "zb://")
        shutil.rmtree(data)
        with Admin(url) as admin:
            until(lambda: len(admin.status()["warnings"]) == 2)
            warnings = admin.status()["warnings"]
        records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        told = {record["event"]: record["text"] for record in records if record["level"] == "error"}
        assert set(told) == {"journal_failed", "journal_error"}
        assert sorted(told.values()) == sorted(warnings)
