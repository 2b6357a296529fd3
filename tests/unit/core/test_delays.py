"""What waits for its time, by itself."""

from __future__ import annotations

from zbroker.core.delays import Delays
from zbroker.core.leases import Piece


def test_what_is_due_first_comes_first_and_is_counted() -> None:
    delays = Delays()
    for first, last, due in ((0, 4, 30), (5, 5, 10), (6, 9, 20)):
        delays.add(Piece(first, last, first % 3), due, 7)
    assert (delays.messages, delays.next_due) == (10, 10)
    assert [delays.pop() for _ in range(3)] == [Piece(5, 5, 2), Piece(6, 9, 0), Piece(0, 4, 0)]
    assert (delays.messages, delays.next_due) == (0, None)


def test_blocks_tell_all_of_one_moment_at_another_clock() -> None:
    delays = Delays()
    for offset in range(5_000):
        delays.add(Piece(2 * offset, 2 * offset, 1), 1_000 + offset % 7, 900)
    blocks = delays.blocks(50)
    while delays.next_due is not None:
        delays.pop()
    rows = [row for some in blocks for row in zip(*(block.values(0, block.count) for block in some), strict=True)]
    assert sorted(rows) == [(2 * offset, 0, 1_050 + offset % 7, 900, 1) for offset in range(5_000)]


def test_an_instant_before_the_other_clock_began_is_its_beginning() -> None:
    delays = Delays()
    delays.add(Piece(0, 0, 1), 5, 5)
    [[_, _, dues, _, _]] = delays.blocks(-9)
    assert dues[0] == 0
