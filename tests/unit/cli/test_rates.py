"""Rates from two answers of `status`, and lines that fit."""

from __future__ import annotations

from typing import Any

import pytest

from zbroker.cli.answer import Status, understood
from zbroker.cli.rates import frame_of, lines_of
from zbroker.cli.words import columns_of


def status(uptime_ms: int = 10_000, scale: int = 1, epoch: int = 1, **more: Any) -> Status:
    found = {
        "epoch": epoch,
        "uptime_ms": uptime_ms,
        "counters": {"requests": 100 * scale, "published": 200 * scale, "live_dropped": 3 * scale, "plain_dropped.size": scale},
        "refused": {"NO_REPLIER": 4 * scale, "TOO_LARGE": scale},
        "streams": {"a": {"next_offset": 1_000 * scale, "messages": 7}, "b": {"next_offset": 5, "messages": 5}},
        "groups": {
            "a/x": {"acked": 400 * scale, "lag": 10, "lag_s": 3.5, "pending": 2},
            "a/y": {"acked": 100 * scale, "lag": 90, "lag_s": 90.0, "pending": 3},
        },
        "sessions": {"total": 3, "admin": 1, "producer": 2},
        "guard": {"connections": 3, "cuts": {"before_hello": 2, "memory": 1}, "rss_bytes": 50 << 20},
        "warnings": [],
        **more,
    }  # fmt: skip
    return understood(found, "zb://a")


def test_rates_are_by_the_brokers_own_clock():
    frame = frame_of(status(), status(12_000, 2))
    assert frame["interval_ms"] == 2_000
    assert frame["rates"] == {"requests": 50.0, "published": 100.0, "dropped": 2.0, "refused": 2.5}
    assert frame["streams"]["a"] == {
        "append": 500.0,
        "ack": 250.0,
        "lag": 90,
        "lag_s": 90.0,
        "pending": 5,
        "messages": 7,
    }
    assert frame["streams"]["b"] == {
        "append": 0.0,
        "ack": None,
        "lag": None,
        "lag_s": None,
        "pending": None,
        "messages": 5,
    }
    assert (frame["connections"], frame["cuts"], frame["memory_bytes"]) == (3, 3, 50 << 20)


def test_a_stream_that_is_new_counts_from_nothing():
    frame = frame_of(status(streams={}), status(11_000))
    assert frame["streams"]["a"]["append"] == 1_000


@pytest.mark.parametrize("after", [status(500, 3, epoch=2), status(500, 3), status(10_000, 2)])
def test_a_broker_that_was_started_again_has_no_rates_yet(after):
    frame = frame_of(status(), after)
    assert set(frame["rates"].values()) == {None}
    assert frame["streams"]["a"]["append"] is None
    assert any("started again" in line for line in lines_of(frame, 80))


def test_a_broker_without_journal_and_guard_has_a_frame_too():
    bare = {"epoch": 1, "uptime_ms": 1, "sessions": {"total": 0}}
    frame = frame_of(understood(bare, "zb://a"), understood({**bare, "uptime_ms": 1_001}, "zb://a"))
    assert frame["memory_bytes"] is None
    assert list(lines_of(frame, 40))


@pytest.mark.parametrize("columns", [1, 10, 20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(columns):
    after = status(11_000, 10**9, warnings=["the disk is full " * 9], streams={
        "orders." + "x" * 90: {"next_offset": 10**12, "messages": 10**12},
        "漢字" * 40: {"next_offset": 1, "messages": 1},
    })  # fmt: skip
    lines = list(lines_of(frame_of(status(), after), columns))
    assert max(map(columns_of, lines)) <= columns
    assert all(line.isprintable() for line in lines)


def test_the_busiest_stream_comes_first_and_40_columns_show_its_rates():
    lines = list(lines_of(frame_of(status(), status(11_000, 2)), 40))
    header = next(at for at, line in enumerate(lines) if line.startswith("streams"))
    assert lines[header].split() == ["streams", "append/s", "ack/s"]
    assert lines[header + 1].split() == ["a", "1,000", "500"]


def test_the_group_that_is_farthest_behind_comes_first_and_one_that_is_paused_says_so():
    before, after = status(), status(12_000, 2)
    frame = frame_of(before, after)
    row = {"lag": 10, "lag_s": 3.5, "pending": 2, "members": None, "leased": None, "waiting": None, "dead": None}
    assert frame["groups"]["a/x"] == {"ack": 200.0, **row, "paused": None}
    frame["groups"]["a/x"] |= {"members": 2, "leased": 5, "paused": True}
    lines = list(lines_of(frame, 100))
    header = next(at for at, line in enumerate(lines) if line.startswith("groups"))
    assert lines[header].split() == ["groups", "ack/s", "lag", "behind", "members", "leased", "dead"]
    assert [line.split() for line in lines[header + 1 :]] == [
        ["a/y", "50", "90", "1", "min", "-", "-", "-"],
        ["a/x", "(paused)", "200", "10", "3.5", "s", "2", "5", "-"],
    ]
