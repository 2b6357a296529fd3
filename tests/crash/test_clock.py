"""A broker whose wall clock says 1970, 2100, or something else each time: instants are for people, nothing depends on them."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest

from patterns.sync import Consumer, Delivery, Producer
from tests.crash.audit import READY_S, SMALL, Told, check, served, status_of, verify
from tests.processes import Broker

YEAR_1970, YEAR_2001, YEAR_2026, YEAR_2100 = 5, 1_000_000_000, 1_790_000_000, 4_102_444_805
MESSAGES = 120  # a life; a checkpoint is due after 30 records

pytestmark = pytest.mark.timeout(180)

LIVES = {
    "the future, then the past": [YEAR_2100, YEAR_1970, YEAR_2026],
    "the past, then the future": [YEAR_1970, YEAR_2026, YEAR_2100],
    "jumps within a life": [
        f"{YEAR_2026},{YEAR_1970},{YEAR_2100}",
        f"{YEAR_2100},{YEAR_2001}",
        f"{YEAR_1970},{YEAR_2100}",
    ],
}


@pytest.mark.parametrize("clocks", LIVES.values(), ids=LIVES.keys())
def test_no_clock_loses_or_repeats_anything(tmp_path: Path, clocks: list[object]) -> None:
    told = Told()
    broker = Broker(tmp_path, ready_s=READY_S)
    for life, clock in enumerate(clocks):
        broker.environment = {**SMALL, "CRASH_CLOCK": str(clock)}
        with broker:  # and SIGKILL at its end
            _work(broker.url, told, life * MESSAGES)
    told.epochs = list(broker.epochs)
    broker.environment = SMALL
    with broker:
        found = served(broker.url)
        check(told, found)
        assert any(broker.data.glob("checkpoint-*")), "the checkpoints of wrong clocks are used like others"
        assert found.status["journal"]["damage"] == []
        assert not [text for text in found.status["warnings"] if "checkpoint" in text]
        with Consumer(broker.url, "work", codec="raw") as reader:
            instants = [reader.receive(30).published_at for _ in range(found.next_of("work"))]
        assert all(before <= after for before, after in pairwise(instants)), "published_at never goes back"
        assert broker.terminate() == 0
    assert verify(broker.data)[0] == 0


def _work(url: str, told: Told, first: int) -> None:
    with Producer(url, "work", codec="raw", name="p", timeout_s=30) as out:
        for number in range(first, first + MESSAGES):
            told.store("work", out.send(b"%08d" % number).offset, number)
    with Consumer(url, "work", group="g", codec="raw") as member:
        for _ in range(MESSAGES // 2):
            delivery = member.receive(30)
            assert delivery is not None
            delivery.ack(confirm=True)
            told.acked.add(delivery.offset)


@pytest.mark.parametrize("then", [YEAR_1970, YEAR_2100])
def test_a_delay_is_no_shorter_and_ends_whatever_the_clock_says(tmp_path: Path, then: int) -> None:
    """Within a life it is the monotonic clock's; after a restart it is at most as long again."""
    jumps = f"{YEAR_2026},{YEAR_1970},{YEAR_2100}"
    broker = Broker(tmp_path, ready_s=READY_S, environment={**SMALL, "CRASH_CLOCK": jumps})
    with broker, Producer(broker.url, "work", timeout_s=30) as out, Consumer(broker.url, "work", group="g") as member:
        sent_at = time.monotonic()
        out.send("late", delay_s=1)
        late = _next(member, "late", 1)
        assert time.monotonic() - sent_at >= 1
        failed_at = time.monotonic()
        late.nack(delay_s=1)
        late = _next(member, "late", 2)
        assert time.monotonic() - failed_at >= 1
        late.nack(delay_s=3)
        out.send("next")
        _next(member, "next", 1).ack(confirm=True)  # the delay is on disk with it
    broker.environment = {**SMALL, "CRASH_CLOCK": str(then)}
    with broker, Consumer(broker.url, "work", group="g") as member:
        _next(member, "late", 3).ack(confirm=True)
        assert status_of(broker.url)["groups"]["work/g"]["pending"] == 0


def _next(member: Consumer, body: str, attempt: int) -> Delivery:
    """The next message, which must be this one."""
    delivery = member.receive(30)
    assert delivery is not None
    assert (delivery.body, delivery.attempt) == (body, attempt)
    return delivery
