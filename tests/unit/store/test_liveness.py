"""A segment is dead when all that it spans was forgotten, and never because nothing is known of it."""

from zbroker.store.liveness import Liveness
from zbroker.store.segment import SegmentHeader


def noted() -> Liveness:
    liveness = Liveness()
    for segment in (1, 2):
        liveness.begin(segment)
    liveness.note(1, 7, 0, 5, 500)
    liveness.note(1, 7, 5, 5, 500)
    liveness.note(1, 8, 100, 1, 100)
    liveness.note(2, 7, 10, 5, 500)
    return liveness


def test_it_dies_with_the_last_stream_in_it() -> None:
    liveness = noted()
    liveness.forget([(7, 0, 9)])
    assert not liveness.is_dead(1)
    liveness.forget([(8, 100, 100)])
    assert liveness.is_dead(1)
    assert not liveness.is_dead(2)


def test_ranges_that_touch_are_one_and_those_that_do_not_are_not() -> None:
    liveness = noted()
    liveness.forget([(8, 0, 1000), (7, 0, 3), (7, 5, 9)])
    assert not liveness.is_dead(1), "offset 4 is wanted"
    liveness.forget([(7, 4, 4)])
    assert liveness.is_dead(1)


def test_what_is_not_known_is_alive_and_a_segment_without_batches_is_dead() -> None:
    liveness = noted()
    liveness.begin(3)
    assert liveness.is_dead(3)
    assert not liveness.is_dead(4)
    assert liveness.spans(4) is None


def test_spans_come_back_in_another_life() -> None:
    other = Liveness()
    spans = noted().spans(1)
    assert spans == [(7, 0, 9), (8, 100, 100)]
    other.load(1, spans, noted().sizes(1))
    other.forget([(7, 0, 9), (8, 100, 100)])
    assert other.is_dead(1)
    other.drop(1)
    assert not other.is_dead(1)
    other.give_up(1)
    assert other.is_dead(1)


def header(number: int, epoch: int, generation: int = 0) -> SegmentHeader:
    return SegmentHeader(
        folder_uuid=b"u" * 16,
        number=number,
        last_covered=number,
        generation=generation,
        epoch=epoch,
        first_index=number * 10,
        durable_index=number * 10 - 1,
        checkpoint_index=0,
        salt=b"s" * 16,
        segment_bytes=1 << 16,
        created_ms=0,
        oldest_needed=1,
    )


def test_what_begins_a_life_stays_as_long_as_the_one_before_may_hold_records_that_are_void() -> None:
    liveness = noted()
    for segment in (3, 4, 5):
        liveness.begin(segment)
    liveness.forget([(7, 10, 14)])
    written = {number: header(number, epoch) for number, epoch in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3))}
    assert liveness.droppable(written, below=5) == {2, 4}, "3 begins a life, and 1 is alive"
    compacted = {**written, 1: header(1, 1, generation=1)}
    assert liveness.droppable(compacted, below=5) == {2, 3, 4}, "nothing void is in a compacted one"
    liveness.give_up(1)
    assert liveness.droppable(written, below=6) == {1, 2, 3, 4, 5}


def test_what_a_checkpoint_has_left_out_is_never_listed_again() -> None:
    liveness = noted()
    liveness.begin(3)
    headers = {1: header(1, 1), 2: header(2, 1, generation=1), 3: header(3, 2)}
    assert liveness.droppable(headers, below=4) == {3}, "2 is alive, and compacted"
    liveness.forget([(7, 2, 14)])
    assert liveness.droppable(headers, below=4) == {2}, "the life of 1 may have ended there"
    liveness.give_up(3)
    assert liveness.droppable(headers, below=4) == {2, 3}


def test_live_bytes_are_told_and_live_messages_named() -> None:
    liveness = noted()
    assert liveness.live(1) == 1_100
    liveness.forget([(7, 1, 1), (7, 3, 3), (9, 0, 50)])
    assert liveness.live(1) == 900
    assert liveness.wanted(7, 0, 4) == [(0, 0), (2, 2), (4, 4)]
    assert liveness.wanted(8, 100, 101) == [(100, 101)]
    assert liveness.live(4) is None
    liveness.load(4, [(7, 0, 9)], [])
    assert liveness.live(4) == 8, "in an index of an earlier version there are no sizes"
