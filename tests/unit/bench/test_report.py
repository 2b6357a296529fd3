from __future__ import annotations

import json

from zbroker.bench.report import Bar, Report, Row, Sample, held_against, to_json


def row(name: str, *samples: Sample) -> Row:
    return Row(name=name, group="live", label=name, api="api", body="raw", samples=list(samples))


def rows(**rates: list[float]) -> dict[str, Row]:
    return {name: row(name, *(Sample(rate=rate) for rate in values)) for name, values in rates.items()}


def bar(*against: str, number: float | None = 2.0, at_least: bool = True) -> Bar:
    return Bar(row="ours", field="rate", against=against, bar=number, at_least=at_least, text="ours / theirs")


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    ratio = held_against(bar("theirs"), rows(ours=[2.0, 6.0, 5.0], theirs=[1.0, 2.0, 2.0]))
    assert ratio is not None
    assert (ratio.value.median, ratio.value.low, ratio.value.high, ratio.met) == (2.5, 2.0, 3.0, True)


def test_a_round_in_which_a_row_found_nothing_is_left_out() -> None:
    found = rows(theirs=[1.0, 2.0, 4.0])
    found["ours"] = row("ours", Sample(rate=3.0), Sample(), Sample(rate=8.0))
    ratio = held_against(bar("theirs"), found)
    assert ratio is not None
    assert (ratio.value.low, ratio.value.high) == (2.0, 3.0)


def test_rows_that_are_compared_together_are_added_up() -> None:
    ratio = held_against(bar("one", "two"), rows(ours=[6.0], one=[1.0], two=[2.0]))
    assert ratio is not None
    assert ratio.value.median == 2.0


def test_a_bar_without_another_row_is_a_number() -> None:
    ratio = held_against(bar(number=5.0), rows(ours=[4.0]))
    assert ratio is not None
    assert (ratio.value.median, ratio.met) == (4.0, False)


def test_a_bar_may_be_a_ceiling() -> None:
    ratio = held_against(bar("theirs", number=1.5, at_least=False), rows(ours=[3.0], theirs=[2.0]))
    assert ratio is not None
    assert ratio.met


def test_a_ratio_without_a_bar_is_neither_met_nor_missed() -> None:
    ratio = held_against(bar("theirs", number=None), rows(ours=[3.0], theirs=[2.0]))
    assert ratio is not None
    assert (ratio.value.median, ratio.bar, ratio.met) == (1.5, None, None)


def test_a_bar_whose_rows_were_not_run_is_left_out() -> None:
    assert held_against(bar("theirs"), rows(ours=[3.0])) is None


def test_a_row_that_measured_nothing_has_no_ratio() -> None:
    assert held_against(bar("theirs"), rows(ours=[3.0], theirs=[0.0])) is None


def test_losses_of_all_samples_add_up() -> None:
    found = row("ours", Sample(lost=2, damaged=1), Sample(lost=3))
    assert (found.lost, found.damaged) == (5, 1)


def test_json_has_the_machine_the_samples_and_their_medians() -> None:
    report = Report(
        made_at="2026-01-01T00:00:00+00:00",
        machine={"cpu": "one", "cores": 2},
        versions={"python": "3.11"},
        disk={"file_system": "ext4"},
        settings={"seconds": 1.0},
        rows=[row("ours", Sample(rate=1.0), Sample(rate=3.0, lost=1))],
        ratios=[],
    )
    found = json.loads(to_json(report))
    assert found["format"] == 1
    assert found["machine"]["cores"] == 2
    [ours] = found["rows"]
    assert [sample["rate"] for sample in ours["samples"]] == [1.0, 3.0]
    assert ours["figures"] == {"rate": {"median": 2.0, "low": 1.0, "high": 3.0}}
    assert (ours["lost"], ours["damaged"]) == (1, 0)
