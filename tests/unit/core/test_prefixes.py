from __future__ import annotations

import pytest

from patterns.wire.limits import PLAIN_PREFIXES_BYTES_MAX
from zbroker.core import prefixes
from zbroker.core.prefixes import Prefixes

HONEST, OTHER = b"20", b"21"


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
    book.subscribe(HONEST, prefix)
    assert book.hears(topic) is is_heard


def test_nobody_hears_anything_at_first_and_after_the_last_cancellation(book):
    assert not book
    book.subscribe(HONEST, b"a")
    assert book.hears("a")
    assert book.cancel(HONEST, b"a")
    assert not book
    assert not book.hears("a")


def test_a_prefix_lives_as_long_as_one_connection_holds_it(book):
    book.subscribe(HONEST, b"a")
    book.subscribe(OTHER, b"a")
    book.cancel(HONEST, b"a")
    assert book.hears("a.b")
    book.cancel(b"", b"a")  # libzmq says that the other one is gone
    assert not book.hears("a.b")


def test_a_peer_cannot_cancel_what_it_does_not_hold(book):
    book.subscribe(HONEST, b"a")
    book.subscribe(OTHER, b"a")
    assert [book.cancel(OTHER, b"a"), book.cancel(OTHER, b"a"), book.cancel(OTHER, b"b")] == [True, False, False]
    assert book.hears("a")


def test_a_connection_with_the_number_of_one_that_just_ended_is_heard(book):
    """libzmq's news of the old one may come before or after the new one's subscription, and gone() at any time."""
    book.subscribe(HONEST, b"a")
    book.subscribe(HONEST, b"a")  # another connection on the same number
    book.cancel(b"", b"a")
    book.gone(HONEST)
    assert book.hears("a")


def test_whoever_holds_too_much_is_named_once_and_stays_counted_until_libzmq_reports_its_end(book):
    each = b"x" * 240
    named = [book.subscribe(OTHER, b"%d" % number + each) for number in range(400)]
    assert [peer for peer in named if peer] == [OTHER]
    assert named.index(OTHER) == pytest.approx(PLAIN_PREFIXES_BYTES_MAX / 260, rel=0.02)
    for number in range(400):
        book.cancel(b"", b"%d" % number + each)
    assert not book


def test_when_all_together_hold_too_much_the_one_with_most_goes(book, monkeypatch):
    monkeypatch.setattr(prefixes, "PLAIN_PREFIXES_BYTES_MAX_OF_ALL", 1_000)
    for number in range(40):
        assert book.subscribe(OTHER, b"%d" % number) is None
    named = {book.subscribe(HONEST, b"%d" % number) for number in range(40, 60)}
    assert named == {None, OTHER}


def test_one_that_was_named_may_be_named_again_once_it_has_gone(book, monkeypatch):
    monkeypatch.setattr(prefixes, "PLAIN_PREFIXES_BYTES_MAX", 10)
    assert book.subscribe(OTHER, b"a") == OTHER
    assert book.subscribe(OTHER, b"b") is None
    book.gone(OTHER)
    assert book.subscribe(OTHER, b"a") == OTHER


def test_beyond_what_can_be_counted_everything_is_heard(book, monkeypatch):
    monkeypatch.setattr(prefixes, "_COUNTED_MAX", 2)
    for prefix in (b"a", b"b", b"c"):
        book.subscribe(HONEST, prefix)
    assert len(book) == 2
    assert book.hears("zebra")


def test_a_remembered_answer_is_forgotten_when_the_prefixes_change(book):
    book.subscribe(HONEST, b"a")
    assert not book.hears("b")
    book.subscribe(OTHER, b"b")
    assert book.hears("b")
    book.cancel(OTHER, b"b")
    assert not book.hears("b")


def test_what_libzmq_reports_of_an_unknown_prefix_changes_nothing(book):
    book.subscribe(HONEST, b"a")
    assert book.cancel(b"", b"b")
    assert book.hears("a")
