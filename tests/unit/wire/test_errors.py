from __future__ import annotations

import pytest

from patterns.wire import errors
from patterns.wire.errors import BY_NUMBER, ZbrokerError, from_wire

CLASSES = {
    1: errors.SessionError,
    2: errors.NameOrPermissionError,
    3: errors.ContentError,
    4: errors.LoadError,
    5: errors.StorageError,
    6: errors.OutcomeError,
    7: errors.RemoteError,
}


@pytest.mark.parametrize("number", sorted(BY_NUMBER))
def test_an_errors_hundreds_are_its_class(number):
    assert issubclass(BY_NUMBER[number], CLASSES[number // 100])


@pytest.mark.parametrize("number", sorted(BY_NUMBER))
def test_an_error_comes_back_from_the_wire_as_itself(number):
    error = from_wire(number, "what happened", code="c", retryable=True, retry_after_ms=7)
    assert type(error) is BY_NUMBER[number]
    assert (error.detail, error.code, error.retryable, error.retry_after_ms) == ("what happened", "c", True, 7)


@pytest.mark.parametrize(("number", "family"), [(100 * key + 77, family) for key, family in CLASSES.items()])
def test_an_unknown_number_acts_as_its_class(number, family):
    assert type(from_wire(number, "news")) is family


def test_a_number_of_an_unknown_class_is_still_an_error_of_ours():
    assert type(from_wire(950, "news")) is ZbrokerError


def test_local_and_remote_protocol_errors_give_way_to_their_parent_on_the_wire():
    assert BY_NUMBER[100] is errors.ProtocolError


def test_no_two_errors_share_a_name():
    names = [error.name for number, error in BY_NUMBER.items() if number % 100 != 99]
    assert len(names) == len(set(names))


def test_an_error_without_detail_says_its_name():
    assert str(errors.Fenced()) == "FENCED"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.TimedOut, TimeoutError),
        (errors.Unavailable, ConnectionError),
        (errors.BadName, ValueError),
        (errors.BadBody, ValueError),
    ],
)
def test_an_error_is_caught_by_the_builtin_that_python_programs_expect(error, builtin):
    assert issubclass(error, builtin)


def test_load_may_pass_unless_the_peer_broke_the_rules():
    assert errors.Overloaded().retryable
    assert not errors.CreditExceeded().retryable
    assert errors.CreditExceeded(retryable=True).retryable
