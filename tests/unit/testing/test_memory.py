"""Roles of both shells on a broker in memory, with the time that tests skip. Waits here are for events, and end at once."""

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patterns import aio
from patterns.sync import Admin, Consumer, GroupConfig, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import (
    BadAddress,
    BadArgument,
    LocalProtocolError,
    NoReplier,
    NoSuchStream,
    OutcomeUnknown,
    StaleLease,
    StorageFull,
    TimedOut,
    Unavailable,
    Untranslatable,
)
from zbroker.config import ConfigurationError
from zbroker.testing.memory import MemoryBroker

SOON_S = 30.0  # what should come at once; a busy machine may take its time
NOT_S = 0.05  # what should not come
WORK_S = 600.0


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    with MemoryBroker() as broker:
        yield broker
        broker.check()


def served(replier: Replier) -> threading.Thread:
    thread = threading.Thread(target=replier.serve_forever)
    thread.start()
    return thread


# -- the roles ---------------------------------------------------------------------------------------------------


def test_a_request_is_answered_and_one_that_nobody_serves_is_refused(broker: MemoryBroker) -> None:
    with Replier(broker.url, "price", lambda body: body * 2) as replier, Requester(broker.url) as requester:
        thread = served(replier)
        assert requester.request("price", 21, timeout_s=SOON_S) == 42
        with pytest.raises(NoReplier, match="cost"):
            requester.request("cost", 21, wait_s=0)
        replier.close()
        thread.join()


def test_a_reply_comes_in_parts(broker: MemoryBroker) -> None:
    with (
        Replier(broker.url, "count", lambda body: (number for number in range(body))) as replier,
        Requester(broker.url) as requester,
    ):
        thread = served(replier)
        assert list(requester.stream("count", 1_000)) == list(range(1_000))
        replier.close()
        thread.join()


def test_who_subscribes_hears_what_is_published(broker: MemoryBroker) -> None:
    with Subscriber(broker.url, "orders.>") as subscriber, Publisher(broker.url) as publisher:
        subscriber.ready(SOON_S)
        for number in range(500):
            publisher.publish("orders.eu", number)
        publisher.publish("other", 0)
        publisher.flush(SOON_S)
        heard = [subscriber.receive(SOON_S) for _ in range(500)]
        assert [message and message.body for message in heard] == list(range(500))
        assert (subscriber.lost, subscriber.receive(NOT_S)) == (0, None)


