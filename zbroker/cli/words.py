"""Words for people: what others wrote reaches a terminal as printable characters, on one line, and no wider than it fits."""

from __future__ import annotations

import sys
import unicodedata
from itertools import accumulate
from typing import Final

_CHARACTERS_MAX: Final = 1_000  # a screen has about 2,000, and an error's detail may have megabytes


def say(text: str) -> None:
    """A line on standard error, with our name before it."""
    print(f"zbroker: {cleaned(text)}", file=sys.stderr, flush=True)


def cleaned(text: str) -> str:
    """A text without what a terminal or a reader of lines would act on, such as ESC, the end of a line, or U+202E.

    What cannot be printed is shown as Python escapes it. Of a text of more than 1,000 characters the rest is left out.
    """
    cut = text[: _CHARACTERS_MAX + 1]
    if not cut.isprintable():
        cut = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)
    return cut if len(cut) <= _CHARACTERS_MAX else f"{cut[:_CHARACTERS_MAX]}…"


def fitted(text: str, columns: int) -> str:
    """A cleaned text, cut to so many columns; a cut shows as an ellipsis."""
    clean = cleaned(text)
    if columns_of(clean) <= columns:
        return clean
    ends = accumulate(map(columns_of, clean))
    return clean[: sum(end <= columns - 1 for end in ends)] + "…" if columns > 0 else ""


def columns_of(text: str) -> int:
    """How many columns a text takes on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text
    )  # fmt: skip
