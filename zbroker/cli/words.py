"""Words for people: what others wrote reaches a terminal as printable characters, on one line, and no wider than it fits."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Final

_SIZES: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
_TIMES: Final = (("s", 1_000_000), ("ms", 1_000), ("us", 1))
_LONG_TIMES: Final = (("d", 86_400), ("h", 3_600), ("min", 60))
_CHARACTERS_MAX: Final = 1_000  # a screen has about 2,000, and an error's detail may have megabytes


_is_json = False  # of this process, which runs one command


@contextmanager
def said_as_json(is_json: bool) -> Iterator[None]:
    """Whoever reads our JSON gets nothing else on standard error either: each line of say() is {"note": text}."""
    global _is_json
    before, _is_json = _is_json, is_json
    try:
        yield
    finally:
        _is_json = before


def say(text: str) -> None:
    """A line on standard error, with our name before it."""
    line = json.dumps({"note": text}, ensure_ascii=False) if _is_json else f"zbroker: {cleaned(text)}"
    print(line, file=sys.stderr, flush=True)


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


def size_of(count: float) -> str:
    """Bytes for people: 512 B, 1.5 KiB, 64 MiB."""
    return _scaled(count, _SIZES)


def time_of(microseconds: float) -> str:
    """A duration for people: 850 us, 1.5 ms, 12 s, 1 d 2 h 3 min 4 s."""
    if microseconds < 60_000_000:
        return _scaled(microseconds, _TIMES)
    minutes, seconds = divmod(int(microseconds) // 1_000_000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{value} {unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if value]
    return " ".join([*parts, f"{seconds} s"])


def brief_time_of(seconds: float) -> str:
    """A duration in its largest unit alone, in a narrow column: 850 ms, 12 s, 5 min, 26 h, 3 d."""
    if seconds < 60:
        return time_of(seconds * 1e6) if seconds else "0 s"
    unit, factor = next((unit, factor) for unit, factor in _LONG_TIMES if seconds >= 2 * factor or factor == 60)
    return f"{int(seconds // factor)} {unit}"


def _scaled(value: float, units: tuple[tuple[str, int], ...]) -> str:
    """In the largest unit of which there is at least one; two digits, since more are noise, or all before the point."""
    unit, factor = next(((unit, factor) for unit, factor in units if value >= factor), units[-1])
    digits = 1 if value / factor < 9.95 else 0
    return f"{f'{value / factor:.{digits}f}'.removesuffix('.0')} {unit}"


def columns_of(text: str) -> int:
    """How many columns a text takes on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text
    )  # fmt: skip
