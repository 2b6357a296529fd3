"""Delayed messages through sessions and frames: what a batch may say, and what a group makes of it."""

from __future__ import annotations

import pytest

from patterns.wire.frames import JSON
from patterns.wire.limits import DELAY_MS_MAX
from patterns.wire.messages import Codec, Columns, Leave
from tests.unit.core.durable import SECOND, Durable

DAY_MS = 86_400_000


def _bodies(rig: Durable, peer: bytes) -> list[int]:
    return [body for one in rig.deliveries(peer) for body in one.bodies]


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("mode", ["batches", "slices"])
def test_each_message_of_a_batch_waits_for_itself(codec: Codec, mode: str) -> None:
    rig = Durable()
    bodies: list[object] = [b"%d" % at if codec is Codec.RAW else at for at in range(6)]
    rig.producer().append(*bodies, columns=Columns(delays=[0, 2_000, 2_000, 0, 1_000, DAY_MS]), codec=codec)
    rig.turn()
    rig.consumer(mode=mode, codec=codec)
    assert _bodies(rig, b"c") == [bodies[0], bodies[3]]
    assert (rig.group()["delayed"], rig.group()["balanced"]) == (4, True)
    for later, found in ((1, [4]), (1, [1, 2]), (20, [])):
        rig.pass_time(later * SECOND)
        assert _bodies(rig, b"c") == [bodies[at] for at in found]
    assert (rig.group()["delayed"], rig.group()["leased"], rig.group()["redelivered"]) == (1, 5, 0)


def test_of_what_is_overdue_whole_batches_leave() -> None:
    rig = Durable()
    rig.producer().append(*range(5), columns=Columns(delays=[1_000] * 5), form=JSON)
    rig.turn()
    rig.pass_time(2 * SECOND)
    rig.consumer(mode="batches")
    [delivery] = rig.deliveries(b"c")
    assert (delivery.count, rig.group()["delayed"]) == (5, 0)


def test_a_group_waits_for_the_rest_of_a_delay() -> None:
    rig = Durable()
    rig.producer().append(1, columns=Columns(delays=[3_000]))
    rig.turn()
    rig.pass_time(2 * SECOND)
    rig.consumer()
    assert _bodies(rig, b"c") == []
    rig.pass_time(SECOND)
    assert _bodies(rig, b"c") == [1]


def test_a_batch_with_a_delay_beyond_a_year_is_refused_with_the_limit() -> None:
    rig = Durable()
    producer = rig.producer()
    for delay in (DELAY_MS_MAX + 1, 2**53 - 1):
        producer.append(1, 2, columns=Columns(delays=[0, delay]))
    producer.append(3, columns=Columns(delays=[DELAY_MS_MAX]))
    rig.turn()
    texts = [message.header.detail for message in rig.inbox[b"p"] if hasattr(message.header, "detail")]
    assert [str(DELAY_MS_MAX) in text for text in texts] == [True, True]
    assert rig.stream()["messages"] == 1


@pytest.mark.parametrize("delay_ms", [DELAY_MS_MAX + 1, 2**53 - 1])
def test_a_nack_with_a_delay_beyond_a_year_is_refused_and_changes_nothing(delay_ms: int) -> None:
    rig = Durable()
    rig.producer().append(1)
    rig.turn()
    rig.consumer()
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "nack", delay_ms=delay_ms)
    rig.turn()
    assert (rig.errors(b"c"), rig.group()["leased"]) == (["BAD_ARGUMENT"], 1)


def test_many_that_are_passed_take_turns_with_others() -> None:
    rig = Durable()
    producer = rig.producer()
    for at in range(2_000):
        producer.append(at, columns=Columns(delays=[DAY_MS]))
    rig.turn()
    rig.consumer()
    rounds = 0
    while rig.streams.next_timeout() == 0:
        rig.turn()
        rounds += 1
    assert rounds > 2
    assert rig.group()["delayed"] == 2_000


def test_messages_that_come_each_due_before_the_one_before_have_few_timers() -> None:
    rig = Durable()
    producer = rig.producer()
    rig.consumer()
    for at in range(500):
        producer.append(at, columns=Columns(delays=[DAY_MS - 1_000 * at]))
        rig.turn()
    assert rig.group()["delayed"] == 500
    assert len(rig.streams._timers._heap) < 10
    rig.pass_time((DAY_MS - 499_000) * 1_000)
    while not (found := _bodies(rig, b"c")):
        due = rig.streams.next_timeout()
        assert due is not None
        rig.pass_time(max(due - rig.now, 1))
    assert found == [499]


def test_what_is_due_at_once_is_given_in_the_order_of_the_stream() -> None:
    rig = Durable()
    producer = rig.producer()
    rig.consumer(mode="batches", credit=10_000)
    for at in range(3_000):
        producer.append(at, columns=Columns(delays=[1_000]))
    rig.turn()
    while rig.streams.next_timeout() == 0:
        rig.turn()
    rig.pass_time(SECOND)
    found = _bodies(rig, b"c")
    while len(found) < 3_000:
        rig.pass_time(1)
        found += _bodies(rig, b"c")
    assert found == list(range(3_000))


def test_a_slow_member_is_given_what_was_due_before_though_lower_offsets_get_due_all_the_time() -> None:
    rig = Durable()
    rig.producer().append(*range(20), columns=Columns(delays=[2_000 + 1_000 * at for at in range(10)] + [1_500] * 10))
    rig.turn()
    rig.consumer(credit=1)
    rig.pass_time(SECOND // 2)
    found: list[int] = []
    for taken in range(20):
        rig.credit(b"c", taken + 1)
        rig.pass_time(SECOND)
        rig.turn()
        found += _bodies(rig, b"c")
    assert found == [*range(10, 20), *range(10)]


def test_a_full_group_goes_on_when_something_is_settled() -> None:
    rig = Durable()
    rig.producer().append(*range(30))
    rig.turn()
    assert rig.ask("create_group", config={"stream": "s", "name": "g", "unsettled_max": 10})["created"]
    rig.consumer(mode="slices", credit=1_000)
    [delivery] = rig.deliveries(b"c")
    assert delivery.count == 30  # what is begun with is not cut
    rig.producer(b"q").append(*range(30, 33))
    rig.turn()
    assert rig.deliveries(b"c") == []
    rig.settle(b"c", delivery, ranges=[(0, 24)])
    rig.turn()
    assert _bodies(rig, b"c") == [30, 31, 32]


def test_delays_and_released_messages_are_as_before_in_a_next_life() -> None:
    rig = Durable()
    rig.producer().append(*range(6), columns=Columns(delays=[0, 0, 0, 0, 90_000, 90_000]))
    rig.turn()
    rig.consumer(mode="batches")
    [delivery] = rig.deliveries(b"c")
    rig.settle(b"c", delivery, "ack", ranges=[(0, 0)])
    rig.settle(b"c", delivery, "nack", ranges=[(1, 1)], delay_ms=60_000)
    rig.send(b"c", Leave(id=2))
    rig.turn()
    again = rig.crash()
    assert (again.group()["delayed"], again.group()["pending"], again.group()["balanced"]) == (3, 5, True)
    again.consumer(mode="batches")
    again.pass_time(3 * SECOND)
    assert [(one.bodies, one.attempt) for one in again.deliveries(b"c")] == [([2, 3], 1)]
    again.pass_time(60 * SECOND)
    again.pass_time(60 * SECOND)
    found = {(body, one.attempt) for one in again.deliveries(b"c") for body in one.bodies}
    assert found >= {(1, 2), (4, 1), (5, 1)}
