"""The report for people: two tables. Needs rich, the extra `bench`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from zbroker.bench.figures import Figure
from zbroker.bench.report import Ratio, Report, Row

_NOISY = 0.3  # ends further apart than this part of the median are pointed out


def print_report(report: Report, console: Console) -> None:
    """Rows, then ratios with their bars, then what they depend on."""
    console.print(_rows(report))
    if report.ratios:
        console.print(_ratios(report))
    console.print(_footnote(report), style="dim", highlight=False)


def _rows(report: Report) -> Table:
    table = Table(title="what was measured (medians)", title_justify="left")
    table.add_column("row")
    for heading in ("messages/s", "spread", "MB/s", "p50 us", "p99 us", "per batch", "lost"):
        table.add_column(heading, justify="right")
    group = ""
    for row in report.rows:
        if group not in ("", row.group):
            table.add_section()
        group = row.group
        table.add_row(f"{row.label} [dim]({row.body})[/dim]", *_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    rate, size = row.figure("rate"), row.figure("bytes_rate")
    lost = f"{row.lost:,}" + (f" ({row.damaged:,} damaged)" if row.damaged else "")
    return [
        _number(rate),
        _spread(rate),
        f"{size.median / 1e6:,.1f}" if size else "",
        _number(row.figure("p50_us")),
        _number(row.figure("p99_us")),
        _number(row.figure("per_batch")),
        f"[red]{lost}[/red]" if row.lost or row.damaged else lost,
    ]


def _number(value: Figure | None) -> str:
    return f"{value.median:,.0f}" if value else ""


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
        table.add_row(ratio.text, *numbers, f"{sign} {_value(ratio, ratio.bar)}", met)
    return table


def _value(ratio: Ratio, number: float) -> str:
    return f"{number:.2f}x" if ratio.against else f"{number:,.0f}"


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
            f"{settings['repeat']} rounds of {settings['seconds']} s a row; spread is (highest - lowest) / median",
        )
    )
