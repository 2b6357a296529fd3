"""A Publisher behind a broker that takes too slowly: who raises has not taken its message, who returns has."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from patterns.core.publish import OUTBOX_BYTES_MAX
from patterns.sync import Publisher
from patterns.wire.errors import Closed, Overloaded
from tests.processes import until
from tests.sockets.places import Crowd
from tests.sockets.stingy import StingyBroker

FILLER = "x" * 100_000


@pytest.fixture
def stingy() -> Iterator[StingyBroker]:
    with StingyBroker() as broker:
        yield broker


def _fill(publisher: Publisher) -> list[object]:
    """Publish until there is no room; what was taken."""
    taken: list[object] = []
    with pytest.raises(Overloaded, match="not taken"):  # noqa: PT012  one of them has no room
        while True:
            publisher.publish("n.x", [len(taken), FILLER])
            taken.append(len(taken))
    return taken


def _numbers(broker: StingyBroker) -> list[object]:
    return [body[0] if isinstance(body, list) else body for body in broker.bodies]


def test_a_publish_that_raises_has_not_taken_its_message_and_the_earlier_ones_stay(stingy: StingyBroker) -> None:
    with Publisher(stingy.url, timeout_s=0.1) as publisher:
        taken = _fill(publisher)
        for topic in ("n.x", "n.y", "other", "another.z"):  # full lanes, and some that were never used
            with pytest.raises(Overloaded):
                publisher.publish(topic, "refused")
        stingy.give()
        until(lambda: publisher._engine.room, what="the room")
        publisher.publish("n.x", "last")
        publisher.flush(30)
        until(lambda: len(stingy.bodies) > len(taken))
        assert _numbers(stingy) == [*taken, "last"]


def test_a_publish_that_waits_goes_on_when_there_is_room(stingy: StingyBroker) -> None:
    with Publisher(stingy.url, timeout_s=0.1) as publisher:
        taken = _fill(publisher)
        publisher._timeout_s = 30.0
        crowd = Crowd()
        crowd.run(publisher.publish, "n.x", "waited")
        until(lambda: publisher._driver.is_led, what="the waiting")
        stingy.give()
        crowd.join()
        publisher.flush(30)
        until(lambda: len(stingy.bodies) > len(taken))
        assert _numbers(stingy) == [*taken, "waited"]


def test_threads_that_share_an_overloaded_publisher_each_know_what_was_taken(stingy: StingyBroker) -> None:
    taken: dict[int, list[object]] = {who: [] for who in range(4)}
    with Publisher(stingy.url, timeout_s=0.05) as publisher:

        def publish(who: int) -> None:
            refused = 0
            for number in range(1_000_000):
                try:
                    publisher.publish(f"t{who}.x", [(who, number), FILLER])
                    taken[who].append([who, number])
                except Overloaded:
                    refused += 1
                if refused == 3:
                    return

        crowd = Crowd()
        for who in taken:
            crowd.run(publish, who)
        crowd.join()
        stingy.give()
        publisher.flush(30)
        total = sum(map(len, taken.values()))
        until(lambda: len(stingy.bodies) >= total)
        came = _numbers(stingy)
        assert len(came) == total
        for who, numbers in taken.items():
            assert [one for one in came if one[0] == who] == numbers


def test_single_messages_fill_no_more_memory_than_bursts(stingy: StingyBroker) -> None:
    with Publisher(stingy.url, timeout_s=0.01) as publisher:
        with pytest.raises(Overloaded):  # noqa: PT012  one of them has no room
            for number in range(10_000):
                publisher.publish(f"n{number % 8}.x", FILLER)
                until(lambda: publisher._lanes.is_empty or not publisher._engine.room, what="the keeper's turn")
        assert publisher._engine.unsent < OUTBOX_BYTES_MAX + 10 * len(FILLER)


def test_close_ends_a_publish_that_waits(stingy: StingyBroker) -> None:
    publisher = Publisher(stingy.url, timeout_s=0.1)
    _fill(publisher)
    publisher._timeout_s = 30.0
    refused = threading.Event()

    def publish() -> None:
        with pytest.raises(Closed):
            publisher.publish("n.x", "late")
        refused.set()

    crowd = Crowd()
    crowd.run(publish)
    until(lambda: publisher._driver.is_led, what="the waiting")
    publisher.close(0.1)
    crowd.join()
    assert refused.is_set()
