from __future__ import annotations

import pytest

from patterns.wire.errors import BadArgument, CreditExceeded, RemoteProtocolError
from patterns.wire.messages import Partial
from zbroker.core.flow import Flow


def come(flow, sequence, size=10, passed=10):
    flow.came(Partial(id=1, sequence=sequence), size)
    flow.passed(passed)


def test_a_replier_begins_with_the_requesters_credit():
    assert Flow(8, 1_000).begin(slowly=False) == (8, 1_000)


def test_behind_a_requester_that_does_not_read_a_replier_begins_with_one_part():
    flow = Flow(8, 1_000)
    assert flow.begin(slowly=True) == (1, 1)
    come(flow, 0)
    assert flow.allow() == (8, 1_000)


def test_bytes_are_counted_at_each_end_as_that_end_counts():
    flow = Flow(8, 1_000)
    flow.begin(slowly=False)
    come(flow, 0, size=100, passed=300)
    flow.widen(9, 1_300)
    assert flow.allow() == (9, 1_100)  # 1,000 bytes ahead, as before


def test_totals_never_fall_though_what_was_passed_on_has_grown():
    flow = Flow(8, 1_000)
    flow.begin(slowly=False)
    come(flow, 0, size=100, passed=5_000)
    assert flow.allow() == (8, 1_000)


def test_another_part_than_the_next_is_refused():
    flow = Flow(8, 1_000)
    flow.begin(slowly=False)
    come(flow, 0)
    for sequence in (0, 2):
        with pytest.raises(RemoteProtocolError, match="part 1 is the next"):
            come(flow, sequence)


@pytest.mark.parametrize("credit", [(2, 1_000), (9, 15)])
def test_a_part_beyond_the_credit_is_refused(credit):
    flow = Flow(*credit)
    flow.begin(slowly=False)
    come(flow, 0)
    come(flow, 1)
    with pytest.raises(CreditExceeded):
        come(flow, 2)


@pytest.mark.parametrize("credit", [(1_025, 1), (1, (1 << 20) + 1)])
def test_more_credit_than_the_guard_reckons_with_is_refused(credit):
    with pytest.raises(BadArgument, match="at most"):
        Flow(*credit)


def test_another_replier_begins_with_what_is_left():
    flow = Flow(8, 1_000)
    flow.begin(slowly=False)
    assert not flow.has_begun
    flow.widen(9, 1_100)
    assert flow.begin(slowly=False) == (9, 1_100)


def test_a_replier_is_due_to_hear_when_it_has_at_most_half_of_what_it_may_have():
    flow = Flow(8, 1_000)
    flow.begin(slowly=False)
    assert not flow.is_due
    flow.widen(15, 1_999)
    assert not flow.is_due
    come(flow, 0)  # 7 left of 14
    assert flow.is_due
    assert flow.allow() == (15, 1_999)
    assert not flow.is_due


def test_a_replier_without_credit_is_due_to_hear_of_the_least():
    flow = Flow(8, 15)
    flow.begin(slowly=False)
    come(flow, 0)
    come(flow, 1)
    flow.widen(8, 20)
    assert not flow.is_due  # as much as was overrun: still nothing may be sent
    flow.widen(8, 21)
    assert flow.is_due
