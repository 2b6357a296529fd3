"""What becomes of a group's messages when members leave, or take too long."""

from __future__ import annotations

from patterns.sync import Consumer, Producer
from tests.processes import Broker

IDLE_S = 20.0


def _consumer(broker: Broker, **more: object) -> Consumer:
    return Consumer(broker.url, "work", **{"group": "g", "idle_timeout_s": IDLE_S, **more})


def _take(consumer: Consumer, count: int) -> list[int]:
    messages = iter(consumer)
    found = []
    for _ in range(count):
        delivery = next(messages)
        found.append(delivery.offset)
        delivery.ack()
    return found


def test_a_group_keeps_the_order_while_its_members_change(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(40))
    found = []
    for count in (3, 6, 9, 22):
        with _consumer(broker) as consumer:
            found += _take(consumer, count)
    assert found == list(range(40))
