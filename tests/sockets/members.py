"""Members of a group, as tests of streams make and use them. No test lives here."""

from __future__ import annotations

from patterns.sync import Consumer
from tests.processes import Broker

IDLE_S = 20.0  # less than a lease: whoever gets a message that another one holds got it for its sake


def member(broker: Broker, **more: object) -> Consumer:
    """Of group g of stream work."""
    return Consumer(broker.url, "work", **{"group": "g", "idle_timeout_s": IDLE_S, **more})


def take(consumer: Consumer, count: int) -> list[object]:
    """So many bodies, each acked."""
    messages = iter(consumer)
    found = []
    for _ in range(count):
        delivery = next(messages)
        found.append(delivery.body)
        delivery.ack()
    return found
