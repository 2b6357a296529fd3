"""Reports and differences for people. Needs rich, the extra `bench`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from zbroker.bench.diff import Change, Diff, Verdict
from zbroker.bench.figures import Figure
from zbroker.bench.report import Ratio, Report, Row

_NOISY = 0.3  # ends further apart than this part of the median are pointed out


def print_report(report: Report, console: Console) -> None:
    """Rows, a table for each group, then ratios with their bars, then what they depend on."""
    for group in dict.fromkeys(row.group for row in report.rows):
        console.print(_rows(group, [row for row in report.rows if row.group == group]))
    if report.ratios:
        console.print(_ratios(report))
    console.print(_footnote(report), style="dim", highlight=False)


_COLUMNS: Final[tuple[tuple[str, str, Callable[[Row], str]], ...]] = (
    ("messages/s", "rate", lambda row: _number(row.figure("rate"))),
    ("spread", "rate", lambda row: _spread(row.figure("rate"))),
    ("MB/s", "bytes_rate", lambda row: _number(row.figure("bytes_rate"), 1e6, 1)),
    ("p50 us", "p50_us", lambda row: _number(row.figure("p50_us"))),
    ("p99 us", "p99_us", lambda row: _number(row.figure("p99_us"))),
    ("p99.9 us", "p999_us", lambda row: _number(row.figure("p999_us"))),
    ("max us", "max_us", lambda row: _number(row.figure("max_us"))),
    ("timed", "timed", lambda row: _number(row.figure("timed"))),
    ("asked for/s", "offered", lambda row: _number(row.figure("offered"))),
    ("per batch", "per_batch", lambda row: _number(row.figure("per_batch"))),
    ("CPU us/msg", "cpu_us", lambda row: _number(row.figure("cpu_us"), 1, 1)),
    ("CPU %", "cpu_percent", lambda row: _number(row.figure("cpu_percent"), 1, 2)),
    ("KiB each", "resident_bytes", lambda row: _number(row.figure("resident_bytes"), 1_024, 1)),
    ("back s", "back_s", lambda row: _number(row.figure("back_s"), 1, 2)),
    ("per commit", "per_commit", lambda row: _number(row.figure("per_commit"))),
    ("written x", "write_factor", lambda row: _number(row.figure("write_factor"), 1, 2)),
    ("on disk x", "space_factor", lambda row: _number(row.figure("space_factor"), 1, 2)),
    ("MiB held", "held_bytes", lambda row: _number(row.figure("held_bytes"), 1 << 20, 1)),
    ("ready s", "ready_s", lambda row: _number(row.figure("ready_s"), 1, 2)),
    ("ready CPU s", "ready_cpu_s", lambda row: _number(row.figure("ready_cpu_s"), 1, 2)),
    ("lost", "", lambda row: _lost(row)),
)


def _rows(group: str, rows: Sequence[Row]) -> Table:
    """Only columns that some row has something for: with those of all groups, no room is left for the rows' names."""
    table = Table(title=f"{group} (medians)", title_justify="left")
    table.add_column("row")
    columns = [column for column in _COLUMNS if not column[1] or any(row.values(column[1]) for row in rows)]
    for heading, _, _ in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(f"{row.label} [dim]({row.body})[/dim]", *(cell(row) for _, _, cell in columns))
    return table


def _lost(row: Row) -> str:
    lost = f"{row.lost:,}" + (f" ({row.damaged:,} damaged)" if row.damaged else "")
    return f"[red]{lost}[/red]" if row.lost or row.damaged else lost


def _number(value: Figure | None, unit: float = 1.0, digits: int = 0) -> str:
    return f"{value.median / unit:,.{digits}f}" if value else ""


def _spread(value: Figure | None) -> str:
    if value is None:
        return ""
    text = f"{value.spread:.0%}"
    return f"[yellow]{text}[/yellow]" if value.spread > _NOISY else text


def _ratios(report: Report) -> Table:
    table = Table(title="against the bars", title_justify="left")
    table.add_column("what")
    for heading in ("median", "low", "high", "bar", ""):
        table.add_column(heading, justify="right")
    for ratio in report.ratios:
        value, sign = ratio.value, ">=" if ratio.at_least else "<="
        met = "[green]met[/green]" if ratio.met else "[yellow]missed[/yellow]"
        numbers = [_value(ratio, number) for number in (value.median, value.low, value.high)]
        text = ratio.text if ratio.size is None else f"{ratio.text}, {ratio.size} B"
        bar = ("", "") if ratio.bar is None else (f"{sign} {_value(ratio, ratio.bar)}", met)
        table.add_row(text, *numbers, *bar)
    return table


def _value(ratio: Ratio, number: float) -> str:
    return f"{number:.2f}x" if ratio.against else f"{number:,.{0 if abs(number) >= 100 else 2}f}"


def _footnote(report: Report) -> str:
    machine, versions, disk, settings = report.machine, report.versions, report.disk, report.settings
    memory = "; IN MEMORY, so nothing of it is durable" if disk["in_memory"] else ""
    load = machine["load_before"]
    return "\n".join(
        (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['system']} {machine['kernel']}"
            + (f", load {load:.1f} before the run" if load is not None else ""),
            ", ".join(f"{name} {number}" for name, number in versions.items()),
            f"data on {disk['file_system']}{memory}; 4 KiB written and synced in {disk['write_4k_and_fdatasync_p50_us']:.0f} us"
            f" (p99 {disk['write_4k_and_fdatasync_p99_us']:.0f})",
            f"{settings['repeat']} rounds of {settings['seconds']} s a row, {settings.get('transport', 'tcp')}; spread is (highest - lowest) / median",
        )
    )


def print_diff(found: Diff, console: Console) -> None:
    """Remarks first: they say what the tables are worth."""
    for remark in found.remarks:
        console.print(remark, style="yellow", highlight=False)
    for title, changes in (("figures", found.figures), ("ratios", found.ratios)):
        if changes:
            console.print(_changes(title, changes))
    for title, names in (("only before", found.only_before), ("only after", found.only_after)):
        if names:
            console.print(f"{title}: {', '.join(names)}", style="dim", highlight=False)


_COLOURS: Final = {Verdict.BETTER: "green", Verdict.WORSE: "red", Verdict.UNKNOWN: "yellow"}


def _changes(title: str, changes: list[Change]) -> Table:
    table = Table(title=f"{title} (medians; spread in brackets)", title_justify="left")
    for heading in ("what", "figure", "before", "after", "change", ""):
        table.add_column(heading, justify="right" if heading in ("before", "after", "change") else "left")
    for change in changes:
        colour = _COLOURS.get(change.verdict)
        verdict = f"[{colour}]{change.verdict}[/{colour}]" if colour else str(change.verdict)
        sides = [_side(change.before), _side(change.after)]
        table.add_row(change.name, change.field, *sides, f"{change.percent:+.1f} %", verdict)
    return table


def _side(value: Figure) -> str:
    digits = 0 if value.median >= 100 else 2
    return f"{value.median:,.{digits}f} ({value.spread:.0%})"
