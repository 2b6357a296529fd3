"""`zbroker dead`: look at dead letters, and send them back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from patterns.wire.names import check_name
from patterns.wire.words import counted
from zbroker.cli.answer import number_of
from zbroker.cli.command import ClientCommand, name_checked
from zbroker.cli.exits import FAILED, end
from zbroker.cli.stream_names import complete_stream
from zbroker.cli.suggestions import Group
from zbroker.cli.tables import cell_of, lines_of_rows
from zbroker.cli.verbs import any_stream_argument, asking, dicts_in, print_all, stream_argument, verb_options
from zbroker.cli.words import say

if TYPE_CHECKING:
    from patterns.sync import Admin

_COLUMNS: Final = ("letters", "pending", "redriven")
_checked = name_checked(lambda name: check_name(name, "stream"))
_PIECE: Final = 5_000  # letters that one verb sends back: an answer comes within its timeout, however many there are


@click.group(cls=Group)
def dead() -> None:
    """Look at dead letters, and send them back."""


@dead.command("list", cls=ClientCommand, short_help="List the streams with dead letters.")
@any_stream_argument
@verb_options
def list_(stream: str | None, url: str, as_json: bool, timeout_s: float) -> None:
    """List the streams with dead letters, and the groups that they come from. What waits for room to become one is doomed.

    \b
    zbroker dead list
    zbroker dead list --json | jq 'select(.pending > 0) | .stream'
    """
    with asking(url, timeout_s) as admin:
        rows = admin.list_dead(stream)
    print_all(rows, _listed(rows), url, as_json=as_json)


def _listed(rows: list[dict[str, Any]]) -> Iterator[str]:
    table = []
    for row in rows:
        since = cell_of("oldest_at", row.get("oldest_at"))
        sources = ", ".join(_source(one) for one in dicts_in(row, "from"))
        table.append([str(row.get("stream")), *(cell_of(name, row.get(name)) for name in _COLUMNS), since, sources])
    if table:
        yield from lines_of_rows(["dead letters", *_COLUMNS, "oldest pending", "from"], table)


def _source(one: dict[str, Any]) -> str:
    doomed = number_of(one, "doomed")
    return f"{one.get('stream')}/{one.get('group')}" + (f" ({doomed} doomed)" if doomed else "")


@dead.command(cls=ClientCommand, short_help="Show dead letters, and why each died.")
@stream_argument
@click.option("--first", type=click.IntRange(0), metavar="OFFSET", default=0, help="From this offset on.")
@click.option(
    "--count", type=click.IntRange(1, 500), metavar="N", default=20, show_default=True, help="So many at most."
)
@click.option("--all", "everything", is_flag=True, help="Those too that were sent back already.")
@verb_options
def show(stream: str, first: int, count: int, everything: bool, url: str, as_json: bool, timeout_s: float) -> None:
    """Show the dead letters of STREAM that nobody has sent back: why and where each died, and the first words of its body.
    Whole bodies are for a reader: `zbroker receive STREAM --group ""`.

    \b
    zbroker dead show orders-dead
    zbroker dead show orders-dead --count 500 --json | jq -r .reason | sort | uniq -c
    """
    with asking(url, timeout_s) as admin:
        result = admin.show_dead(stream, first=first, count=count, all=everything)
    rows = dicts_in(result, "letters")
    print_all(rows, _shown(rows, everything), url, as_json=as_json)
    following = result.get("next")
    if following is not None and not as_json:
        say(f"there are more: --first {following}")
    elif not rows and not as_json:
        say(f"stream {stream!r} has no dead letters" + ("" if everything else " that nobody has sent back; --all"))


def _shown(rows: list[dict[str, Any]], everything: bool) -> Iterator[str]:
    table = []
    state = ["now"] if everything else []
    for row in rows:
        place = f"{row.get('stream')}/{row.get('group')}@{cell_of('offset', row.get('origin_offset'))}"
        cells = [str(row.get(name)) for name in ("reason", "body")]
        said = [cell_of(name, row.get(name)) for name in ("died_at", "attempts", "key")]
        now = ["waits" if row.get("pending") else "sent back"] if everything else []
        table.append([str(row.get("offset")), place, *said, *now, *cells])
    if table:
        yield from lines_of_rows(["offset", "from", "died", "attempts", "key", *state, "reason", "body"], table)


@dead.command(cls=ClientCommand, short_help="Send dead letters back where they died.")
@stream_argument
@click.option("--first", type=click.IntRange(0), metavar="OFFSET", help="Only from this offset on.")
@click.option("--last", type=click.IntRange(0), metavar="OFFSET", help="Only up to this offset.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="So many at most.  [all]")
@click.option(
    "--to",
    metavar="STREAM",
    callback=lambda context, parameter, name: name and _checked(context, parameter, name),
    shell_complete=complete_stream,
    help="Into this stream instead, for all of its groups.",
)
@verb_options
def redrive(
    stream: str, first: int | None, last: int | None, count: int | None, to: str | None, url: str, as_json: bool,
    timeout_s: float,
) -> None:  # fmt: skip
    """Send the dead letters of STREAM that nobody has sent back to the groups where they died, and to no others. Each is sent
    back once; what cannot be, because its group is gone, stays, and is told (1).

    \b
    zbroker dead redrive orders-dead
    zbroker dead redrive orders-dead --first 17 --last 17
    zbroker dead redrive orders-dead --to orders-by-hand
    """
    if first is not None and last is not None and first > last:
        raise click.UsageError(f"--first {first} is above --last {last}")
    with asking(url, timeout_s) as admin:
        result = _redriven(admin, stream, count, {"to": to, "first": first, "last": last})
    print_all([result], (), url, as_json=as_json)
    if not as_json:
        say(f"{counted(number_of(result, 'redriven'), 'letter')} sent back; {result.get('pending')} pending")
    left = [str(why) for why in (*result["why"], result["stopped"]) if why]
    if left:
        end(FAILED, "; ".join(left))


def _redriven(admin: Admin, stream: str, count: int | None, where: dict[str, Any]) -> dict[str, Any]:
    """All of it, in pieces: a piece that comes to less than it may is the last."""
    sent = 0
    while True:
        piece = _PIECE if count is None else min(_PIECE, count - sent)
        result = admin.redrive_dead(stream, count=piece, **where)
        redriven = number_of(result, "redriven")
        sent += redriven
        if redriven < piece or sent == count:
            return {**result, "redriven": sent}
