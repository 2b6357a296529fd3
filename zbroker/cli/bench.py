"""`zbroker bench compare`: options, progress and output; what is measured is in zbroker.bench."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zbroker.cli.exits import FAILED, UNAVAILABLE, end

if TYPE_CHECKING:
    from zbroker.bench.report import Report

_PIPE_COLUMNS = 140  # a file has no width; rich would assume 80 and break every label
_Progress = Callable[[int, int, str], None]


@click.group()
def bench() -> None:
    """Measure this machine: zbroker beside bare pyzmq and libzmq's own proxy."""


@bench.command()
@click.option("--rows", metavar="A,B", help="Only these rows or groups: live, device, request, durable, confirm.")
@click.option("--seconds", type=click.FloatRange(0.05, 600), default=2.0, show_default=True, help="Of each sample.")
@click.option("--repeat", type=click.IntRange(1, 1_000), default=3, show_default=True, help="Rounds.")
@click.option(
    "--size", type=click.IntRange(16, 1_048_576), default=100, show_default=True, help="Of a raw body, bytes."
)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), help="Folder on the disk to measure.  [a temporary one]"
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Keep the JSON in this file as well.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def compare(
    rows: str | None, seconds: float, repeat: int, size: int, data: Path | None, output: Path | None, as_json: bool
) -> None:
    """Peer to peer, through the broker and durable, beside bare sockets in the same run."""
    from zbroker.bench.compare import UnknownRow, chosen, disk_folder, names_in
    from zbroker.bench.compare import compare as run
    from zbroker.bench.processes import BenchFailed
    from zbroker.bench.report import to_json
    from zbroker.bench.rows import Settings

    show = None if as_json else _table()
    try:
        plans = chosen(names_in(rows))
    except UnknownRow as error:
        raise click.BadParameter(str(error), param_hint="--rows") from error
    try:
        with disk_folder(data) as folder, _progress() as progress:
            report = run(plans, Settings(seconds=seconds, repeat=repeat, size=size, folder=folder), progress)
    except OSError as error:
        end(UNAVAILABLE, str(error))
    except BenchFailed as error:
        end(FAILED, str(error))
    if output is not None:
        output.write_bytes(to_json(report) + b"\n")
    if show is not None:
        show(report)
    else:
        click.echo(to_json(report).decode())


def _table() -> Callable[[Report], None]:
    """What prints tables; asked for before anything is measured, so that nobody waits for a missing package."""
    try:
        from rich.console import Console

        from zbroker.bench.table import print_report
    except ImportError:
        end(UNAVAILABLE, "tables need the package rich: pip install 'zbroker[bench]', or use --json")
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return lambda report: print_report(report, Console(width=width))


@contextmanager
def _progress() -> Iterator[_Progress]:
    """A bar on a terminal's standard error, nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    label = ""

    def shown(_item: object) -> str:
        return label

    with click.progressbar(length=1, label="measuring", file=sys.stderr, item_show_func=shown) as bar:

        def tell(done: int, total: int, what: str) -> None:
            nonlocal label
            label = what
            bar.length = total
            bar.update(done - bar.pos)
            bar.render_progress()

        yield tell
