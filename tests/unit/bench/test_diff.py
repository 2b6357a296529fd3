from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from zbroker.bench.diff import Diff, NotAResult, Verdict, diff, read, to_json
from zbroker.bench.figures import figure
from zbroker.bench.report import Ratio, Report, Row, Sample
from zbroker.bench.report import to_json as report_json
from zbroker.cli.main import main

BASELINE = Path(__file__).parents[3] / "bench" / "results" / "baseline.json"


def report(
    rates: list[float], ratios: list[float] = (), *, cpu: str = "one", load: float = 0.1, **settings: Any
) -> Report:
    """One row with these rates, or round trips where `p50` is in the settings, and one ratio."""
    found = figure(ratios)
    return Report(
        made_at="2026-01-01T00:00:00+00:00",
        machine={"cpu": cpu, "cores": 2, "system": "Linux", "architecture": "x86_64", "load_before": load},
        versions={},
        disk={"file_system": "ext4"},
        settings={"seconds": 2.0, "size": 100, **settings},
        rows=[Row(name="ours", group="live", label="", api="", body="", samples=[Sample(rate=rate) for rate in rates])],
        ratios=[]
        if found is None
        else [
            Ratio(
                row="ours", field="rate", against=("theirs",), value=found, bar=1.0, at_least=True, met=True, text="r"
            )
        ],
    )


def verdict(before: list[float], after: list[float]) -> Verdict:
    [change] = diff(report(before), report(after)).figures
    return change.verdict


def test_rounds_that_do_not_overlap_are_a_change() -> None:
    assert verdict([100, 101, 102], [110, 111, 112]) is Verdict.BETTER
    assert verdict([100, 101, 102], [90, 91, 92]) is Verdict.WORSE


def test_rounds_that_overlap_are_noise_however_far_the_medians_are() -> None:
    assert verdict([100, 101, 140], [120, 139, 150]) is Verdict.SAME


def test_a_change_of_less_than_three_percent_is_noise() -> None:
    assert verdict([100, 100.1, 100.2], [101, 101.1, 101.2]) is Verdict.SAME


def test_too_few_rounds_have_no_verdict_and_it_is_said() -> None:
    found = diff(report([100, 101]), report([50, 51, 52]))
    assert found.figures[0].verdict is Verdict.UNKNOWN
    assert any("2 rounds" in remark for remark in found.remarks)
    assert found.regressions(0) == []


def test_more_of_a_latency_is_worse() -> None:
    def slow(us: float) -> Report:
        one = report([1.0])
        one.rows[0].samples[:] = [Sample(p50_us=us + tenth / 10) for tenth in range(3)]
        return one

    [change] = diff(slow(100), slow(150)).figures
    assert (change.field, change.verdict) == ("p50_us", Verdict.WORSE)
    assert change.worse_percent == pytest.approx(50, abs=0.1)


def test_a_rate_that_was_asked_for_is_no_finding() -> None:
    one, other = report([1.0]), report([1.0])
    for side, rate in ((one, 100.0), (other, 50.0)):
        side.rows[0].samples[:] = [Sample(rate=rate, offered=rate, p50_us=1.0)] * 3
    assert [change.field for change in diff(one, other).figures] == ["p50_us"]


@pytest.mark.parametrize("changed", [{"cpu": "other"}, {"size": 16}, {"transport": "ipc"}, {"rate": 5.0}])
def test_other_machines_or_settings_compare_ratios_only(changed: dict[str, Any]) -> None:
    found = diff(report([100, 101, 102], [1.0, 1.0, 1.0]), report([50, 51, 52], [0.5, 0.5, 0.5], **changed))
    assert not found.comparable
    assert found.remarks
    assert [change.name for change in found.regressions(10)] == ["r"]


def test_results_from_before_there_was_a_choice_of_transport_are_comparable() -> None:
    assert diff(report([1.0]), report([1.0], transport="tcp", api="sync")).comparable


def test_a_busy_machine_is_pointed_out() -> None:
    assert any("busy" in remark for remark in diff(report([1.0] * 3), report([1.0] * 3, load=3.0)).remarks)


def test_rows_that_one_side_has_are_named() -> None:
    one, other = report([1.0]), report([1.0])
    other.rows[0].name = "new"
    found = diff(one, other)
    assert (found.only_before, found.only_after, found.figures) == (["ours"], ["new"], [])


def test_json_has_the_regressions_where_a_limit_was_asked_for() -> None:
    found: Diff = diff(report([100, 101, 102]), report([50, 51, 52]))
    assert [one["name"] for one in json.loads(to_json(found, found.regressions(10)))["regressions"]] == ["ours"]
    assert "regressions" not in json.loads(to_json(found, None))
    assert found.regressions(60) == []


def test_the_kept_baseline_can_be_read() -> None:
    kept = read(BASELINE.read_bytes())
    found = diff(kept, kept)
    assert found.comparable
    assert found.figures
    assert found.ratios
    assert {change.verdict for change in [*found.figures, *found.ratios]} == {Verdict.SAME}


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"nothing"])
def test_what_is_no_result_is_refused(data: bytes) -> None:
    with pytest.raises(NotAResult):
        read(data)


def test_a_newer_format_is_refused() -> None:
    newer = report([1.0])
    newer.format = 99
    with pytest.raises(NotAResult, match="newer"):
        read(report_json(newer))


@pytest.mark.parametrize(("limit", "status"), [([], 0), (["--fail-over", "60"], 0), (["--fail-over", "10"], 1)])
def test_the_command_fails_over_a_limit_only(tmp_path: Path, limit: list[str], status: int) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_bytes(report_json(report([100, 101, 102])))
    after.write_bytes(report_json(report([50, 51, 52])))
    result = CliRunner().invoke(main, ["bench", "diff", str(before), str(after), "--json", *limit])
    assert result.exit_code == status, result.output
    assert json.loads(result.stdout)["figures"][0]["verdict"] == "worse"


def test_the_command_prints_tables_for_people(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    result = CliRunner().invoke(main, ["bench", "diff", str(BASELINE), str(BASELINE)])
    assert result.exit_code == 0, result.output
    assert "live-broker" in result.stdout
    assert "within noise" in result.stdout


def test_a_file_that_is_no_result_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    result = CliRunner().invoke(main, ["bench", "diff", str(BASELINE), str(tmp_path / "other.json")])
    assert result.exit_code == 2
    assert "other.json" in result.output
