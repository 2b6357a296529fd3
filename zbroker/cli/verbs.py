"""What the commands about streams, groups and dead letters share: their arguments, questions, and how answers are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patterns.wire.names import check_name
from zbroker.cli.answer import as_told
from zbroker.cli.bodies import line_of
from zbroker.cli.command import broker_options, closing, name_checked, timeout_option
from zbroker.cli.exits import FAILED, end
from zbroker.cli.stream_names import complete_group, complete_stream
from zbroker.cli.tables import cell_of, lines_of_rows, with_instants
from zbroker.cli.words import cleaned

if TYPE_CHECKING:
    from patterns.sync import Admin

_F = TypeVar("_F", bound=Callable[..., Any])


def _name(what: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback for a name that may be left away."""
    checked = name_checked(lambda name: check_name(name, what))
    return lambda context, parameter, value: value if value is None else checked(context, parameter, value)


stream_argument = click.argument("stream", metavar="STREAM", callback=_name("stream"), shell_complete=complete_stream)
any_stream_argument = click.argument(
    "stream", metavar="[STREAM]", required=False, callback=_name("stream"), shell_complete=complete_stream
)
group_argument = click.argument("group", metavar="GROUP", callback=_name("group"), shell_complete=complete_group)
yes_option = click.option("--yes", is_flag=True, help="Do not ask; where nobody can be asked, it must be said.")


def verb_options(command: _F) -> _F:
    """--url, --json and --timeout."""
    return broker_options(timeout_option("How long to wait for each answer, in seconds.", default=5.0)(command))


@contextmanager
def asking(url: str, timeout_s: float) -> Iterator[Admin]:
    """An Admin, closed as its command ends."""
    from patterns.sync import Admin

    with closing(Admin(url, timeout_s=timeout_s)) as admin:
        yield admin


def check_yes(context: click.Context, *, yes: bool, what: str) -> None:
    """Before anything is connected: in a pipe nobody can be asked. Raises UsageError."""
    if not (yes or _can_ask()):
        raise click.UsageError(f"{what} cannot be undone, and nobody can be asked here: say --yes", context)


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless it was said; a no ends the command with 1, and nothing was done."""
    if yes:
        return
    sys.stderr.write(f"{cleaned(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        end(FAILED, "nothing was done")


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def print_all(rows: Iterable[Mapping[str, Any]], lines: Iterable[str], url: str, *, as_json: bool) -> None:
    """One object a line, or the lines for people, without the blank one before the first table."""
    if as_json:
        for row in rows:
            click.echo(line_of(with_instants(as_told(dict(row), url))))
        return
    text = "\n".join(lines).strip("\n")
    if text:
        click.echo(text)


def changes_of(result: Mapping[str, Any]) -> Iterator[str]:
    """What a verb has changed, or would change, as a table."""
    rows = []
    for one in dicts_in(result, "changes"):
        field = str(one.get("field"))
        rows.append([field, *(_said(field, one.get(name)) for name in ("before", "after", "applies"))])
    if rows:
        yield from lines_of_rows(["changes", "before", "after", "counts"], rows)


def dicts_in(row: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of maps in a row; none where the broker tells something else."""
    found = row.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _said(field: str, value: object) -> str:
    """A value as the table has it; here an empty cell would say nothing."""
    if value is None or value == [] or value == "":
        return "none"
    return ("yes" if value else "no") if isinstance(value, bool) else cell_of(field, value)


def config_lines(row: Mapping[str, Any], *names: str) -> Iterator[str]:
    """The configuration in a row, its fields as flags and files have them, without those that the title has said."""
    config = row.get("config")
    if isinstance(config, dict):
        rows = [[str(name), _said(str(name), value)] for name, value in config.items() if name not in names]
        yield from lines_of_rows(["configuration", ""], rows)
