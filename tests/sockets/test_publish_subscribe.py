"""Publisher and Subscriber over real sockets: nothing missed after ready(), every loss counted, nobody held up by another."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from patterns.sync import Publisher, Subscriber
from patterns.wire.errors import BadArgument, BadName, NotInThisDeployment, TimedOut, Unavailable
from tests.processes import LONG, Broker, only_long, program, until
from tests.sockets.places import Crowd, Place

IDLE_S = 20.0

PUBLISHER = """
import sys
from patterns.sync import Publisher
with Publisher(sys.argv[1]) as publisher:
    print(publisher.address)
    for line in sys.stdin:
        first, last = map(int, line.split())
        for number in range(first, last):
            publisher.publish("n.x", number)
        publisher.flush()
        print("published")
"""

ONE_SHOT = """
import sys
from patterns.sync import Publisher
with Publisher(sys.argv[1]) as publisher:
    print(publisher.address)
    publisher.wait_for_subscribers(1, timeout_s=20)
    for number in range(1_000):
        publisher.publish("n.x", number)
"""

SLOW = """
import sys
from patterns.sync import Subscriber
with Subscriber(sys.argv[1], "n.>") as subscriber:
    subscriber.ready()
    print("ready")
    subscriber.receive(20)
    received = 1
    sys.stdin.readline()
    while subscriber.receive(1) is not None:
        received += 1
    print("drained")
    assert subscriber.receive(20).body == "end"
    print(received, subscriber.lost, subscriber.interruptions)
