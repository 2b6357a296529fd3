"""What a wall clock says that is wrong by thousands of years, every field and every text can still take."""

import struct
import time

import pytest

from zbroker.processes import clocks
from zbroker.processes.logbook import rfc3339


@pytest.mark.parametrize("seconds", [-(2**40), -1, 0, 4_102_444_805, 253_402_300_800, 2**40])
def test_a_wall_clock_before_1970_or_after_9999_is_told_as_near_as_it_can_be(
    seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: seconds * 1_000_000_000)
    for told in (clocks.wall_ms(), clocks.wall_ms_at(clocks.now_us())):
        assert len(struct.pack(">Q", told)) == 8
        assert len(rfc3339(told)) == len("1970-01-01T00:00:00.000Z")
    if 0 <= seconds < 253_402_300_800:
        assert clocks.wall_ms() == seconds * 1_000
