"""The broker, killed again and again under load: what it had confirmed is there, once, in order, and reaches the group."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from patterns.sync import Consumer
from tests.crash.load import Account, Load, Value
from tests.processes import LONG, Broker, until
from zbroker.store.os_disk import OsDisk
from zbroker.store.verify import verify_folder

KILLS = 200 if LONG else 50
DRAIN_S = 60
READY_S_MAX = 15.0  # on a machine that does twenty other things; one that reads all that sixty lives left took longer


@dataclass
class Outcome:
    """What is left of a run."""

    account: Account
    stored: dict[int, Value]
    broker: Broker
    kills: list[float]
    damaged: list[int] = field(default_factory=list)


def _kill_once(broker: Broker, load: Load, dice: random.Random) -> None:
    """Blind, some time after it is ready; or, two times of three, in the middle of work."""
    load.permit()
    if dice.random() < 1 / 3:
        threading.Event().wait(dice.uniform(0.05, 0.4))
    else:
        before = load.account.progress
        wanted = dice.randint(1, 500)
        until(lambda: load.account.progress > before + wanted or load.account.errors, 15, "any progress")
        threading.Event().wait(dice.uniform(0, 0.03))
    broker.kill()


def _stored(url: str) -> dict[int, Value]:
    with Consumer(url, "work", idle_timeout_s=3) as reader:
        return {offset: tuple(body) for b in reader.batches() for offset, body in zip(b.offsets, b.bodies, strict=True)}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """One run; each test looks at another side of it."""
    seed = int(os.environ.get("ZBROKER_TEST_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}: ZBROKER_TEST_SEED={seed} repeats the choice of instants")
    dice = random.Random(seed)
    folder: Path = tmp_path_factory.mktemp("kill")
    with Broker(folder) as broker:
        load = Load(broker.url)
        result = Outcome(load.account, {}, broker, [])
        for number in range(KILLS):
            _kill_once(broker, load, dice)
            result.kills.append(time.monotonic())
            if not verify_folder(OsDisk(), str(broker.data)).is_whole:
                result.damaged.append(number)
            broker.start()
        load.stop_producing(DRAIN_S)
        result.stored = _stored(broker.url)
        try:
            until(lambda: len({seen.offset for seen in load.account.seen}) >= len(result.stored), DRAIN_S, "the drain")
            until(
                lambda: len({offset for offset, _ in load.account.read}) >= len(result.stored), DRAIN_S, "the reading"
            )
        except AssertionError as error:
            load.account.errors.append(error)
        load.stop()
        yield result


pytestmark = pytest.mark.timeout(900 if LONG else 240)


def test_nobody_is_told_anything_unforeseen(outcome: Outcome) -> None:
    assert outcome.account.errors == []
    kinds = Counter(who for who, _ in outcome.stored.values())
    assert set(kinds) == {"one", "many", "post", "named"}, "each kind of producer took part"


def test_each_kill_leaves_a_whole_folder(outcome: Outcome) -> None:
    assert outcome.damaged == []


def test_epochs_grow_and_each_start_is_quick(outcome: Outcome) -> None:
    epochs = outcome.broker.epochs
    assert len(epochs) == KILLS + 1
    assert all(before < after for before, after in pairwise(epochs))
    assert median(outcome.broker.ready_s) < READY_S_MAX, "one start among many may have had to wait for its turn"


def test_what_was_confirmed_is_stored_where_it_was_confirmed(outcome: Outcome) -> None:
    wrong = [(offset, value) for offset, value in outcome.account.confirmed if outcome.stored.get(offset) != value]
    assert wrong == []


def test_what_was_confirmed_was_consumed_by_the_group(outcome: Outcome) -> None:
    consumed = {(seen.offset, seen.value) for seen in outcome.account.seen}
    assert set(outcome.account.confirmed) - consumed == set()


def test_an_offset_never_has_two_values(outcome: Outcome) -> None:
    seen = [(one.offset, one.value) for one in outcome.account.seen] + outcome.account.read
    assert [(offset, value) for offset, value in seen if outcome.stored[offset] != value] == []


def test_offsets_leave_no_gap(outcome: Outcome) -> None:
    assert sorted(outcome.stored) == list(range(len(outcome.stored)))


def test_a_retried_batch_is_stored_once(outcome: Outcome) -> None:
    twice = [value for value, times in Counter(outcome.stored.values()).items() if times > 1]
    assert twice == []


def test_each_producers_messages_are_in_its_order(outcome: Outcome) -> None:
    numbers: dict[str, list[int]] = defaultdict(list)
    for _, (who, number) in sorted(outcome.stored.items()):
        numbers[who].append(number)
    for who, found in numbers.items():
        assert found == sorted(found), who


def test_a_surely_acked_message_never_comes_again(outcome: Outcome) -> None:
    deliveries = outcome.account.deliveries()
    assert outcome.account.surely, "some acks were confirmed"
    again = [(offset, at) for offset, at in outcome.account.surely if any(one.at > at for one in deliveries[offset])]
    assert again == []


def test_attempts_are_never_reset(outcome: Outcome) -> None:
    """A crash may undo the last count; it never forgets an older one."""
    for found in outcome.account.deliveries().values():
        attempts = [one.attempt for one in found]
        assert attempts == sorted(attempts), found


def test_a_token_lends_a_message_to_one_member(outcome: Outcome) -> None:
    for found in outcome.account.deliveries().values():
        assert len({one.token for one in found}) == len(found), found


def test_the_reader_gets_each_message_once_and_in_order(outcome: Outcome) -> None:
    assert [offset for offset, _ in outcome.account.read] == sorted(outcome.stored)
