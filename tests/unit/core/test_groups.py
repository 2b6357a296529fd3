"""A group's account by itself: no session, no message."""

from __future__ import annotations

from zbroker.core.catalog import decode_operations, encode_operations
from zbroker.core.groups import UNSETTLED_MAX, Group
from zbroker.core.leases import Lease, Piece


def _group(start: int = 0) -> Group:
    group = Group(2, 1, "g", start)
    group.opened(start)
    return group


def _lend(group: Group, id: int, last: int, durable_next: int = 100) -> Lease:
    piece = group.next_piece(durable_next)
    assert piece is not None
    return group.lend(id, piece, min(last, piece.last), 0)


def test_new_messages_are_lent_in_order_and_once() -> None:
    group = _group()
    assert [_lend(group, 1, 9).first, _lend(group, 2, 19).first] == [0, 10]
    assert group.next_piece(20) is None
    assert group.balance(20)


def test_an_ack_of_part_leaves_the_rest_lent() -> None:
    group = _group()
    lease = _lend(group, 1, 9)
    assert group.settle(lease, [(2, 3), (8, 50)], "ack") == 4
    assert (group.acked, group.leased, lease.held) == (4, 6, 0b00_1111_0011)
    assert group.settle(lease, [(2, 3)], "ack") == 0
    assert group.balance(100)


def test_a_nack_counts_an_attempt_and_a_release_does_not() -> None:
    group = _group()
    lease = _lend(group, 1, 9)
    group.settle(lease, [(0, 0)], "nack")
    group.settle(lease, [(1, 1)], "release")
    assert [(one.first, one.attempt) for one in (_lend(group, 2, 9), _lend(group, 3, 9))] == [(1, 1), (0, 2)]
    assert group.redelivered == 1
    assert group.balance(100)


def test_redelivery_is_ordered_by_offset_and_takes_turns_with_new_messages() -> None:
    group = _group()
    lease = _lend(group, 1, 9)
    group.settle(lease, [(7, 7)], "nack")
    group.settle(lease, [(3, 3)], "nack")
    assert [_lend(group, n, 10).first for n in (2, 3, 4)] == [3, 10, 7]


def test_a_delayed_message_waits_for_its_time() -> None:
    group = _group()
    group.settle(_lend(group, 1, 0, 1), [], "nack", due=500)
    assert (group.next_piece(1), group.next_due(), group.waiting) == (None, 500, 1)
    assert not group.wake(499)
    assert group.wake(500)
    assert group.next_piece(1) == Piece(0, 0, 1)


def test_a_group_with_too_much_unsettled_gets_nothing_new() -> None:
    group = _group()
    _lend(group, 1, UNSETTLED_MAX - 1, 2 * UNSETTLED_MAX)
    assert group.next_piece(2 * UNSETTLED_MAX) is None


def test_what_waits_to_be_delivered_again_is_unsettled_too() -> None:
    group = _group()
    group.settle(_lend(group, 1, UNSETTLED_MAX - 1, 2 * UNSETTLED_MAX), [], "nack", due=500)
    assert group.next_piece(2 * UNSETTLED_MAX) is None


def test_what_was_delivered_twice_before_a_restart_is_claimed_by_nobody() -> None:
    group = Group(2, 1, "g", 0)
    group.recover("delivered", 3)
    group.recover("attempts", [[1, 1, 2]])
    group.opened(3)
    assert group.reclaim([(0, 2)]) == 2
    group.release_recovered()
    assert (group.next_piece(3), group.acked) == (Piece(1, 1, 2), 2)


def test_lost_offsets_ahead_of_the_cursor_are_passed_and_counted() -> None:
    group = Group(2, 1, "g", 0)
    group.lose(0, 3)
    group.lose(6, 7)
    group.opened(10)
    assert (group.cursor, group.lost) == (4, 6)
    assert [_lend(group, 1, 99, 10).count, _lend(group, 2, 99, 10).first] == [2, 8]
    assert group.next_piece(10) is None
    assert group.balance(10)


def test_operations_rebuild_the_group_and_may_be_applied_twice() -> None:
    group = _group(5)
    lease = _lend(group, 1, 14)
    group.settle(lease, [(5, 6), (9, 9)], "ack")
    group.settle(lease, [(7, 7)], "reject")
    group.settle(lease, [(8, 8)], "nack")
    _lend(group, 2, 8)
    [payload] = encode_operations([group])
    operations = decode_operations(payload)
    assert encode_operations([group]) == []
    again = Group(2, 1, "g", 5)
    for what, _, _, value in [*operations, *operations]:
        again.recover(what, value)
    again.opened(20)
    assert (again.acked, again.dead, again.cursor, again.waiting) == (3, 1, 15, 6)
    again.release_recovered()
    assert again.next_piece(20) == Piece(8, 8, 2)
    assert again.balance(20)


def test_many_fragmented_acks_become_several_records() -> None:
    group = _group()
    lease = _lend(group, 1, 39_999, 40_000)
    group.settle(lease, [(offset, offset) for offset in range(0, 40_000, 2)], "ack")
    payloads = encode_operations([group])
    assert len(payloads) == 4
    assert max(map(len, payloads)) < 100_000
    again = Group(2, 1, "g", 0)
    for payload in payloads:
        for what, _, _, value in decode_operations(payload):
            again.recover(what, value)
    assert again.acked == 20_000


def test_what_is_reclaimed_is_acked_unless_it_was_delivered_twice() -> None:
    again = Group(2, 1, "g", 0)
    again.recover("delivered", 10)
    again.recover("attempts", [[4, 4, 3]])
    again.opened(10)
    assert again.recovered
    assert again.next_piece(10) is None
    assert again.reclaim([(2, 5), (3, 6)]) == 4
    assert (again.acked, again.waiting, again.balance(10)) == (4, 6, True)
    again.release_recovered()
    tries = [(lease.first, lease.count, lease.attempt) for lease in (_lend(again, n, 9, 10) for n in range(3))]
    assert tries == [(0, 2, 2), (4, 1, 4), (7, 3, 2)]


def test_scattered_ranges_take_what_they_name_and_what_lies_outside_is_nothing():
    group = Group(1, 1, "g", 0)
    lease = group.lend(1, Piece(0, 999, 0), 999, 0)
    taken, count = lease.take([(3, 3), (8, 20), (500, 500), (990, 5_000), (7_000, 7_000)])
    assert taken == [(3, 3), (8, 20), (500, 500), (990, 999)]
    assert count == 25
    assert lease.held.bit_count() == 975


def test_what_nobody_began_with_comes_back_before_newer_messages_and_in_order() -> None:
    group = _group()
    first, second = _lend(group, 1, 9), _lend(group, 2, 19)
    group.settle(second, [], "release")
    group.settle(first, [(0, 2)], "ack")
    group.settle(first, [], "release")
    assert [(one.first, one.attempt) for one in (_lend(group, n, 99) for n in range(3, 6))] == [
        (3, 1),
        (10, 1),
        (20, 1),
    ]
    assert group.balance(100)


def test_what_is_given_back_and_taken_in_parts_keeps_its_order() -> None:
    group = _group()
    lease = _lend(group, 1, 9)
    group.settle(lease, [(7, 7)], "nack")
    group.settle(lease, [], "release")
    lent = [_lend(group, n, 1_000) if n % 2 else _lend(group, n, group.next_piece(100).first) for n in range(2, 7)]  # type: ignore[union-attr]
    assert [(one.first, one.count, one.attempt) for one in lent] == [
        (0, 1, 1), (1, 6, 1), (8, 1, 1), (9, 1, 1), (7, 1, 2),
    ]  # fmt: skip
