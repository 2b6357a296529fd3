"""What the truth takes for an answer."""

from __future__ import annotations

from random import Random

import pytest

from patterns.wire.records import Damage, Opened
from tests.simulation.disks import FaultyDisk
from tests.simulation.truth import LogTruth
from tests.simulation.violation import Violation


def test_damage_may_be_told_of_where_a_prepared_segment_was_hit_and_nowhere_else() -> None:
    truth = LogTruth(FaultyDisk(Random(1)))
    damage = Damage(1, 10, 2, 0, 640, [], "segment header")
    opened = Opened(epoch=1, next_index=11, records=0, bytes=0, damage=[damage], torn_bytes=0)
    truth.hit("/journal/0000000003-0000.seg", 5000, 5001)
    with pytest.raises(Violation, match="there was none"):
        truth._told(opened, {}, [])
    truth.hit("/journal/0000000002-0000.seg", 5000, 5001)
    assert truth._told(opened, {}, []) == set(range(1, 11))
    assert truth.is_damaged


def test_whoever_reads_passes_over_nothing_of_a_stream_whose_name_is_lost() -> None:
    truth = LogTruth(FaultyDisk(Random(1)))
    assert truth.are_forgotten("gone", 3, 2)
    assert not truth.are_forgotten("gone", 3, 3)


def test_whoever_reads_passes_over_what_a_broker_has_given_up_and_not_over_more() -> None:
    truth = LogTruth(FaultyDisk(Random(1)))
    truth.decided("orders", 5)
    truth.decided("orders", 3)  # another life, whose acks were not on disk
    assert truth.are_forgotten("orders", 0, 4)
    assert not truth.are_forgotten("orders", 0, 5)
    assert not truth.are_forgotten("others", 0, 4)
