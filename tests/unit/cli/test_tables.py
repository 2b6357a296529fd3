"""Tables for people: units, instants, and what is left out."""

from __future__ import annotations

import pytest

from zbroker.cli.tables import cell_of, facts_of, instant_of, table_of, title_of, with_instants
from zbroker.cli.words import brief_time_of


@pytest.mark.parametrize(
    ("name", "fact", "cell"),
    [
        ("kept_bytes", 1_536, "1.5 KiB"),
        ("lag_s", 90.5, "1 min 30 s"),
        ("lease_s", 30.0, "30 s"),
        ("lag_s", 0.0, "0 s"),
        ("lease_ms", 1_500, "1.5 s"),
        ("messages", 1_000_000, "1000000"),
        ("published_at", 1_769_860_800_123, "2026-01-31T12:00:00.123Z"),
        ("published_first", 0, "1970-01-01T00:00:00.000Z"),
        ("oldest_at", 1_000, "1970-01-01T00:00:01.000Z"),
        ("died_at", None, ""),
        ("paused", True, "yes"),
        ("paused", False, ""),
        ("holder", None, ""),
        ("backoff_s", [1.0, 30.0], "1 s, 30 s"),
        ("topics", ["a.>", "b"], "a.>, b"),
    ],
)
def test_a_fact_is_told_in_the_unit_of_its_key(name: str, fact: object, cell: str) -> None:
    assert cell_of(name, fact) == cell


def test_an_instant_beyond_all_calendars_stays_a_number() -> None:
    assert instant_of(2**60) == str(2**60)


def test_instants_are_the_same_in_json() -> None:
    row = {"oldest_at": 1_000, "from": [{"published_first": None, "attempts": 3}], "headers": {"seen_at": "7"}}
    said = {"oldest_at": "1970-01-01T00:00:01.000Z"}
    assert with_instants(row) == {**row, **said}


def test_titles_have_no_units_and_are_all_different() -> None:
    assert [title_of(name) for name in ("lag", "lag_s", "sync_p99_us", "kept_bytes")] == [
        *("lag", "behind", "sync p99", "kept bytes")
    ]


def test_what_a_broker_does_not_tell_is_left_blank() -> None:
    _, titles, row = table_of("groups", ("lag", "doomed"), {"g": {"lag": 7}})
    assert titles.split() == ["groups", "lag", "doomed"]
    assert row.split() == ["g", "7"]
    assert list(table_of("groups", ("lag",), {})) == []
    assert list(facts_of("journal", {"folder": None})) == []


def test_names_of_others_reach_no_terminal_raw() -> None:
    lines = [*table_of("groups", ("lag",), {"\x1b[2J": {"lag": "\u202e"}}), *facts_of("x", {"a": "\x9b5m"})]
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("seconds", "brief"),
    [(0, "0 s"), (0.85, "850 ms"), (59, "59 s"), (60, "1 min"), (7_199, "119 min"), (7_200, "2 h"), (1e12, "11574074 d")],
)  # fmt: skip
def test_a_time_fits_into_a_column(seconds: float, brief: str) -> None:
    assert brief_time_of(seconds) == brief
