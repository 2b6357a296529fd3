"""A group's account by itself: no session, no message."""

from __future__ import annotations

from typing import Any

from patterns.wire.configs import GroupConfig
from zbroker.core.catalog import decode_operations, encode_operations
from zbroker.core.groups import Group
from zbroker.core.leases import Lease, Piece


def _group(start: int = 0, **config: Any) -> Group:
    group = Group(2, 1, "g", start, GroupConfig("s", "g", **config))
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


def test_a_nacked_message_waits_for_its_time() -> None:
    group = _group()
    group.settle(_lend(group, 1, 0, 1), [], "nack", now=200, delay=3)
    assert (group.next_piece(1), group.next_due(), group.waiting, group.delayed) == (None, 4_000, 1, 1)
    assert not group.wake(3_999)
    assert group.wake(4_000)
    assert (group.next_piece(1), group.waiting, group.delayed) == (Piece(0, 0, 1), 1, 0)


def test_a_delayed_message_is_passed_and_comes_first_when_it_is_due() -> None:
    group = _group()
    group.postpone(0, 1, 0, 3, 3)
    assert (group.cursor, group.waiting, group.delayed, group.balance(9)) == (2, 2, 2, True)
    assert _lend(group, 1, 4, 9).first == 2
    assert group.wake(3_000)
    assert [(one.first, one.attempt) for one in (_lend(group, 2, 1, 9), _lend(group, 3, 8, 9))] == [(0, 1), (5, 1)]
    assert group.redelivered == 0


def test_failures_wait_as_the_group_says_and_releases_do_not() -> None:
    group = _group(backoff_s=[1, 5])
    group.settle(_lend(group, 1, 0, 1), [], "expire", now=0)
    assert group.next_due() == 1_000_000
    group.wake(1_000_000)
    group.settle(_lend(group, 2, 0, 1), [], "release", now=1_000_000)
    assert group.next_due() is None
    for now, due in ((1_000_000, 6_000_000), (6_000_000, 11_000_000)):
        group.settle(_lend(group, 3, 0, 1), [], "nack", now=now)
        assert group.next_due() == due
        group.wake(due)
    group.settle(_lend(group, 4, 0, 1), [], "nack", now=0, delay=7)
    assert group.next_due() == 7_000


def test_so_many_are_woken_at_once_and_the_others_then() -> None:
    group = _group()
    for offset in range(3_000):
        group.postpone(offset, offset, 0, 1, 1)
    assert group.wake(1_000)
    assert (group.delayed, group.next_due()) == (1_976, 1_000)
    assert group.wake(1_000)
    assert group.wake(1_000)
    assert not group.wake(1_000)
    assert group.waiting == 3_000


def test_a_group_with_too_much_unsettled_gets_nothing_new() -> None:
    group = _group(unsettled_max=10)
    _lend(group, 1, 9, 20)
    assert group.next_piece(20) is None


def test_what_waits_to_be_delivered_again_is_unsettled_too() -> None:
    group = _group(unsettled_max=10)
    group.settle(_lend(group, 1, 9, 20), [], "nack", delay=500)
    assert group.next_piece(20) is None


def _again(*groups_payloads: bytes, now: int = 0, ahead: int = 0) -> Group:
    again = Group(2, 1, "g", 0)
    for payload in groups_payloads:
        for what, _, _, value in decode_operations(payload):
            again.recover(what, value)
    again.opened(20, now, ahead)
    return again


def test_a_released_message_comes_first_after_a_restart_too() -> None:
    group = _group()
    lease = _lend(group, 1, 9)
    group.settle(lease, [(3, 5)], "release")
    again = _again(*encode_operations([group]))
    assert again.next_piece(20) == Piece(3, 5, 0)
    assert (again.lend(5, Piece(3, 5, 0), 4, 0).attempt, again.next_piece(20)) == (1, Piece(5, 5, 0))
    again.release_recovered()
    assert (again.waiting, again.leased, again.balance(20)) == (8, 2, True)


def test_what_is_lent_after_a_release_was_begun_after_the_next_restart() -> None:
    group = _group()
    group.settle(_lend(group, 1, 9), [(3, 5)], "release")
    first = encode_operations([group])
    _lend(group, 2, 4)
    again = _again(*first, *encode_operations([group]))
    assert again.next_piece(20) == Piece(5, 5, 0)
    again.release_recovered()
    assert [_lend(again, n, 20).first for n in (3, 4, 5)] == [5, 0, 10]
    assert again.next_piece(20) == Piece(6, 9, 1)


def test_delays_survive_a_restart_and_are_never_longer_than_they_were() -> None:
    group = _group()
    group.postpone(0, 3, 0, 60_000, 60_000)
    group.settle(_lend(group, 1, 4), [], "nack", now=0, delay=30_000)
    payloads = encode_operations([group], ahead=1_000_000)
    for ahead, dues in (
        (1_000_000, (30_000, 60_000)),
        (0, (31_000, 61_000)),
        (1_020_000, (10_000, 40_000)),
        (5_000_000, (1_000, 1_000)),
    ):
        again = _again(*payloads, now=1_000_000, ahead=ahead)
        assert (again.delayed, again.waiting, again.next_piece(5)) == (5, 5, None)
        assert again.next_due() == dues[0] * 1_000
        again.wake(dues[0] * 1_000)
        assert (again.next_due() or 1_000_000) == dues[1] * 1_000
        assert again.balance(20)


def test_what_was_lent_since_is_not_delayed_any_more() -> None:
    group = _group()
    group.postpone(0, 3, 0, 5, 5)
    group.wake(5_000)
    _lend(group, 1, 1)
    again = _again(*encode_operations([group]), now=1_000)
    assert (again.delayed, again.waiting) == (2, 4)
    again.release_recovered()
    assert _lend(again, 1, 0).attempt == 2


def test_a_delay_of_which_the_cursor_is_not_known_is_none() -> None:
    group = _group()
    group.postpone(0, 3, 0, 5, 5)
    again = Group(2, 1, "g", 0)
    for what, _, _, value in decode_operations(encode_operations([group])[0]):
        if what != "delivered":
            again.recover(what, value)
    again.opened(20)
    assert (again.delayed, again.waiting, again.next_piece(20)) == (0, 0, Piece(0, 19, 0))


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
