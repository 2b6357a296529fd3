"""The order in which the sidecar does things. What it promises is tested through the broker's side of it, and by the simulation."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest

from tests.unit.processes.sidecars import SECOND, Sidecars, record, settle
from zbroker.store.disk import FileSystem
from zbroker.store.faults import JournalFailed


def marking() -> Sidecars:
    sidecars = Sidecars()
    sidecars.disk.kind = FileSystem("ext4", False, [], marks_unwritten=True)
    return sidecars


def test_a_confirm_is_said_before_zeros_are_written_ahead() -> None:
    sidecars = marking()
    journal = sidecars.opened()
    sidecars.disk.fail("fdatasync", errno.EIO, 2)  # the first is the commit's
    journal.append(record(1))
    journal.commit(SECOND)
    assert [index for index, _ in settle(sidecars, journal)] == [1]
    sidecars.turn()  # nothing more has come
    with pytest.raises(JournalFailed):
        journal.hear(sidecars.now)
    assert journal.durable_index == 1


def test_zeros_are_written_once_for_many_small_commits() -> None:
    sidecars = marking()
    journal = sidecars.opened()
    writes = []
    for index in range(1, 6):
        journal.append(record(index))
        journal.commit(sidecars.now)
        settle(sidecars, journal)
        writes.append(sidecars.disk.calls["pwritev"])
    assert all(after - before <= 2 for before, after in pairwise(writes[1:]))
