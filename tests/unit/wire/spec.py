"""SPEC.md as data, for the tests that hold the code against it."""

from __future__ import annotations

import re
from pathlib import Path

import patterns.wire

SPEC = (Path(patterns.wire.__file__).parent / "SPEC.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """The cells of the table whose first line begins with `head`, without the line of dashes."""
    lines = SPEC.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(head))
    table = []
    for line in lines[begin:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return [table[0], *table[2:]]


def state_table(head: str) -> dict[str, dict[str, str]]:
    """state -> event -> following state, `-` left out; names in upper case."""
    (_, *events), *states = rows(head)
    return {
        state: {event.upper(): cell for event, cell in zip(events, cells, strict=True) if cell != "-"}
        for state, *cells in states
    }


def kinds() -> dict[str, str]:
    """Kind byte -> NAME, of all lines `Kinds:`."""
    found = {}
    for line in re.findall(r"^Kinds: (.*)\.$", SPEC, re.MULTILINE):
        found.update(dict(re.findall(r"`(.)` ([A-Z_]+)", line)))
    return found


def errors() -> dict[int, str]:
    """Number -> NAME, of the table of section 5.1."""
    found = re.findall(r"(\d{3}) ([A-Z_]+)", "\n".join(cells[-1] for cells in rows("| class |")))
    return {int(number): name for number, name in found}


def limit(name: str) -> str:
    """The value of a line of section 11, and what follows in its third column."""
    return next(" ".join(cells[1:]) for cells in rows("| limit |") if cells[0] == name)
