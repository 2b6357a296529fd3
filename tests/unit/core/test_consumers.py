"""Leases over the wire: settle, stale, expiry, resume, restart."""

from __future__ import annotations

import pytest

from patterns.wire.messages import Codec, ErrorHeader, Goodbye, Join, Leave, Resume, Role, Settle
from tests.unit.core.durable import SECOND, Delivery, Durable


def _one(**options: object) -> tuple[Durable, Delivery]:
    """A consumer that holds a batch of four messages."""
    rig = Durable()
    rig.consumer(**{"mode": "batches", **options})  # type: ignore[arg-type]
    rig.producer().append(*"abcd")
    rig.turn()
    [delivery] = rig.deliveries(b"c")
    return rig, delivery


def test_an_acked_message_never_comes_back() -> None:
    rig, held = _one()
    rig.settle(b"c", held)
    rig.turn()
    rig.send(b"c", Goodbye())
    rig.consumer(b"d", mode="batches")
    assert rig.deliveries(b"d") == []
    again = rig.crash()
    again.consumer(mode="batches")
    again.pass_time(3 * SECOND)
    assert again.deliveries(b"c") == []
    assert again.group()["acked"] == 4


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize(
    ("ranges", "stale"), [([], 1), ([(0, 5)], 6), ([(0, 2**53 - 1)], 2**53 - 1)], ids=["all", "six", "too-many"]
)
def test_who_settles_what_it_never_had_is_answered(joined: bool, ranges: list[tuple[int, int]], stale: int) -> None:
    rig = Durable()
    if joined:
        rig.consumer()
    else:
        rig.hello(b"c", Role.CONSUMER)
    rig.send(b"c", Settle(id=7, lease=99, action="ack", ranges=ranges))
    rig.turn()
    assert rig.settled(b"c") == [(7, stale)]


def test_settled_comes_when_the_operation_is_on_disk() -> None:
    rig, held = _one()
    rig.settle(b"c", held, id=5, ranges=[(0, 1)])
    rig.turn(sync=False)
    assert rig.settled(b"c") == []
    rig.sync()
    assert rig.settled(b"c") == [(5, 0)]


def test_the_held_part_of_an_ack_applies_and_the_rest_counts_stale() -> None:
    rig, held = _one()
    rig.settle(b"c", held, id=1, ranges=[(2, 9)])
    rig.settle(b"c", held.lease + 7, id=2, ranges=[(0, 2)])
    rig.turn()
    assert rig.settled(b"c") == [(1, 6), (2, 3)]
    assert rig.group()["acked"] == 2


def test_a_stale_settle_without_an_id_is_an_error_and_changes_nothing() -> None:
    rig, held = _one()
    rig.consumer(b"d", credit=0)
    rig.settle(b"d", held)
    rig.turn()
    (error,) = rig.take(b"d", ErrorHeader)
    assert (error.name, "(offsets all)" in error.detail) == ("STALE_LEASE", True), error.detail
    assert rig.group()["acked"] == 0


def test_a_settle_that_makes_no_sense_is_refused() -> None:
    rig, held = _one()
    rig.settle(b"c", held, "eat")
    rig.settle(b"c", held, ranges=[(3, 1)])
    rig.turn()
    assert rig.errors(b"c") == ["BAD_ARGUMENT", "BAD_ARGUMENT"]


def test_from_attempt_two_on_slices_hold_one_message() -> None:
    rig, held = _one(mode="slices")
    rig.settle(b"c", held, "nack")
    rig.turn()
    again = rig.deliveries(b"c")
    assert [(d.bodies, d.attempt) for d in again] == [(["a"], 2), (["b"], 2), (["c"], 2), (["d"], 2)]


def test_batches_get_contiguous_pieces_of_equal_attempt() -> None:
    rig, held = _one()
    rig.settle(b"c", held, ranges=[(1, 1)])
    rig.settle(b"c", held, "nack")
    rig.turn()
    assert [(d.bodies, d.attempt) for d in rig.deliveries(b"c")] == [(["a"], 2), (["c", "d"], 2)]


