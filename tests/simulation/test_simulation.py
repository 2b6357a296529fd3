"""A sample of seeds for a time, the same trace under any hash seed, and the way in from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import LONG
from tests.simulation.run import run_many, run_seed, shrink

SECONDS = float(os.environ.get("ZBROKER_SIM_SECONDS", "1800" if LONG else "60"))
FIRST_SEED = int(os.environ.get("ZBROKER_SIM_SEED", "0"))
ROOT = Path(__file__).parents[2]
HASHED = 4  # seeds whose traces are compared


@pytest.mark.timeout(SECONDS + 600)
def test_every_promise_holds_for_a_sample_of_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    tally = run_many(range(FIRST_SEED, FIRST_SEED + 10**9), SECONDS)
    with capsys.disabled():
        print("\nsimulation:", tally.lines()[0])
    for failure in tally.failures[:3]:
        least = shrink(failure.seed)
        faults = "\n".join(f"  {fault}" for fault in least.plan)
        print(f"seed {failure.seed}: {failure.error}\nstill fails with:\n{faults}")
    assert [failure.seed for failure in tally.failures] == []
    assert tally.seeds > 0


@pytest.mark.timeout(600)
def test_a_seed_takes_the_same_course_whatever_the_hashes_are() -> None:
    program = f"""
from tests.simulation.run import run_seed
print([run_seed(seed).trace_crc for seed in range({HASHED})])
"""
    courses = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("0", "1", "4711")
    }
    assert len(courses) == 1
    assert len(set(eval(courses.pop()))) == HASHED


@pytest.mark.timeout(600)
def test_the_command_line_runs_one_seed() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seed", "1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"trace {run_seed(1).trace_crc:08x}" in ran.stdout
