"""What a really slow subscriber is told to have lost, against what was published: filters, channels, policies, a killed broker."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Publisher, Subscriber
from patterns.wire.errors import BadArgument, NotInThisDeployment
from patterns.wire.names import matcher
from tests.processes import LONG, Broker, Program, program, until
from tests.sockets.places import Crowd

PATTERNS = ("n.a", "n.c.>", "*.x")
TOPICS = ("n.a", "n.b", "n.c.d.e", "other.x", "other.y", "third.z")  # n.* share a channel; half of them are wanted
FILLER = "f" * 400
FLOOD = 300_000 if LONG else 72_000  # of 400 bytes: what waits for a subscriber has 8 MiB, what is under way to it 4

# Takes a little and slowly, then nothing until it is told to; then all up to the first "end", whose number it prints.
SLOW = """
import json, sys, time
from patterns.sync import Subscriber
from patterns.wire.errors import SlowSubscriber
received, end, error, last = 0, None, None, {}
with Subscriber(sys.argv[1], *sys.argv[3:], overflow=sys.argv[2]) as subscriber:
    subscriber.ready(30)
    print("ready")
    try:
        for message in subscriber:
            if message.topic == "end.x":
                end = message.body
                break
            who, number, _ = message.body
            place = who, message.topic.partition(".")[0]
            assert number > last.get(place, -1), "out of order, or twice"
            last[place] = number
            received += 1
            if received % 100 == 0 and received <= 1_000:
                time.sleep(0.01)
            if received == 1_000:
                print("slow")
                sys.stdin.readline()
    except SlowSubscriber as slow:
        error = str(slow)
    print(json.dumps([received, subscriber.lost, subscriber.interruptions, end, error]))
"""


def _slow(url: str, folder: Path, overflow: str, patterns: tuple[str, ...] = PATTERNS) -> Program:
    return program(SLOW, folder, url, overflow, *patterns, *(("end.x",) if "*.x" not in patterns else ()))


def _publish(publisher: Publisher, who: int, count: int) -> None:
    for number in range(count):
        publisher.publish(TOPICS[number % len(TOPICS)], [who, number, FILLER])
    publisher.flush(60)


def _let_go(publisher: Publisher, slow: list[Program]) -> list[Any]:
    """Let them take the rest; what each says in the end. The ends before the one that it got were matched, and lost."""
    found: list[Any] = []
    crowd = Crowd()
    for one in slow:
        one.tell("go on")
    crowd.run(lambda: found.extend(json.loads(one.line(60)) for one in slow))
    ends = iter(range(1_000_000))

    def is_over() -> bool:
        if len(found) < len(slow):
            publisher.publish("end.x", next(ends))
            publisher.flush(60)
        return len(found) == len(slow)

    until(is_over, 60, "the end of the slow ones")
    crowd.join()
    return found


def _wanted(count: int) -> int:
    matches = matcher(PATTERNS)
    return sum(matches(TOPICS[number % len(TOPICS)]) for number in range(count))


def test_what_is_lost_is_exactly_what_was_published_less_what_was_received(tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path, durable=False))
        policies = ("drop_newest", "drop_oldest", "disconnect")
        slow = [stack.enter_context(_slow(broker.url, tmp_path, policy)) for policy in policies]
        assert [one.line() for one in slow] == ["ready"] * 3
        publishers = [stack.enter_context(Publisher(broker.url, timeout_s=60)) for _ in range(2)]
        for publisher in publishers:
            publisher.wait_for_subscribers(3, timeout_s=30)
        crowd = Crowd()
        for who, publisher in enumerate(publishers):
            crowd.run(_publish, publisher, who, FLOOD)
        crowd.join(60)
        admin = stack.enter_context(Admin(broker.url))
        until(
            lambda: admin.status()["counters"]["published"] == 2 * FLOOD,
            60,
            "all that was published reaching the broker",
        )
        assert [one.line() for one in slow] == ["slow"] * 3
        newest, oldest, ended = _let_go(publishers[0], slow)
        published = 2 * _wanted(FLOOD)
        for received, lost, interruptions, end, error in (newest, oldest):
            assert lost > 0, "it was stopped for longer than the broker's budget lasts"
            assert received + lost == published + end
            assert (interruptions, error) == (0, None)
        received, lost, interruptions, end, error = ended
        assert "overflow='disconnect'" in error
        assert (end, interruptions) == (None, 0)
        assert lost > 0
        assert received + lost <= published
        dropped = admin.status()["counters"]["live_dropped"]
        assert dropped == newest[1] + oldest[1] + ended[1]


@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
def test_with_a_broker_killed_in_the_middle_lost_is_a_lower_bound_and_the_break_is_told(
    policy: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path, durable=False))
        slow = stack.enter_context(_slow(broker.url, tmp_path, policy))
        assert slow.line() == "ready"
        publishers = [stack.enter_context(Publisher(broker.url, timeout_s=60)) for _ in range(2)]
        for publisher in publishers:
            publisher.wait_for_subscribers(1, timeout_s=30)
        half = FLOOD // 2
        for who, publisher in enumerate(publishers):
            _publish(publisher, who, half)
        assert slow.line() == "slow"
        crowd = Crowd()
        for who, publisher in enumerate(publishers):
            crowd.run(_publish_on, publisher, who, half)
        broker.restart()
        crowd.join(60)
        ((received, lost, interruptions, end, error),) = _let_go(publishers[0], [slow])
        assert received + lost <= 2 * _wanted(FLOOD) + end
        assert interruptions >= 1
        assert error is None


def _publish_on(publisher: Publisher, who: int, first: int) -> None:
    for number in range(first, 2 * first):
        publisher.publish(TOPICS[number % len(TOPICS)], [who, number, FILLER])
    publisher.flush(60)


def test_peer_to_peer_lost_is_a_lower_bound(tmp_path: Path) -> None:
    count = 6_000  # batches, each of one message: libzmq's marks count those
    with Publisher("tcp://127.0.0.1:0") as publisher, _slow(publisher.address, tmp_path, "drop_newest", (">",)) as slow:
        assert slow.line() == "ready"
        for number in range(count):
            publisher.publish("n.x", [0, number, "f" * 10_000])
            publisher.flush(60)
        assert slow.line() == "slow"
        ((received, lost, interruptions, end, error),) = _let_go(publisher, [slow])
        assert lost > 0
        assert received + lost <= count + end
        assert (interruptions, error) == (0, None)


def test_a_policy_that_is_none_or_that_nobody_could_keep_is_refused() -> None:
    with pytest.raises(BadArgument, match="drop_newest, drop_oldest, disconnect"):
        Subscriber("zb://127.0.0.1:9", ">", overflow="block")
    for overflow in ("drop_oldest", "disconnect"):
        with pytest.raises(NotInThisDeployment, match="needs a broker"):
            Subscriber("tcp://127.0.0.1:9", ">", overflow=overflow)