def test_raw_pieces_of_a_batch_carry_their_sizes() -> None:
    rig = Durable()
    rig.consumer(mode="batches")
    rig.producer().append(b"a", b"bb", b"ccc", codec=Codec.RAW)
    rig.turn()
    [held] = rig.deliveries(b"c")
    rig.settle(b"c", held, ranges=[(0, 0)])
    rig.settle(b"c", held, "nack")
    rig.turn()
    assert [d.bodies for d in rig.deliveries(b"c")] == [[b"bb", b"ccc"]]


def test_a_nack_with_a_delay_comes_back_when_it_is_due() -> None:
    rig, held = _one()
    rig.settle(b"c", held, "nack", delay_ms=500)
    rig.turn()
    rig.pass_time(499_000)
    assert rig.deliveries(b"c") == []
    rig.pass_time(1_000)
    assert [d.attempt for d in rig.deliveries(b"c")] == [2]


def test_a_lease_without_progress_expires_and_its_late_ack_is_stale() -> None:
    rig, held = _one()
    rig.consumer(b"d", mode="batches")
    rig.pass_time(30 * SECOND)
    [again] = rig.deliveries(b"d") or rig.deliveries(b"c")
    assert (again.attempt, again.lease > held.lease) == (2, True)
    rig.settle(b"c", held, id=1, ranges=[(0, 3)])
    rig.turn()
    assert rig.settled(b"c") == [(1, 4)]


def test_any_settle_renews_all_that_the_session_holds() -> None:
    rig, held = _one()
    rig.pass_time(20 * SECOND)
    rig.settle(b"c", held, ranges=[(0, 0)])
    rig.pass_time(20 * SECOND)
    assert rig.group()["leased"] == 3
    rig.pass_time(10 * SECOND)
    assert rig.group()["leases_lost"] == 1


def test_extend_sets_the_end_further() -> None:
    rig, held = _one()
    rig.settle(b"c", held, "extend", delay_ms=100_000)
    rig.pass_time(99 * SECOND)
    assert rig.group()["leased"] == 4
    rig.pass_time(2 * SECOND)
    assert rig.group()["leases_lost"] == 1


def test_goodbye_and_leave_release_without_an_attempt() -> None:
    for farewell in (Goodbye(), Leave(id=1)):
        rig, _ = _one()
        rig.send(b"c", farewell)
        rig.consumer(b"d", mode="batches")
        assert [d.attempt for d in rig.deliveries(b"d")] == [1]


def test_a_lost_connection_keeps_its_leases_for_two_seconds_then_counts_an_attempt() -> None:
    rig, _ = _one()
    rig.disconnect(b"c")
    rig.consumer(b"d", mode="batches")
    rig.pass_time(1_999_000)
    assert rig.deliveries(b"d") == []
    rig.pass_time(1_000)
    assert [d.attempt for d in rig.deliveries(b"d")] == [2]


def test_resume_keeps_the_leases_it_names_and_gives_back_the_others() -> None:
    rig = Durable()
    rig.consumer(mode="batches")
    producer = rig.producer()
    for body in "ab":
        producer.append(body)
    rig.turn()
    first, second = rig.deliveries(b"c")
    rig.disconnect(b"c")
    rig.resume(b"c", b"c2", [first.lease])
    rig.turn()
    [again] = rig.deliveries(b"c2")
    assert (again.bodies, again.attempt, again.lease > second.lease) == (["b"], 1, True)
    rig.settle(b"c2", first, id=9)
    rig.turn()
    assert rig.settled(b"c2") == [(9, 0)]


