"""Who holds what, and too much of it."""

from __future__ import annotations

from patterns.wire.holdings import Holdings


def test_who_exceeds_what_one_may_hold_is_named_and_forgotten() -> None:
    book: Holdings[str] = Holdings(100, 1_000)
    assert [book.add("a", prefix) for prefix in (b"x" * 40, b"", b"y" * 12)] == [None, None, None]  # 56, 16 and 28
    assert book.add("a", b"") == "a"
    assert not book
    assert book.add("a", b"x" * 84) is None


def test_an_empty_prefix_is_not_for_nothing() -> None:
    book: Holdings[str] = Holdings(100, 1_000)
    assert [book.add("a", b"") for _ in range(7)] == [None] * 6 + ["a"]


def test_when_all_hold_too_much_who_holds_most_is_named() -> None:
    book: Holdings[str] = Holdings(100, 140)
    book.add("most", b"x" * 70)
    book.add("little", b"x" * 30)
    assert book.add("less", b"x") == "most"
    assert book.add("less", b"x" * 50) is None


def test_what_was_dropped_makes_room_once() -> None:
    book: Holdings[str] = Holdings(100, 1_000)
    book.add("a", b"x" * 60)
    book.add("a", b"")
    assert book.drop("a", b"")
    assert not book.drop("a", b"")
    assert not book.drop("nobody", b"")
    assert [book.add("a", b"") for _ in range(2)] == [None, "a"]


def test_who_is_forgotten_counts_no_more() -> None:
    book: Holdings[str] = Holdings(100, 150)
    for holder in ("a", "b", "c"):
        assert book.add(holder, b"x" * 80) is None
        book.forget(holder)
    assert not book
