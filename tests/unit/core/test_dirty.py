"""What the journal does not know of a group yet."""

from __future__ import annotations

from zbroker.core.dirty import Dirty
from zbroker.core.leases import Piece


def test_neighbours_that_were_delivered_equally_often_are_one() -> None:
    dirty = Dirty()
    assert dirty.is_clean
    for piece in ((3, 4, 1), (5, 5, 1), (6, 6, 2), (8, 9, 2), (1, 2, 2)):
        dirty.tried(Piece(*piece))
    assert dirty.waits == [(3, 5, 1), (6, 6, 2), (8, 9, 2), (1, 2, 2)]
    assert not dirty.is_clean
    assert not dirty.settles


def test_what_somebody_waits_for_does_not_wait() -> None:
    dirty = Dirty()
    dirty.is_awaited = True
    assert dirty.settles
