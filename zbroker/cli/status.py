"""`zbroker status`: what a broker holds and does, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from zbroker.cli.bodies import line_of
from zbroker.cli.command import ClientCommand, client_options, require_broker, timeout_option
from zbroker.cli.words import cleaned, columns_of

_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "streams": ("messages", "bytes", "first_offset", "next_offset", "producers", "groups", "lost"),
    "groups": ("lag", "pending", "leased", "waiting", "acked", "dead", "expired", "redelivered", "members"),
    "services": ("repliers", "waiting", "credit"),
}
_JOURNAL: Final = (
    "folder", "epoch", "bytes", "live_bytes", "reserve_bytes", "segments", "waiting_records", "last_sync_us", "sync_p50_us",
    "sync_p99_us", "checkpoint_age_ms", "checkpoint_records_behind", "file_system",
)  # fmt: skip


@click.command(cls=ClientCommand)
@client_options
@timeout_option("How long to wait for the answer, in seconds.", default=5.0)
def status(url: str, as_json: bool, raw: bool, timeout_s: float) -> None:
    """Show what a broker holds and does; warnings first.

    \b
    zbroker status --url zb://localhost --json
    """
    from patterns.sync import Admin

    require_broker(url, "status")
    if raw:
        raise click.UsageError("status has no bodies: leave --raw out")
    with Admin(url, timeout_s=timeout_s) as admin:
        found = admin.status()
    click.echo(line_of(found) if as_json else "\n".join(lines_of(found)))


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """The status for people: sections that have something in them."""
    journal = found.get("journal") or {}
    for warning in [*found.get("warnings", ()), *_journal_warnings(journal)]:
        yield cleaned(f"warning: {warning}")
    seconds = found.get("uptime_ms", 0) // 1_000
    sessions = dict(found.get("sessions", {}))
    total = sessions.pop("total", 0)
    roles = ", ".join(f"{count} {role}" for role, count in sessions.items())
    yield cleaned(
        f"broker of epoch {found.get('epoch', '?')}, up {_duration(seconds)}, {total} sessions{f': {roles}' if roles else ''}"
    )
    for section, columns in _COLUMNS.items():
        yield from _table(section, columns, found.get(section) or {})
    if subscriptions := found.get("subscriptions"):
        yield from _rows(["subscriptions", "sessions"], [[name, str(n)] for name, n in subscriptions.items()])
    if any((plain := found.get("plain") or {}).values()):
        yield from _rows(["plain ZeroMQ", ""], [[name, str(n)] for name, n in plain.items()])
    if journal:
        yield from _rows(["journal", ""], [[key, str(journal[key])] for key in _JOURNAL if key in journal])
    if refused := found.get("refused"):
        yield from _rows(["refused", ""], [[name, str(n)] for name, n in refused.items()])
    if guard := {name: count for name, count in _connections(found.get("guard") or {}) if count}:
        yield from _rows(["connections", ""], [[name, str(n)] for name, n in guard.items()])
    if counters := found.get("counters"):
        yield from _rows(["counters", ""], [[name, str(n)] for name, n in counters.items()])


def _connections(guard: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """What became of connections; a cut and a failed handshake by kind."""
    for name in ("connections", "accepted", "handshakes", "disconnected"):
        yield name.replace("connections", "open"), guard.get(name, 0)
    for section, prefix in (("handshakes_failed", "handshake failed"), ("cuts", "cut")):
        for kind, count in (guard.get(section) or {}).items():
            yield f"{prefix}: {kind.replace('_', ' ')}", count


def _journal_warnings(journal: Mapping[str, Any]) -> Iterator[str]:
    if journal.get("failed"):
        yield f"the journal has failed: {journal['failed']}"
    if journal.get("full"):
        yield "the journal is full: producers are refused until there is space"
    if journal.get("damage"):
        yield f"the journal is damaged: {len(journal['damage'])} places; see --json"
    yield from journal.get("warnings", ())


def _table(section: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if rows:
        titles = [section, *(column.replace("_", " ") for column in columns)]
        yield from _rows(
            titles, [[name, *(str(row.get(column, "")) for column in columns)] for name, row in rows.items()]
        )


def _rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A blank line, the titles, the rows; the first column to the left, figures to the right."""
    table = [[cleaned(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(map(columns_of, column)) for column in zip(*table, strict=True)]
    yield ""
    for row in table:
        gaps = [" " * (width - columns_of(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [gap + cell if at else cell + gap for at, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        yield "  ".join(cells).rstrip()


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{value} {unit}" for value, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if value]
    return " ".join([*parts, f"{seconds} s"])
