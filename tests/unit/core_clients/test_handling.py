"""The clock of a handler."""

from __future__ import annotations

from patterns.core.handling import EXTENSIONS, LEASE_US, Handling

EXTEND_US = LEASE_US // EXTENSIONS
UNBEGUN_US_MAX = 2 * EXTEND_US

S = 1_000_000


def test_a_short_limit_is_kept_to_a_quarter():
    handling = Handling(S)
    handling.progress(0)
    looks = [now for now in range(0, 3 * S, 10_000) if handling.looks(now)]
    assert looks[:5] == [250_000, 500_000, 750_000, S, 1_250_000]
    assert [handling.is_over(now, ()) for now in looks[:5]] == [False, False, False, True, True]


def test_a_long_limit_is_looked_at_as_often_as_leases_are_extended():
    handling = Handling(3_600 * S)
    handling.progress(0)
    assert handling.next_look() == EXTEND_US
    assert not handling.extends(EXTEND_US - 1)
    assert handling.extends(EXTEND_US)
    assert not handling.extends(EXTEND_US + 1)


def test_a_sign_of_life_begins_the_time_anew():
    handling = Handling(S)
    handling.progress(0)
    handling.progress(900_000)
    assert not handling.is_over(S, ())
    assert handling.is_over(1_900_000, ())


def test_what_the_caller_has_extended_itself_is_kept_while_it_is_lent():
    handling = Handling(S)
    handling.progress(0)
    handling.keep(7, 30 * S)
    assert not handling.is_over(5 * S, {7: None})
    assert handling.is_over(30 * S, {7: None})
    handling.keep(7, 60 * S)
    assert handling.is_over(31 * S, {8: None})


def test_what_waits_for_a_caller_that_never_began_is_nobodys_work_for_long():
    handling = Handling(3_600 * S)
    handling.lent(0)
    assert not handling.is_over(UNBEGUN_US_MAX - 1, ())
    assert handling.is_over(UNBEGUN_US_MAX, ())
    handling.progress(0)
    assert not handling.is_over(UNBEGUN_US_MAX, ())


def test_only_a_short_limit_is_shorter_than_heartbeats_can_keep():
    assert Handling(S).is_short
    assert not Handling(8 * S).is_short


def test_leases_are_extended_three_times_in_what_the_broker_says_they_last() -> None:
    handling = Handling(3_600_000_000)
    handling.set(6_000_000, 3_600_000_000)
    assert handling.next_look() == 2_000_000
    assert not handling.extends(1_999_999)
    assert handling.extends(2_000_000)


def test_times_kept_too_short_for_heartbeats_need_a_driver() -> None:
    handling = Handling(3_600_000_000)
    assert not handling.is_short
    handling.set(3_000_000, 3_600_000_000)
    assert handling.is_short
