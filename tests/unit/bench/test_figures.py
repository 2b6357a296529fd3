from __future__ import annotations

import pytest

from zbroker.bench.figures import Figure, Histogram, figure, percentile, ratios, steady_rate


def test_a_figure_has_the_middle_and_both_ends() -> None:
    assert figure([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)


def test_the_middle_of_an_even_number_is_between_two() -> None:
    found = figure([1.0, 4.0])
    assert found is not None
    assert found.median == 2.5


def test_a_figure_of_nothing_is_none() -> None:
    assert figure([]) is None


def test_the_spread_is_a_part_of_the_median() -> None:
    assert Figure(2.0, 1.0, 3.0).spread == 1.0


def test_the_spread_of_nothing_measured_is_zero() -> None:
    assert Figure(0.0, 0.0, 0.0).spread == 0.0


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: int, expected: int) -> None:
    assert percentile(reversed(range(1, 101)), percent) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7], 99) == 7


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


def test_ratios_compare_round_by_round() -> None:
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_a_round_that_measured_nothing_gives_no_ratio() -> None:
    assert ratios([2.0, 9.0], [0.0, 3.0]) == [3.0]


def test_the_steady_rate_leaves_the_warm_up_out() -> None:
    points = [(0, 0), (1_000_000_000, 10), (2_000_000_000, 110), (3_000_000_000, 210)]
    assert steady_rate(points, 1_000_000_000) == 100.0


def test_the_steady_rate_of_a_run_within_the_warm_up_is_that_of_the_whole() -> None:
    assert steady_rate([(0, 0), (1_000_000_000, 10)], 5_000_000_000) == 10.0


def test_one_point_has_no_rate() -> None:
    assert steady_rate([(0, 0)], 0) == 0.0


def test_a_histogram_has_the_percentiles_of_its_values() -> None:
    counts = dict.fromkeys(range(1, 501), 2)
    assert Histogram(counts).percentiles(50, 99, 99.9, 100) == [250, 495, 500, 500]
    assert Histogram(counts).total == 1_000


def test_a_histogram_of_one_value_has_that_value_everywhere() -> None:
    assert Histogram({7: 1}).percentiles(50, 99, 100) == [7, 7, 7]


def test_a_histogram_of_nothing_has_no_percentiles() -> None:
    assert Histogram({}).percentiles(50) == []
