"""What waits to become a dead letter: order, reasons, and who waits for it."""

from __future__ import annotations

from zbroker.core.doomed import MAX_DELIVERIES, REASON_BYTES_MAX, Doomed, Verdict
from zbroker.core.leases import Piece


def test_the_lowest_offset_is_first_with_its_own_reason_and_attempts() -> None:
    doomed = Doomed()
    doomed.add(Piece(7, 9, 5), None)
    doomed.add(Piece(3, 3, 1), Verdict("no such customer", is_awaited=False))
    assert doomed.count == 4
    assert doomed.take(3)[:4] == (3, 3, 1, "no such customer")
    assert doomed.take(8)[:4] == (7, 8, 5, MAX_DELIVERIES)
    assert doomed.take(100)[:4] == (9, 9, 5, MAX_DELIVERIES)
    assert not doomed


def test_a_verdict_is_told_with_the_last_of_its_messages_wherever_they_were_cut() -> None:
    doomed, verdict = Doomed(), Verdict("", is_awaited=True)
    doomed.add(Piece(0, 9, 1), verdict)
    doomed.add(Piece(20, 20, 1), verdict)
    doomed.add(Piece(12, 12, 1), Verdict("another", is_awaited=True))
    assert verdict.left == 11
    assert doomed.take(4).verdict is None
    assert doomed.take(9).verdict is None
    assert doomed.take(12).verdict is not verdict
    assert doomed.take(20).verdict is verdict


def test_a_reject_without_a_reason_says_that_it_was_one() -> None:
    doomed = Doomed()
    doomed.add(Piece(0, 0, 1), Verdict("", is_awaited=False))
    assert doomed.take(0).reason == "rejected"


def test_a_reason_is_cut_between_characters() -> None:
    doomed = Doomed()
    doomed.add(Piece(0, 0, 1), Verdict("\u00e9" * REASON_BYTES_MAX, is_awaited=False))
    assert doomed.take(0).reason == "\u00e9" * (REASON_BYTES_MAX // 2)


def test_a_million_different_reasons_take_no_more_than_a_thousand() -> None:
    doomed = Doomed()
    for number in range(3_000):
        doomed.add(Piece(number, number, 1), Verdict(f"reason {number}", is_awaited=False))
    reasons = [doomed.take(number).reason for number in range(3_000)]
    assert reasons[1_022] == "reason 1022"
    assert len(set(reasons)) == 1_024
    doomed.add(Piece(0, 0, 1), Verdict("later", is_awaited=False))
    assert doomed.take(0).reason == "later"


def test_all_that_wait_are_told_when_everything_is_forgotten() -> None:
    doomed, verdict = Doomed(), Verdict("x", is_awaited=True)
    doomed.add(Piece(0, 9, 1), verdict)
    doomed.add(Piece(20, 20, 2), None)
    assert list(doomed.attempts(2)) == [Piece(20, 20, 2)]
    assert list(doomed.take_all()) == [verdict]
    assert not doomed
