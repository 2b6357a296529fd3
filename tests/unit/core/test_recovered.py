"""What was delivered before a restart, by itself, and against a table by offset."""

from __future__ import annotations

from random import Random

from patterns.wire.settled import Settled
from zbroker.core.leases import Piece
from zbroker.core.recovered import Recovered


def _all(_: Piece) -> bool:
    return True


def _drained(recovered: Recovered) -> list[Piece]:
    found = []
    while recovered.next is not None:
        found.append(recovered.next)
        recovered.take_next(None)
    return found


def test_what_is_not_settled_was_delivered_once_unless_it_is_told() -> None:
    recovered, settled = Recovered(0), Settled(0)
    settled.add(3, 4)
    recovered.tried(6, 7, 3)
    recovered.tried(7, 7, 1)
    recovered.open(settled, 200)
    assert list(recovered.attempts()) == [Piece(6, 6, 3)]
    recovered.release(_all)
    assert _drained(recovered) == [Piece(0, 2, 1), Piece(5, 5, 1), Piece(6, 6, 3), Piece(7, 199, 1)]
    assert list(recovered.attempts()) == []


def test_what_nobody_has_begun_with_and_what_is_delayed_wait_elsewhere() -> None:
    recovered, settled = Recovered(10), Settled(10)
    recovered.tried(12, 15, 0)
    recovered.delayed(14, 20, 900, 50, 2)
    recovered.tried(18, 18, 3)
    recovered.tried(5, 9, 0)
    recovered.delayed(29, 40, 900, 50, 0)
    recovered.open(settled, 30)
    assert list(recovered.take_delayed()) == [(14, 17, 900, 50, 2), (19, 20, 900, 50, 2), (29, 29, 900, 50, 0)]
    assert list(recovered.take_unbegun()) == [Piece(12, 13, 0)]
    recovered.release(lambda piece: piece.tries < 3)
    assert _drained(recovered) == [Piece(10, 11, 1), Piece(21, 28, 1)]


def test_any_operations_end_as_in_a_table_where_the_last_one_counts() -> None:
    for seed in range(200):
        random = Random(seed)
        recovered, settled = Recovered(0), Settled(0)
        table: dict[int, tuple[int, ...]] = dict.fromkeys(range(300), (1,))
        operations = []
        for _ in range(random.randrange(30)):
            first = random.randrange(300)
            last = min(299, first + random.choice([0, 0, 1, 5, 150]))
            tries = random.randrange(3)
            row = (tries,) if random.random() < 0.6 else (tries, 70 + tries, 5)
            operations.append((first, last, row))
        for first, last, row in operations * random.randint(1, 2):
            table.update(dict.fromkeys(range(first, last + 1), row))
            if len(row) == 1:
                recovered.tried(first, last, *row)
            else:
                recovered.delayed(first, last, row[1], row[2], row[0])
        for _ in range(random.randrange(6)):
            first = random.randrange(300)
            settled.add(first, first + random.randrange(20))
        recovered.open(settled, 250)
        here: dict[int, tuple[int, ...]] = {}
        for first, last, due, delay, tries in recovered.take_delayed():
            here |= dict.fromkeys(range(first, last + 1), (tries, due, delay))
        for piece in recovered.take_unbegun():
            here |= dict.fromkeys(range(piece.first, piece.last + 1), (0,))
        recovered.release(_all)
        for piece in _drained(recovered):
            assert not here.keys() & set(range(piece.first, piece.last + 1))
            here |= dict.fromkeys(range(piece.first, piece.last + 1), (piece.tries,))
        wanted = {offset: row for offset, row in table.items() if offset < 250 and offset not in settled}
        assert here == wanted, f"seed {seed}"
