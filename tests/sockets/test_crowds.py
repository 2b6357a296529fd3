"""Ten thousand subscriptions of one Subscriber, and a thousand subscribers of one topic: ready, and nothing is missing."""

from __future__ import annotations

import resource
from contextlib import ExitStack
from pathlib import Path

import pytest

from patterns.sync import Admin, Publisher, Subscriber
from tests.processes import LONG, Broker, Program, until
from tests.sockets.places import Place

PATTERNS = 10_000
CROWD = 1_000 if LONG else 120
MESSAGES = 20_000 if LONG else 3_000
_FILES_EACH = 3  # of the broker and of the crowd, for each subscriber

enough_files = pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] < CROWD * _FILES_EACH + 100,
    reason=f"{CROWD} connections need {CROWD * _FILES_EACH + 100} open files: ulimit -n",
)


def _patterns() -> list[str]:
    shapes = ("orders.r{0}.item-{1}", "c{1}.*.x", "c{1}.>", "*.only-{1}")
    return [shapes[number % len(shapes)].format(number % 100, number) for number in range(PATTERNS)]


def test_ten_thousand_subscriptions_of_one_subscriber(place: Place) -> None:
    patterns = _patterns()
    with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), *patterns) as subscriber:
        subscriber.ready(30)
        for number, pattern in enumerate(patterns):
            publisher.publish(pattern.replace("*", "any").replace(">", "more.y"), number)
            publisher.publish(f"orders.r{number}.nobody-wants", number)
        publisher.flush(30)
        assert sorted(subscriber.receive(30).body for _ in patterns) == list(range(PATTERNS))
        publisher.publish("orders.r0.item-0", "end")
        assert subscriber.receive(30).body == "end"
        assert (subscriber.lost, subscriber.interruptions) == (0, 0)


def test_the_subscriptions_of_who_leaves_are_gone(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker, Admin(broker.url) as admin:
        with Subscriber(broker.url, *_patterns()[:2_000]) as subscriber:
            subscriber.ready(30)
            assert len(admin.status()["subscriptions"]) == 1_000  # as many rows as status shows
        until(lambda: admin.status()["subscriptions"] == {}, what="the end of its subscriptions")


@enough_files
def test_each_of_a_thousand_subscribers_gets_every_message(tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path, durable=False))
        crowds = [
            stack.enter_context(_crowd(tmp_path, broker.url, CROWD // 4, form, "n.>"))
            for form in ("json", "msgpack") * 2
        ]
        assert [crowd.line(60) for crowd in crowds] == ["ready"] * 4
        with Publisher(broker.url, timeout_s=60) as publisher:
            publisher.wait_for_subscribers(CROWD, timeout_s=30)
            for first in range(0, MESSAGES, 1_000):  # no faster than the crowd takes: it shares two processors
                for number in range(first, first + 1_000):
                    publisher.publish("n.x", {"number": number, "text": "x" * 80})
                publisher.flush(60)
                for crowd in crowds:
                    crowd.tell(str(first + 1_000))
                assert [crowd.line(60) for crowd in crowds] == [str(first + 1_000)] * 4


def test_a_peer_that_writes_json_may_have_ten_thousand_subscriptions(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker, Publisher(broker.url) as publisher:  # noqa: SIM117
        with _crowd(tmp_path, broker.url, 1, "json", *_patterns()) as one:
            assert one.line(60) == "ready"
            publisher.publish("orders.r0.item-0", 1)
            one.tell("1")
            assert one.line() == "1"


def _crowd(folder: Path, url: str, count: int, form: str, *patterns: str) -> Program:
    number = sum(1 for _ in folder.glob("crowd-*.err"))
    return Program(["-m", "tests.sockets.crowd", url, str(count), form, *patterns], folder / f"crowd-{number}.err")
