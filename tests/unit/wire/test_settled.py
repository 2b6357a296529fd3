"""A set of offsets, against Python's own set."""

from __future__ import annotations

from random import Random

from patterns.wire.settled import CHUNK, Settled, merged, runs


def test_it_agrees_with_a_plain_set_whatever_is_added() -> None:
    for seed in range(40):
        random, settled, model = Random(seed), Settled(7), set(range(7))
        for _ in range(60):
            first = random.randrange(3 * CHUNK)
            last = first + random.choice([0, 1, 5, 300, CHUNK, 2 * CHUNK])
            new = set(range(first, last + 1)) - model
            assert settled.add(first, last) == len(new), seed
            model |= new
            low, high = sorted(random.sample(range(6 * CHUNK), 2))
            missing = [offset for run in settled.missing(low, high) for offset in range(run[0], run[1] + 1)]
            assert missing == [offset for offset in range(low, high + 1) if offset not in model], seed
            assert settled.count(low, high) == high - low + 1 - len(missing)
        assert settled.floor == next(offset for offset in range(8 * CHUNK) if offset not in model)


def test_a_chunk_in_which_only_what_is_below_the_floor_is_left_is_forgotten() -> None:
    settled = Settled()
    settled.add(1, 3)
    assert settled.bitmaps()
    settled.add(0, 0)
    assert (settled.floor, settled.bitmaps()) == (4, [])
    settled.add(6, 6)
    settled.add(4, 4)
    assert (settled.floor, len(settled.bitmaps())) == (5, 1)


def test_many_ranges_at_once_are_as_good_as_one_after_the_other() -> None:
    for seed in range(60):
        random, once, many = Random(seed), Settled(start := Random(seed).randrange(CHUNK)), Settled(start)
        for _ in range(12):
            firsts = [random.randrange(3 * CHUNK) for _ in range(random.randrange(200))]
            ranges = [(first, first + random.choice([0, 0, 0, 1, 70, CHUNK])) for first in firsts]
            ranges = random.choice([ranges, sorted(ranges), merged(ranges)])
            assert many.add_all(ranges) == sum(once.add(*each) for each in ranges), seed
            assert (many.floor, list(many.missing(0, 5 * CHUNK))) == (once.floor, list(once.missing(0, 5 * CHUNK))), (
                seed
            )


def test_what_lies_below_the_floor_costs_nothing() -> None:
    settled = Settled()
    for offset in range(1, 3 * CHUNK, 2):
        settled.add(offset, offset)
    for offset in range(0, 3 * CHUNK, 2):
        settled.add(offset, offset)
    assert settled.floor == 3 * CHUNK
    assert settled._chunks == {}


def test_adjacent_ranges_of_two_chunks_are_one() -> None:
    settled = Settled()
    settled.add(0, 0)
    settled.add(3 * CHUNK, 3 * CHUNK)
    assert list(settled.missing(0, 4 * CHUNK)) == [(1, 3 * CHUNK - 1), (3 * CHUNK + 1, 4 * CHUNK)]


def test_runs_and_merged_are_each_others_inverse() -> None:
    assert list(runs(0b1011_0001, 10)) == [(10, 10), (14, 15), (17, 17)]
    assert merged([(14, 15), (10, 10), (11, 12), (15, 17)]) == [(10, 12), (14, 17)]


def test_runs_go_on_over_the_pieces_that_they_are_looked_for_in():
    for length in (511, 512, 513, 1_600):
        assert list(runs(((1 << length) - 1) << 3, 10)) == [(13, 12 + length)]
    assert list(runs(1 | 1 << 511 | 1 << 512 | 1 << 1_024, 0)) == [(0, 0), (511, 512), (1_024, 1_024)]
