"""Names, ids and their records."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.wire.errors import BadName
from zbroker.core.catalog import Catalog, Recorder


def test_a_catalog_is_rebuilt_from_its_records() -> None:
    effects: list[Any] = []
    catalog = Catalog(Recorder(effects))
    log = catalog.stream("s")
    group = catalog.group(log, "g", 3)
    again = Catalog(Recorder([]))
    for effect in effects:
        assert again.recover(effect.record.index, effect.record.payload) is None
    assert again.by_name["s"].id == log.id == 1
    assert (again.groups[1, group.id].name, again.groups[1, group.id].start) == ("g", 3)


def test_a_bad_name_writes_nothing() -> None:
    effects: list[Any] = []
    catalog = Catalog(Recorder(effects))
    log = catalog.stream("s")
    with pytest.raises(BadName):
        catalog.stream("a/b")
    with pytest.raises(BadName):
        catalog.group(log, "a b", 0)
    assert len(effects) == 1


def test_a_stream_whose_record_is_lost_gets_a_name_that_says_so() -> None:
    assert Catalog(Recorder([])).known(9).name == "recovered-9"
