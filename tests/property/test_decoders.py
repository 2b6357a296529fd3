"""Every decoder with valid inputs of which a field, a kind or some bytes were changed: a value or its own error, soon.

The targets are those of tests/fuzz, where coverage guides the changes for as long as one likes.
"""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutated
from tests.fuzz.script import Script, written, written_frames
from tests.fuzz.targets import TARGETS

CHANGES_MAX = 6


@cache
def seeds(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_are_no_findings(name):
    for seed in seeds(name)[::7]:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", TARGETS)
@given(place=st.integers(0, 1 << 16), number=st.integers(0, 1 << 32), changes=st.integers(1, CHANGES_MAX))
@settings(max_examples=100, deadline=None)
def test_what_is_almost_valid_is_read_or_refused(name, place, number, changes):
    data, chance = seeds(name)[place % len(seeds(name))], Random(number)
    for _ in range(changes):
        data = mutated(data, chance, seeds(name))[: TARGETS[name].bytes_max]
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=400))
@settings(max_examples=20, deadline=None)
def test_anything_is_read_or_refused(name, data):
    TARGETS[name].run(data)


@given(st.lists(st.binary(max_size=40), max_size=7))
def test_a_script_reads_back_what_was_written(frames):
    script = Script(written_frames(frames) + written(b"end"))
    assert script.frames() == frames
    assert script.text() == b"end"
    assert script.is_over
