"""`zbroker bench compare|run|diff`: options, progress and output; what is measured is in zbroker.bench."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from zbroker.cli.bodies import line_of
from zbroker.cli.command import ClientCommand
from zbroker.cli.exits import FAILED, UNAVAILABLE, end
from zbroker.cli.suggestions import Group
from zbroker.cli.words import say
from zbroker.extras import how_to_install

if TYPE_CHECKING:
    from zbroker.bench.diff import Diff
    from zbroker.bench.report import Report
    from zbroker.bench.rows import Plan

_PIPE_COLUMNS: Final = 150  # a file has no width; rich would assume 80 and break every label
_TERMINATED: Final = 143  # 128 + SIGTERM
_Progress = Callable[[float, int, str], None]
_STEPS: Final = 1_000  # of the bar, for each sample: a backlog's takes minutes
_F = TypeVar("_F", bound=Callable[..., Any])
_SIZE: Final = click.IntRange(16, 1_048_576)


def _sizes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    parts = [part.strip() for part in (value or "").split(",") if part.strip()]
    return tuple(dict.fromkeys(int(_SIZE(part, parameter, context)) for part in parts))


def _shared_options(command: _F) -> _F:
    """What compare and run have in common."""
    for option in reversed((
        click.option("--seconds", type=click.FloatRange(0.05, 600), default=2.0, show_default=True, help="Of each sample."),
        click.option("--repeat", type=click.IntRange(1, 1_000), default=3, show_default=True, help="Rounds."),
        click.option("--size", type=_SIZE, default=100, show_default=True, help="Of a raw body, bytes."),
        click.option("--transport", type=click.Choice(["tcp", "ipc"]), default="tcp", show_default=True,
                     help="Between all processes of a row."),
        click.option("--connections", type=click.IntRange(1, 10_000), default=1_000, show_default=True,
                     help="Of the rows with many."),
        click.option("--backlog", type=click.IntRange(100, 100_000_000), default=50_000, show_default=True, metavar="N",
                     help="Messages of the rows with a backlog; ten million take long."),
        click.option("--data", type=click.Path(path_type=Path, file_okay=False),
                     help="Folder on the disk to measure.  [a temporary one]"),
        click.option("--output", type=click.Path(path_type=Path, dir_okay=False),
                     help="Keep the JSON in this file as well."),
        click.option("--json", "as_json", is_flag=True, help="JSON on standard output."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.group(cls=Group)
def bench() -> None:
    """Measure this machine: zbroker beside bare pyzmq, libzmq's own proxy, nats-server, LMDB and SQLite."""


@bench.command(cls=ClientCommand)
@click.option("--rows", metavar="A,B", help="Only these rows or groups; `all` is every one; see `bench rows`.  "
              "[live,device,request,durable,confirm]")  # fmt: skip
@click.option("--sizes", metavar="A,B", callback=_sizes, help="Every row at each of these sizes instead of --size.")
@_shared_options
def compare(rows: str | None, sizes: tuple[int, ...], output: Path | None, as_json: bool, **options: Any) -> None:
    """Rows side by side, in rounds, held against their bars.

    Groups: live, device, request, durable, confirm; aio (asyncio beside threads), fan (1 to 8, 8 to 1), translate, nats, latency
    (at fixed rates, from the intended time), connections, stalled, streams, groups, delayed, stores (LMDB, SQLite, the bare disk), checkpoint,
    compaction, ready, backlog.

    \b
    zbroker bench compare --rows live,request --repeat 5 --output before.json
    zbroker bench compare --rows live --sizes 16,100,1024,16384,1000000 --transport ipc
    """
    from zbroker.bench.compare import UnknownRow, chosen, names_in, without_missing

    names = names_in(rows)
    try:
        plans, missing = without_missing(chosen(names), over_tcp=options["transport"] == "tcp")
    except UnknownRow as error:
        raise click.BadParameter(str(error), param_hint="--rows") from error
    for reason in missing:
        if not plans:
            end(UNAVAILABLE, reason)
        say(f"{reason}; its rows are left out")
    _measure(plans, options, sizes, output, as_json)


@bench.command(cls=ClientCommand)
@click.argument("row")
@click.option("--api", type=click.Choice(["sync", "aio"]), default="sync", show_default=True, help="Of our ends.")
@click.option("--rate", type=click.FloatRange(1, 1e8), metavar="N",
              help="Messages a second; latency counts from the intended time.  [as fast as possible]")  # fmt: skip
