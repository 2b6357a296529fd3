"""Every row of the bench runs for a moment; no time is asserted, only that what it says is possible and lossless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from zbroker.bench.processes import BenchFailed, Worker
from zbroker.bench.rows import PLANS, Plan, Settings
from zbroker.cli.main import main

_SECONDS = 0.1


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_row_measures_something_and_loses_nothing(plan: Plan, tmp_path: Path) -> None:
    sample = plan.run(Settings(seconds=_SECONDS, repeat=1, size=100, folder=tmp_path))
    assert sample.messages > 0
    assert (sample.lost, sample.damaged) == (0, 0)
    assert sample.rate is not None
    assert sample.rate > 0
    assert sample.bytes_rate is not None
    assert sample.bytes_rate > 0
    if sample.p50_us is not None:
        assert sample.p99_us is not None
        assert 0 < sample.p50_us <= sample.p99_us


def test_a_journal_of_a_row_is_removed_afterwards(tmp_path: Path) -> None:
    durable = next(plan for plan in PLANS if plan.name == "confirm-one")
    durable.run(Settings(seconds=_SECONDS, repeat=1, size=100, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_is_a_failure_with_its_status() -> None:
    with Worker("no-such-role") as worker, pytest.raises(BenchFailed, match="status 1"):
        worker.said(10)


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


def test_an_unknown_row_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["bench", "compare", "--rows", "nothing"])
    assert result.exit_code == 2
    assert "live-proxy" in result.output
