"""--count and --timeout."""

import pytest

from patterns.wire.errors import TimedOut
from zbroker.cli.until import Until


def test_without_limits_it_goes_on() -> None:
    until = Until(None, None)
    until.had_one()
    assert until.goes_on
    assert until.remaining_s is None
    assert until.at_most(5.0) == 5.0


def test_the_count_ends_it() -> None:
    until = Until(1, None)
    until.had_one()
    assert not until.goes_on


def test_time_that_is_over_is_a_failure_only_with_a_count() -> None:
    Until(None, 0.0).time_is_up("messages")
    with pytest.raises(TimedOut, match="0 of 3 messages"):
        Until(3, 0.0).time_is_up("messages")


def test_remaining_time_is_never_negative() -> None:
    until = Until(None, 0.0)
    assert until.remaining_s == 0.0
    assert until.at_most(5.0) == 0.0
