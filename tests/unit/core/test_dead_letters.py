"""What becomes a dead letter, what it looks like, when its SETTLED comes, and that one record does all of it."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.wire.messages import Codec, Columns
from tests.unit.core.durable import SECOND, Delivery, Durable
from zbroker.core.dead_letters import LETTERS_MAX

Headers = dict[str, str]


def _rig(**config: Any) -> Durable:
    rig = Durable()
    rig.ask("create_group", config={"stream": "s", "name": "g", "dead_letter": "dead", **config})
    return rig


def _filled(count: int = 3, **config: Any) -> Durable:
    rig = _rig(**config)
    producer = rig.producer()
    for number in range(count):
        producer.append(number, -number)
    rig.turn()
    rig.consumer(mode="batches", credit=10_000)
    return rig


def _dead(rig: Durable, peer: bytes = b"reader") -> list[Delivery]:
    """All that the dead-letter stream holds."""
    rig.consumer(peer, stream="dead", group="", mode="batches", credit=100_000)
    rig.turn()
    return rig.deliveries(peer)


def _headers(delivery: Delivery) -> list[Headers | None]:
    headers = delivery.columns.headers
    assert isinstance(headers, list)
    return headers


def test_a_rejected_message_is_as_it_was_and_says_why_and_where_it_died() -> None:
    rig = _rig()
    columns = Columns(keys=["k0", "k1"], headers=[{"trace": "a", "zb-dead-group": "forged"}, None], ids=["i0", "i1"])
    rig.producer().append({"n": 0}, {"n": 1}, columns=columns, topic="orders.new", codec=Codec.JSON)
    rig.turn()
    rig.consumer(mode="batches", codec=Codec.JSON)
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "reject", ranges=[(1, 1)], reason="no such customer")
    rig.settle(b"c", delivery, "reject", ranges=[(0, 0)])
    rig.turn()
    [letter] = _dead(rig)
    assert (letter.bodies, letter.header.topic) == ([{"n": 0}, {"n": 1}], "orders.new")
    assert (letter.columns.keys, letter.columns.ids) == (["k0", "k1"], ["i0", "i1"])
    common = {"zb-dead-stream": "s", "zb-dead-group": "g", "zb-dead-attempts": "1"}
    common["zb-dead-published-at"] = str(delivery.header.published_at)
    assert _headers(letter) == [
        {"trace": "a", "zb-dead-reason": "rejected", "zb-dead-offset": "0", **common},
        {"zb-dead-reason": "no such customer", "zb-dead-offset": "1", **common},
    ]


def test_the_account_says_dead_and_balances_before_and_after_a_restart() -> None:
    rig = _filled()
    for delivery in rig.deliveries(b"c"):
        rig.settle(b"c", delivery, "reject" if delivery.offset else "ack")
    rig.turn()
    again = rig.crash()
    for one in (rig, again):
        group = one.group()
        assert (group["acked"], group["dead"], group["pending"], group["balanced"]) == (2, 4, 0, True)
        assert one.group("dead/redrive")["pending"] == 4
        assert one.group("dead/redrive")["balanced"]


def test_one_record_holds_both_the_letter_and_that_its_group_is_done_with_it() -> None:
    rig = _filled(1)
    [delivery] = rig.deliveries(b"c")
    before = len(rig.records)
    rig.settle(b"c", delivery, "reject")
    rig.turn()
    moves = [record for record in rig.records[before:] if record.count]
    assert len(moves) == 1
    for kept in range(before, len(rig.records) + 1):
        again = Durable(rig.records[:kept], epoch=2)
        done = again.group()["dead"]
        assert done == (2 if moves[0] in rig.records[:kept] else 0)
        assert done == (again.stream("dead")["messages"] if "dead" in again.names() else 0)


def test_a_message_that_failed_often_enough_moves_without_anybody_asking_for_it() -> None:
    rig = _filled(1, max_deliveries=3)
    for attempt in (1, 2, 3):
        for delivery in rig.deliveries(b"c"):
            assert delivery.attempt == attempt
            for offset in delivery.offsets:
                rig.settle(b"c", delivery, "ack" if offset else "nack", ranges=[(offset, offset)])
        rig.turn()
    assert rig.deliveries(b"c") == []
    [letter] = _dead(rig)
    assert letter.bodies == [0]
    assert _headers(letter)[0]["zb-dead-reason"] == "max_deliveries"  # type: ignore[index]
    assert _headers(letter)[0]["zb-dead-attempts"] == "3"  # type: ignore[index]


def test_a_lost_member_counts_as_a_failure_and_release_does_not() -> None:
    rig = _filled(1, max_deliveries=1)
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "release", ranges=[(0, 0)])
    rig.disconnect(b"c")
    rig.pass_time(3 * SECOND)
    assert (rig.group()["dead"], rig.group()["pending"]) == (1, 1)


def test_what_failed_often_enough_before_a_restart_moves_after_it_though_nobody_joins() -> None:
    rig = _filled(2, max_deliveries=2)
    for delivery in rig.deliveries(b"c"):
        rig.settle(b"c", delivery, "nack" if delivery.offset else "ack")
    rig.turn()
    assert [delivery.attempt for delivery in rig.deliveries(b"c")] == [2]
    again = rig.crash()
    assert again.group()["dead"] == 0, "its member may come back for them"
    for _ in range(3):
        again.pass_time(SECOND)
    assert (again.group()["dead"], again.group()["pending"]) == (1, 1)
    assert again.group()["balanced"]


def test_a_lower_bound_counts_for_failures_from_then_on_and_forgets_nothing_that_was_recovered() -> None:
    rig = _filled(3, max_deliveries=3)
    for delivery in rig.deliveries(b"c"):
        rig.settle(b"c", delivery, "nack")
    rig.pass_time(SECOND)
    again = rig.crash()
    again.pass_time(3 * SECOND)
    config = {"stream": "s", "name": "g", "dead_letter": "dead", "max_deliveries": 1}
    again.ask("create_group", config=config, change=True)
    again.consumer(mode="batches", credit=1_000)
    seen = []
    for _ in range(20):
        for delivery in again.deliveries(b"c"):
            seen += delivery.offsets
            again.settle(b"c", delivery)
        again.turn()
    assert seen == list(range(6))
    assert again.group()["pending"] == 0


def test_settled_comes_when_the_move_is_on_disk() -> None:
    rig = _filled(1)
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "reject", id=7)
    rig.turn(sync=False)
    assert rig.settled(b"c") == []
    rig.sync()
    assert rig.settled(b"c") == [(7, 0)]


def test_a_full_disk_parks_what_is_doomed_and_it_moves_when_there_is_room() -> None:
    rig = _filled(1)
    [delivery] = rig.deliveries(b"c")
    rig.streams.storage(full=True, failed=False)
    rig.settle(b"c", delivery, "reject", id=7, reason="x")
    rig.turn()
    group = rig.group()
    assert (group["dead"], group["waiting"], group["pending"], group["balanced"]) == (0, 2, 2, True)
    assert rig.deliveries(b"c") == []
    assert rig.settled(b"c") == []
    assert rig.streams.next_timeout() != 0, "it must not go round and round meanwhile"
    rig.streams.storage(full=False, failed=False)
    assert rig.streams.next_timeout() == 0
    rig.turn()
    assert rig.settled(b"c") == [(7, 0)]
    assert rig.group()["dead"] == 2


def test_a_dead_letter_stream_that_is_full_parks_them_until_it_has_room() -> None:
    rig = _rig()
    rig.ask("create_stream", config={"name": "dead", "retention": "work", "messages_max": 2}, change=True)
    rig.producer().append(*range(2))
    rig.producer(b"q").append(*range(2))
    rig.turn()
    rig.consumer(mode="batches", credit=100)
    for delivery in rig.deliveries(b"c"):
        rig.settle(b"c", delivery, "reject", id=delivery.offset + 1)
        rig.pass_time(20_000)
        rig.turn()
    assert (rig.group()["dead"], rig.group()["doomed"], rig.settled(b"c")) == (2, 2, [(1, 0)])
    assert rig.streams.next_timeout() != 0
    rig.ask("create_stream", config={"name": "dead"}, change=True)
    rig.pass_time(10 * SECOND)
    assert (rig.group()["dead"], rig.group()["doomed"], rig.settled(b"c")) == (4, 0, [(3, 0)])


def test_what_is_not_in_memory_is_read_back_first() -> None:
    rig = _filled(3, max_deliveries=1)
    rig.pass_time(SECOND)  # what was delivered is on record
    again = rig.crash()
    again.slow_disk = True
    again.pass_time(3 * SECOND)
    assert again.group()["dead"] == 0
    again.slow_disk = False
    for read in again.reads:
        again.answer(read)
        again.turn()
    assert again.group()["dead"] == 6
    assert [offset for letter in _dead(again) for offset in letter.offsets] == list(range(6))


def test_a_doomed_message_that_is_damaged_is_lost_and_no_dead_letter() -> None:
    rig = _filled(2, max_deliveries=1)
    rig.pass_time(SECOND)
    again = rig.crash()
    again.damaged = {next(record.index for record in again.records if record.count)}
    again.pass_time(3 * SECOND)
    again.turn()
    group = again.group()
    assert (group["lost"], group["dead"], group["pending"], group["balanced"]) == (2, 2, 0, True)


def test_so_many_that_their_headers_do_not_fit_one_record_take_several_in_order() -> None:
    rig = _rig()
    rig.producer().append(*range(1_000))
    rig.turn()
    rig.consumer(mode="batches")
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "reject", reason="\0" * 1_000, id=3)
    rig.turn()
    rig.turn()
    found = _dead(rig)
    assert [body for letter in found for body in letter.bodies] == list(range(1_000))
    assert len(found) > 1_000 // LETTERS_MAX
    assert rig.settled(b"c") == [(3, 0)]


def test_a_message_whose_own_headers_leave_no_room_loses_them_and_says_so() -> None:
    rig = _rig()
    rig.producer().append("x", columns=Columns(headers=[{"a": "x" * 500_000, "b": "y" * 548_400}], keys=["k"]))
    rig.turn()
    rig.consumer(mode="batches", credit=10)
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "reject")
    rig.turn()
    [letter] = _dead(rig)
    assert _headers(letter)[0]["zb-dead-headers-taken-out"] == "2"  # type: ignore[index]
    assert letter.columns.keys == ["k"]


def test_without_a_dead_letter_stream_what_is_rejected_is_counted_and_gone() -> None:
    rig = Durable()
    rig.producer().append(1)
    rig.turn()
    rig.consumer(mode="batches")
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "reject", id=1)
    rig.turn()
    assert rig.settled(b"c") == [(1, 0)]
    assert rig.group()["dead"] == 1
    assert rig.names() == ["s"]


def test_who_has_its_dead_letter_stream_taken_away_counts_rejects_and_offers_failures_again() -> None:
    rig = _filled(2, max_deliveries=1)
    rig.streams.storage(full=True, failed=False)
    first, second = rig.deliveries(b"c")
    rig.settle(b"c", first, "reject", id=1)
    rig.settle(b"c", second, "nack")
    rig.ask("create_group", config={"stream": "s", "name": "g"}, change=True)
    rig.streams.storage(full=False, failed=False)
    rig.turn()
    rig.turn()
    assert rig.group()["dead"] == 2
    assert rig.settled(b"c") == [(1, 0)]
    assert [(delivery.offset, delivery.attempt) for delivery in rig.deliveries(b"c")] == [(2, 2)]


def test_a_group_that_is_reset_forgets_what_was_doomed() -> None:
    rig = _filled(1)
    [delivery] = rig.deliveries(b"c")
    rig.streams.storage(full=True, failed=False)
    rig.settle(b"c", delivery, "reject", id=1)
    rig.turn()
    rig.ask("reset_group", stream="s", group="g")
    rig.streams.storage(full=False, failed=False)
    rig.turn()
    assert (rig.group()["dead"], rig.group()["pending"], rig.group()["balanced"]) == (0, 2, True)
    assert rig.settled(b"c") == [(1, 0)]


@pytest.mark.parametrize("mode", ["batches", "slices"])
def test_where_failures_count_a_member_has_one_failed_message_at_a_time(mode: str) -> None:
    rig = _rig(max_deliveries=5)
    producer = rig.producer()
    producer.append(*range(10))
    rig.turn()
    rig.consumer(mode=mode)
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "nack")
    rig.turn()
    for expected in range(10):
        [alone] = rig.deliveries(b"c")
        assert (alone.offsets, alone.attempt) == ([expected], 2)
        producer.append("new")
        rig.turn()
        [new] = rig.deliveries(b"c")
        assert (new.bodies, new.attempt) == (["new"], 1), "new messages are not held up"
        rig.settle(b"c", alone)
        rig.turn()


def test_two_members_have_a_failed_message_each() -> None:
    rig = _rig(max_deliveries=5)
    rig.producer().append(*range(10))
    rig.turn()
    rig.consumer(b"c")
    [delivery] = rig.deliveries(b"c")
    rig.consumer(b"d")
    rig.settle(b"c", delivery, "nack")
    rig.turn()
    assert sorted(one.offset for peer in (b"c", b"d") for one in rig.deliveries(peer)) == [0, 1]


def test_a_message_for_one_group_is_passed_over_by_others_and_seen_by_readers() -> None:
    rig = _filled(1)
    rig.consumer(b"other", group="other", mode="batches")
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "reject", ranges=[(0, 0)])
    rig.turn()
    assert rig.ask("redrive_dead", stream="dead")["redriven"] == 1
    rig.turn()
    [again] = rig.deliveries(b"c")
    assert (again.bodies, again.attempt, again.offset) == ([0], 1, 2)
    assert [body for one in rig.deliveries(b"other") for body in one.bodies] == [0, 0]
    group = rig.group("s/other")
    assert (group["accepted"], group["expired"], group["passed"], group["balanced"]) == (2, 0, 1, True)
    rig.consumer(b"reader", group="", mode="batches")
    assert [body for one in rig.deliveries(b"reader") for body in one.bodies] == [0, 0, 0]


def test_a_group_that_had_no_room_for_more_goes_on_when_its_dead_letters_have_left_it() -> None:
    rig = _filled(3, unsettled_max=2)
    [held] = rig.deliveries(b"c")
    rig.settle(b"c", held, "reject")
    for _ in range(3):
        rig.turn()
    assert [delivery.offset for delivery in rig.deliveries(b"c")] == [2]
