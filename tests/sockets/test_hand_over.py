"""What becomes of a group's messages when members leave, or take too long."""

from __future__ import annotations

import asyncio

import pytest

from patterns import aio
from patterns.sync import Consumer, Producer
from patterns.wire.errors import BadArgument, StaleLease
from tests.processes import Broker
from tests.sockets.members import IDLE_S, member, take

SHORT_S = 0.4


def test_a_group_keeps_the_order_while_its_members_change(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(40))
    found = []
    for count in (3, 6, 9, 22):
        with member(broker) as consumer:
            found += take(consumer, count)
    assert found == list(range(40))


def _attempts(broker: Broker, count: int) -> list[tuple[int, int]]:
    """What another member is given now, and which attempt it is."""
    with member(broker) as other:
        messages = iter(other)
        found = [next(messages) for _ in range(count)]
        for delivery in found:
            delivery.ack()
        return sorted((one.offset, one.attempt) for one in found)


def test_who_computes_for_too_long_loses_its_messages_and_only_the_one_it_was_given_counts_an_attempt(
    broker: Broker,
) -> None:
    with Producer(broker.url, "work") as out, member(broker, processing_max_s=SHORT_S) as slow:
        out.send_many(range(4))
        messages = iter(slow)
        held = next(messages)
        assert _attempts(broker, 4) == [(0, 2), (1, 1), (2, 1), (3, 1)]
        with pytest.raises(StaleLease, match=f"processing_max_s={SHORT_S}"):
            held.ack()
        with pytest.raises(StaleLease):
            held.ack(confirm=True)
        out.send("next")
        back = next(messages)
        assert (back.body, back.attempt) == ("next", 1)


def test_all_of_a_batch_counts_an_attempt_when_it_takes_too_long(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker, processing_max_s=SHORT_S) as slow:
        out.send_many(range(4))
        batch = next(slow.batches())
        assert _attempts(broker, 4) == [(offset, 2) for offset in range(4)]
        with pytest.raises(StaleLease):
            batch.ack()


def test_who_waits_for_more_is_given_again_what_nobody_has_settled_for_too_long(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker, processing_max_s=SHORT_S) as slow:
        out.send("a")
        messages = iter(slow)
        first = next(messages)
        again = next(messages)
        assert (first.offset, again.offset, again.attempt) == (0, 0, 2)


def test_what_waits_for_a_member_that_never_began_counts_no_attempt(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker, processing_max_s=SHORT_S) as idle:
        idle.ready()
        out.send("a")
        assert _attempts(broker, 1) == [(0, 1)]


def test_a_coroutine_that_takes_too_long_loses_its_messages(broker: Broker) -> None:
    asyncio.run(_take_too_long(broker.url))


async def _take_too_long(url: str) -> None:
    async with (
        aio.Producer(url, "work") as out,
        aio.Consumer(url, "work", group="g", processing_max_s=SHORT_S) as slow,
    ):
        await out.send_many(range(3))
        held = await slow.receive(IDLE_S)
        assert held is not None
        async with aio.Consumer(url, "work", group="g") as other:
            found = []
            while len(found) < 3:
                delivery = await other.receive(IDLE_S)
                assert delivery is not None
                delivery.ack()
                found.append((delivery.offset, delivery.attempt))
        assert sorted(found) == [(0, 2), (1, 1), (2, 1)]
        with pytest.raises(StaleLease, match="processing_max_s"):
            held.ack()
        await out.send("next")
        back = await slow.receive(IDLE_S)
        assert back is not None
        assert (back.body, back.attempt) == ("next", 1)


@pytest.mark.parametrize("seconds", [0, 0.05, -1, float("nan"), float("inf"), 1e10, True, "1"])
def test_a_time_that_cannot_be_kept_is_refused(seconds: object) -> None:
    with pytest.raises(BadArgument, match="processing_max_s="):
        Consumer("zb://127.0.0.1:1", "work", group="g", processing_max_s=seconds)  # type: ignore[arg-type]


def test_how_a_message_is_given_back_or_put_aside_says_what_is_wrong(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        out.send("a")
        delivery = next(iter(consumer))
        with pytest.raises(BadArgument, match="delay_s=-1"):
            delivery.nack(-1)
        with pytest.raises(BadArgument, match="seconds=-1"):
            delivery.extend(-1)
        delivery.reject()


def test_with_a_credit_of_one_a_member_has_one_message_until_it_is_settled(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker, credit=1) as slow:
        out.send_many(range(4))
        messages = iter(slow)
        held = next(messages)
        assert _attempts(broker, 3) == [(1, 1), (2, 1), (3, 1)]
        out.send("next")
        held.ack()
        assert next(messages).body == "next"


def test_a_default_member_has_nothing_beside_its_first_message(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as slow:
        out.send_many(range(4))
        next(iter(slow))
        assert _attempts(broker, 3) == [(1, 1), (2, 1), (3, 1)]
