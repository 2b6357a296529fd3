from __future__ import annotations

import pytest

from patterns.wire.limits import PLAIN_PREFIXES_BYTES_MAX
from zbroker.core import prefixes
from zbroker.core.prefixes import Prefixes

HONEST, OTHER = b"20", b"21"
NOW = 1
LATER = NOW + 10_000_000


@pytest.fixture
def book() -> Prefixes:
    return Prefixes()


@pytest.mark.parametrize(
    ("prefix", "topic", "is_heard"),
    [
        (b"", "orders", True),
        (b"ord", "orders.eu", True),
        (b"orders.eu", "orders.eu", True),
        (b"orders.eu.", "orders.eu", False),
        ("é".encode()[:1], "é.a", True),  # bytes, not characters
        (b"\xff", "orders", False),
    ],
)
def test_a_prefix_matches_bytes_as_in_libzmq(book, prefix, topic, is_heard):
    book.subscribe(HONEST, prefix, NOW)
    assert book.hears(topic) is is_heard


def test_nobody_hears_anything_at_first_and_after_the_last_cancellation(book):
    assert not book
    book.subscribe(HONEST, b"a", NOW)
    assert book.hears("a")
    assert book.cancel(HONEST, b"a", NOW)
    assert not book
    assert not book.hears("a")


def test_a_prefix_lives_as_long_as_one_connection_holds_it(book):
    book.subscribe(HONEST, b"a", NOW)
    book.subscribe(OTHER, b"a", NOW)
    book.cancel(HONEST, b"a", NOW)
    assert book.hears("a.b")
    book.cancel(b"", b"a", NOW)  # libzmq says that the other one is gone
    assert not book.hears("a.b")


def test_a_peer_cannot_cancel_what_it_does_not_hold(book):
    book.subscribe(HONEST, b"a", NOW)
    book.subscribe(OTHER, b"a", NOW)
    assert [book.cancel(OTHER, b"a", NOW), book.cancel(OTHER, b"a", NOW), book.cancel(OTHER, b"b", NOW)] == [
        True,
        False,
        False,
    ]
    assert book.hears("a")


def test_a_connection_with_the_number_of_one_that_just_ended_is_heard(book):
    """libzmq's news of the old one may come before or after the new one's subscription, and went() at any time."""
    book.subscribe(HONEST, b"a", NOW)
    book.subscribe(HONEST, b"a", NOW)  # another connection on the same number
    book.cancel(b"", b"a", NOW)
    book.went(HONEST, NOW)
    assert book.hears("a")


def test_whoever_holds_too_much_is_named_once_and_stays_counted_until_libzmq_reports_its_end(book):
    each = b"x" * 240
    named = [book.subscribe(OTHER, b"%d" % number + each, NOW) for number in range(400)]
    assert [peer for peer in named if peer] == [OTHER]
    assert named.index(OTHER) == pytest.approx(PLAIN_PREFIXES_BYTES_MAX / 260, rel=0.02)
    for number in range(400):
        book.cancel(b"", b"%d" % number + each, NOW)
    assert not book


def test_when_all_together_hold_too_much_the_one_with_most_goes():
    book = prefixes.Prefixes(bytes_max_of_all=1_000)
    for number in range(40):
        assert book.subscribe(OTHER, b"%d" % number, NOW) is None
    named = {book.subscribe(HONEST, b"%d" % number, NOW) for number in range(40, 60)}
    assert named == {None, OTHER}


def test_one_that_was_named_may_be_named_again_once_it_has_gone():
    book = prefixes.Prefixes(bytes_max=10)
    assert book.subscribe(OTHER, b"a", NOW) == OTHER
    assert book.subscribe(OTHER, b"b", NOW) is None
    book.went(OTHER, NOW)
    assert book.subscribe(OTHER, b"a", NOW) == OTHER


def test_beyond_what_can_be_counted_everything_is_heard(book, monkeypatch):
    monkeypatch.setattr(prefixes, "_COUNTED_MAX", 2)
    for prefix in (b"a", b"b", b"c"):
        book.subscribe(HONEST, prefix, NOW)
    assert len(book) == 2
    assert book.hears("zebra")


def test_a_remembered_answer_is_forgotten_when_the_prefixes_change(book):
    book.subscribe(HONEST, b"a", NOW)
    assert not book.hears("b")
    book.subscribe(OTHER, b"b", NOW)
    assert book.hears("b")
    book.cancel(OTHER, b"b", NOW)
    assert not book.hears("b")


def test_what_libzmq_reports_of_an_unknown_prefix_changes_nothing(book):
    book.subscribe(HONEST, b"a", NOW)
    assert book.cancel(b"", b"b", NOW)
    assert book.hears("a")


@pytest.mark.parametrize("is_first", [True, False], ids=["news of it first", "its subscription first"])
def test_what_is_left_over_goes_when_somebody_comes_after_a_while_without_anybody(book, is_first):
    book.came(OTHER, NOW)
    book.subscribe(OTHER, b"a", NOW)
    book.subscribe(OTHER, b"a", NOW)
    book.cancel(b"", b"a", NOW)
    book.went(OTHER, NOW)
    assert book.hears("a")
    if is_first:
        book.came(HONEST, LATER)
    book.subscribe(HONEST, b"b", LATER)
    assert not book.hears("a")
    assert book.hears("b")


@pytest.mark.parametrize(("is_there", "now"), [(True, LATER), (False, NOW + 1_000_000)])
def test_nothing_is_left_over_while_somebody_is_there_or_may_be(book, is_there, now):
    if is_there:
        book.came(OTHER, NOW)
    book.subscribe(OTHER, b"a", NOW)
    book.subscribe(HONEST, b"b", now)
    assert book.hears("a")


def test_one_that_is_alone_keeps_what_it_has_when_it_subscribes_to_more_later(book):
    book.subscribe(HONEST, b"a", NOW)
    book.came(HONEST, NOW)
    book.subscribe(HONEST, b"b", LATER)
    assert book.hears("a")


def test_it_does_so_too_when_the_end_of_the_one_before_it_on_the_same_number_was_late(book):
    book.subscribe(HONEST, b"a", NOW)
    book.went(HONEST, NOW)
    book.came(HONEST, NOW)
    book.subscribe(HONEST, b"b", LATER)
    assert book.hears("a")
