"""Who is sent a proof, and when."""

from __future__ import annotations

from zbroker.processes.suspects import PROOFS_US, Suspects

_LAST = PROOFS_US[-1]


def test_a_suspect_gets_a_proof_at_each_delay() -> None:
    suspects = Suspects()
    suspects.add(b"one", 1_000)
    taken = []
    while (due := suspects.due) is not None:
        taken += [(due, peer) for peer in suspects.take(due)]
    assert taken == [(1_000 + delay, b"one") for delay in PROOFS_US]


def test_nobody_gets_a_proof_before_it_is_due() -> None:
    suspects = Suspects()
    suspects.add(b"one", 1_000)
    assert suspects.take(999) == []
    assert suspects.take(1_000) == [b"one"]
    assert suspects.take(1_001) == []


def test_proofs_of_several_come_in_order_of_time() -> None:
    suspects = Suspects()
    suspects.add(b"one", 0)
    suspects.add(b"other", PROOFS_US[1] + 1)
    assert suspects.take(0) == [b"one"]
    assert suspects.due == PROOFS_US[1]
    assert suspects.take(PROOFS_US[1]) == [b"one"]
    assert suspects.due == PROOFS_US[1] + 1


def test_who_is_suspected_ten_thousand_times_gets_as_many_proofs_as_twice() -> None:
    suspects = Suspects()
    for _ in range(10_000):
        suspects.add(b"one", 0)
        suspects.add(b"other", 0)
    assert sorted(suspects.take(_LAST)) == sorted([b"one", b"other"] * len(PROOFS_US))


def test_who_was_suspected_again_meanwhile_gets_proofs_behind_the_last_hint() -> None:
    suspects = Suspects()
    suspects.add(b"one", 0)
    suspects.add(b"one", _LAST - 1)
    assert len(suspects.take(_LAST)) == len(PROOFS_US)
    assert suspects.due == _LAST
    assert len(suspects.take(2 * _LAST)) == len(PROOFS_US)
    assert suspects.due is None
