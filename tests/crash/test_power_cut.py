"""Power cuts at any instant of a real broker's lives: its system calls are recorded, and what a cut may leave is rebuilt from them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from patterns.sync import Producer
from tests.crash.audit import READY_S, SMALL, Told, check, served, verify
from tests.crash.power import (
    Machine,
    marks_before,
    settled,
    without_commit_syncs,
    without_name_syncs,
    without_syncs,
    write_out,
)
from tests.crash.strace import Call, calls_on, recorder, why_not
from tests.processes import LONG, Broker
from zbroker.store.faults import FolderUnusable
from zbroker.store.os_disk import OsDisk
from zbroker.store.verify import verify_folder

CUTS = 300 if LONG else 16
LIVES = 9 if LONG else 3
AT_ONCE = 4  # a broker waits two seconds for who held messages before the cut; others work meanwhile
CUTS_WITH_A_DEFECT = 12  # one would do, but for the cuts in which nothing had been confirmed yet
SECOND_START_EACH = 4

pytestmark = pytest.mark.timeout(1_800 if LONG else 240)


@dataclass
class Recorded:
    """A run, and the seed of all that is chosen in it and after it."""

    seed: int
    folder: Path
    calls: list[Call]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def places(self, count: int) -> list[int]:
        """Where to pull the plug: somewhere among the calls on the folder, not in the pauses between them."""
        dice = random.Random(self.seed)
        return [dice.choice(self.calls).begun + dice.randint(0, 1) for _ in range(count)]

    def told(self, place: int) -> Told:
        told = Told()
        for words in marks_before(self.calls, place):
            told.hear(words)
        return told


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """One run; the cuts are many."""
    if (why := why_not()) is not None:
        pytest.skip(why)
    seed = int(os.environ.get("ZBROKER_TEST_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}: ZBROKER_TEST_SEED={seed} repeats the choice of instants")
    folder = tmp_path_factory.mktemp("power")
    program = [sys.executable, "-m", "tests.crash.traced_run", str(folder), str(seed), str(LIVES)]
    run = [*recorder(folder / "account"), *program]
    done = subprocess.run(run, env={**os.environ, **SMALL}, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    calls = settled(calls_on(folder / "account", folder / "data", folder / "marks"), folder / "data")
    (folder / "account").unlink()  # tens of megabytes
    yield Recorded(seed, folder, calls)
    shutil.rmtree(folder)


def _cut_and_check(recorded: Recorded, machine: Machine, number: int, place: int, above: Path) -> None:
    """What is left is no damage, and a broker on it knows all that was told; twice, for some."""
    folder = above / str(number)
    folder.mkdir()
    machine.cut(place, random.Random(recorded.seed + number), folder / "data")
    told = recorded.told(place)
    try:
        assert verify_folder(OsDisk(read_only=True), str(folder / "data")).is_whole, "a tear is taken for damage"
    except FolderUnusable:
        assert not told.epochs, "there is no journal, where a broker was ready"
    with Broker(folder, environment=SMALL, ready_s=READY_S) as broker:
        found = served(broker.url)
        check(told, found)
        assert not any(found.lost.values()), "a power cut loses nothing that was confirmed"
        assert found.status["journal"]["damage"] == []
        with Producer(broker.url, "work", codec="raw", timeout_s=30) as out:
            told.store("work", out.send(b"99999999").offset, 99_999_999)
        if number % SECOND_START_EACH == 0:
            told.stored |= found.stored
            broker.restart()
            again = served(broker.url)
            check(told, again)
            assert again.stored.keys() == told.stored.keys(), "what was void is back"
    status, report, words = verify(folder / "data")
    assert status == 0, (words, report)


def test_what_is_rebuilt_from_the_calls_is_what_stands_on_the_disk(recorded: Recorded, tmp_path: Path) -> None:
    """Else a call that changes files went unseen, and the cuts would prove nothing."""
    write_out(Machine(recorded.calls, str(recorded.data)).at(1 << 62), tmp_path / "rebuilt")
    rebuilt = {path.name: path.read_bytes() for path in (tmp_path / "rebuilt").iterdir()}
    real = {path.name: path.read_bytes() for path in recorded.data.iterdir()}
    assert rebuilt.keys() == real.keys()
    assert [name for name in real if rebuilt[name] != real[name]] == []


def test_the_run_did_all_that_a_journal_does(recorded: Recorded) -> None:
    kinds = {call.name for call in recorded.calls}
    assert kinds >= {"mkdir", "create", "allocate", "write", "sync", "sync_dir", "rename", "unlink", "mark"}
    segments = {call.path for call in recorded.calls if call.name == "create" and call.path.endswith(".seg")}
    assert len(segments) > LIVES, "segments were filled, not only begun by each life"
    told = recorded.told(1 << 62)
    assert len(told.epochs) == LIVES
    assert told.acked
    assert len(told.stored) > 100


def test_a_power_cut_at_any_instant_takes_nothing_that_was_told(recorded: Recorded, tmp_path: Path) -> None:
    machine = Machine(recorded.calls, str(recorded.data))

    def try_one(numbered: tuple[int, int]) -> None:
        number, place = numbered
        try:
            _cut_and_check(recorded, machine, number, place, tmp_path)
        except AssertionError as error:
            raise AssertionError(f"cut {number} of seed {recorded.seed}, at line {place}") from error
        shutil.rmtree(tmp_path / str(number))

    with ThreadPoolExecutor(AT_ONCE) as several:
        for _ in several.map(try_one, enumerate(recorded.places(CUTS))):
            pass


@pytest.mark.parametrize("defect", [without_syncs, without_name_syncs, without_commit_syncs])
def test_a_broker_that_syncs_too_little_is_found_out(recorded: Recorded, tmp_path: Path, defect) -> None:
    """Planted defects: were a confirm not behind its sync, the cuts above would tell."""
    machine = Machine(defect(recorded.calls), str(recorded.data))
    for number, place in enumerate(recorded.places(CUTS_WITH_A_DEFECT)):
        try:
            _cut_and_check(recorded, machine, number, place, tmp_path)
        except AssertionError as error:
            print(f"found out by cut {number}: {str(error)[:200]}")
            return
    pytest.fail(f"not found out in {CUTS_WITH_A_DEFECT} cuts")
