"""The broker, its sidecar or both are killed and stopped in each phase of their lives, under load: what was confirmed is there, once, in
order, and reaches the group.

One broker, one folder, one load: what an earlier strike leaves is what the next one meets. Settings make short phases long and rare
ones frequent: small segments, pieces of a checkpoint and steps of a compaction, and nothing is kept that the groups have settled.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from patterns.sync import Admin, Consumer
from tests.crash.audit import SMALL, status_of, verify
from tests.crash.load import Account, Load, Value
from tests.crash.phases import ALL, Phase, Strike, Striker
from tests.processes import LONG, Broker, until

HITS_MIN = 20 if LONG else 2  # in each phase
ROUNDS = 7  # of all 45 strikes: two of three of them kill
DRAIN_S = 60
READY_S = 60  # each start, whatever the machine does beside
READY_S_MEDIAN = 15.0
SWITCHES = {
    **SMALL,
    "CRASH_SEGMENT_BYTES": str(256 << 10),
    "CRASH_CHECKPOINT_RECORDS": "60",
    "CRASH_PIECE_BYTES": "200",
    "CRASH_COMPACTION_BYTES": str(16 << 10),
}


@dataclass
class Outcome:
    """What is left of a run.

    Attributes:
        stored: by offset of `work`, as a reader gets it.
        status: of the broker, after the drain.
        verify: exit status and report on the folder, after a clean end.
        older: status of a broker that begins with the older of the two checkpoints, because the newest is rotten.
    """

    account: Account
    bulk: Account
    stored: dict[int, Value]
    broker: Broker
    striker: Striker
    status: dict[str, Any]
    verify: tuple[int, dict[str, Any], str]
    older: dict[str, Any]


def _plan(dice: random.Random) -> list[Strike]:
    """All strikes some times over; or a sample, in which each phase meets each of the victims and each of the signals once."""
    if LONG:
        return [strike for _ in range(ROUNDS) for strike in dice.sample(ALL, len(ALL))]
    plan: list[Strike] = []
    for phase in Phase:
        of_phase = [strike for strike in ALL if strike.phase is phase]
        first = dice.randrange(3)
        plan += [of_phase[3 * victims + (victims + first) % 3] for victims in range(3)]
    return dice.sample(plan, len(plan))


def _stored(url: str) -> dict[int, Value]:
    end = status_of(url)["streams"]["work"]["next_offset"]
    found: dict[int, Value] = {}
    with Consumer(url, "work", idle_timeout_s=10) as reader:
        for batch in reader.batches():
            found.update((offset, tuple(body)) for offset, body in zip(batch.offsets, batch.bodies, strict=True))
            if len(found) >= end:
                break
    return found


def _drain(load: Load, url: str) -> None:
    """Until both groups have settled everything and the reader has read it."""
    ends = {name: held["next_offset"] for name, held in status_of(url)["streams"].items()}
    with Admin(url, timeout_s=30) as admin:

        def is_settled() -> bool:
            groups = admin.status()["groups"]
            return not (groups["work/workers"]["pending"] or groups["bulk/halves"]["pending"])

        try:
            until(is_settled, DRAIN_S, "the drain")
            until(lambda: len({offset for offset, _ in load.account.read}) >= ends["work"], DRAIN_S, "the reading")
        except AssertionError as error:
            load.account.errors.append(error)


def _status_from_the_older_checkpoint(broker: Broker) -> dict[str, Any]:
    newest = max(broker.data.glob("checkpoint-*"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    broker.start()
    return status_of(broker.url)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """One run; each test looks at another side of it."""
    seed = int(os.environ.get("ZBROKER_TEST_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}: ZBROKER_TEST_SEED={seed} repeats the choice of strikes and instants")
    dice = random.Random(seed)
    folder: Path = tmp_path_factory.mktemp("kill")
    with Broker(folder, "--stream-bytes", "0", environment=SWITCHES, ready_s=READY_S) as broker:
        load = Load(broker.url)
        striker = Striker(broker, load, dice)
        for strike in _plan(dice):
            striker.strike(strike)
        striker.revive()
        load.stop_producing(DRAIN_S)
        _drain(load, broker.url)
        stored, status = _stored(broker.url), status_of(broker.url)
        load.stop()
        assert broker.terminate() == 0
        verified = verify(broker.data)
        older = _status_from_the_older_checkpoint(broker)
        yield Outcome(load.account, load.bulk, stored, broker, striker, status, verified, older)


pytestmark = pytest.mark.timeout(2400 if LONG else 240)


def test_each_phase_was_met_often_enough(outcome: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted while both processes stood still, in the middle of it."""
    striker = outcome.striker
    found = Counter(strike.phase for strike in striker.hits)
    kills = sum(strike.kills("broker") or strike.kills("sidecar") for strike in striker.hits)
    with capsys.disabled():
        print()
        for strike, times in sorted(Counter(map(str, striker.hits)).items()):
            print(f"{times:4}  {strike}")
        print(*(f"{phase.value}: {found[phase]} met, {striker.misses[phase]} missed;" for phase in Phase))
        print(f"{kills} kills, {striker.refusals} refused starts, {striker.verified} folders verified")
    assert all(found[phase] >= HITS_MIN for phase in Phase)
    assert kills >= 200 or not LONG


