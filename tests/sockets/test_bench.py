"""Every row of the bench runs for a moment; no time is asserted, only that what it says is possible and lossless."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from patterns.sync import Producer
from tests.processes import Program, only_long, until
from zbroker.bench.compare import socket_folder, without_missing
from zbroker.bench.processes import BenchFailed, Broker, Worker
from zbroker.bench.report import FIGURES, Sample
from zbroker.bench.rows import FIRST_GROUPS, PLANS, Plan, Settings
from zbroker.cli.main import main

_SECONDS = 0.1


# One or two of each group that is not run by default; the others differ in parameters, and are run when there is time.
_SAMPLED = (
    "aio-live-broker",
    "aio-request-peer",
    "fan-in-broker",
    "translate-durable",
    "nats-live",
    "nats-request",
    "latency-live-50",
    "latency-durable-50",
    "connections-idle",
    "connections-back",
    "connections-many",
    "stalled-live",
    "stalled-durable",
    "aio-durable",
    "streams-1000",
    "store-one",
    "store-lmdb",
    "store-sqlite-one",
    "checkpoint-during",
    "compaction-request-none",
    "ready-0",
    "backlog-half",
)


def of(name: str) -> Plan:
    return next(plan for plan in PLANS if plan.name == name)


def brief(folder: Path, **more: Any) -> Settings:
    return Settings(seconds=_SECONDS, repeat=1, size=100, folder=folder, connections=8, backlog=150, **more)


def check(sample: Sample) -> None:
    assert (sample.lost, sample.damaged) == (0, 0)
    figures = {name: value for name in FIGURES if (value := getattr(sample, name)) is not None}
    assert figures
    assert all(value >= 0 for value in figures.values())
    if sample.rate is not None:
        assert sample.messages > 0
        assert sample.rate > 0
    if sample.p50_us is not None:
        assert sample.p99_us is not None
        assert 0 < sample.p50_us <= sample.p99_us


def skip_what_is_missing(plan: Plan, transport: str) -> None:
    if not without_missing([plan], over_tcp=transport == "tcp")[0]:
        pytest.skip(f"{plan.needs} is not installed, or has no such transport")


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.group in FIRST_GROUPS], ids=lambda plan: plan.name)
def test_a_row_measures_something_and_loses_nothing(plan: Plan, tmp_path: Path) -> None:
    check(plan.run(brief(tmp_path)))


@pytest.mark.parametrize("name", _SAMPLED)
def test_a_row_that_has_to_be_asked_for_measures_something_and_loses_nothing(name: str, tmp_path: Path) -> None:
    skip_what_is_missing(of(name), "tcp")
    check(of(name).run(brief(tmp_path)))


@only_long
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
@pytest.mark.parametrize("name", [plan.name for plan in PLANS if plan.group not in FIRST_GROUPS])
def test_every_row_measures_something_over_every_transport(name: str, transport: str, tmp_path: Path) -> None:
    skip_what_is_missing(of(name), transport)
    with socket_folder(transport) as sockets:
        check(of(name).run(brief(tmp_path, sockets=sockets)))


@pytest.mark.parametrize("name", ["live-broker", "durable", "request-broker"])
def test_sockets_of_a_row_may_be_of_the_ipc_kind(name: str, tmp_path: Path) -> None:
    with socket_folder("ipc") as sockets:
        check(of(name).run(brief(tmp_path, sockets=sockets)))


@pytest.mark.parametrize("size", [16, 1_000_000])
def test_bodies_may_be_of_any_size(size: int, tmp_path: Path) -> None:
    check(of("live-broker").run(msgspec.structs.replace(brief(tmp_path), size=size)))


def test_a_journal_of_a_row_is_removed_afterwards(tmp_path: Path) -> None:
    of("confirm-one").run(brief(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_is_a_failure_with_its_status() -> None:
    with Worker("no-such-role") as worker, pytest.raises(BenchFailed, match="status 1"):
        worker.said(10)


def test_what_a_process_uses_is_told_while_it_runs_only() -> None:
    with Worker("serve-bare", kind="rep", address="tcp://127.0.0.1:0", binds=True) as worker:
        worker.said()
        used = worker.usage()
        assert used.cpu_s > 0
        assert used.resident_bytes > 1_000_000
        worker.kill()
        with pytest.raises(BenchFailed, match="serve-bare"):
            worker.usage()


def test_what_children_of_a_process_use_counts_as_well(tmp_path: Path) -> None:
    with Broker("tcp://127.0.0.1:0", str(tmp_path / "journal")) as broker:
        address = broker.address()
        before = broker.usage().written_bytes
        with Producer(address, "orders", codec="raw") as producer:
            producer.send(bytes(100_000))
        after = broker.usage().written_bytes
    if before is None or after is None:
        pytest.skip("the system does not tell what a process writes")
    assert after - before >= 100_000


def test_the_command_prints_one_json_object_and_keeps_it(tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    arguments = ["bench", "compare", "--rows", "request-bare,request-peer", "--seconds", "0.1", "--repeat", "2"]
    result = CliRunner().invoke(main, [*arguments, "--json", "--output", str(kept), "--data", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads(kept.read_text())
    assert [len(row["samples"]) for row in found["rows"]] == [2, 2]
    [ratio] = found["ratios"]
    assert ratio["against"] == ["request-bare"]
    assert str(tmp_path) not in result.stdout


def test_the_command_prints_tables_for_people(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    arguments = ["bench", "compare", "--rows", "request-bare", "--seconds", "0.1", "--repeat", "1"]
    result = CliRunner().invoke(main, [*arguments, "--data", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "bare REQ-REP" in result.stdout


def test_one_row_runs_with_what_it_is_told(tmp_path: Path) -> None:
    arguments = ["bench", "run", "live-peer", "--api", "aio", "--rate", "2000", "--seconds", "0.2", "--repeat", "1"]
    result = CliRunner().invoke(main, [*arguments, "--json", "--data", str(tmp_path), "--transport", "ipc"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["settings"]["api"], found["settings"]["rate"], found["settings"]["transport"]) == (
        "aio",
        2_000,
        "ipc",
    )
    [row] = found["rows"]
    assert row["samples"][0]["messages"] == 400
    assert {"p50_us", "p99_us", "p999_us", "max_us"} <= set(row["figures"])


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["run", "live-dict-peer", "--rate", "5"], "no --rate"),
        (["run", "live-proxy", "--api", "aio"], "no --api"),
        (["run", "live"], "group"),
        (["run", "nothing"], "nothing"),
        (["compare", "--sizes", "16,5"], "range"),
        (["compare", "--rows", "nothing"], "connections"),
    ],
)
def test_what_cannot_be_run_is_wrong_usage(arguments: list[str], hint: str) -> None:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == 2
    assert hint in result.output


def test_a_group_whose_extra_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zbroker.bench.compare.nats_is_there", lambda: False)
    for command in (["compare", "--rows", "nats"], ["run", "nats-live"]):
        result = CliRunner().invoke(main, ["bench", *command, "--json"])
        assert result.exit_code == 69
        assert "pip install 'zbroker[bench]', or in a clone pip install '.[bench]'" in result.output


# -- however it ends, nothing is left ------------------------------------------------------------------------------


def processes_below(pid: int) -> set[int]:
    found: set[int] = set()
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, place.read_text().split()):
            found |= {child, *processes_below(child)}
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def bench_under_way(folder: Path) -> Iterator[tuple[Program, set[int]]]:
    """`bench compare` of a durable row in the middle of a sample, and all processes below it."""
    arguments = ["bench", "compare", "--rows", "durable", "--seconds", "60", "--json", "--data", str(folder / "data")]
    below: set[int] = set()
    with Program(["-m", "zbroker", *arguments], folder / "bench.err") as running:

        def has_all() -> bool:  # a broker that has its journal, a consumer and a producer
            assert running.process.poll() is None, running.errors
            below.update(processes_below(running.process.pid))
            journals = (folder / "data").glob("zbroker-bench-*/*")
            return len([pid for pid in below if is_running(pid)]) >= 3 and any(journals)

        until(has_all, what="a sample of `bench compare`")
        yield running, below


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_processes_and_removes_folders(number: int, status: int, tmp_path: Path) -> None:
    with bench_under_way(tmp_path) as (running, below):
        running.signal(number)
        assert running.wait() == status, running.errors
        assert "Traceback" not in running.errors
    assert [pid for pid in below if is_running(pid)] == []
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_no_process_outlives_a_bench_that_is_killed(tmp_path: Path) -> None:
    with bench_under_way(tmp_path) as (running, below):
        running.kill()
    until(lambda: not any(map(is_running, below)), what="the end of all processes")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_row_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with bench_under_way(tmp_path) as (running, below):
        os.kill(max(pid for pid in below if is_running(pid)), signal.SIGKILL)  # the youngest: an end
        assert running.wait() == 1, running.errors
        assert "ended with status -9" in running.errors
    assert [pid for pid in below if is_running(pid)] == []
    assert list((tmp_path / "data").iterdir()) == []