"""


@pytest.fixture
def publisher(place: Place) -> Iterator[Publisher]:
    with Publisher(place.bind) as found:
        yield found


def _bodies(subscriber: Subscriber, count: int) -> list[object]:
    return [subscriber.receive(IDLE_S).body for _ in range(count)]


def test_what_is_published_after_ready_arrives_in_order(place: Place, publisher: Publisher) -> None:
    with Subscriber(place.of(publisher), "n.>") as subscriber:
        subscriber.ready()
        for number in range(5_000):
            publisher.publish("n.x", number)
        assert _bodies(subscriber, 5_000) == list(range(5_000))
        assert (subscriber.lost, subscriber.interruptions) == (0, 0)


def test_the_first_message_right_after_ready_is_never_missed(place: Place, publisher: Publisher) -> None:
    for number in range(50 if not LONG else 500):
        with Subscriber(place.of(publisher), "n.>") as subscriber:
            subscriber.ready()
            publisher.publish("n.x", number)
            assert subscriber.receive(IDLE_S).body == number


def test_the_first_message_after_wait_for_subscribers_is_never_missed(place: Place) -> None:
    for number in range(50 if not LONG else 500):
        with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), "n.>") as subscriber:
            publisher.wait_for_subscribers(1, timeout_s=10)
            publisher.publish("n.x", number)
            assert subscriber.receive(IDLE_S).body == number


def test_a_message_leaves_though_the_program_never_calls_again(place: Place, publisher: Publisher) -> None:
    with Subscriber(place.of(publisher), ">") as subscriber:
        subscriber.ready()
        for number in range(20):
            publisher.publish("n.x", number)
            assert subscriber.receive(5).body == number


def test_wildcards(place: Place, publisher: Publisher) -> None:
    topics = ["orders.eu.created", "orders.us.created", "orders.eu", "bills.eu.created", "orders.eu.created.late"]
    wanted = {
        "orders.*.created": ["orders.eu.created", "orders.us.created"],
        "orders.>": [topic for topic in topics if topic.startswith("orders.")],
        "*.eu.created": ["orders.eu.created", "bills.eu.created"],
        ">": topics,
        "orders.eu": ["orders.eu"],
    }
    with ExitStack() as stack:
        subscribers = {p: stack.enter_context(Subscriber(place.of(publisher), p, "end")) for p in wanted}
        for subscriber in subscribers.values():
            subscriber.ready()
        for topic in [*topics, "end"]:
            publisher.publish(topic, topic)
        for pattern, subscriber in subscribers.items():
            found = {subscriber.receive(IDLE_S).topic for _ in range(len(wanted[pattern]) + 1)}
            assert found == {*wanted[pattern], "end"}, pattern


def test_a_message_that_two_patterns_match_comes_once(place: Place, publisher: Publisher) -> None:
    with Subscriber(place.of(publisher), "a.>", "*.b") as subscriber:
        subscriber.ready()
        publisher.publish("a.b", 1)
        publisher.publish("a.b", 2)
        assert _bodies(subscriber, 2) == [1, 2]


@pytest.mark.parametrize("codec", ["msgpack", "json", "raw"])
def test_each_codec_carries_headers_and_bodies(place: Place, codec: str) -> None:
    body = b"\x00\xff" if codec == "raw" else {"sku": 7, "words": ["a", None]}
    with Publisher(place.bind, codec=codec) as publisher, Subscriber(place.of(publisher), ">", codec=codec) as listener:
        listener.ready()
        publisher.publish("a.b", body, headers={"from": "here"})
        message = listener.receive(IDLE_S)
        assert (message.topic, message.body, message.headers) == ("a.b", body, {"from": "here"})


def test_threads_share_a_publisher(place: Place, publisher: Publisher) -> None:
    with Subscriber(place.of(publisher), ">") as subscriber:
        subscriber.ready()
        crowd = Crowd()
        for who in range(8):
            crowd.run(lambda who=who: [publisher.publish(f"t{who}.x", [who, number]) for number in range(500)])
        crowd.join()
        found: dict[int, list[int]] = {who: [] for who in range(8)}
        for who, number in _bodies(subscriber, 4_000):
            found[who].append(number)
        assert all(numbers == list(range(500)) for numbers in found.values())


def test_close_from_another_thread_ends_iteration(place: Place, publisher: Publisher) -> None:
    subscriber = Subscriber(place.of(publisher), ">")
    subscriber.ready()
    crowd = Crowd()
    crowd.run(list, subscriber)
    until(lambda: subscriber._driver.is_led, 10, "the waiting")
    subscriber.close()
    crowd.join()


def test_iteration_ends_when_idle_and_goes_on(place: Place, publisher: Publisher) -> None:
    with Subscriber(place.of(publisher), ">", idle_timeout_s=0.3) as subscriber:
        subscriber.ready()
        assert list(subscriber) == []
        publisher.publish("a", 1)
        publisher.flush()
        assert subscriber.receive(IDLE_S).body == 1


def test_a_program_that_publishes_and_ends_still_delivers(place: Place, tmp_path: Path) -> None:
    with program(ONE_SHOT, tmp_path, place.bind) as ending:
        address = ending.line()
        with Subscriber(place.broker.url if place.broker else address, ">") as subscriber:
            assert _bodies(subscriber, 1_000) == list(range(1_000))
        assert ending.wait() == 0


def test_a_subscriber_hears_several_publishers_and_counts_a_restarted_one(tmp_path: Path) -> None:
    with Publisher("tcp://127.0.0.1:0") as steady, program(PUBLISHER, tmp_path, "tcp://127.0.0.1:0") as mortal:
        address = mortal.line()
        with Subscriber(f"{steady.address},{address}", ">") as subscriber:
            subscriber.ready(10)
            mortal.tell("0 100")
            assert _bodies(subscriber, 100) == list(range(100))
            mortal.kill()
            with program(PUBLISHER, tmp_path, address) as heir:
                heir.line()
                until(lambda: subscriber.receive(0.01) or subscriber.interruptions, 20, "the interruption")
                steady.publish("s", "steady")
                assert _bodies(subscriber, 1) == ["steady"]
                heir.tell("100 200")
                assert _bodies(subscriber, 100) == list(range(100, 200))
                assert (subscriber.lost, subscriber.interruptions) == (0, 1)


def test_a_broker_restart_is_one_interruption(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker, Publisher(broker.url) as publisher:  # noqa: SIM117
        with Subscriber(broker.url, ">") as subscriber:
            subscriber.ready()
            publisher.publish("a", 1)
            assert _bodies(subscriber, 1) == [1]
            broker.kill()
            until(lambda: broker.epochs[-1] < _seconds(), 5, "another second, which is the next epoch")
            broker.start()
            until(lambda: subscriber.receive(0.01) or subscriber.interruptions, 20, "the interruption")
            subscriber.ready(10)
            publisher.wait_for_subscribers(1, timeout_s=10)
            publisher.publish("a", 2)
            assert _bodies(subscriber, 1) == [2]
            assert subscriber.interruptions == 1


def _seconds() -> int:
    import time

    return time.time_ns() // 1_000_000_000


def test_a_slow_subscriber_loses_exactly_what_it_is_told_and_another_nothing(tmp_path: Path) -> None:
    count = 1_000_000 if LONG else 300_000
    with Broker(tmp_path, durable=False) as broker, program(SLOW, tmp_path, broker.url) as slow:
        assert slow.line() == "ready"
        with Subscriber(broker.url, ">") as quick, Publisher(broker.url, timeout_s=30) as publisher:
            quick.ready()
            body = "x" * 90
            crowd = Crowd()
            taken = _Count()
            crowd.run(lambda: taken.up(_until_end(quick)))
            for number in range(count):
                publisher.publish("n.x", body)
                if number % 5_000 == 0:  # its pace is the quick one's: else both lose, whatever the slow one does
                    until(lambda sent=number: taken.number > sent - 50_000, 30, "the quick one's taking")
            publisher.flush(30)
            publisher.publish("e.x", "end")
            crowd.join(60)
            slow.tell("go on")
            assert slow.line(60) == "drained"
            publisher.publish("n.x", "end")  # the account comes before the next message
            received, lost, interruptions = map(int, slow.line(60).split())
            assert taken.number == count
            assert (quick.lost, quick.interruptions) == (0, 0)
            assert lost > 0, "it was stopped for longer than the broker's budget lasts"
            assert received + lost == count
            assert interruptions == 0


class _Count:
    def __init__(self) -> None:
        self.number = 0

    def up(self, bodies: Iterator[object]) -> None:
        for _ in bodies:
            self.number += 1


def _until_end(subscriber: Subscriber) -> Iterator[object]:
    for message in subscriber:
        if message.body == "end":
            return
        yield message.body


def test_wrong_use_is_refused_at_once() -> None:
    with pytest.raises(NotInThisDeployment):
        Publisher("tcp://127.0.0.1:0", security="keys")
    with pytest.raises(NotInThisDeployment):
        Subscriber("tcp://127.0.0.1:9", ">", security="keys")
    with pytest.raises(BadArgument):
        Subscriber("tcp://127.0.0.1:9")
    with pytest.raises(BadName):
        Subscriber("tcp://127.0.0.1:9", "a..b")
    with Publisher("tcp://127.0.0.1:0") as publisher:
        with pytest.raises(BadName):
            publisher.publish("a.*", 1)
        with pytest.raises(TimedOut):
            publisher.wait_for_subscribers(1, timeout_s=0.1)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "zb://127.0.0.1:9"])
def test_nobody_there_is_unavailable_and_the_text_names_the_address(address: str) -> None:
    with Subscriber(address, ">") as subscriber, pytest.raises(Unavailable, match=re.escape("127.0.0.1:9")):
        subscriber.ready(0.5)


def test_the_one_missing_address_is_named() -> None:
    with Publisher("tcp://127.0.0.1:0") as there, Subscriber(f"{there.address},tcp://127.0.0.1:9", ">") as subscriber:  # noqa: SIM117
        with pytest.raises(Unavailable, match=re.escape("127.0.0.1:9")):
            subscriber.ready(0.5)


@only_long
def test_many_subscribers_come_and_go_under_load(place: Place, publisher: Publisher) -> None:
    ended = threading.Event()
    crowd = Crowd()

    def publish() -> None:
        number = 0
        while not ended.is_set():
            publisher.publish("n.x", number)
            number += 1

    crowd.run(publish)
    for _ in range(100):
        with Subscriber(place.of(publisher), "n.>") as subscriber:
            subscriber.ready(20)
            first = subscriber.receive(IDLE_S).body
            assert _bodies(subscriber, 100) == list(range(first + 1, first + 101))
            assert subscriber.lost == 0
    ended.set()
    crowd.join()