def test_each_message_of_a_stream_goes_to_one_member_of_a_group(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer:
        receipts = producer.send_many(range(2_000))
    assert [receipt.offset for receipt in receipts] == list(range(2_000))
    with (
        Consumer(broker.url, "orders", group="g", idle_timeout_s=0.2) as one,
        Consumer(broker.url, "orders", group="g", idle_timeout_s=0.2) as other,
    ):
        found: list[int] = []

        def work(consumer: Consumer) -> None:
            for delivery in consumer:
                found.append(delivery.body)
                delivery.ack()

        threads = [threading.Thread(target=work, args=(consumer,)) for consumer in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == list(range(2_000))
    with Admin(broker.url) as admin:
        assert admin.status()["groups"]["orders/g"]["lag"] == 0


def test_asyncio_roles_work_the_same(broker: MemoryBroker) -> None:
    async def double(body: int) -> int:
        return body * 2

    async def run() -> list[object]:
        async with aio.Replier(broker.url, "price", double) as replier, aio.Requester(broker.url) as requester:
            serving = asyncio.create_task(replier.serve_forever())
            said: list[object] = [await requester.request("price", 21, timeout_s=SOON_S)]
            async with aio.Producer(broker.url, "orders") as producer:
                await producer.send_many(range(100))
            async with aio.Consumer(broker.url, "orders", group="g") as consumer:
                for _ in range(100):
                    delivery = await consumer.receive(SOON_S)
                    assert delivery is not None
                    said.append(delivery.body)
                    await delivery.ack(confirm=True)
            await replier.close()
            await serving
        return said

    assert asyncio.run(run()) == [42, *range(100)]


@pytest.mark.parametrize("shell", ["sync", "aio"])
def test_a_confirmed_reject_is_a_letter_after_a_kill(broker: MemoryBroker, shell: str) -> None:
    async def reject() -> None:
        async with aio.Consumer(broker.url, "orders", group="g") as consumer:
            delivery = await consumer.receive(SOON_S)
            assert delivery is not None
            await delivery.reject("torn", confirm=True)
            broker.kill()

    with Admin(broker.url) as admin, Producer(broker.url, "orders") as producer:
        admin.create_group(GroupConfig("orders", "g", dead_letter="dead"))
        producer.send("a")
        if shell == "aio":
            asyncio.run(reject())
        else:
            with Consumer(broker.url, "orders", group="g") as consumer:
                delivery = consumer.receive(SOON_S)
                assert delivery is not None
                delivery.reject("torn", confirm=True)
                broker.kill()
        broker.restart()
        [letter] = admin.show_dead("dead")["letters"]
    assert (letter["reason"], letter["body"]) == ("torn", '"a"')


def test_sync_and_asyncio_meet(broker: MemoryBroker) -> None:
    async def ask() -> object:
        async with aio.Requester(broker.url) as requester:
            return await requester.request("price", 21, timeout_s=SOON_S)

    with Replier(broker.url, "price", lambda body: body * 2) as replier:
        thread = served(replier)
        assert asyncio.run(ask()) == 42
        replier.close()
        thread.join()


def test_json_is_read_as_msgpack_and_back(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders", codec="json") as producer:
        producer.send({"sku": 7})
    with Consumer(broker.url, "orders", group="g", codec="raw") as consumer:
        found = consumer.receive(SOON_S)
        assert found is not None
        assert found.raw == b'{"sku":7}'


# -- time --------------------------------------------------------------------------------------------------------


def test_a_delay_is_skipped(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer, Consumer(broker.url, "orders", group="g") as consumer:
        producer.send(1)
        delivery = consumer.receive(SOON_S)
        assert delivery is not None
        delivery.nack(delay_s=300)
        broker.advance(299)
        assert consumer.receive(NOT_S) is None
        broker.advance(2)
        delivery = consumer.receive(SOON_S)
        assert delivery is not None
        assert delivery.attempt == 2


def test_sessions_live_through_skipped_time_and_keep_what_they_hold(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer, Consumer(broker.url, "orders", group="g") as consumer:
        producer.send(1)
        delivery = consumer.receive(SOON_S)
        assert delivery is not None
        broker.advance(WORK_S / 2)
        delivery.ack(confirm=True)
        assert broker.lives == 1


def test_who_works_for_too_long_loses_the_message(broker: MemoryBroker) -> None:
    with (
        Producer(broker.url, "orders") as producer,
        Consumer(broker.url, "orders", group="g", processing_max_s=60) as slow,
    ):
        producer.send(1)
        late = slow.receive(SOON_S)
        assert late is not None
        with Consumer(broker.url, "orders", group="g") as other:
            assert other.receive(NOT_S) is None
            broker.advance(61)
            again = other.receive(SOON_S)
            assert again is not None
            assert again.attempt == 2
            with pytest.raises(StaleLease):
                late.ack()


def test_who_waits_is_woken_when_its_time_is_skipped(broker: MemoryBroker) -> None:
    outcome: list[object] = []
    is_asked = threading.Event()

    def ask() -> None:
        with Requester(broker.url) as requester:
            try:
                outcome.append(requester.request("slow", 1, timeout_s=WORK_S))
            except TimedOut as error:
                outcome.append(error)

    with Replier(broker.url, "slow") as replier:
        asking = threading.Thread(target=ask)
        asking.start()
        for _ in replier:
            is_asked.set()
            break
        broker.advance(WORK_S + 1)
        asking.join(SOON_S)
    assert [type(found) for found in outcome] == [TimedOut]


def test_asyncio_waits_are_woken_in_their_loop_and_from_another_thread(broker: MemoryBroker) -> None:
    async def run() -> list[object]:
        found: list[object] = []
        async with aio.Consumer(broker.url, "orders", group="g") as consumer:
            for advance in (
                lambda: asyncio.sleep(0, broker.advance(600)),
                lambda: asyncio.to_thread(broker.advance, 600),
            ):
                waiting = asyncio.create_task(consumer.receive(50))
                await asyncio.sleep(0)
                await advance()
                found.append(await waiting)
        return found

    assert asyncio.run(run()) == [None, None]


def test_instants_of_messages_follow_skipped_time(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer, Consumer(broker.url, "orders", group="g") as consumer:
        producer.send(1)
        broker.advance(600)
        producer.send(2)
        first, second = consumer.receive(SOON_S), consumer.receive(SOON_S)
        assert first is not None
        assert second is not None
        assert timedelta(minutes=10) <= second.published_at - first.published_at < timedelta(minutes=20)
        assert second.published_at > datetime.now(UTC)


@pytest.mark.parametrize("seconds", [-1, float("nan"), 1e9])
def test_time_goes_neither_back_nor_for_ever(broker: MemoryBroker, seconds: float) -> None:
    with pytest.raises(BadArgument, match="0 to 31622400"):
        broker.advance(seconds)


# -- faults ------------------------------------------------------------------------------------------------------


def test_a_restart_keeps_what_was_confirmed_and_the_roles(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer, Consumer(broker.url, "orders", group="g") as consumer:
        producer.send_many(range(10))
        for number in range(5):
            delivery = consumer.receive(SOON_S)
            assert delivery is not None
            assert delivery.body == number
            delivery.ack(confirm=True)
        broker.restart()
        assert producer.send(10).offset == 10
        rest = []
        while len(rest) < 6:
            delivery = consumer.receive(SOON_S)
            assert delivery is not None
            rest.append(delivery.body)
            delivery.ack(confirm=True)
    assert (sorted(rest), broker.lives) == (list(range(5, 11)), 2)


def test_a_producer_waits_for_a_broker_that_is_down(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders", timeout_s=SOON_S) as producer:
        producer.send(0)
        broker.kill()
        posted = producer.post(1)
        with pytest.raises((Unavailable, TimedOut)):
            posted.result(NOT_S)
        broker.start()
        broker.advance(1)
        assert posted.result(SOON_S).offset == 1


def test_what_one_that_was_cut_held_comes_to_another(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer, Consumer(broker.url, "orders", group="g") as dead:
        producer.send(1)
        held = dead.receive(SOON_S)
        assert held is not None
        broker.cut(dead)
        with Consumer(broker.url, "orders", group="g") as other:
            broker.advance(30)
            again = other.receive(SOON_S)
            assert again is not None
            assert (again.body, again.attempt) == (1, 2)
            again.ack(confirm=True)
        broker.mend()
        with pytest.raises(StaleLease):
            held.ack(confirm=True)


def test_what_is_not_connected_here_cannot_be_cut(broker: MemoryBroker) -> None:
    with MemoryBroker() as other, Requester(other.url) as requester, pytest.raises(BadArgument, match=broker.name):
        broker.cut(requester)


def test_a_full_disk_refuses_until_there_is_room(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer:
        broker.disk_full = True
        posted = producer.post(1)
        with pytest.raises((StorageFull, TimedOut)):
            posted.result(NOT_S)
        broker.disk_full = False
        broker.advance(10)
        assert posted.result(SOON_S).offset == 0


def test_a_broker_that_fails_is_down_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with MemoryBroker() as broker, Requester(broker.url) as requester:
        assert broker._engine is not None
        monkeypatch.setattr(broker._engine, "receive", lambda *_: 1 // 0)
        with pytest.raises((Unavailable, TimedOut, OutcomeUnknown)):
            requester.request("price", 1, timeout_s=SOON_S, wait_s=0)
        with pytest.raises(LocalProtocolError, match=r"has failed: .*ZeroDivisionError"):
            broker.check()
        assert isinstance(broker.failure, ZeroDivisionError)


def test_stop_says_goodbye_and_close_is_for_good(broker: MemoryBroker) -> None:
    with Requester(broker.url) as requester:
        broker.stop()
        with pytest.raises((Unavailable, TimedOut)):
            requester.request("price", 1, timeout_s=NOT_S)
    broker.close()
    broker.close()
    with pytest.raises(LocalProtocolError, match="is closed"):
        broker.start()


# -- names and settings --------------------------------------------------------------------------------------------


def test_a_name_that_nobody_has_is_said_at_once() -> None:
    with pytest.raises(Unavailable, match=r"memory://nosuch.*zbroker\.testing\.MemoryBroker"):
        Requester("memory://nosuch")


def test_a_name_that_is_in_use_is_said_and_is_free_afterwards() -> None:
    with MemoryBroker("mine"), pytest.raises(ValueError, match="memory://mine is in use"):
        MemoryBroker("mine")
    MemoryBroker("mine").close()


def test_nobody_binds_a_broker() -> None:
    with pytest.raises(BadAddress, match="'@'"):
        Replier("@memory://mine", "price", lambda body: body)


def test_brokers_do_not_hear_of_each_other() -> None:
    with MemoryBroker() as one, MemoryBroker() as other:
        with Producer(one.url, "orders") as producer:
            producer.send(1)
        with Admin(other.url) as admin:
            assert admin.status()["streams"] == {}


def test_settings_are_those_of_a_broker() -> None:
    with (
        MemoryBroker(auto_create=False) as broker,
        Producer(broker.url, "orders") as producer,
        pytest.raises(NoSuchStream),
    ):
        producer.send(1)
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"auto_crate": False}, "did you mean 'auto_create'"),
        ({"auto_create": "no"}, "write true or false"),
        ({"stream_bytes": -1}, "stream_bytes = -1"),
    ]
    for wrong, says in wrongs:
        with pytest.raises(ConfigurationError, match=says):
            MemoryBroker(**wrong)


def test_what_a_broker_is_told_about_bodies_holds_in_memory_too() -> None:
    with (
        MemoryBroker(duplicate_keys="refuse", log_level="debug") as broker,
        Replier(broker.url, "echo", lambda body: body) as replier,
        Requester(broker.url, codec="json") as requester,
    ):
        thread = served(replier)
        with pytest.raises(Untranslatable):
            requester.request("echo", msgspec.Raw(b'{"a":1,"a":2}'), timeout_s=SOON_S)
        replier.close()
        thread.join()


def test_a_child_process_has_no_broker_of_its_parents(broker: MemoryBroker) -> None:
    child = os.fork()
    if not child:
        try:
            Requester(broker.url)
        except Unavailable as error:
            os._exit(7 if "another process" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


# -- leaks ---------------------------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to count descriptors")
def test_neither_threads_nor_descriptors_are_left() -> None:
    def use() -> None:
        with MemoryBroker() as broker, Producer(broker.url, "orders") as producer:
            producer.send(1)
            broker.cut(producer)
            broker.mend()
            broker.restart()

    use()  # what is made once and stays: the signals' shield
    before = descriptors(), threading.active_count()
    for _ in range(5):
        use()
    assert (descriptors(), threading.active_count()) == before


def test_after_a_sleep_of_a_year_roles_are_back(broker: MemoryBroker) -> None:
    with Producer(broker.url, "orders") as producer:
        assert producer.send(1).offset == 0
        broker.advance(366 * 86_400)
        assert producer.send(2).offset == 1
