from __future__ import annotations

from patterns.io.keeper import _LONG_US, _until

YEARS_US = 100_000_000 * 1_000_000


def test_the_keeper_never_sleeps_longer_than_poll_can() -> None:
    assert _until(None, 7) == _until(7 + YEARS_US, 7) == _LONG_US
    assert _LONG_US // 1_000 < 2**31
    assert _until(10, 7) == 3
    assert _until(7, 10) < 0
