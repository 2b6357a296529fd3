"""What a member holds, against a dictionary of what it should hold."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest

from patterns.wire.settled import runs
from zbroker.core.groups import Group
from zbroker.core.leases import YOUNG_MAX, Lease, Leases, Piece


def _lease(group: Group, id: int, first: int, count: int = 1, tries: int = 0) -> Lease:
    return Lease(id, group, Piece(first, first + count - 1, tries), 1_000 * id)


def _told(lease: Lease) -> tuple[int, ...]:
    return lease.id, lease.first, lease.count, lease.attempt, lease.held, lease.until


@pytest.mark.parametrize("seed", range(8))
def test_leases_are_what_was_added_less_what_was_let_go_whether_packed_or_not(seed: int) -> None:
    random = Random(seed)
    group = Group(1, 1, "g", 0)
    leases, model, id, offset = Leases(group), {}, 0, 0
    for _ in range(12):
        for _ in range(random.randrange(1_500)):
            id += random.choice([1, 1, 5])
            count = random.choice([1, 1, 1, 7])
            leases.add(lease := _lease(group, id, offset, count, random.choice([0, 0, 0, 2])))
            model[id] = _told(lease)
            offset += count + random.randrange(3)
        for known in random.sample(sorted(model), random.choice([0, len(model) // 3, len(model) * 19 // 20])):
            lease = leases.get(known)
            assert lease is not None
            assert _told(lease) == model[known]
            match random.randrange(3):
                case 0:
                    lease.take([(lease.first, lease.first)])
                case 1:
                    lease.take([])
                case _:
                    lease.until += random.randrange(2) * 77
            leases.keep(lease)
            model[known] = _told(lease)
            if not lease.held:
                del model[known]
                assert leases.get(known) is None
        assert (len(leases), [_told(lease) for lease in leases]) == (len(model), [model[id] for id in sorted(model)])
        assert (leases in group.holders) == bool(model)
        assert leases.get(id + 1) is leases.get(-1) is None
        retried = sorted(leases.retried())
        held = [(*run, one[3]) for one in model.values() if one[3] > 1 for run in runs(one[4], one[1])]
        assert retried == sorted(held)
    assert sorted(map(_told, leases.take_all())) == sorted(model.values())
    assert (len(leases), list(leases), group.holders) == (0, [], {})


def test_single_messages_that_are_held_take_a_dozen_bytes_each() -> None:
    group = Group(1, 1, "g", 0)
    tracemalloc.start()
    leases = Leases(group)
    for number in range(200_000):
        leases.add(_lease(group, (3 << 32) + 2 * number, 2 * number))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(leases) == 200_000
    assert held < YOUNG_MAX * 500 + 200_000 * 12
