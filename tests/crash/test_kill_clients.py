"""Consumers and producers that are killed or stopped in the middle: nothing is lost, and no message has two valid leases."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from patterns.io.clock import clock
from patterns.sync import Admin, Consumer, Producer
from patterns.wire.errors import Fenced, StaleLease
from tests.processes import Broker, Program, program, until

CONSUMER = """
import json, sys
from patterns.sync import Consumer
with Consumer(sys.argv[1], "work", group="g", credit=int(sys.argv[2])) as consumer:
    for d in consumer:
        print(json.dumps([d.offset, d.attempt, d.token]))
        order = sys.stdin.readline().strip()
        if order == "ack":
            d.ack()
        elif order == "surely":
            try:
                d.ack(confirm=True)
                print("acked")
            except Exception as error:
                print(type(error).__name__)
"""

PRODUCER = """
import sys
from itertools import count
from patterns.sync import Producer
with Producer(sys.argv[1], "work", name=sys.argv[2]) as out:
    for number in count(int(sys.argv[3])):
        print(number, out.send(["killed", number]).offset)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path) as running:
        yield running


def _fill(broker: Broker, count: int) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(count))


def _consumer(broker: Broker, folder: Path, credit: int = 10) -> Program:
    return program(CONSUMER, folder, broker.url, str(credit))


def test_a_killed_consumers_messages_go_to_the_other_member(broker: Broker, tmp_path: Path) -> None:
    _fill(broker, 20)
    with _consumer(broker, tmp_path) as killed:
        held = json.loads(killed.line())
        killed.tell("ack")
        held = json.loads(killed.line())
        killed.kill()
        seen: dict[int, int] = {}
        with Consumer(broker.url, "work", group="g", idle_timeout_s=15) as other:
            for d in other:
                seen[d.offset] = d.attempt
                d.ack()
                if set(range(1, 20)) <= set(seen):
                    break
        assert seen[held[0]] == held[1] + 1
        assert all(attempt <= 2 for attempt in seen.values())


def test_a_killed_producer_leaves_what_was_confirmed(broker: Broker, tmp_path: Path) -> None:
    with program(PRODUCER, tmp_path, broker.url, "", "0") as killed:
        confirmed = [killed.line() for _ in range(200)]
        killed.kill()
    confirmed += [line for line in iter(killed._lines.get, None) if " " in line]
    stored = _stored(broker)
    for line in confirmed:
        number, offset = line.split()
        assert stored[int(offset)] == ["killed", int(number)]


def test_a_named_producer_goes_on_after_its_death_and_fences_its_older_self(broker: Broker, tmp_path: Path) -> None:
    with program(PRODUCER, tmp_path, broker.url, "me", "0") as stopped:
        stopped.line()
        stopped.signal(signal.SIGSTOP)
        with Producer(broker.url, "work", name="me") as heir:
            assert heir.send(["heir", 0]).duplicate is False
            stopped.signal(signal.SIGCONT)
            stopped.process.wait(30)
            assert Fenced.__name__ in stopped.errors
            heir.send(["heir", 1])


def _stored(broker: Broker) -> dict[int, object]:
    with Consumer(broker.url, "work", idle_timeout_s=1) as reader:
        return {d.offset: d.body for d in reader}


def test_a_stopped_consumer_has_no_valid_lease_when_it_wakes(broker: Broker, tmp_path: Path) -> None:
    """Longer than its session's expiry (6 s): another member has its message, with a higher token."""
    _fill(broker, 1)
    with _consumer(broker, tmp_path) as stopped:
        offset, attempt, token = json.loads(stopped.line())
        stopped.signal(signal.SIGSTOP)
        with Consumer(broker.url, "work", group="g", idle_timeout_s=30) as other:
            d = next(iter(other))
            assert (d.offset, d.attempt) == (offset, attempt + 1)
            assert d.token > token
            stopped.signal(signal.SIGCONT)
            stopped.tell("surely")
            assert stopped.line() == StaleLease.__name__
            d.ack(confirm=True)


