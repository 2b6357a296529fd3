"""Dead letters while the broker is killed, and on a disk that is full: each rejected message ends as one letter, and goes back once."""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Consumer, GroupConfig, Producer
from patterns.wire.errors import ZbrokerError
from tests.crash.audit import READY_S, SMALL, status_of, verify
from tests.crash.small_disk import NotPermitted, SmallDisk
from tests.processes import LONG, PYTHON, Broker, until

MESSAGES = 4_000 if LONG else 900
KILLS = 40 if LONG else 4
WAIT_S = 120.0

pytestmark = pytest.mark.timeout(1200 if LONG else 240)


def _rows(url: str) -> dict[str, dict[str, Any]]:
    with Admin(url, timeout_s=WAIT_S) as admin:
        rows: dict[str, dict[str, Any]] = admin.status()["groups"]
    return rows


def _make(url: str) -> None:
    with Admin(url, timeout_s=WAIT_S) as admin:
        admin.create_group(GroupConfig("work", "g", dead_letter="dead"))


@contextmanager
def _going_on(step: Callable[[], None]) -> Iterator[None]:
    """Another thread does this again and again, whatever a broker that is killed makes of it."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with suppress(ZbrokerError):
                step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(WAIT_S)


def _work(url: str) -> None:
    """A member acks every third message and what was sent back, and rejects the rest."""
    with Consumer(url, "work", group="g", idle_timeout_s=0.5) as consumer:
        for delivery in consumer:
            if delivery.body % 3 == 0 or "zb-redriven" in (delivery.headers or ()):
                delivery.ack()
            else:
                delivery.reject(f"reason {delivery.body}")


def _redrive(url: str) -> None:
    with Admin(url, timeout_s=2.0) as admin:
        admin.redrive_dead("dead", count=20)


def _read(url: str, stream: str, count: int) -> list[Any]:
    """All that is in a stream."""
    found = []
    with Consumer(url, stream, group=None) as reader:
        for delivery in reader:
            found.append(delivery)
            if len(found) == count:
                break
    return found


def _is_done(url: str) -> bool:
    rows = _rows(url)
    return rows["work/g"]["pending"] == 0 and rows["dead/redrive"]["pending"] == 0


def test_each_rejected_message_is_one_letter_and_goes_back_once_over_kills(tmp_path: Path) -> None:
    dice = random.Random(5)
    with Broker(tmp_path, environment=SMALL, ready_s=READY_S) as broker:
        url = broker.url
        _make(url)
        with Producer(url, "work") as out:
            out.send_many(range(MESSAGES))
        with _going_on(lambda: _work(url)), _going_on(lambda: _redrive(url)):
            for kill in range(KILLS):
                goal = (kill + 1) * (MESSAGES * 2 // 3) // (KILLS + 1)
                until(lambda goal=goal: _rows(url)["work/g"]["dead"] >= goal, WAIT_S, "the moves")  # type: ignore[misc]
                threading.Event().wait(dice.random() * 0.02)  # amid anything
                broker.restart()
            until(lambda: _is_done(url), WAIT_S, "the end")
        rows, rejected = _rows(url), [number for number in range(MESSAGES) if number % 3]
        letters = _read(url, "dead", len(rejected))
        origins = Counter(int(letter.headers["zb-dead-offset"]) for letter in letters)
        assert origins == Counter(rejected)
        assert all(letter.headers["zb-dead-reason"] == f"reason {letter.body}" for letter in letters)
        back = _read(url, "work", MESSAGES + len(rejected))[MESSAGES:]
        assert Counter(delivery.body for delivery in back) == Counter(rejected)
        group, redrive = rows["work/g"], rows["dead/redrive"]
        assert (group["dead"], group["acked"]) == (len(rejected), MESSAGES)
        assert redrive["acked"] == len(rejected)
        assert group["balanced"]
        assert redrive["balanced"]
        assert broker.terminate() == 0
        assert verify(broker.data)[0] == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    try:
        small = SmallDisk(tmp_path / "small", str(32 << 20))
    except NotPermitted as error:
        pytest.skip(str(error))
    with small:
        yield small


def _is_full(url: str) -> bool:
    """After some more was sent."""
    with suppress(ZbrokerError), Producer(url, "filler", codec="raw", timeout_s=1) as out:
        out.send_many(bytes(50_000) for _ in range(200))
    return any("disk is full" in text for text in status_of(url)["warnings"])


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process and namespaces are Linux's")
def test_a_full_disk_parks_what_is_rejected_until_there_is_room(tmp_path: Path, disk: SmallDisk) -> None:
    broker = Broker(tmp_path, environment=SMALL, ready_s=READY_S, interpreter=(*disk.command, *PYTHON))
    broker.data = disk.folder / "data"
    with broker:
        url = broker.url
        _make(url)
        with Producer(url, "work", codec="raw") as out:
            out.send_many([bytes(50_000)] * 40)
        until(lambda: _is_full(url), WAIT_S, "a full disk")
        with Consumer(url, "work", group="g", codec="raw") as consumer:
            for count, delivery in enumerate(consumer, 1):
                delivery.reject("no room")
                if count == 40:
                    break
            until(lambda: _rows(url)["work/g"]["doomed"] == 40, what="the rejects")
            row = _rows(url)["work/g"]
            assert (row["dead"], row["pending"], row["balanced"]) == (0, 40, True)
            assert consumer.receive(0.2) is None
            disk.remount("size=200M")
            until(lambda: _rows(url)["work/g"]["dead"] == 40, WAIT_S, "the moves")
        assert {letter.headers["zb-dead-reason"] for letter in _read(url, "dead", 40)} == {"no room"}
        assert _rows(url)["work/g"]["balanced"]
