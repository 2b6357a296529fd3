"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from patterns.wire.words import counted, described


@pytest.mark.parametrize(("count", "words"), [(0, "0 places"), (1, "1 place"), (2, "2 places")])
def test_a_number_has_its_noun(count: int, words: str) -> None:
    assert counted(count, "place") == words
    assert counted(1, "message is", "messages are") == "1 message is"


def test_an_exception_that_cannot_say_what_it_is_about_is_described_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

    assert described(KeyError("sku")) == "KeyError: 'sku'"
    assert described(Mute()) == "Mute, which cannot say what it is about"
