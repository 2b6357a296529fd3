from __future__ import annotations

from patterns.core.offers import Offers


def test_the_same_name_twice_is_offered_once():
    assert list(Offers(["a", "b", "a"]).due()) == [(1, "a"), (2, "b")]


def test_answers_make_room_for_further_offers():
    offers = Offers([str(number) for number in range(100)])
    assert len(list(offers.due())) == 64
    assert offers.answered(1) == "0"
    assert list(offers.due()) == [(65, "64")]


def test_an_answer_to_what_was_not_offered_names_nothing():
    offers = Offers(["a", "b"])
    assert offers.answered(1) is None
    assert not offers.registered


def test_offers_end_where_they_are_stopped_and_begin_anew():
    offers = Offers([str(number) for number in range(100)])
    list(offers.due())
    assert len(offers.stop()) == 64
    offers.lost()
    assert not list(offers.due())
    offers.begin()
    assert next(offers.due()) == (1, "0")
