"""A broker that is killed amid purges and deletions: each has happened or has not, what was answered has, and nothing else is touched."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Admin, Consumer, GroupConfig, Producer
from patterns.wire.errors import NoSuchGroup, NoSuchStream, ZbrokerError
from tests.crash.audit import READY_S, SMALL, status_of, verify
from tests.processes import LONG, Broker

KILLS = 60 if LONG else 3
MESSAGES = 60
KEPT = 7
ACKED = 5
ANSWER_S = 60.0

pytestmark = pytest.mark.timeout(1800 if LONG else 240)


def _fill(broker: Broker, name: str) -> None:
    """A stream with a group that has settled the first few."""
    with Producer(broker.url, name, timeout_s=ANSWER_S) as producer:
        producer.send_many(range(MESSAGES))
    with Consumer(broker.url, name, group="g") as consumer:
        for _ in range(ACKED):
            delivery = consumer.receive(ANSWER_S)
            assert delivery is not None
            delivery.ack(confirm=True)


def _remove(url: str, verb: str, name: str, answers: list[dict[str, Any]]) -> None:
    try:
        with Admin(url, timeout_s=2.0) as admin:
            match verb:
                case "purge":
                    answers.append(admin.purge_stream(name, keep=KEPT))
                case "delete":
                    answers.append(admin.delete_stream(name))
                case _:
                    answers.append(admin.delete_group(name, "g"))
    except ZbrokerError:
        pass  # the broker was killed before it answered


def _strike(broker: Broker, verb: str, name: str, dice: random.Random) -> bool:
    """Kill it at some instant after the verb was asked for; whether that was answered."""
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=_remove, args=(broker.url, verb, name, answers))
    asking.start()
    time.sleep(dice.choice([0.0, 0.02, 0.05, 0.1, 0.3]))  # whenever it comes, what is held below must hold
    broker.kill()
    asking.join(ANSWER_S)
    broker.start()
    return bool(answers)


def _bodies(url: str, name: str) -> list[Any]:
    with Consumer(url, name, idle_timeout_s=0.5) as reader:
        reader.ready(ANSWER_S)
        return [delivery.body for delivery in reader]


def _check(admin: Admin, url: str, verb: str, name: str, *, was_answered: bool) -> None:
    whole, newest = list(range(MESSAGES)), list(range(MESSAGES - KEPT, MESSAGES))
    try:
        row, group = admin.show_stream(name), None
        group = admin.show_group(name, "g")
    except NoSuchStream:
        assert verb == "delete"
        return
    except NoSuchGroup:
        assert verb == "group"
    assert row["next_offset"] == MESSAGES
    assert verb == "purge" or not was_answered or group is None
    bodies = _bodies(url, name)
    assert bodies in ([newest] if was_answered and verb == "purge" else [newest, whole] if verb == "purge" else [whole])
    if group is not None:
        assert group["balanced"]
        assert group["acked"] == ACKED
        if verb == "purge" and was_answered:
            assert (group["expired"], group["pending"]) == (MESSAGES - ACKED - KEPT, KEPT)
        elif verb != "purge":
            assert (group["expired"], group["pending"]) == (0, MESSAGES - ACKED)


def test_a_removal_that_is_killed_has_happened_or_has_not(tmp_path: Path) -> None:
    dice = random.Random(5)
    verbs = [verb for verb in ("purge", "delete", "group") for _ in range(KILLS // 3)]
    dice.shuffle(verbs)
    done: list[tuple[str, str, bool]] = []
    with Broker(tmp_path, environment=SMALL, ready_s=READY_S) as broker:
        with Producer(broker.url, "other", timeout_s=ANSWER_S) as producer:
            producer.send_many(range(100))
        for number, verb in enumerate(verbs):
            name = f"stream-{number}"
            _fill(broker, name)
            done.append((verb, name, _strike(broker, verb, name, dice)))
            with Admin(broker.url, timeout_s=ANSWER_S) as admin:
                _check(admin, broker.url, verb, name, was_answered=done[-1][2])
        with Admin(broker.url, timeout_s=ANSWER_S) as admin:
            admin.create_group(GroupConfig("other", "g"))
            for one, stream, was_answered in done:
                _check(admin, broker.url, one, stream, was_answered=was_answered)
        assert _bodies(broker.url, "other") == list(range(100))
        status = status_of(broker.url)
        assert (status["anomalies"], status["journal"]["damage"]) == (0, [])
        assert broker.terminate() == 0
        exit_status, report, words = verify(broker.data)
        assert exit_status == 0, (report, words)
    print(f"{sum(was_answered for _, _, was_answered in done)} of {len(done)} answered")
