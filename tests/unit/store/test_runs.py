"""What is read by one call."""

from patterns.wire.records import Position
from zbroker.store.runs import GAP_BYTES_MAX, RUN_BYTES_MAX, runs_of


def spans(*positions: Position) -> list[tuple[int, int]]:
    return [(run.start, run.end) for run in runs_of(positions)]


def test_close_ones_are_one_run_in_whatever_order_they_are_asked() -> None:
    [run] = runs_of([Position(1, 9_000, 4_000), Position(1, 4_096, 4_000)])
    assert (run.key, run.start, run.end, run.wanted, run.numbers) == ((1, 0), 4_096, 13_000, 8_000, [1, 0])


def test_a_gap_of_16_kib_is_bridged_and_a_wider_one_not() -> None:
    first = Position(1, 4_096, 100_000)
    near = Position(1, first.offset + first.size + GAP_BYTES_MAX, 100)
    assert len(spans(first, near)) == 1
    assert len(spans(first, Position(1, near.offset + 1, 100))) == 2


def test_small_ones_far_apart_are_not_worth_the_bytes_between() -> None:
    assert len(spans(Position(1, 0, 100), Position(1, 700, 100))) == 1
    assert len(spans(Position(1, 0, 100), Position(1, 701, 100))) == 2


def test_files_and_generations_are_apart() -> None:
    assert len(spans(Position(1, 0, 100), Position(1, 100, 100, 1), Position(2, 100, 100))) == 3


def test_a_run_is_bounded_but_for_one_long_record() -> None:
    long = Position(1, 0, 3 * RUN_BYTES_MAX)
    assert spans(long, Position(1, long.size, 100)) == [(0, long.size), (long.size, long.size + 100)]


def test_the_same_place_twice_is_read_once() -> None:
    assert spans(Position(1, 0, 100), Position(1, 0, 100)) == [(0, 100)]
