"""Producer and Consumer over real sockets and a real journal."""

from __future__ import annotations

import os
import re
import signal
import threading
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patterns.sync import Consumer, Producer, SendManyError
from patterns.wire.errors import (
    BadArgument,
    BadBody,
    BadName,
    BufferFull,
    Closed,
    NotInThisDeployment,
    StaleLease,
    TimedOut,
    TooLarge,
    Unavailable,
    ValidationFailed,
)
from tests.processes import Broker, only_long, program, until
from tests.sockets.members import member, take
from tests.sockets.places import Crowd

HOG = """
import sys, time
from patterns.sync import Consumer
with Consumer(sys.argv[1], "work", group="g") as consumer:
    for d in consumer:
        print("got", d.offset)
        end = time.monotonic() + d.body
        while time.monotonic() < end:
            sum(range(300_000))
        d.ack(confirm=True)
        print(d.offset, d.attempt)
"""

NEVER_CALLS_AGAIN = """
import sys
from patterns.sync import Producer
out = Producer(sys.argv[1], "work")
for number in range(100):
    out.post(number)
print("posted")
sys.stdin.readline()
"""


def test_each_way_to_send_is_confirmed_and_consumed_in_order(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        assert out.send(0).offset == 0
        assert [receipt.offset for receipt in out.send_many(range(1, 1_000))] == list(range(1, 1_000))
        posted = [out.post(number) for number in range(1_000, 2_000)]
        out.flush()
        assert [one.result(0).offset for one in posted] == list(range(1_000, 2_000))
        assert take(consumer, 2_000) == list(range(2_000))


def test_batches_are_acked_as_a_whole_or_in_part(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        out.send_many(range(100))
        batch = next(consumer.batches())
        assert batch.bodies == list(range(len(batch)))
        some = min(10, len(batch))  # the first one may be a slice: it was sent before we asked for batches
        with pytest.raises(BadArgument, match="has"):
            batch.ack(upto=len(batch) + 1)
        batch.ack(upto=some)
        batch.nack(range(some, len(batch)))
        again: list[int] = []
        for batch in consumer.batches():
            again.extend(batch.offsets)
            batch.ack()
            if len(again) == 100 - some:
                break
        assert sorted(again) == list(range(some, 100))


def test_what_travels_with_a_message_arrives(broker: Broker) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        out.send({"sku": 7}, key="k", headers={"from": "here"}, message_id="m1")
        d = next(iter(consumer))
        assert (d.body, d.key, d.headers, d.attempt) == ({"sku": 7}, "k", {"from": "here"}, 1)
        assert before < d.published_at < datetime.now(UTC) + timedelta(seconds=2)
        assert msgspec.msgpack.decode(d.raw) == {"sku": 7}


def test_nack_brings_a_message_again_and_reject_does_not(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker, idle_timeout_s=2) as consumer:
        out.send_many(["again", "never"])
        seen: list[tuple[object, int]] = []
        for d in consumer:
            seen.append((d.body, d.attempt))
            if d.body == "never":
                d.reject("cannot be done")
            elif d.attempt == 1:
                d.nack()
            else:
                d.ack()
        assert sorted(seen) == [("again", 1), ("again", 2), ("never", 1)]


def test_leaving_gives_back_without_an_attempt(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(10))
    with member(broker) as consumer:
        next(iter(consumer))
    with member(broker) as consumer:
        messages = iter(consumer)
        found = [next(messages) for _ in range(10)]
        assert sorted((d.offset, d.attempt) for d in found) == [(offset, 1) for offset in range(10)]


class _HandlerFailed(Exception):
    pass


def _ack_until_it_fails(consumer: Consumer, offset: int, failure: type[BaseException] = _HandlerFailed) -> None:
    for d in consumer:
        if d.offset == offset:
            raise failure
        d.ack()


def _fail_in_a_batch(consumer: Consumer) -> None:
    batch = next(consumer.batches())
    batch.ack(upto=4)
    raise _HandlerFailed


def _attempts(broker: Broker, count: int) -> dict[int, int]:
    """By offset, what the next member sees."""
    with member(broker, credit=1_000) as consumer:
        messages = iter(consumer)
        return {d.offset: d.attempt for d in (next(messages) for _ in range(count))}


def test_leaving_by_an_exception_counts_an_attempt_for_what_was_given_and_not_settled(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(100))
    with pytest.raises(_HandlerFailed), member(broker) as consumer:
        _ack_until_it_fails(consumer, 20)  # in a slice, with more behind it, here and on their way
    assert _attempts(broker, 80) == {20: 2, **dict.fromkeys(range(21, 100), 1)}


def test_leaving_by_an_exception_counts_an_attempt_for_the_rest_of_a_batch(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(10))
        out.send_many(range(10))  # another batch, which may be here and was not given
    with pytest.raises(_HandlerFailed), member(broker) as consumer:
        _fail_in_a_batch(consumer)
    assert _attempts(broker, 16) == {**dict.fromkeys(range(4, 10), 2), **dict.fromkeys(range(10, 20), 1)}


def test_leaving_by_ctrl_c_counts_no_attempt(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(10))
    with pytest.raises(KeyboardInterrupt), member(broker) as consumer:
        _ack_until_it_fails(consumer, 0, KeyboardInterrupt)
    assert _attempts(broker, 10) == dict.fromkeys(range(10), 1)


def test_two_members_share_and_two_groups_do_not(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(300))
    seen: dict[str, list[int]] = {"a1": [], "a2": [], "b": []}

    def work(who: str, group: str) -> None:
        with member(broker, group=group, idle_timeout_s=2) as consumer:
            for d in consumer:
                seen[who].append(d.offset)
                d.ack(confirm=d.offset % 20 == 0)

    crowd = Crowd()
    for who, group in (("a1", "a"), ("a2", "a"), ("b", "b")):
        crowd.run(work, who, group)
    crowd.join()
    assert sorted(seen["a1"] + seen["a2"]) == list(range(300))
    assert sorted(seen["b"]) == list(range(300))


def test_threads_share_a_producer(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        receipts: list[tuple[int, list[int]]] = []

        def send(who: int) -> None:
            for number in range(50):
                receipts.append((out.send([who, number]).offset, [who, number]))  # noqa: PERF401  as they come
            for number in range(50, 100):
                out.post([who, number])
            for number, receipt in enumerate(out.send_many([who, number] for number in range(100, 150))):
                receipts.append((receipt.offset, [who, 100 + number]))

        crowd = Crowd()
        for who in range(8):
            crowd.run(send, who)
        crowd.join(40)
        out.flush()
        with Consumer(broker.url, "work", idle_timeout_s=2) as reader:
            stored = {d.offset: d.body for d in reader}
    assert len(stored) == 8 * 150
    assert all(stored[offset] == value for offset, value in receipts)
    for who in range(8):
        assert [number for one, number in stored.values() if one == who] == list(range(150))


def test_another_thread_acks_and_it_leaves_at_once(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker, credit=1) as consumer:
        out.send_many(range(50))
        crowd = Crowd()
        offsets = []
        for d in consumer:  # the next one comes only when the ack of another thread has left: credit is 1
            offsets.append(d.offset)
            crowd.run(d.ack)
            if len(offsets) == 50:
                break
        crowd.join()
        assert offsets == list(range(50))
    with member(broker, idle_timeout_s=1) as other:
        assert [d.offset for d in other] == []


def test_a_posted_message_leaves_though_the_program_never_calls_again(broker: Broker, tmp_path: Path) -> None:
    with program(NEVER_CALLS_AGAIN, tmp_path, broker.url) as poster, member(broker) as consumer:
        assert poster.line() == "posted"
        assert take(consumer, 100) == list(range(100))


def test_a_posts_callback_runs_though_nobody_waits(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        called = threading.Event()
        out.post(1).add_done_callback(lambda posted: called.set())
        assert called.wait(10)


def test_a_computing_consumer_keeps_its_message(broker: Broker, tmp_path: Path) -> None:
    with Producer(broker.url, "work") as out, program(HOG, tmp_path, broker.url) as hog:
        out.send(10.0)
        assert hog.line() == "got 0"
        with member(broker, idle_timeout_s=9) as other:
            assert [d.offset for d in other] == []
        assert hog.line() == "0 1"


def test_posts_without_room_are_refused(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        out = Producer(broker.url, "work", timeout_s=0.5, unconfirmed_bytes_max=100_000)
        out.post("x" * 1_000).result(30)
        broker.pause()
        taken = 0
        with pytest.raises(BufferFull):  # noqa: PT012  one of them has no room
            for _ in range(1_000):
                out.post("x" * 1_000)
                taken += 1
        broker.resume()
        assert out.post("last").result(30).offset == taken + 1  # the one that was refused is not stored
        out.close()


def test_send_many_does_not_wait_longer_than_its_timeout_for_the_next_confirm(tmp_path: Path) -> None:
    with Broker(tmp_path) as stopped, Producer(stopped.url, "s", timeout_s=0.5) as out:
        assert len(out.send_many(range(3))) == 3
        stopped.pause()
        try:
            with pytest.raises((TimedOut, Unavailable)):
                out.send_many(range(3))
        finally:
            stopped.resume()


def test_send_many_tells_how_far_it_came(broker: Broker) -> None:
    with Producer(broker.url, "work") as out:
        with pytest.raises(SendManyError) as stopped:
            out.send_many([1, 2, object(), 4])
        assert stopped.value.index == 2
        assert [receipt.offset for receipt in stopped.value.receipts] == [0, 1]
        with pytest.raises(TooLarge):
            out.send(b"x" * (2 << 20))
        with pytest.raises(BadBody):
            out.send(object())
        assert out.send(3).offset == 2


def test_a_body_of_another_type_raises_where_it_is_looked_at(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker, type=int) as consumer:
        out.send_many([1, "two", 3])
        messages = iter(consumer)
        assert next(messages).body == 1
        with pytest.raises(ValidationFailed):
            next(messages).body  # noqa: B018
        assert next(messages).body == 3


@pytest.mark.parametrize("start", ["first", "new", 5])
def test_a_reader_starts_where_it_says_and_leaves_no_trace(broker: Broker, start: str | int) -> None:
    with Producer(broker.url, "work") as out:
        out.send_many(range(10))
        with Consumer(broker.url, "work", start=start, idle_timeout_s=1) as reader:
            reader.ready()
            out.send(10)
            assert [d.offset for d in reader] == list(range({"first": 0, "new": 10, 5: 5}[start], 11))


@pytest.mark.parametrize("group", [None, "late"])
def test_who_starts_at_a_time_begins_with_what_was_published_then(broker: Broker, group: str | None) -> None:
    with Producer(broker.url, "work") as out:
        out.send("old")
        with Consumer(broker.url, "work") as reader:
            before = next(iter(reader)).published_at
        until(lambda: datetime.now(UTC) > before + timedelta(milliseconds=1))
        out.send_many(["new", "newer"])
    for start, bodies in ((before, ["old", "new", "newer"]), (before + timedelta(microseconds=1), ["new", "newer"])):
        name = group and f"{group}-{len(bodies)}"
        with Consumer(broker.url, "work", group=name, start=start, idle_timeout_s=1) as reader:
            assert [d.body for d in islice(reader, len(bodies))] == bodies


@pytest.mark.parametrize("start", [datetime(2026, 1, 31), "time", -1, True, 1.5])  # noqa: DTZ001
def test_a_start_that_says_nothing_is_refused(start: Any) -> None:
    with pytest.raises(BadArgument, match="start="):
        Consumer("zb://127.0.0.1:9", "work", start=start)


def test_a_reader_goes_on_where_it_was_after_a_restart(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, Consumer(broker.url, "work", start="new", idle_timeout_s=3) as reader:
        reader.ready()
        out.send_many(range(10))
        messages = iter(reader)
        assert [next(messages).offset for _ in range(10)] == list(range(10))
        broker.restart()
        out.send_many(range(10, 20))
        assert [d.offset for d in messages] == list(range(10, 20))


def test_an_old_token_is_refused(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        out.send(1)
        messages = iter(consumer)
        first = next(messages)
        first.nack()
        second = next(messages)
        assert second.token > first.token
        with pytest.raises(StaleLease, match=r"offset \d+ of stream"):
            first.ack(confirm=True)
        second.ack(confirm=True)


def test_ctrl_c_leaves_producer_and_consumer_usable(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        consumer.ready()
        crowd = Crowd()

        def interrupt() -> None:
            until(lambda: consumer._driver.is_led, 10, "the waiting")
            os.kill(os.getpid(), signal.SIGINT)

        crowd.run(interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(iter(consumer))
        crowd.join()
        out.send(1)
        assert take(consumer, 1) == [1]


def test_close_from_another_thread_ends_iteration(broker: Broker) -> None:
    for way in (iter, Consumer.batches):
        consumer = member(broker)
        consumer.ready()
        crowd = Crowd()
        crowd.run(lambda way=way, consumer=consumer: list(way(consumer)))
        until(lambda consumer=consumer: consumer._driver.is_led, 10, "the waiting")
        consumer.close()
        crowd.join()
        with pytest.raises(Closed):
            consumer.ready()


def test_wrong_use_is_refused_at_once(broker: Broker) -> None:
    for role in (Producer, Consumer):
        for address in ("tcp://127.0.0.1:9", "ipc:///tmp/zbroker-nobody", "inproc://nobody"):
            with pytest.raises(NotInThisDeployment):
                role(address, "work")
        with pytest.raises(NotInThisDeployment):
            role(broker.url, "work", security="keys")
        with pytest.raises(BadName):
            role(broker.url, "no/slash")
    with pytest.raises(BadArgument):
        Consumer(broker.url, "work", credit=0)


def test_what_is_not_built_says_so(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, pytest.raises(NotInThisDeployment, match="not built in this version"):
        out.transaction()


def test_a_broker_without_a_journal_says_so(tmp_path: Path) -> None:
    with Broker(tmp_path, durable=False) as broker:
        with Producer(broker.url, "work", timeout_s=5) as out, pytest.raises(NotInThisDeployment):
            out.send(1)
        with Consumer(broker.url, "work", group="g") as consumer, pytest.raises(NotInThisDeployment):
            consumer.ready()


def test_nobody_there_is_unavailable_and_the_text_names_the_address() -> None:
    named = re.escape("127.0.0.1:9")
    with Producer("zb://127.0.0.1:9", "work", timeout_s=0.5) as out:
        with pytest.raises(Unavailable, match=named):
            out.send(1)
        out.close(timeout_s=0.1)
    with Consumer("zb://127.0.0.1:9", "work", group="g") as consumer, pytest.raises(Unavailable, match=named):
        consumer.ready(0.5)


@only_long
def test_a_million_messages_by_all_ways(broker: Broker) -> None:
    with Producer(broker.url, "work") as out, member(broker) as consumer:
        crowd = Crowd()
        crowd.run(lambda: [out.send_many(range(100_000)) for _ in range(10)])
        seen = 0
        for batch in consumer.batches():
            seen += len(batch)
            batch.ack()
            if seen == 1_000_000:
                break
        crowd.join(60)
