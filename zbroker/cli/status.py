"""`zbroker status`: what a broker holds and does, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import click
from msgspec.structs import asdict

from patterns.wire.words import counted
from zbroker.cli.answer import Guard, Journal, Status, as_told, understood
from zbroker.cli.bodies import line_of
from zbroker.cli.command import ClientCommand, broker_options, timeout_option
from zbroker.cli.tables import GROUP_COLUMNS, STREAM_COLUMNS, facts_of, lines_of_rows, table_of
from zbroker.cli.words import cleaned, time_of

_COLUMNS: Final = {"streams": STREAM_COLUMNS, "groups": GROUP_COLUMNS, "services": ("repliers", "waiting", "credit")}
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
        rows = {name: asdict(row) for name, row in getattr(found, section).items()}
        yield from table_of(section, columns, rows)
    yield from _list("subscriptions", found.subscriptions, "sessions")
    yield from _list("plain ZeroMQ", found.plain if any(found.plain.values()) else {})
    if found.journal:
        yield from facts_of("journal", {name: getattr(found.journal, name) for name in _JOURNAL})
    yield from _list("refused", found.refused)
    yield from _list("connections", {name: count for name, count in _connections(found.guard or Guard()) if count})
    yield from _list("counters", found.counters)


def _list(title: str, rows: Mapping[str, int], other: str = "") -> Iterator[str]:
    """Counts under names that are not ours to put in words."""
    if rows:
        yield from lines_of_rows([title, other], [[name, str(count)] for name, count in rows.items()])


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