def test_nobody_is_told_anything_unforeseen(outcome: Outcome) -> None:
    assert outcome.account.errors == []
    kinds = Counter(who for who, _ in outcome.stored.values())
    assert set(kinds) == {"one", "many", "post", "named"}, "each kind of producer took part"


def test_nothing_is_lost_and_all_is_accounted_for(outcome: Outcome) -> None:
    status = outcome.status
    assert status["anomalies"] == 0
    assert status["journal"]["damage"] == []
    assert all(group["balanced"] for group in status["groups"].values())
    assert [name for name, group in status["groups"].items() if group["lost"]] == []
    exit_status, report, words = outcome.verify
    assert exit_status == 0, (report, words)


def test_the_older_checkpoint_tells_the_same(outcome: Outcome) -> None:
    """It was written amid strikes as well."""
    older, status = outcome.older, outcome.status
    assert any("an older one, or the whole log, was read instead" in text for text in older["journal"]["warnings"])
    for name, stream in status["streams"].items():
        assert older["streams"][name]["next_offset"] == stream["next_offset"]
    for name, group in status["groups"].items():
        assert [older["groups"][name][key] for key in ("acked", "pending")] == [
            group[key] for key in ("acked", "pending")
        ]
    assert older["anomalies"] == 0


def test_what_the_folder_holds_is_what_was_compacted(outcome: Outcome) -> None:
    """Or the strikes in that phase would have had no consequence."""
    names = [path.name for path in outcome.broker.data.glob("*.seg")]
    assert [name for name in names if not name.endswith("-0000.seg")], names


def test_epochs_grow_and_each_start_is_quick(outcome: Outcome) -> None:
    epochs = outcome.broker.epochs
    assert all(before < after for before, after in pairwise(epochs))
    assert median(outcome.broker.ready_s) < READY_S_MEDIAN, "one start among many may have had to wait for its turn"


def test_what_was_confirmed_is_stored_where_it_was_confirmed(outcome: Outcome) -> None:
    wrong = [(offset, value) for offset, value in outcome.account.confirmed if outcome.stored.get(offset) != value]
    assert wrong == []


def test_what_was_confirmed_was_consumed_by_the_group(outcome: Outcome) -> None:
    for account in (outcome.account, outcome.bulk):
        consumed = {(seen.offset, seen.value) for seen in account.seen}
        assert set(account.confirmed) - consumed == set()


def test_an_offset_never_has_two_values(outcome: Outcome) -> None:
    for account in (outcome.account, outcome.bulk):
        told = {*account.confirmed, *account.read, *((one.offset, one.value) for one in account.seen)}
        assert len({offset for offset, _ in told}) == len(told)
        assert len({value for _, value in told}) == len(told), "a retried batch is stored once"
    assert [one for one in outcome.account.read if outcome.stored[one[0]] != one[1]] == []


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
