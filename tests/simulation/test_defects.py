"""Each planted defect is found by the standard mix of faults, within a stated number of seeds; without it they pass."""

from __future__ import annotations

import pytest

from tests.simulation.defects import PLANTED
from tests.simulation.run import run_seed, shrink

SEEDS_MAX = 100  # the slowest needed 46 when this was written; a sample in CI runs as many in a minute


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PLANTED)
def test_the_standard_mix_finds(name: str) -> None:
    found = next((seed for seed in range(SEEDS_MAX) if run_seed(seed, defects=PLANTED[name]).error), None)
    assert found is not None, f"{name} passes {SEEDS_MAX} seeds"
    assert run_seed(found).error == ""


@pytest.mark.timeout(600)
def test_a_failing_seed_is_shrunk_to_few_faults() -> None:
    defect = PLANTED["AttemptsForgotten"]
    whole = next(found for seed in range(SEEDS_MAX) if (found := run_seed(seed, defects=defect)).error)
    least = shrink(whole.seed, defects=defect)
    assert least.error
    assert len(least.plan) <= min(len(whole.plan), 3)
    assert shrink(whole.seed).error == ""  # what passes has nothing to shrink
