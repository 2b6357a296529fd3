"""Tables for people: what others wrote is cleaned, figures stand to the right, in the unit that their key ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from zbroker.cli.words import cleaned, columns_of, size_of, time_of

STREAM_COLUMNS: Final = (
    "messages", "kept_messages", "kept_bytes", "first_offset", "next_offset", "producers", "groups", "lost",
)  # fmt: skip
GROUP_COLUMNS: Final = (
    "lag", "lag_s", "accepted", "acked", "dead", "expired", "lost", "pending", "leased", "waiting", "delayed", "doomed",
    "redelivered", "members", "paused",
)  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = ("_us", "_ms", "_s")
_CALLED: Final = {"lag_s": "behind"}  # beside `lag`, which is messages


def lines_of_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A blank line, the titles, the rows; the first column to the left, figures to the right."""
    table = [[cleaned(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    yield ""
    for row in table:
        gaps = [" " * (width - columns_of(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [gap + cell if at else cell + gap for at, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        yield "  ".join(cells).rstrip()


def table_of(title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Named rows, some of their keys as columns; nothing without rows. What a broker does not tell is left blank."""
    if rows:
        shown = [[name, *(cell_of(column, row.get(column)) for column in columns)] for name, row in rows.items()]
        yield from lines_of_rows([title, *map(title_of, columns)], shown)


def facts_of(title: str, facts: Mapping[str, Any]) -> Iterator[str]:
    """A fact a line; those that are None, and no facts at all, are left out."""
    told = {
        title_of(name): "no" if fact is False else cell_of(name, fact)
        for name, fact in facts.items()
        if fact is not None
    }
    if told:
        yield from lines_of_rows([title, ""], [[name, cell] for name, cell in told.items()])


def title_of(name: str) -> str:
    """A key in words; its unit stands with the figure."""
    if name in _CALLED:
        return _CALLED[name]
    unit = next(filter(name.endswith, _UNITS), "")
    return name.removesuffix(unit).replace("_", " ")


def cell_of(name: str, fact: object) -> str:
    """A fact for people, in the unit that its key ends with. Counts and offsets stay as they are: they are copied."""
    if isinstance(fact, bool):
        return "yes" if fact else ""
    if isinstance(fact, list):
        return ", ".join(cell_of(name, one) for one in fact)
    if not isinstance(fact, int | float):
        return "" if fact is None else str(fact)
    if _is_instant(name):
        return instant_of(fact)
    match name.rpartition("_")[2]:
        case "bytes":
            return size_of(fact)
        case "us":
            return time_of(fact)
        case "ms":
            return time_of(fact * 1_000)
        case "s":
            return time_of(fact * 1_000_000) if fact else "0 s"
        case _:
            return str(fact)


def _is_instant(name: str) -> bool:
    """As SPEC.md 10 calls them: `.._at`, `published_..`; ms since 1970."""
    return name.endswith("_at") or name.startswith("published_")


def with_instants(value: Any, name: str = "") -> Any:
    """A row as it is printed under --json: its instants as in tables, and as --from takes them; what is in it likewise."""
    if isinstance(value, dict):
        return {key: with_instants(one, str(key)) for key, one in value.items()}
    if isinstance(value, list):
        return [with_instants(one, name) for one in value]
    return instant_of(value) if _is_instant(name) and type(value) is int else value


def instant_of(milliseconds: float) -> str:
    """An instant as ISO 8601, in UTC; a number that is none stays one."""
    try:
        return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except OverflowError:
        return str(milliseconds)