def test_a_reader_that_comes_back_is_given_again_what_its_old_connection_lost() -> None:
    rig = Durable()
    rig.consumer(group="", mode="batches")
    producer = rig.producer()
    for body in "abc":
        producer.append(body)
    rig.turn()
    assert [d.bodies for d in rig.deliveries(b"c")] == [["a"], ["b"], ["c"]]  # "b" and "c" never arrive
    rig.disconnect(b"c")
    assert not rig.resume(b"c", b"c2", []).resumed
    rig.send(b"c2", Join(id=1, stream="s", group="", start=1, mode="batches"))
    rig.turn()
    assert [(d.offset, d.bodies) for d in rig.deliveries(b"c2")] == [(1, ["b"]), (2, ["c"])]


def test_after_a_restart_nothing_is_redelivered_for_two_seconds() -> None:
    rig, held = _one()
    rig.pass_time(20_000)  # the journal learns what was delivered
    again = rig.crash()
    again.consumer(mode="batches")
    assert again.deliveries(b"c") == []
    again.pass_time(2 * SECOND)
    [back] = again.deliveries(b"c")
    assert (back.attempt, back.lease > held.lease) == (2, True)


def test_after_a_restart_what_nobody_had_is_delivered_at_once() -> None:
    rig = Durable()
    rig.producer().append("a")
    rig.turn()
    rig.consumer(credit=0)
    again = rig.crash()
    again.consumer(mode="batches")
    assert [d.attempt for d in again.deliveries(b"c")] == [1]


def test_a_member_that_names_its_old_lease_may_ack_it_after_a_restart() -> None:
    rig, held = _one()
    rig.pass_time(20_000)
    again = rig.crash()
    again.hello(b"x", Role.CONSUMER)
    again.consumer(resume=Resume(1, 0, [held.lease]), mode="batches")
    again.settle(b"c", held.lease, id=1, ranges=[(0, 2)])
    again.settle(b"c", held.lease + 1, id=2, ranges=[(3, 3)])
    again.turn()
    assert again.settled(b"c") == [(1, 0), (2, 1)]
    again.pass_time(2 * SECOND)
    assert [d.bodies for d in again.deliveries(b"c")] == [["d"]]
    again.settle(b"c", held.lease, id=3, ranges=[(3, 3)])
    again.turn()
    assert again.settled(b"c") == [(3, 1)]


@pytest.mark.parametrize("action", ["nack", "reject", "release", "extend"])
def test_an_old_lease_can_only_be_acked_after_a_restart(action: str) -> None:
    rig, held = _one()
    rig.pass_time(20_000)
    again = rig.crash()
    again.consumer(resume=Resume(1, 0, [held.lease]), mode="batches")
    again.settle(b"c", held.lease, action, id=1, ranges=[(0, 3)])
    again.turn()
    assert again.settled(b"c") == [(1, 4)]
    assert (again.group()["acked"], again.group()["dead"]) == (0, 0)
    again.pass_time(2 * SECOND)
    assert [d.attempt for d in again.deliveries(b"c")] == [2]


def test_attempts_survive_a_restart() -> None:
    rig, held = _one()
    rig.settle(b"c", held, "nack")
    rig.turn()
    rig.deliveries(b"c")
    rig.pass_time(20_000)
    again = rig.crash()
    again.consumer(mode="batches")
    again.pass_time(2 * SECOND)
    assert {d.attempt for d in again.deliveries(b"c")} == {3}


def test_a_rejected_message_is_dead_and_stays_so() -> None:
    rig, held = _one()
    rig.settle(b"c", held, "reject", ranges=[(1, 1)], reason="no")
    rig.turn()
    assert (rig.group()["dead"], rig.crash().group()["dead"]) == (1, 1)


def test_the_same_join_again_may_change_from_slices_to_whole_batches() -> None:
    rig = Durable()
    rig.consumer(mode="slices", credit=1)
    rig.send(b"c", Join(id=2, stream="s", group="g", mode="batches"))
    rig.producer().append(*"abcd")
    rig.turn()
    [delivery] = rig.deliveries(b"c")
    assert delivery.bodies == list("abcd")
