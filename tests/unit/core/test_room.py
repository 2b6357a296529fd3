"""What a producer is told that must wait."""

from __future__ import annotations

import pytest

from zbroker.core.room import RETRY_MS_MAX, RETRY_MS_MIN, Limit, Pace, full

SECOND = 1_000_000


def test_where_nothing_drains_the_wait_doubles_up_to_its_most() -> None:
    pace, now, waits = Pace(), 0, []
    for _ in range(8):
        waits.append(pace.retry_after_ms(now, 0, 100))
        now += waits[-1] * 1_000
    assert waits == [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]


def test_where_it_drains_the_wait_is_what_is_wanted_at_that_speed() -> None:
    pace = Pace()
    pace.retry_after_ms(0, 0, 1_000)
    assert pace.retry_after_ms(SECOND, 500, 1_000) == 2_000
    assert pace.retry_after_ms(3 * SECOND, 1_000_000, 1) == RETRY_MS_MIN
    assert pace.retry_after_ms(4 * SECOND, 1_000_001, 1 << 40) == RETRY_MS_MAX


def test_many_who_are_refused_together_hear_the_same() -> None:
    pace = Pace()
    assert {pace.retry_after_ms(at, 0, 1) for at in range(0, 100_000, 1_000)} == {RETRY_MS_MIN}


def test_what_was_long_ago_says_nothing() -> None:
    pace = Pace()
    for at in (0, SECOND, 3 * SECOND):
        pace.retry_after_ms(at, 0, 1)
    assert pace.retry_after_ms(1_000 * SECOND, 0, 1) == RETRY_MS_MIN


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (Limit("quota_bytes", 1_000, 2_000), "stream 's' keeps 2,000 bytes, quota_bytes is 1,000: "),
        (Limit("folder_quota_bytes", 10, 20), "all streams together keep 20 bytes, folder_quota_bytes is 10: "),
        (Limit("messages_max", 5, 5), "stream 's' keeps 5 messages, messages_max is 5: "),
        (Limit("bytes_max", 5, 7), "stream 's' keeps 7 bytes, bytes_max is 5: "),
    ],
)
def test_a_refusal_says_which_limit_and_what_to_do(limit: Limit, said: str) -> None:
    error = full("s", limit, 250)
    assert error.detail.startswith(said)
    assert len(error.detail) > len(said) + 20
    assert (error.number, error.retryable, error.retry_after_ms) == (405, True, 250)
