"""Columns of many integers, against a list."""

from __future__ import annotations

import tracemalloc
from array import array
from bisect import bisect_right
from random import Random

import pytest

from zbroker.core.column import BLOCK, VALUE_MAX, Block, Column, decode_block, pack, widened


def _column(values: list[int]) -> Column:
    column = Column()
    column.extend(values)
    return column


@pytest.mark.parametrize(
    ("values", "bytes_a_value"),
    [
        (range(10**12, 10**12 + 3 * BLOCK, 3), 0),
        ([7] * BLOCK, 0),
        ([7] * (BLOCK - 1) + [8], 1),
        ([10**15 + number % 3 for number in range(BLOCK)], 1),
        ([number * 50 + number % 7 for number in range(BLOCK)], 2),
        ([0, VALUE_MAX, 5], 8),
        ([VALUE_MAX], 0),
        ([5, 4, 3], 1),
    ],
)
def test_a_block_holds_its_values_as_narrow_as_they_allow(values: list[int], bytes_a_value: int) -> None:
    block = pack(array("Q", values))
    assert list(block.values(0, block.count)) == [block[at] for at in range(block.count)] == list(values)
    assert bytes_a_value == (0 if block.above is None else block.above.itemsize)
    assert block.total(1, block.count) == sum(list(values)[1:])
    assert block.high == max(values)
    assert decode_block(*block.encoded()) == block


@pytest.mark.parametrize(
    "encoded",
    [
        [0, 1, 0, b""],
        [2, -1, 0, b""],
        [2, 0, 1 << 64, b""],
        [2, 0, 0, b"abc"],
        [2, 0, 0, bytes(6)],
        [1, 1, 0, b"\xff" * 8],
    ],
)
def test_bytes_that_are_no_block_are_refused(encoded: list[object]) -> None:
    with pytest.raises((ValueError, KeyError)):
        decode_block(*encoded)


def test_plain_big_endian_integers_are_widened() -> None:
    assert list(widened("I", b"\0\0\1\0\0\0\0\7")) == [256, 7]


@pytest.mark.parametrize("seed", range(20))
def test_a_column_is_a_list_whose_first_values_may_be_forgotten(seed: int) -> None:
    random = Random(seed)
    column, model, first = Column(), [], 0
    for _ in range(150):
        match random.randrange(6):
            case 0 | 1:
                more = [random.choice([random.randrange(9), random.getrandbits(64), len(model)]) for _ in range(700)]
                column.extend(more)
                model += more
            case 2:
                more = [random.getrandbits(20) for _ in range(random.choice([1, 5, 600, BLOCK, 3 * BLOCK]))]
                column.take(pack(array("Q", more)))
                model += more
            case 3 if len(model) > first:
                for number in range(at := random.randrange(first, len(model)), min(at + 40, len(model))):
                    column[number] = model[number] = random.getrandbits(40)
            case 4:
                column.forget(below := random.randrange(first, len(model) + 1))
                assert first <= column.first <= below
                first = column.first
            case _ if len(model) > first:
                begin, end = sorted(random.choices(range(first, len(model) + 1), k=2))
                assert column.values(begin, end) == model[begin:end]
                assert column.total(begin, end) == sum(model[begin:end])
        assert (column.end, len(model) - column.first) == (len(model), len(model) - first)
    assert [column[number] for number in range(first, len(model))] == model[first:]
    with pytest.raises(IndexError):
        column[first - 1 if first else -len(model) - 1]


@pytest.mark.parametrize("seed", range(10))
def test_a_value_is_found_among_values_that_rise(seed: int) -> None:
    random = Random(seed)
    values = sorted(random.choices(range(20_000), k=5 * BLOCK + 9))
    column = _column(values)
    for value in random.choices(range(20_100), k=300):
        assert column.find(value) == bisect_right(values, value)
    column.forget(2 * BLOCK + 5)
    assert column.find(values[2 * BLOCK] - 1) == 2 * BLOCK
    assert Column().find(3) == 0


def test_a_column_of_a_million_neighbours_takes_a_tenth_of_a_byte_for_each() -> None:
    tracemalloc.start()
    column = _column(list(range(5, 1_000_005)))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert column[999_999] == 1_000_004
    assert held < 300_000


def test_a_block_of_one_value_has_no_steps() -> None:
    assert pack(array("Q", [9])) == Block(1, 9, 0)