def test_a_stopped_broker_costs_nobody_anything(broker: Broker) -> None:
    """3 s: below the expiry of sessions. Waiting acks are heard before deadlines are judged."""
    with (
        Producer(broker.url, "work", timeout_s=30) as out,
        Consumer(broker.url, "work", group="g", idle_timeout_s=3) as consumer,
    ):
        out.send_many(range(1_000))
        messages = iter(consumer)
        seen = [next(messages) for _ in range(5)]
        broker.pause()
        began = time.monotonic()
        posted = [out.post(number) for number in range(1_000, 1_100)]
        until(lambda: time.monotonic() - began > 3, 10, "the stop")
        for d in seen:
            d.ack()
        broker.resume()
        assert [one.result(20).offset for one in posted] == list(range(1_000, 1_100))
        offsets = [d.offset for d in seen]
        for d in messages:
            assert d.attempt == 1
            offsets.append(d.offset)
            d.ack()
        assert offsets == list(range(1_100))
        assert consumer.stale == 0


def _take(consumer: Consumer, tokens: dict[int, list[int]], count: int) -> bool:
    """Ack what there is, and note with which tokens it came; whether so many have come."""
    while len(tokens) < count and (d := consumer.receive(0.1)) is not None:
        tokens.setdefault(d.offset, []).append(d.token)
        d.ack()
    return len(tokens) >= count


def _is_settled(broker: Broker, consumer: Consumer, tokens: dict[int, list[int]]) -> bool:
    """Nothing is left that may come again; what does is acked."""
    _take(consumer, tokens, len(tokens) + 1)
    with Admin(broker.url, timeout_s=30) as admin:
        pending: int = admin.status()["groups"]["work/g"]["pending"]
        return pending == 0


def test_a_broker_stopped_longer_than_the_expiry_loses_nothing(broker: Broker) -> None:
    with (
        Producer(broker.url, "work", timeout_s=40) as out,
        Consumer(broker.url, "work", group="g", idle_timeout_s=8) as consumer,
    ):
        out.send_many(range(500))
        seen = [next(iter(consumer))]
        broker.pause()
        began = time.monotonic()
        posted = [out.post(number) for number in range(500, 600)]
        until(lambda: time.monotonic() - began > 8, 20, "the stop")
        broker.resume()
        offsets = [one.result(30).offset for one in posted]
        assert offsets == list(range(500, 600))
        tokens: dict[int, list[int]] = {seen[0].offset: [seen[0].token]}
        seen[0].ack()
        until(lambda: _take(consumer, tokens, 600), what="each message")
        until(lambda: _is_settled(broker, consumer, tokens), what="the end of what is pending")
        assert set(tokens) == set(range(600))
        assert all(a < b for found in tokens.values() for a, b in pairwise(found))


@pytest.mark.parametrize("mode", ["slices", "batches"])
def test_what_a_member_held_over_a_restart_can_still_be_acked(broker: Broker, mode: str) -> None:
    """For 2 s after its start the broker waits for those who held something (SPEC.md 9.2)."""
    with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g", idle_timeout_s=4) as consumer:
        out.send_many(range(20))
        held = next(consumer.batches()) if mode == "batches" else next(iter(consumer))
        out.send(20)  # a commit, which the count of deliveries goes along with
        broker.restart()
        engine = consumer._engine
        back = lambda: engine.joined and engine.sessions[0].ready.epoch == broker.epochs[-1]  # noqa: E731
        assert consumer._driver.wait(back, clock() + 5_000_000)
        held.ack()
        again = [d.offset for d in consumer if d.ack() is None]
        mine = set(held.offsets) if mode == "batches" else {held.offset}
        assert mine & set(again) == set()
        assert mine | set(again) == set(range(21))
        assert consumer.stale == 0


def test_acks_on_their_way_when_the_broker_is_killed_are_not_forgotten(broker: Broker) -> None:
    """The rest of a lease is settled, so that nothing hangs in it until it ends."""
    with Producer(broker.url, "work") as out, Consumer(broker.url, "work", group="g") as consumer:
        out.send_many(range(2_000))
        tokens: dict[int, list[int]] = {}
        for count in (250, 750, 1_250):
            until(lambda: _take(consumer, tokens, count), what="some messages")  # noqa: B023
            broker.restart()
        until(lambda: _take(consumer, tokens, 2_000), what="each message")
        until(lambda: _is_settled(broker, consumer, tokens), what="the end of what is pending")
        assert set(tokens) == set(range(2_000))
