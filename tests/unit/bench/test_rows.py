"""What rows make of what workers say."""

from __future__ import annotations

from zbroker.bench.ends.bodies import body_of, number_of, raw_bodies, sender_of
from zbroker.bench.rows import PLANS
from zbroker.bench.rows.connections import crowds
from zbroker.bench.rows.upkeep import kept, within


def test_operations_are_told_apart_by_whether_they_overlap() -> None:
    operations = [(0, 9), (10, 19), (20, 29), (30, 39), (40, 49)]
    spans = [(12, 14), (28, 33)]
    assert kept(operations, spans, during=True) == [9, 9, 9]
    assert kept(operations, spans, during=False) == [9, 9]
    assert kept(operations, [], during=True) == []


def test_an_operation_without_upkeep_overlaps_with_none_of_several_kinds() -> None:
    operations = [(0, 9), (10, 19), (20, 29), (30, 39), (40, 49)]
    checkpoints, compactions = [(12, 14)], [(5, 13), (33, 34)]
    assert kept(operations, sorted([*checkpoints, *compactions]), during=False) == [9, 9]
    assert kept(operations, compactions, during=True) == [9, 9, 9]


def test_operations_that_began_before_the_bulk_or_ended_after_it_are_left_out() -> None:
    assert within([[0, 9], [10, 19], [20, 29]], [5, 25]) == [(10, 19)]


def test_a_crowd_is_shared_by_processes_without_a_gap() -> None:
    assert crowds(1) == [(0, 1)]
    assert crowds(600) == [(0, 250), (250, 250), (500, 100)]


def test_a_raw_body_says_which_one_it_is() -> None:
    bodies = raw_bodies(20, sender=7)
    assert bodies[3] == body_of(number_of(bodies[3]), 20)
    assert sender_of(bodies[3]) == 7
    assert number_of(bodies[3][:-1] + b"!") == 0
    assert number_of(b"end") == 0


def test_names_of_rows_are_unique() -> None:
    assert len({plan.name for plan in PLANS}) == len(PLANS)