@_shared_options
def run(row: str, api: str, rate: float | None, output: Path | None, as_json: bool, **options: Any) -> None:
    """One row, with what it may be asked for.

    `zbroker bench rows` lists their names.

    \b
    zbroker bench run live-broker --api aio --rate 200000 --size 1024 --seconds 10
    """
    from zbroker.bench.compare import UnknownRow, chosen, without_missing

    try:
        [plan] = chosen([row])
        plans, missing = without_missing([plan], over_tcp=options["transport"] == "tcp")
    except UnknownRow as error:
        raise click.BadParameter(str(error), param_hint="ROW") from error
    except ValueError as error:
        raise click.BadParameter(f"{row!r} is a group of rows; compare --rows runs it", param_hint="ROW") from error
    if missing:
        end(UNAVAILABLE, missing[0])
    asked = {"api": api if api != "sync" else None, "rate": rate}
    for name, value in asked.items():
        if value is not None and name not in plan.honours:
            can = ", ".join(sorted(f"--{one}" for one in plan.honours)) or "nothing"
            raise click.UsageError(f"row {row} has no --{name}; it can be told {can}")
    _measure(plans, {**options, "api": api, "rate": rate}, (), output, as_json)


@bench.command(cls=ClientCommand)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def rows(as_json: bool) -> None:
    """The names of all rows, and what they measure.

    \b
    zbroker bench rows
    """
    from zbroker.bench.rows import PLANS

    width = max(len(plan.name) for plan in PLANS)
    group = ""
    for plan in PLANS:
        if as_json:
            click.echo(line_of({"row": plan.name, "group": plan.group, "label": plan.label}))
            continue
        if plan.group != group:
            click.echo(plan.group)
        group = plan.group
        click.echo(f"  {plan.name.ljust(width)}  {plan.label}")


@bench.command(cls=ClientCommand)
@click.argument("before", type=click.File("rb"))
@click.argument("after", type=click.File("rb"))
@click.option("--fail-over", type=click.FloatRange(0), metavar="PERCENT",
              help="Exit with 1 if anything became worse by more than this, beyond noise.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def diff(before: Any, after: Any, fail_over: float | None, as_json: bool) -> None:
    """What changed between two kept results, beyond noise.

    A change counts when the rounds of both sides do not overlap, the medians differ by 3 %, and each side has three rounds. Figures
    of different machines or settings are not compared; their ratios are.

    \b
    zbroker bench diff before.json after.json --fail-over 10
    """
    from zbroker.bench.diff import NotAResult, read, to_json
    from zbroker.bench.diff import diff as compare_results

    show = None if as_json else _diff_table()
    sides = []
    for file in (before, after):
        try:
            sides.append(read(file.read()))
        except NotAResult as error:
            raise click.BadParameter(f"{file.name}: {error}") from error
    found = compare_results(*sides)
    worse = None if fail_over is None else found.regressions(fail_over)
    if show is not None:
        show(found)
    else:
        click.echo(to_json(found, worse).decode())
    if worse:
        names = ", ".join(f"{one.name} ({one.field}, {one.worse_percent:.1f} % worse)" for one in worse)
        end(FAILED, f"worse by more than {fail_over:g} %: {names}")


def _measure(
    plans: Sequence[Plan], options: dict[str, Any], sizes: tuple[int, ...], output: Path | None, as_json: bool
) -> None:
    """Run them, show and keep what was found."""
    from zbroker.bench.compare import compare as measure
    from zbroker.bench.compare import disk_folder, socket_folder
    from zbroker.bench.processes import BenchFailed
    from zbroker.bench.report import to_json
    from zbroker.bench.rows import Settings

    show = None if as_json else _report_table()
    told = {name: value for name, value in options.items() if name not in ("data", "transport")}
    try:
        with ExitStack() as stack:
            stack.enter_context(_ended_in_order())
            folder = stack.enter_context(disk_folder(options["data"]))
            sockets = stack.enter_context(socket_folder(options["transport"]))
            progress = stack.enter_context(_progress())
            report = measure(plans, Settings(folder=folder, sockets=sockets, **told), progress, sizes)
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


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does: processes are ended, folders removed."""

    def stop(_number: int, _frame: object) -> NoReturn:
        sys.exit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report_table() -> Callable[[Report], None]:
    """What prints tables; asked for before anything is measured, so that nobody waits for a missing package."""
    try:
        from rich.console import Console

        from zbroker.bench.table import print_report
    except ImportError:
        _no_tables()
    return lambda report: print_report(report, Console(width=_width()))


def _diff_table() -> Callable[[Diff], None]:
    try:
        from rich.console import Console

        from zbroker.bench.table import print_diff
    except ImportError:
        _no_tables()
    return lambda found: print_diff(found, Console(width=_width()))


def _no_tables() -> NoReturn:
    end(UNAVAILABLE, f"tables need the package rich: {how_to_install('bench')}; or use --json")


def _width() -> int | None:
    return None if sys.stdout.isatty() else _PIPE_COLUMNS


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

        def tell(done: float, total: int, what: str) -> None:
            nonlocal label
            label = what
            bar.length = total * _STEPS
            bar.update(round(done * _STEPS) - bar.pos)
            bar.render_progress()

        yield tell
