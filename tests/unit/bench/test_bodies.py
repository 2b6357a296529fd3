from __future__ import annotations

import pytest

from zbroker.bench.ends.bodies import (
    DISTINCT,
    END,
    STAMP,
    differing_bytes,
    differing_records,
    filling,
    raw_bodies,
    records,
    sender_of,
)
from zbroker.bench.ends.window import WINDOW_BYTES, window_of


@pytest.mark.parametrize("size", [16, 100, 1_024, 65_536, 1_048_576])
def test_bodies_are_distinct_and_of_the_size_asked_for(size: int) -> None:
    pool = raw_bodies(size)
    assert len(set(pool)) == len(pool)
    assert {len(body) for body in pool} == {size}
    assert END not in pool


@pytest.mark.parametrize("size", [16, 100, 1_000, 1_024, 65_536, 1_048_576])
def test_a_pool_is_a_whole_number_of_tellings(size: int) -> None:
    _, every = window_of(size)
    assert len(raw_bodies(size)) % every == 0


def test_bodies_of_several_senders_differ_and_say_whose_they_are() -> None:
    pools = [raw_bodies(16, sender) for sender in range(8)]
    assert len({body for pool in pools for body in pool}) == sum(map(len, pools))
    assert [{sender_of(body) for body in pool} for pool in pools] == [{sender} for sender in range(8)]


@pytest.mark.parametrize("size", [16, 17, 100, 1_000_000])
def test_a_stamp_and_its_filling_have_the_size_asked_for(size: int) -> None:
    assert STAMP.size + len(filling(size)) == size


@pytest.mark.parametrize("size", [16, 100, 1_024, 65_536, 1_048_576])
def test_what_is_under_way_stays_within_bytes_and_is_shared_by_senders(size: int) -> None:
    ahead, every = window_of(size)
    assert ahead * size <= WINDOW_BYTES
    assert 1 <= every <= ahead
    assert window_of(size, 8)[0] <= max(1, ahead // 8)


def test_the_window_of_large_bodies_is_smaller() -> None:
    assert window_of(1_048_576)[0] < window_of(100)[0]


def test_records_are_distinct_and_have_six_fields() -> None:
    pool = records()
    assert len({one["number"] for one in pool}) == DISTINCT
    assert {len(one) for one in pool} == {6}


def test_a_changed_body_is_noticed() -> None:
    assert differing_bytes([b"a", b"x"], [b"a", b"b"]) == 1
    assert differing_bytes([b"a"], [b"a", b"b"]) == 0


def test_a_changed_record_is_noticed() -> None:
    pool = records()[:40]
    other = [dict(one) for one in pool]
    assert differing_records(other, pool) == 0
    other[3]["number"] = -5
    assert differing_records(other, pool) == 1
