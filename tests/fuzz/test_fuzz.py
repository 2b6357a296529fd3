"""Coverage-guided fuzzing of every target, a minute each (ZBROKER_FUZZ_S): a finding is printed with the input that makes it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.fuzz.__main__ import SECONDS
from tests.fuzz.targets import TARGETS
from tests.processes import only_long

_START_S = 120  # to read the seeds, and to end, on a machine that has other work
only_with_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not there: pip install 'zbroker[fuzz]', where it has a wheel for this Python",
)


@only_long
@only_with_atheris
@pytest.mark.timeout(SECONDS + 2 * _START_S)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_makes_a_decoder_raise_anything_but_its_own_errors(name):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name], capture_output=True, text=True, timeout=SECONDS + _START_S, check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )  # fmt: skip
    executed = re.search(r"number_of_executed_units: (\d+)", ran.stderr)
    print(f"{name}: {executed[1] if executed else 'no'} inputs in {SECONDS:.0f} s")
    assert ran.returncode == 0, ran.stderr[-4_000:]
    assert executed
