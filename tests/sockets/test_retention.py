"""Bounded streams over real sockets: a work queue that pushes back, purges and deletions under load, many groups, and the disk they take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Consumer, GroupConfig, Producer, StreamConfig
from patterns.wire.errors import NoSuchGroup, NoSuchStream, StreamFull, ZbrokerError
from tests.crash.audit import SMALL
from tests.processes import LONG, Broker, until

NUMBERS = count()
GROUPS = 10_000 if LONG else 300
BODY = "x" * 1_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("retention")) as running:
        yield running


@pytest.fixture
def admin(broker: Broker) -> Iterator[Admin]:
    with Admin(broker.url, timeout_s=60) as found:
        yield found


@pytest.fixture
def name() -> str:
    """Of a stream that is not there yet."""
    return f"stream-{next(NUMBERS)}"


class Worker(threading.Thread):
    """Runs a function; what it raises is raised by finish()."""

    def __init__(self, run: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._run = run
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._run()
        except (ZbrokerError, AssertionError) as error:  # told in the test's own thread
            self.error = error

    def finish(self) -> None:
        self.join(60)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def test_a_work_queue_at_its_bound_pushes_back_and_goes_on_as_consumers_work(
    broker: Broker, admin: Admin, name: str
) -> None:
    admin.create_stream(StreamConfig(name, retention="work", messages_max=50))
    admin.create_group(GroupConfig(name, "g"))
    with Producer(broker.url, name, timeout_s=60) as producer:

        def send() -> None:
            for number in range(200):
                producer.send(number)

        sender = Worker(send)
        until(lambda: "STREAM_FULL" in admin.status()["refused"])
        until(lambda: admin.show_stream(name)["next_offset"] == 50)
        found = []
        with Consumer(broker.url, name, group="g") as consumer:
            while len(found) < 200:
                delivery = consumer.receive(30)
                assert delivery is not None
                found.append(delivery.body)
                delivery.ack()
        sender.finish()
    assert found == list(range(200))
    until(lambda: admin.show_stream(name)["first_offset"] == 200)
    account = admin.show_group(name, "g")
    assert (account["acked"], account["pending"], account["balanced"]) == (200, 0, True)


def test_who_cannot_wait_is_told_what_stands_in_the_way(broker: Broker, admin: Admin, name: str) -> None:
    admin.create_stream(StreamConfig(name, retention="work", messages_max=1))
    with Producer(broker.url, name, timeout_s=60) as producer:
        producer.send(1)
    with Producer(broker.url, name, timeout_s=2) as producer:
        with pytest.raises(ZbrokerError) as refused:
            producer.send(2)
        cause: BaseException | None = refused.value
        while cause is not None and not isinstance(cause, StreamFull):
            cause = cause.__cause__
        assert cause is not None or "messages_max is 1" in str(refused.value)
    assert admin.show_stream(name)["next_offset"] <= 2


def test_a_purge_makes_room_and_what_a_member_held_of_it_is_stale(broker: Broker, admin: Admin, name: str) -> None:
    admin.create_stream(StreamConfig(name, retention="work", messages_max=10))
    with Consumer(broker.url, name, group="g", credit=4) as consumer:
        consumer.ready(30)
        with Producer(broker.url, name, timeout_s=60) as producer:
            producer.send_many(range(10))
            held = consumer.receive(30)
            assert held is not None
            assert admin.purge_stream(name, keep=2)["purged"] == 8
            producer.send(10)
        with pytest.raises(ZbrokerError):
            held.ack(confirm=True)
        bodies: list[Any] = []
        while len(bodies) < 3:
            delivery = consumer.receive(30)
            assert delivery is not None
            if delivery.offset >= 8:
                bodies.append(delivery.body)
                delivery.ack(confirm=True)
        assert bodies == [8, 9, 10]
    account = admin.show_group(name, "g")
    assert (account["acked"], account["expired"], account["pending"], account["balanced"]) == (3, 8, 0, True)


def test_a_stream_that_is_deleted_under_load_ends_its_members_and_loses_no_answer(
    broker: Broker, admin: Admin, name: str
) -> None:
    joined: list[str | None] = []
    ended: list[str] = []
    confirmed: list[Any] = []
    stop = threading.Event()

    def produce() -> None:
        with Producer(broker.url, name, timeout_s=60) as producer:
            for number in count():
                if stop.is_set():
                    return
                confirmed.append(producer.send(number))

    def consume(group: str | None) -> None:
        try:
            with Consumer(broker.url, name, group=group) as consumer:
                consumer.ready(30)
                joined.append(group)
                for delivery in consumer:
                    if group:
                        delivery.ack()
        except NoSuchStream as error:
            ended.append(error.detail)

    producing = Worker(produce)
    until(lambda: len(confirmed) > 10)
    workers = [Worker(lambda group=group: consume(group)) for group in ("a", "a", "b", None)]  # type: ignore[misc]
    until(lambda: len(joined) == 4)
    found = admin.delete_stream(name)
    assert found["groups"] == 2
    for worker in workers:
        worker.finish()
    assert len(ended) == 4
    assert all(f"stream {name!r} was deleted" in text for text in ended)
    before = len(confirmed)
    until(lambda: len(confirmed) > before + 10)  # it goes on, into a stream that its first batch has made
    stop.set()
    producing.finish()
    offsets = [receipt.offset for receipt in confirmed]
    anew = next(at for at in range(1, len(offsets)) if offsets[at] <= offsets[at - 1])
    assert offsets == [*range(anew), *range(len(offsets) - anew)]
    assert admin.show_stream(name)["next_offset"] == len(offsets) - anew


def test_a_group_that_is_deleted_ends_its_members_and_a_new_one_begins_anew(
    broker: Broker, admin: Admin, name: str
) -> None:
    with Producer(broker.url, name) as producer:
        producer.send_many(range(3))
    with Consumer(broker.url, name, group="g") as consumer:
        first = consumer.receive(30)
        assert first is not None
        first.ack(confirm=True)
        admin.delete_group(name, "g")
        with pytest.raises(NoSuchGroup, match=r"group 'g' of stream .* was deleted"):
            _drain(consumer)
    with Consumer(broker.url, name, group="g") as consumer:
        again = consumer.receive(30)
        assert again is not None
        assert (again.offset, again.attempt) == (0, 1)


def test_joins_and_deletions_of_one_stream_at_once_end_in_a_member_or_in_an_error(
    broker: Broker, admin: Admin, name: str
) -> None:
    outcomes: list[str] = []

    def join() -> None:
        for _ in range(10):
            try:
                with Consumer(broker.url, name, group="g") as consumer:
                    consumer.ready(30)
                    outcomes.append("joined")
            except NoSuchStream:
                outcomes.append("deleted")

    workers = [Worker(join) for _ in range(3)]
    while any(worker.is_alive() for worker in workers):
        try:
            admin.delete_stream(name)
        except NoSuchStream:
            outcomes.append("absent")
    for worker in workers:
        worker.finish()
    assert sum(outcomes.count(outcome) for outcome in ("joined", "deleted")) == 30


@pytest.mark.timeout(900 if LONG else 120)
def test_many_groups_of_a_stream_are_made_and_go_with_it(broker: Broker, admin: Admin, name: str) -> None:
    """Ten thousand in test-long."""
    for number in range(GROUPS):
        admin.create_group(GroupConfig(name, f"group-{number}"))
    with Producer(broker.url, name) as producer:
        producer.send_many(range(100))
    assert admin.show_stream(name)["groups"] == GROUPS
    admin.delete_group(name, "group-7")
    assert admin.purge_stream(name, keep=1)["purged"] == 99
    account = admin.show_group(name, f"group-{GROUPS - 1}")
    assert (account["expired"], account["pending"], account["balanced"]) == (99, 1, True)
    assert admin.delete_stream(name)["groups"] == GROUPS - 1
    assert [row for row in admin.list_groups() if row["stream"] == name] == []


def _drain(consumer: Consumer) -> None:
    while consumer.receive(30) is not None:
        pass


def _disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.seg") if file.exists())


def test_the_disk_follows_the_backlog_of_a_work_queue(tmp_path: Path) -> None:
    with Broker(tmp_path, environment=SMALL) as broker, Admin(broker.url, timeout_s=60) as admin:
        admin.create_stream(StreamConfig("work", retention="work"))
        admin.create_group(GroupConfig("work", "g"))
        with Producer(broker.url, "work", timeout_s=60) as producer:
            for _ in range(20):
                producer.send_many([BODY] * 600)
        kept = admin.show_stream("work")["kept_bytes"]
        assert kept > 12_000_000
        assert _disk_bytes(broker.data) > kept
        with Consumer(broker.url, "work", group="g") as consumer:
            for _ in range(12_000):
                delivery = consumer.receive(30)
                assert delivery is not None
                delivery.ack()
        until(lambda: admin.show_stream("work")["kept_bytes"] == 0)
        with Producer(broker.url, "other", timeout_s=60) as producer:  # segments go below the older of two checkpoints
            until(lambda: producer.send("on") is not None and _disk_bytes(broker.data) < kept // 2, 60)
        admin.delete_stream("other")
        assert broker.terminate() == 0
