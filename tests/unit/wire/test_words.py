"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from patterns.wire.words import counted


@pytest.mark.parametrize(("count", "words"), [(0, "0 places"), (1, "1 place"), (2, "2 places")])
def test_a_number_has_its_noun(count: int, words: str) -> None:
    assert counted(count, "place") == words
    assert counted(1, "message is", "messages are") == "1 message is"
