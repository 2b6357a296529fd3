"""What a broker answers to `status`: read where it is known, left alone where it is not, and refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.wire.errors import BadBody
from zbroker.cli.answer import as_told, understood

BARE = {"epoch": 1, "uptime_ms": 5}
STREAM = {"next_offset": 1, "messages": 1}


def test_what_is_not_known_is_left_alone() -> None:
    found = understood({**BARE, "new": [1], "streams": {"a": {**STREAM, "new": {}}}, "guard": None}, "zb://a")
    assert (found.epoch, found.streams["a"].next_offset, found.streams["a"].lost) == (1, 1, None)


@pytest.mark.parametrize(
    ("found", "where"),
    [
        ({}, "missing required field `epoch`"),
        ({1: 2, 3: 4}, ""),
        ({**BARE, "uptime_ms": None}, "`$.uptime_ms`"),
        ({**BARE, "uptime_ms": float("nan")}, "`$.uptime_ms`"),
        ({**BARE, "uptime_ms": 2**64 - 1}, "`$.uptime_ms`"),
        ({**BARE, "epoch": "\x1b[2J"}, "`$.epoch`"),
        ({**BARE, "streams": {"a": None}}, "`$.streams[...]`"),
        ({**BARE, "streams": {"a": {}}}, "`next_offset` - at `$.streams[...]`"),
        ({**BARE, "streams": [1]}, "`$.streams`"),
        ({**BARE, "streams": {1: STREAM}}, "`$.streams`"),
        ({**BARE, "groups": {"a/b": {}}}, "`$.groups[...]`"),
        ({**BARE, "guard": [1]}, "`$.guard`"),
        ({**BARE, "guard": {"cuts": {"a": "b"}}}, "`$.guard.cuts[...]`"),
        ({**BARE, "warnings": 5}, "`$.warnings`"),
        ({**BARE, "warnings": [{"a": 1}]}, "`$.warnings[0]`"),
        ({**BARE, "sessions": [1]}, "`$.sessions`"),
        ({**BARE, "journal": {"damage": 3}}, "`$.journal.damage`"),
        ({**BARE, "counters": {"requests": -1}}, "`$.counters[...]`"),
    ],
)
def test_another_shape_is_told_with_its_place(found: dict[Any, Any], where: str) -> None:
    with pytest.raises(BadBody) as caught:
        understood(found, "zb://a")
    text = str(caught.value)
    assert text.startswith("the broker at zb://a answered with a status that this version does not understand: ")
    assert where in text


def test_as_json_any_shape_is_told_that_json_can_express() -> None:
    assert as_told({"a": [{}]}, "zb://a") == {"a": [{}]}
    with pytest.raises(BadBody, match="JSON cannot express"):
        as_told({"a": b"\xff"}, "zb://a")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadBody, match="nested too deep"):
        as_told({"a": deep}, "zb://a")
