"""Disks, folders, clocks and limits that fail under a real broker: what cannot be stored is refused, all else goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from patterns.sync import Admin, Consumer, Producer, Publisher, Receipt, Subscriber
from patterns.wire.errors import StorageFailed, StorageFull, ZbrokerError
from tests.processes import READY_S, Program, until
from zbroker.store.segment import segment_name

BROKER = "import sys, resource, time; sys.argv[0] = 'zbroker'; {first}; from zbroker.cli.main import main; main()"


@contextmanager
def broker(folder, data, first: str = "0") -> Iterator[tuple[Program, str]]:
    """A broker process that does something `first`; and its URL."""
    run = ["run", "--bind", "tcp://127.0.0.1:0", "--json", "--data", str(data)]
    with Program(["-c", BROKER.format(first=first), *run], folder / "broker.err") as process:
        ready = json.loads(process.line(READY_S))
        yield process, ready["addresses"]["native"].replace("tcp://", "zb://")
        assert process.process.poll() is None, process.errors


def refused(folder, data) -> tuple[int, str]:
    run = ["-m", "zbroker", "run", "--bind", "tcp://127.0.0.1:0", "--data", str(data)]
    with Program(run, folder / "refused.err") as process:
        return process.wait(), process.errors


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 100 MiB, and how to make it larger."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(*options: str) -> int:
        return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode

    if os.geteuid() != 0 or mount("-t", "tmpfs", "-o", "size=100m", "tmpfs"):
        pytest.skip("mounting a small file system is not permitted here")
    yield folder, lambda size: mount("-o", f"remount,size={size}")
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_folder_that_became_read_only_is_refused_with_a_hint_and_can_be_verified(tmp_path, small_disk):
    folder, _ = small_disk
    with broker(tmp_path, folder / "data") as (_, url), Producer(url, "s") as out:
        out.send(1)
    if subprocess.run(["mount", "-o", "remount,ro", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("remounting is not permitted here")
    status, complaint = refused(tmp_path, folder / "data")
    assert status == 69
    assert "mounted for writing" in complaint
    verified = subprocess.run(
        [sys.executable, "-m", "zbroker", "store", "verify", str(folder / "data")], capture_output=True, check=False
    )
    assert verified.returncode == 0, verified.stderr


def warnings_of(url: str) -> str:
    with Admin(url) as admin:
        return " ".join(admin.status()["warnings"])


def test_a_full_disk_refuses_producers_lets_all_else_go_on_and_heals_by_itself(tmp_path, small_disk):
    folder, enlarge = small_disk
    with (
        broker(tmp_path, folder / "data") as (_, url),
        Producer(url, "s", codec="raw", timeout_s=2) as producer,
        Consumer(url, "s", group="g", codec="raw") as consumer,
        Publisher(url) as publisher,
        Subscriber(url, "live") as subscriber,
    ):
        subscriber.ready()
        stored: list[Receipt] = []
        with pytest.raises(StorageFull) as full:
            stored.extend(producer.send(b"x" * 900_000) for _ in range(200))
        assert full.value.retryable
        assert full.value.retry_after_ms > 0
        assert "disk is full" in warnings_of(url)
        for offset in range(len(stored)):
            delivery = consumer.receive(10)
            assert delivery is not None
            assert delivery.offset == offset
            delivery.ack(confirm=True)
        publisher.publish("live", 1)
        assert subscriber.receive(10) is not None
        enlarge("400m")
        until(lambda: "disk is full" not in warnings_of(url), what="healing")
        assert producer.send(b"after").duplicate is False


def test_a_broker_cannot_start_on_a_full_disk_and_says_why(tmp_path, small_disk):
    folder, enlarge = small_disk
    assert enlarge("10m") == 0
    status, complaint = refused(tmp_path, folder / "data")
    assert status == 69
    assert "No space left" in complaint


@pytest.mark.parametrize("what", ["a file", "foreign", "read-only"])
def test_a_folder_that_cannot_be_used_is_refused_and_nothing_is_changed(tmp_path, what):
    data = tmp_path / "data"
    if what == "a file":
        data.write_text("thesis")
    else:
        data.mkdir()
    if what == "foreign":
        (data / "thesis.txt").write_text("thesis")
    if what == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root writes to whatever it likes")
        data.chmod(0o500)
    status, complaint = refused(tmp_path, data)
    assert status == 69
    assert str(data) in complaint
    assert "Traceback" not in complaint


def test_a_folder_removed_under_a_running_broker_ends_what_is_durable_and_nothing_else(tmp_path):
    data = tmp_path / "data"
    with (
        broker(tmp_path, data) as (_, url),
        Producer(url, "s", timeout_s=3) as producer,
        Publisher(url) as publisher,
        Subscriber(url, "live") as subscriber,
    ):
        subscriber.ready()
        producer.send(1)
        shutil.rmtree(data)
        until(lambda: "removed" in warnings_of(url), what="noticing")
        with pytest.raises(ZbrokerError):
            producer.send(2)
        with Consumer(url, "other", group="new") as consumer, pytest.raises(StorageFailed):
            consumer.ready(5)
        publisher.publish("live", 1)
        assert subscriber.receive(10) is not None


def _replace(data):
    shutil.copytree(data, data.with_name("copy"))
    data.rename(data.with_name("moved"))
    data.with_name("copy").rename(data)


CHANGES = {
    "its own copy": (_replace, "replaced"),
    "no segment": (lambda data: (data / segment_name(1)).unlink(), "was removed or replaced while it was written to"),
    "an empty segment": (lambda data: os.truncate(data / segment_name(1), 0), "was cut to"),
    "no lock": (lambda data: (data / "LOCK").unlink(), "LOCK was removed"),
}


@pytest.mark.parametrize(("change", "text"), CHANGES.values(), ids=CHANGES)
def test_a_folder_that_is_another_under_a_running_broker_gets_no_confirm(tmp_path, change, text):
    data = tmp_path / "data"
    with broker(tmp_path, data) as (_, url), Producer(url, "s", timeout_s=20) as producer:
        producer.send(1)
        change(data)
        posted = producer.post(2)
        until(lambda: text in warnings_of(url), what="telling why")
        with Producer(url, "s", timeout_s=20) as other, pytest.raises(StorageFailed):
            other.send(3)
        with pytest.raises(ZbrokerError):  # whether it is on the disk, nobody knows
            posted.result(0.1)
        producer.close(0.1)


def test_a_second_broker_is_refused_though_the_lock_file_was_removed(tmp_path):
    data = tmp_path / "data"
    with broker(tmp_path, data) as (_, url):
        (data / "LOCK").unlink()
        status, complaint = refused(tmp_path, data)
        assert status == 69
        assert "locked by another process" in complaint
        until(lambda: "LOCK was removed" in warnings_of(url), what="noticing")


def test_a_copy_that_broke_off_is_told(tmp_path):
    with broker(tmp_path, tmp_path / "data") as (_, url), Producer(url, "s", codec="raw") as producer:
        producer.send_many([b"x" * 100_000] * 50)
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "data").iterdir():
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes()[: 2 << 20])
    with broker(tmp_path, tmp_path / "copy") as (_, url):
        until(lambda: "broke off" in warnings_of(url), what="telling")


def test_too_few_file_handles_hold_up_nobody_who_is_connected(tmp_path):
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with (
        broker(tmp_path, tmp_path / "data", few) as (_, url),
        Producer(url, "s", timeout_s=10) as producer,
        Admin(url) as admin,
    ):
        producer.send(0)
        crowd = [context.socket(zmq.DEALER) for _ in range(200)]
        for one in crowd:
            one.connect(url.replace("zb://", "tcp://"))
        until(lambda: "open files" in " ".join(admin.status()["warnings"]), what="warning")
        assert [producer.send(number).offset for number in range(1, 20)] == list(range(1, 20))
        context.destroy(linger=0)
        until(lambda: "open files" not in " ".join(admin.status()["warnings"]), what="taking it back")


@pytest.mark.parametrize(("year", "since_1970_s"), [(1970, 5), (2100, 4_102_444_805)])
def test_a_clock_that_is_wrong_and_then_right_is_no_trouble(tmp_path, year, since_1970_s):
    first = f"time.time_ns = lambda: {since_1970_s}_000_000_000 + time.monotonic_ns() % 10**9"
    with (
        broker(tmp_path, tmp_path / "data", first) as (_, url),
        Producer(url, "s") as producer,
        Consumer(url, "s", group="g") as consumer,
    ):
        producer.send(1)
        delivery = consumer.receive(10)
        assert delivery is not None
        assert (delivery.body, delivery.published_at.year) == (1, year)
    with broker(tmp_path, tmp_path / "data") as (_, url), Producer(url, "s") as producer, Consumer(url, "s") as reader:
        producer.send(2)
        earlier, later = reader.receive(10), reader.receive(10)
        assert earlier is not None
        assert later is not None
        assert (earlier.body, later.body) == (1, 2)
        assert later.published_at >= earlier.published_at, "it never goes back, whatever the clock does"
