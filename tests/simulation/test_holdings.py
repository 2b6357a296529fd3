"""What records say of streams and groups, and when a message may go that a group is owed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from patterns.wire.records import Record, RecordKind
from tests.simulation.holdings import Holdings
from tests.simulation.violation import Violation


def told(index: int, entry: list[Any], kind: RecordKind = RecordKind.CATALOG) -> Record:
    return Record(index, kind, 0, 0, 0, b"", msgspec.msgpack.encode(entry))


def made() -> Holdings:
    """Stream 2 with group 3."""
    holdings = Holdings()
    holdings.expose(told(2, ["stream", "orders"]))
    holdings.expose(told(3, ["group", 2, "billing", 0]))
    return holdings


def is_owed(holdings: Holdings, offset: int, stored: int = 4) -> bool:
    """Whether that it is given up is a violation, nobody having settled it."""
    try:
        holdings.judge(2, offset, stored, None, lambda *_: False)
    except Violation:
        return True
    return False


@pytest.mark.parametrize(("entry", "left"), [(["group_deleted", 2, 3], 2), (["deleted", 2, 9], 0)])
def test_what_was_deleted_is_not_there_again_when_an_open_shows_only_that_it_was_made(
    entry: list[Any], left: int
) -> None:
    holdings = made()
    holdings.expose(told(5, entry))
    for record in (told(2, ["stream", "orders"]), told(3, ["group", 2, "billing", 0])):
        holdings.expose(record)
    assert (holdings.id_of("orders", ""), holdings.id_of("orders", "billing")) == (left, 0)
    holdings.expose(told(6, ["stream", "orders"]))
    assert holdings.id_of("orders", "") == 6
    assert holdings.ids["orders"] == [2, 6]


def test_a_group_is_owed_what_came_after_it() -> None:
    holdings = made()
    assert is_owed(holdings, 0)
    assert not is_owed(holdings, 0, stored=1)


def test_what_is_said_to_be_expired_is_owed_but_for_a_purge_and_a_bound_that_waits_for_nobody() -> None:
    holdings = made()
    holdings.expose(told(5, [["expired", 2, 3, [[0, 1]]]], RecordKind.OPS))
    assert is_owed(holdings, 0)
    holdings.handed(told(6, ["purged", 2, 1]))
    assert not is_owed(holdings, 0)
    assert is_owed(holdings, 1)
    holdings.expose(told(7, ["configured", 2, {"keep_unsettled": False}]))
    assert is_owed(holdings, 1), "it was told so later"
    holdings.expose(told(8, [["expired", 2, 3, [[1, 1]]]], RecordKind.OPS))
    assert not is_owed(holdings, 1)
