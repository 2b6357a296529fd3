"""A producer with a journal of its own, killed again and again, and its broker too: the stream holds each message once, in order."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from patterns.sync import Admin, Consumer, Producer
from tests.processes import LONG, Broker, program
from zbroker.store import open_journal

KILLS = 150 if LONG else 20

SENDER = """
import sys
from itertools import count
from patterns.sync import Producer
from zbroker.store import open_journal
url, folder, run, how = sys.argv[1:]
with Producer(url, "work", journal=open_journal(folder)) as out:
    numbers = count()
    print("begun", out.waiting, out.refused)
    while True:
        if how == "send":
            number = next(numbers)
            out.send([int(run), number], key=str(number))
        elif how == "many":
            some = [next(numbers) for _ in range(50)]
            out.send_many([int(run), number] for number in some)
            number = some[-1]
        else:
            posted = [(number, out.post([int(run), number])) for number in (next(numbers) for _ in range(50))]
            number = posted[-1][0]
            for _, one in posted:
                one.result(30)
        print(number)
"""


def _flushed(broker: Broker, folder: Path) -> None:
    """One more life, in which all that waits is forwarded."""
    with Producer(broker.url, "work", journal=open_journal(folder)) as out:
        out.flush(60)
        assert (out.waiting, out.refused) == (0, 0)


def _stored(broker: Broker) -> list[list[int]]:
    with Admin(broker.url, timeout_s=30) as admin, Consumer(broker.url, "work", idle_timeout_s=30) as reader:
        count = admin.status()["streams"]["work"]["next_offset"]
        return [d.body for d in islice(reader, count)]


@pytest.mark.timeout(1_200 if LONG else 240)
def test_what_killed_producers_were_promised_is_in_the_stream_once_and_in_order(tmp_path: Path) -> None:
    """The broker comes late, is killed in between, and stays away now and then."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    folder = tmp_path / "outbox"
    broker = Broker(tmp_path)
    is_up = False
    promised: dict[int, int] = {}
    try:
        for run in range(KILLS):
            if run >= 2 and not is_up and chance.random() < 0.6:
                broker.start()
                is_up = True
            how = chance.choice(["send", "many", "post"])
            with program(SENDER, tmp_path, broker.url, str(folder), str(run), how) as sender:
                assert sender.line().startswith("begun")
                lines = [sender.line() for _ in range(chance.randrange(20))]
                if is_up and chance.random() < 0.4:
                    broker.kill()
                    is_up = False
                    lines += [sender.line() for _ in range(chance.randrange(5))]
                sender.kill()
            lines += [line for line in sender.lines() if line]
            if lines:
                promised[run] = int(lines[-1])
        if not is_up:
            broker.start()
        _flushed(broker, folder)
        _check(_stored(broker), promised)
    finally:
        broker.process.kill()


def _check(stored: list[list[int]], promised: dict[int, int]) -> None:
    assert stored == sorted(stored), "in order"
    by_run: dict[int, list[int]] = {}
    for run, number in stored:
        by_run.setdefault(run, []).append(number)
    for run, numbers in by_run.items():
        assert numbers == list(range(len(numbers))), f"of run {run}, each once and none left out"
    for run, last in promised.items():
        assert by_run.get(run, [-1])[-1] >= last, f"of run {run}, all that was promised"
