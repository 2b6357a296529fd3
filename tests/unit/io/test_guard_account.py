"""The arithmetic of the guard: two totals, forgiveness, and the choice under memory pressure."""

from __future__ import annotations

import dataclasses

import pytest

from patterns.io.guard_account import (
    FORGIVEN_BYTES_S,
    KIB,
    MIB,
    SLACK_BYTES,
    Account,
    crowd_cuts,
    memory_cuts,
    wire_allowance,
)

SECOND_US = 1_000_000
DAY_S = 86_400

FRESH = Account(
    fd=7,
    cookie=1,
    remote="127.0.0.1:5000",
    allowance_bytes=MIB,
    sessionless_bytes_max=MIB,
    received=0,
    delivered=0,
    settled_at=0,
)


def pending(byte_count: int, *, has_session: bool = False, is_cut: bool = False) -> Account:
    return dataclasses.replace(FRESH, undelivered=byte_count, has_session=has_session, is_cut=is_cut)


def test_what_was_received_and_not_delivered_is_pending() -> None:
    account = dataclasses.replace(FRESH)
    account.settle(received=5000, delivered=1000, now=0)
    account.settle(received=6000, delivered=1500, now=0)
    assert account.undelivered == 4500


def test_delivering_more_than_was_received_saves_nothing_up() -> None:
    account = dataclasses.replace(FRESH)
    account.settle(received=100, delivered=50 * MIB, now=0)  # a dead connection had this fd
    account.settle(received=100 + MIB, delivered=50 * MIB, now=0)
    assert account.undelivered == MIB


def test_an_idle_month_saves_nothing_up() -> None:
    account = dataclasses.replace(FRESH)
    account.settle(received=64, delivered=0, now=30 * DAY_S * SECOND_US)
    account.settle(received=64 + 2 * MIB, delivered=0, now=30 * DAY_S * SECOND_US)
    assert account.undelivered == 2 * MIB + 64
    assert account.exceeds(0)


@pytest.mark.parametrize("interval_us", [50_000, 2 * SECOND_US])
def test_a_day_of_heartbeats_is_forgiven(interval_us: int) -> None:
    account = dataclasses.replace(FRESH)
    per_check = 16 * interval_us // (2 * SECOND_US)  # PING and PONG every 2 s
    for check in range(DAY_S * SECOND_US // max(interval_us, 2 * SECOND_US)):
        account.settle(account.received + per_check, 0, check * interval_us)
    assert account.undelivered <= 16


def test_many_short_intervals_forgive_as_much_as_a_long_one() -> None:
    account = pending(1000)
    for now in range(0, 10 * SECOND_US + 1, 5_000):
        account.settle(0, 0, now)
    assert 1000 - 10 * FORGIVEN_BYTES_S <= account.undelivered <= 1000 - 5 * FORGIVEN_BYTES_S


def test_a_peer_that_keeps_to_its_credit_never_exceeds_its_allowance() -> None:
    credit_messages, body_bytes, frames = 1000, 1024, 5
    wire_bytes = credit_messages * (body_bytes + frames * 9)
    account = dataclasses.replace(FRESH, allowance_bytes=wire_allowance(MIB, credit_messages, MIB))
    account.settle(received=wire_bytes + MIB, delivered=0, now=0)  # all of it, and one more under way
    assert not account.exceeds(0)
    account.settle(received=wire_bytes + 2 * MIB + SLACK_BYTES, delivered=0, now=0)
    assert account.exceeds(0)


def test_bytes_in_the_kernel_count_only_without_backpressure() -> None:
    assert pending(2 * MIB).exceeds(kernel_bytes=MIB)
    assert not dataclasses.replace(pending(2 * MIB), has_backpressure=True).exceeds(kernel_bytes=MIB)
    assert dataclasses.replace(pending(2 * MIB), has_backpressure=True).exceeds(kernel_bytes=0)


def test_half_of_an_allowance_earns_a_look_at_each_check() -> None:
    assert pending(MIB // 2 + 1).is_hot
    assert not pending(MIB // 2).is_hot
    assert not pending(9 * MIB, is_cut=True).is_hot


def test_most_undelivered_bytes_are_cut_first_and_no_more_than_needed() -> None:
    small, large, middle = pending(MIB), pending(9 * MIB), pending(4 * MIB)
    assert memory_cuts([small, large, middle], 10 * MIB) == [large, middle]


def test_of_a_crowd_those_with_most_are_cut_until_the_rest_fits() -> None:
    small, large, larger, gone = pending(10), pending(50), pending(60), pending(99, is_cut=True)
    assert crowd_cuts([small, large, larger, gone], 120) == []
    assert crowd_cuts([small, large, larger, gone], 60) == [larger]
    assert crowd_cuts([small, large, larger, gone], 9) == [larger, large, small]


def test_sessions_are_cut_last() -> None:
    honest, stranger = pending(8 * MIB, has_session=True), pending(MIB)
    assert memory_cuts([honest, stranger], MIB) == [stranger]
    assert memory_cuts([honest, stranger], 2 * MIB) == [stranger, honest]


def test_nobody_is_cut_for_memory_that_peers_cannot_explain() -> None:
    assert memory_cuts([pending(MIB)], 33 * MIB) == []
    assert memory_cuts([pending(63 * KIB) for _ in range(1000)], MIB) == []
    assert memory_cuts([pending(MIB, is_cut=True)], MIB) == []
