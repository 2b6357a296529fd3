"""A broker that is killed while the same ids come from two producers, and while live messages are captured: once, and in order."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Consumer, Producer, Publisher, StreamConfig
from patterns.wire.errors import Closed, ZbrokerError
from tests.crash.audit import READY_S, SMALL
from tests.processes import LONG, Broker

KILLS = 60 if LONG else 4
PART = 40
TOPICS = 3
CONFIRM_S = 120.0
PACE_S = 0.02  # between parts: the broker is to be killed often, not to store much

pytestmark = pytest.mark.timeout(1800 if LONG else 300)


class Twins:
    """Two producers that send the same numbers, each under its own id; overlapping parts are sent twice by each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.confirmed: set[int] = set()
        self.ended = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(seed,)) for seed in (1, 2)]

    def __enter__(self) -> Twins:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join(CONFIRM_S)
            assert not thread.is_alive()

    def _send(self, seed: int) -> None:
        dice, first = random.Random(seed), 0
        with Producer(self.url, "twins", timeout_s=CONFIRM_S) as producer:
            while not self.ended.is_set():
                part = range(first, first + PART)
                posted = [producer.post(one, message_id=str(one), topic=f"twins.{one % TOPICS}") for one in part]
                for one, message in zip(part, posted, strict=True):
                    message.result(CONFIRM_S)
                    self.confirmed.add(one)
                first += dice.choice([PART // 2, PART])
                time.sleep(PACE_S)


def _publish(publisher: Publisher, ended: threading.Event) -> None:
    number = 0
    while not ended.is_set():
        try:
            publisher.publish(f"heard.{number % TOPICS}", number)
            number += 1
        except Closed:
            return
        except ZbrokerError:
            pass  # the broker is away: what is live may be lost
        if number % PART == 0:
            time.sleep(PACE_S)


def _read(url: str, name: str) -> list[Any]:
    with Consumer(url, name, idle_timeout_s=2.0) as reader:
        reader.ready(CONFIRM_S)
        return [(delivery.body, delivery.topic, delivery.message_id) for delivery in reader]


def test_ids_are_stored_once_and_captures_in_order_through_kills(tmp_path: Path) -> None:
    dice = random.Random(5)
    with Broker(tmp_path, environment=SMALL, ready_s=READY_S) as broker:
        with Admin(broker.url, timeout_s=CONFIRM_S) as admin:
            admin.create_stream(StreamConfig("twins", dedup_s=3_600.0))
            admin.create_stream(StreamConfig("heard", topics=["heard.>"]))
        with Publisher(broker.url) as publisher, Twins(broker.url) as twins:
            publishing = threading.Thread(target=_publish, args=(publisher, twins.ended))
            publishing.start()
            for _ in range(KILLS):
                time.sleep(0.3 + dice.random())  # whenever it comes, what is held below must hold
                broker.kill()
                broker.start()
        publishing.join(CONFIRM_S)
        stored, heard = _read(broker.url, "twins"), _read(broker.url, "heard")
    bodies = [body for body, _, _ in stored]
    assert len(bodies) == len(set(bodies))
    assert set(bodies) >= twins.confirmed > set()
    assert all((topic, name) == (f"twins.{body % TOPICS}", str(body)) for body, topic, name in stored)
    captured = [body for body, _, _ in heard]
    assert captured == sorted(set(captured))
    assert len(captured) >= PART
    assert all(topic == f"heard.{body % TOPICS}" for body, topic, _ in heard)
