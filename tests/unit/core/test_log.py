"""A stream's index."""

from __future__ import annotations

from patterns.wire.records import Position
from zbroker.core.groups import Group
from zbroker.core.log import StreamLog


def test_each_offset_finds_its_batch_and_its_place() -> None:
    log = StreamLog(1, "s")
    for index, count in ((2, 3), (3, 1), (4, 5)):
        log.place(log.append(index, count, 10, index), Position(7, index * 64, 74))
    assert [log.find(offset) for offset in (0, 2, 3, 4, 8, 9)] == [0, 0, 1, 2, 2, 3]
    assert (log.position(1), log.next_offset, log.batches) == (Position(7, 192, 74), 9, 3)


def test_places_are_told_of_batches_that_have_one() -> None:
    log = StreamLog(1, "s")
    for number in range(4):
        log.append(number + 2, 3, 10, 0)
        if number < 3:
            log.place(number, Position(5, 64 * number, 70, generation=1))
    log.give_up(0, 5)
    assert list(log.places(1, 9)) == [(1, 3, 6, Position(5, 0, 0)), (2, 6, 9, Position(5, 128, 70, generation=1))]


def test_an_instant_finds_what_was_published_then_or_later_and_is_kept() -> None:
    log = StreamLog(1, "s")
    for number, published_at in enumerate((10, 10, 20)):
        log.place(log.append(number + 2, 3, 10, published_at), Position(7, number * 64, 74))
    assert [log.published_since(instant) for instant in (0, 10, 11, 20, 21)] == [0, 0, 6, 6, 9]
    log.given_up.add(0, 3)
    assert log.published_since(10) == 4


def test_a_lost_tail_is_jumped_and_a_lost_middle_finds_the_batch_after_it() -> None:
    log = StreamLog(1, "s")
    group = log.groups["g"] = Group(2, 1, "g", 0)
    log.append(3, 2, 10, 0)
    log.lose(2, 5)
    assert log.append(4, 1, 10, 0) == 1
    assert (log.find(3), log.base(1), log.lost, group.lost) == (1, 6, [(2, 5)], 4)


def test_a_span_leaves_out_batches_whose_place_is_not_known_yet() -> None:
    log = StreamLog(1, "s")
    for number, segment in enumerate((1, 1, 2, 2)):
        log.append(number + 1, 1, 10, 0)
        if number < 3:
            log.place(number, Position(segment, 4096 * number, 100))
    assert log.placed == 3
    assert log.span(1, 2) == (0, 2)
    assert log.span(2, 9) == (2, 3)


def test_batches_of_a_file_that_is_gone_are_lost_and_their_groups_know() -> None:
    log = StreamLog(1, "s")
    group = log.groups["g"] = Group(1, 1, "g", 0)
    for segment in (1, 2, 2, 3):
        log.place(log.append(log.last_index + 1, 3, 10, 0), Position(segment, 0, 64))
    log.lose_missing({1, 3})
    assert log.lost == [(3, 8)]
    assert [log.is_gone(number) for number in range(4)] == [False, True, True, False]
    assert group.lost == 6
    assert log.fate(3, 11) == (True, 8)
