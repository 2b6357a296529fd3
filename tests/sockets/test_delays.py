"""Messages that wait for their time: sent so, nacked so, failed in a group that says so; over restarts of the broker too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from patterns import aio
from patterns.sync import Admin, Consumer, Delivery, GroupConfig, Producer
from patterns.wire.errors import BadArgument
from tests.processes import Broker, until
from tests.sockets.members import member, take

LATER_S = 600.0  # nobody waits for it
SOON_S = 0.5
YEAR_S = 365 * 86_400
ZBROKER = [sys.executable, "-m", "zbroker"]


def _group(broker: Broker, name: str = "work/g") -> dict[str, Any]:
    with Admin(broker.url) as admin:
        row: dict[str, Any] = admin.status()["groups"][name]
        return row


def _is_due(delivery: Delivery, delay_s: float) -> bool:
    return datetime.now(UTC) >= delivery.published_at + timedelta(seconds=delay_s)  # one machine has one clock


def test_a_delayed_message_lets_others_pass_and_comes_when_it_is_due(broker: Broker) -> None:
    with member(broker) as consumer, Producer(broker.url, "work") as out:
        consumer.ready()
        out.send("later", delay_s=LATER_S)
        out.send("now")
        messages = iter(consumer)
        first = next(messages)
        assert (first.body, first.offset, first.attempt) == ("now", 1, 1)
        first.ack(confirm=True)
        out.send("soon", delay_s=SOON_S)
        second = next(messages)
        assert (second.body, second.offset, second.attempt, _is_due(second, SOON_S)) == ("soon", 2, 1, True)
        second.ack(confirm=True)
        row = _group(broker)
        assert (row["delayed"], row["waiting"], row["pending"], row["balanced"]) == (1, 1, 1, True)


def test_posted_messages_of_one_batch_wait_each_for_itself(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        for number in range(60):
            out.post(number, delay_s=(0, SOON_S, LATER_S)[number % 3])
        out.flush()
        found = []
        for delivery in consumer:
            assert delivery.body % 3 == 0 or _is_due(delivery, SOON_S)
            found.append(delivery.body)
            delivery.ack()
            if len(found) == 40:
                break
        assert sorted(found) == [number for number in range(60) if number % 3 < 2]
        until(lambda: _group(broker)["acked"] == 40, what="the acks")
        assert _group(broker)["delayed"] == 20


def test_batches_hold_what_is_due(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        for number in range(30):
            out.post(number, delay_s=SOON_S * (9 < number < 20))
        out.flush()
    found: list[int] = []
    with member(broker) as consumer:
        for batch in consumer.batches():
            found += batch.bodies
            batch.ack()
            if len(found) == 30:
                break
    assert sorted(found) == list(range(30))
    assert [number for number in found if number < 10] == list(range(10))


def test_who_reads_without_a_group_sees_it_at_once(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, Consumer(broker.url, "work", idle_timeout_s=20) as reader:
        out.send("later", delay_s=LATER_S)
        assert next(iter(reader)).body == "later"


def test_delays_survive_a_kill_of_the_broker(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        with Producer(broker.url, "work") as out, member(broker, credit=1) as consumer:
            consumer.ready()
            for number in range(20):
                out.post(number, delay_s=LATER_S if number % 2 else SOON_S)
            out.flush()
            until(lambda: _group(broker)["delayed"] >= 10, what="the delays")
            found = take(consumer, 3)
            next(iter(consumer)).nack(delay_s=LATER_S)
            until(lambda: _group(broker)["acked"] == 3, what="the acks")
            until(lambda: _group(broker)["delayed"] >= 11, what="the nack")
        with Producer(broker.url, "other") as out:  # behind its records what came before is on the disk, too
            out.send_many(range(2))
            out.send("and another")
        for _ in range(2):
            broker.kill()
            broker.start()
            row = _group(broker)
            assert (row["pending"], row["balanced"]) == (17, True)
            assert row["delayed"] >= 11
        with member(broker) as consumer:
            found += take(consumer, 6)
            assert sorted(found) == [0, 2, 4, 8, 10, 12, 14, 16, 18]
            until(lambda: _group(broker)["acked"] == 9, what="the acks")
            assert _group(broker)["delayed"] == 11


def test_what_is_due_while_the_broker_is_away_comes_as_soon_as_it_is_back(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        with Producer(broker.url, "work") as out, member(broker) as consumer:
            consumer.ready()
            out.send("delayed", delay_s=3)
            until(lambda: _group(broker)["delayed"] == 1, what="the delay")
        broker.kill()
        broker.start()
        with member(broker) as consumer:
            delivery = next(iter(consumer))
            assert (delivery.body, delivery.attempt) == ("delayed", 1)
            delivery.ack(confirm=True)


def test_what_was_given_back_is_a_first_attempt_after_a_kill_too(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        with Producer(broker.url, "work") as out:
            out.send_many(range(10))
        with member(broker) as consumer:
            messages = iter(consumer)
            next(messages).ack(confirm=True)
            next(messages)
        with Producer(broker.url, "other") as out:
            out.send("a record behind which the release is on disk, too")
        until(lambda: _group(broker)["leased"] == 0, what="the release")
        with Producer(broker.url, "other") as out:
            out.send("and another")
        broker.kill()
        broker.start()
        with member(broker) as consumer:
            messages = iter(consumer)
            found = []
            for _ in range(9):
                delivery = next(messages)
                found.append((delivery.body, delivery.attempt))
                delivery.ack()
        assert found == [(number, 1) for number in range(1, 10)]


def test_failures_wait_as_the_group_says(broker: Broker) -> None:
    with Admin(broker.url) as admin:
        admin.create_group(GroupConfig("work", "g", backoff_s=[SOON_S, LATER_S]))
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        out.send("fails")
        messages = iter(consumer)
        next(messages).nack()
        again = next(messages)
        assert (again.body, again.attempt) == ("fails", 2)
        again.nack()
        out.send("next")
        assert next(messages).body == "next"
        assert _group(broker)["delayed"] == 1


@pytest.mark.parametrize(
    "delay_s", [-1, -0.001, YEAR_S + 1, 100 * YEAR_S, 2**53, float("nan"), float("inf"), "1", True, None]
)
def test_a_delay_that_is_none_is_refused_where_it_is_said(broker: Broker, delay_s: Any) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        if delay_s is not None:  # which is no delay
            for call in (out.send, out.post):
                with pytest.raises(BadArgument, match="31,536,000, which are 365 days"):
                    call(1, delay_s=delay_s)
        out.send(2, delay_s=0)
        delivery = next(iter(consumer))
        assert delivery.body == 2
        with pytest.raises(BadArgument, match="31,536,000, which are 365 days"):
            delivery.nack(delay_s=delay_s)
        delivery.ack(confirm=True)


def test_under_asyncio_it_is_the_same(broker: Broker) -> None:
    async def scenario() -> None:
        async with (
            aio.Producer(broker.url, "work") as out,
            aio.Consumer(broker.url, "work", group="g", idle_timeout_s=20) as consumer,
        ):
            await consumer.ready()
            await out.send("later", delay_s=LATER_S)
            out.post("soon", delay_s=SOON_S)
            await out.send("now")
            found = []
            async for delivery in consumer:
                found.append((delivery.body, delivery.attempt))
                delivery.ack()
                if len(found) == 2:
                    break
            assert sorted(found) == [("now", 1), ("soon", 1)]
            with pytest.raises(BadArgument, match="365 days"):
                await out.send(1, delay_s=-1)
            with pytest.raises(BadArgument, match="365 days"):
                out.post(1, delay_s=100 * YEAR_S)

    asyncio.run(scenario())


def _command(*arguments: str, stdin: bytes = b"") -> tuple[int, str]:
    done = subprocess.run([*ZBROKER, *arguments], input=stdin, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.decode()


def test_the_command_line_delays_a_message_and_each_line(broker: Broker) -> None:
    with member(broker) as consumer:
        consumer.ready()
        assert _command("send", "work", '"later"', "--delay", "600", "--url", broker.url)[0] == 0
        assert _command("send", "work", "-", "--delay", "600", "--url", broker.url, stdin=b"1\n2\n")[0] == 0
        assert _command("send", "work", '"now"', "--url", broker.url)[0] == 0
        assert take(consumer, 1) == ["now"]
        assert _group(broker)["delayed"] == 3
    status, said = _command("send", "work", "1", "--delay", "-1", "--url", broker.url)
    assert (status, "365 days" in said) == (2, True)
