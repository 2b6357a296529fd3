"""Every kind of damage on folders that a real broker made: it starts, tells what is lost, serves the rest, and makes nothing worse."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Producer
from tests.crash.audit import READY_S, SMALL, Served, Told, check, renamed, served, status_of, verify
from tests.crash.damage import SINGLE, SLOW, UNAVAILABLE, Cost, Kind, Original
from tests.processes import LONG, Broker, Program, _without_settings, until

LIVES = 3  # the last ends cleanly, so that what the newest segment holds is known to be on the disk
SAMPLE = 6  # kinds of each run that is no long one
NEW = 99_999_999

pytestmark = pytest.mark.timeout(900 if LONG else 180)


def _seed() -> int:
    return int(os.environ.get("ZBROKER_TEST_SEED", random.randrange(1 << 32)))


SEED = _seed()
QUICK = [kind for kind in SINGLE if kind not in SLOW]
# In `make test` another few kinds each time; with ZBROKER_TEST_LONG each one, with its checkpoints and without, several times.
CASES = (
    [(kind, has_checkpoints, number) for kind in SINGLE for has_checkpoints in (True, False) for number in range(5)]
    if LONG
    else [(kind, number % 2 == 0, 0) for number, kind in enumerate(random.Random(SEED).sample(QUICK, SAMPLE))]
)


def _lives(folder: Path, seed: int, lives: int) -> Told:
    """A broker's lives in that folder, and what clients were told."""
    folder.mkdir(exist_ok=True)
    run = [sys.executable, "-m", "tests.crash.traced_run", str(folder), str(seed), str(lives)]
    done = subprocess.run(run, env={**_without_settings(), **SMALL}, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    told = Told()
    for line in (folder / "marks").read_text().splitlines():
        told.hear(line.split())
    return told


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    print(f"seed {SEED}: ZBROKER_TEST_SEED={SEED} repeats the choice of kinds and places")
    above = tmp_path_factory.mktemp("damage")
    told = _lives(above / "this", SEED, LIVES)
    _lives(above / "other", SEED + 1, LIVES)
    shutil.copytree(above / "this" / "data", above / "later" / "data")
    _lives(above / "later", SEED + 2, 1)
    return Original(above / "this" / "data", told, above / "other" / "data", above / "later" / "data")


@pytest.mark.parametrize(
    ("kind", "has_checkpoints", "number"), CASES, ids=lambda one: getattr(one, "__name__", str(one))
)
def test_damage(original: Original, tmp_path: Path, kind: Kind, has_checkpoints: bool, number: int) -> None:
    data = tmp_path / "data"
    shutil.copytree(original.data, data)
    if not has_checkpoints and not original.needs_checkpoints and "checkpoint" not in kind.__name__:
        for path in data.glob("checkpoint-*"):
            path.unlink()
    cost = kind(data, original, random.Random(f"{SEED} {kind.__name__} {number}"))
    print(f"seed {SEED}, {cost}")
    status, report, words = verify(data)
    if cost.refusal:
        _is_refused(tmp_path, cost, status, words)
        return
    assert status == cost.verify, (words, report)
    told = Told(dict(original.told.stored), set(original.told.acked), list(original.told.epochs))
    with Broker(tmp_path, environment=SMALL, ready_s=READY_S) as broker:
        if cost.is_slow:
            until(lambda: status_of(broker.url)["warnings"], what="a warning")
            return
        raw = served(broker.url)
        found = renamed(raw, original.recovered)
        _is_told(original, told, cost, found)
        name = next(one for one in raw.status["streams"] if original.recovered.get(one, one) == "beside")
        with Producer(broker.url, name, codec="raw", timeout_s=30) as out:
            offset = out.send(b"%08d" % NEW).offset
        assert ("beside", offset) not in found.stored, "an offset is given twice"
        broker.process.signal(signal.SIGTERM)
        assert broker.process.wait() == 0
        _no_new_holes(report, verify(data)[1], original.last_index)
        broker.start()
        again = renamed(served(broker.url, drains=False), original.recovered)
    assert {place: number for place, number in again.stored.items() if number != NEW} == found.stored
    assert all(again.is_lost(place) for place in original.places if found.is_lost(place)), "what was lost is back"


def _is_refused(folder: Path, cost: Cost, status: int, words: str) -> None:
    """By both, with the same words, and not a byte is changed."""
    before = {path.name: path.read_bytes() for path in (folder / "data").iterdir()}
    assert status == UNAVAILABLE
    assert cost.refusal in words
    run = ["-m", "zbroker", "run", "--bind", "tcp://127.0.0.1:0", "--data", str(folder / "data")]
    with Program(run, folder / "refused.err", SMALL) as program:
        assert program.wait() == UNAVAILABLE
        assert cost.refusal in program.errors
        assert "nothing was changed" in program.errors
        assert "Traceback" not in program.errors
    assert {path.name: path.read_bytes() for path in (folder / "data").iterdir()} == before


def _is_told(original: Original, told: Told, cost: Cost, found: Served) -> None:
    """What is not served is told to be lost, and that is no more than the damage touched."""
    if cost.is_silent:
        for place in [place for place in told.stored if place not in found.stored and not found.is_lost(place)]:
            del told.stored[place]
        told.epochs.clear()
    check(told, found, operations_lost=cost.records is None or bool(cost.records))
    lost = set(filter(found.is_lost, original.places))
    if cost.records is not None:
        touched = {place for one in original.records if one.index in cost.records for place in one.places}
        assert lost <= touched, f"more is lost than was touched: {sorted(lost - touched)[:20]}"
    status = status_of(found.url)
    assert status["warnings"] or not (cost.warns or lost), "nobody is warned"


def _no_new_holes(before: dict[str, Any], after: dict[str, Any], last_index: int) -> None:
    """Holes in what was written: that a later log begins far above is how no index is used twice."""
    holes = [range(hole["first_index"], hole["last_index"] + 1) for hole in before["damage"] + before["known"]]
    for hole in after["damage"] + after["known"]:
        written = range(hole["first_index"], min(hole["last_index"], last_index) + 1)
        is_old = all(any(index in one for one in holes) for index in written)
        assert is_old or before["cut_short"], f"a new hole: {hole}, after {holes}"
