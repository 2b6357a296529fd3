"""`zbroker status`: what a broker holds and does, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click

from patterns.wire.words import counted
from zbroker.cli.answer import Fact, Guard, Journal, Status, as_told, understood
from zbroker.cli.bodies import line_of
from zbroker.cli.command import ClientCommand, broker_options, timeout_option
from zbroker.cli.words import cleaned, columns_of, size_of, time_of

_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "streams": ("messages", "kept_bytes", "first_offset", "next_offset", "producers", "groups", "lost"),
    "groups": ("lag", "pending", "leased", "waiting", "acked", "dead", "expired", "redelivered", "members"),
    "services": ("repliers", "waiting", "credit"),
}
_JOURNAL: Final = (
    "folder", "epoch", "bytes", "live_bytes", "reserve_bytes", "segments", "segments_compacted", "reclaimed_bytes", "waiting_records",
    "last_sync_us", "sync_p50_us", "sync_p99_us", "checkpoint_age_ms", "checkpoint_records_behind", "file_system",
)  # fmt: skip


@click.command(cls=ClientCommand)
@broker_options
@timeout_option("How long to wait for the answer, in seconds.", default=5.0)
def status(url: str, as_json: bool, timeout_s: float) -> None:
    """Show what a broker holds and does; warnings first.

    \b
    zbroker status --url zb://localhost --json
    """
    from patterns.sync import Admin

    with Admin(url, timeout_s=timeout_s) as admin:
        found = admin.status()
    click.echo(line_of(as_told(found, url)) if as_json else "\n".join(lines_of(understood(found, url))))


def lines_of(found: Status) -> Iterator[str]:
    """The status for people: sections that have something in them."""
    for warning in [*found.warnings, *(_journal_warnings(found.journal) if found.journal else ())]:
        yield cleaned(f"warning: {warning}")
    sessions = dict(found.sessions)
    total = sessions.pop("total", 0)
    roles = "".join(
        f"{', ' if at else ': '}{counted(count, role)}" for at, (role, count) in enumerate(sessions.items())
    )
    yield cleaned(
        f"broker of epoch {found.epoch}, up {time_of(found.uptime_ms // 1_000 * 1_000_000)}, {counted(total, 'session')}{roles}"
    )
    for section, columns in _COLUMNS.items():
        yield from _table(section, columns, getattr(found, section))
    yield from _list("subscriptions", found.subscriptions, "sessions")
    yield from _list("plain ZeroMQ", found.plain if any(found.plain.values()) else {})
    if found.journal:
        facts = {name: getattr(found.journal, name) for name in _JOURNAL}
        yield from _list(
            "journal", {_title(name): _cell(name, fact) for name, fact in facts.items() if fact is not None}
        )
    yield from _list("refused", found.refused)
    yield from _list("connections", {name: count for name, count in _connections(found.guard or Guard()) if count})
    yield from _list("counters", found.counters)


def _connections(guard: Guard) -> Iterator[tuple[str, int]]:
    """What became of connections; a cut and a failed handshake by kind."""
    yield "open", guard.connections or 0
    for name in ("accepted", "handshakes", "disconnected"):
        yield name, getattr(guard, name)
    for kinds, prefix in ((guard.handshakes_failed, "handshake failed"), (guard.cuts, "cut")):
        for kind, count in kinds.items():
            yield f"{prefix}: {kind.replace('_', ' ')}", count


def _journal_warnings(journal: Journal) -> Iterator[str]:
    if journal.failed:
        yield f"the journal has failed: {journal.failed}"
    if journal.full:
        yield "the journal is full: producers are refused until there is space"
    if journal.damage:
        yield f"the journal is damaged: {counted(len(journal.damage), 'place')}; see --json"
    yield from journal.warnings


def _table(section: str, columns: Sequence[str], rows: Mapping[str, object]) -> Iterator[str]:
    """What a broker does not tell is left blank."""
    if rows:
        shown = [[_cell(column, getattr(row, column)) for column in columns] for row in rows.values()]
        titles = [section, *map(_title, columns)]
        yield from _rows(titles, [[name, *row] for name, row in zip(rows, shown, strict=True)])


def _list(title: str, rows: Mapping[str, Fact], other: str = "") -> Iterator[str]:
    if rows:
        yield from _rows([title, other], [[name, str(fact)] for name, fact in rows.items()])


def _rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A blank line, the titles, the rows; the first column to the left, figures to the right."""
    table = [[cleaned(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    yield ""
    for row in table:
        gaps = [" " * (width - columns_of(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [gap + cell if at else cell + gap for at, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        yield "  ".join(cells).rstrip()


def _title(name: str) -> str:
    """A key in words; its unit stands with the figure."""
    return name.removesuffix("_us").removesuffix("_ms").replace("_", " ")


def _cell(name: str, fact: Fact) -> str:
    """A fact for people, in the unit that its key ends with. Counts and offsets stay as they are: they are copied."""
    if not isinstance(fact, int | float):
        return "" if fact is None else fact
    match name.rpartition("_")[2]:
        case "bytes":
            return size_of(fact)
        case "us":
            return time_of(fact)
        case "ms":
            return time_of(fact * 1_000)
        case _:
            return str(fact)
