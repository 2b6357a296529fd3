"""The packed heap, against heapq."""

from __future__ import annotations

import tracemalloc
from heapq import heappop, heappush
from random import Random

import pytest

from zbroker.core.heap import YOUNG_MAX, PackedHeap


@pytest.mark.parametrize("seed", range(12))
def test_rows_come_out_in_order_however_many_wait(seed: int) -> None:
    random = Random(seed)
    heap, model = PackedHeap(), []
    for step in range(30):
        for _ in range(random.randrange(900)):
            first = random.choice([step * 1_000 + random.randrange(1_000), random.getrandbits(50)])
            row = (first, first + random.randrange(3), random.randrange(4))
            heap.push(row)
            heappush(model, row)
        for _ in range(random.randrange(min(700, len(model) + 1))):
            assert heap.first == model[0]
            assert tuple(heap.pop()) == heappop(model)
        assert len(heap) == len(model)
        least = random.randrange(5)
        told = heap.rows(least)
        expected = sorted(row for row in model if row[-1] >= least)
        heap.push((1, 1, 9))
        heappush(model, (1, 1, 9))
        assert sorted(map(tuple, told)) == expected, "as they were at the call"
    assert [tuple(heap.pop()) for _ in range(len(model))] == [heappop(model) for _ in range(len(model))]
    assert not heap


def test_rows_of_a_long_run_take_a_few_bytes_each() -> None:
    tracemalloc.start()
    heap = PackedHeap()
    for offset in range(0, 400_000, 2):
        heap.push((offset, offset, 1))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(heap) == 200_000
    assert held < YOUNG_MAX * 250 + 200_000 * 3
