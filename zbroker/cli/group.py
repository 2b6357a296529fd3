"""`zbroker group`: make, change, look at, reset, pause and delete the groups of streams."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from patterns.wire.words import counted
from zbroker.cli.answer import config_of as config_in
from zbroker.cli.answer import number_of
from zbroker.cli.command import ClientCommand
from zbroker.cli.config_options import from_file, given, group_config_options, making_options
from zbroker.cli.receive import start_of
from zbroker.cli.stream import made
from zbroker.cli.suggestions import Group
from zbroker.cli.tables import GROUP_COLUMNS, cell_of, facts_of, lines_of_rows, table_of
from zbroker.cli.verbs import (
    any_stream_argument,
    asking,
    changes_of,
    check_yes,
    config_lines,
    confirm,
    dicts_in,
    group_argument,
    print_all,
    stream_argument,
    verb_options,
    yes_option,
)
from zbroker.cli.words import say

_MEMBER_COLUMNS: Final = ("leases", "state")


@click.group(cls=Group)
def group() -> None:
    """Make, change, look at, reset, pause and delete the groups of streams."""


@group.command("list", cls=ClientCommand, short_help="List the groups, of one stream or of all.")
@any_stream_argument
@verb_options
def list_(stream: str | None, url: str, as_json: bool, timeout_s: float) -> None:
    """List the groups of STREAM, or of all streams, with their accounts: accepted = acked + dead + expired + lost + pending.

    \b
    zbroker group list orders
    zbroker group list --json | jq 'select(.lag_s > 60)'
    """
    with asking(url, timeout_s) as admin:
        rows = admin.list_groups(stream)
    named = {f"{row.get('stream')}/{row.get('name')}": row for row in rows}
    print_all(rows, table_of("groups", GROUP_COLUMNS, named), url, as_json=as_json)


@group.command(cls=ClientCommand, short_help="Show a group, its configuration, and who holds its oldest message.")
@stream_argument
@group_argument
@verb_options
def show(stream: str, group: str, url: str, as_json: bool, timeout_s: float) -> None:
    """Show a group: its account, its configuration, its members, and who holds its oldest message.

    \b
    zbroker group show orders billing
    zbroker group show orders billing --json | jq .oldest
    """
    with asking(url, timeout_s) as admin:
        row = admin.show_group(stream, group)
    print_all([row], _shown(f"group {stream}/{group}", row), url, as_json=as_json)


def _shown(title: str, row: dict[str, Any]) -> Iterator[str]:
    yield from facts_of(
        title, {name: row.get(name) for name in (*GROUP_COLUMNS, "passed", "start", "floor", "leases_lost")}
    )
    oldest = row.get("oldest")
    if isinstance(oldest, dict):
        holder = oldest.get("holder")
        held = holder if isinstance(holder, dict) else {}
        whose = {"held by": _who(held), "attempt": held.get("attempt"), "lease": held.get("lease")} if held else {}
        yield from facts_of(
            "oldest", {**{name: oldest.get(name) for name in ("offset", "published_at", "age_s")}, **whose}
        )
    members = dicts_in(row, "member_rows")
    if members:
        rows = [[_who(one), *(cell_of(name, one.get(name)) for name in _MEMBER_COLUMNS)] for one in members]
        yield from lines_of_rows(["members", *_MEMBER_COLUMNS], rows)
    yield from config_lines(row, "stream", "name")


def _who(member: dict[str, Any]) -> str:
    """A session's name, or what it is known by without one."""
    return str(member.get("name") or member.get("session"))


@group.command(cls=ClientCommand, short_help="Make a group, or change what it is.")
@stream_argument
@group_argument
@group_config_options
@making_options
@verb_options
def create(
    stream: str, group: str, url: str, as_json: bool, timeout_s: float, file: Path | None, dry_run: bool, change: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Make a group, and its stream if there is none. If it is there with this configuration nothing happens; with another one
    it is refused (77), unless --change is said: then what flags and --config say is changed, and the rest stays.

    \b
    zbroker group create orders billing --from new --max-deliveries 5 --dead-letter orders-dead --backoff-s 1,10,1m
    zbroker group create orders billing --exclusive --change
    """
    from patterns.sync import GroupConfig
    from patterns.wire.configs import config_of
    from patterns.wire.errors import NoSuchGroup, NoSuchStream

    names = {"stream": stream, "name": group}
    said = {**from_file(file, names), **given(flags)}
    with asking(url, timeout_s) as admin:
        if change:
            try:
                said = {**config_in(admin.show_group(stream, group), url), **said}
            except (NoSuchStream, NoSuchGroup):
                pass  # it is made
        if isinstance(said.get("start"), datetime):
            said["start"] = said["start"].isoformat()
        config = config_of(GroupConfig, {**said, **names})
        result = admin.create_group(config, dry_run=dry_run, change=change)
    print_all([result], changes_of(result), url, as_json=as_json)
    if not as_json:
        say(made(f"group {group!r} of stream {stream!r}", result, change=change))


@group.command(cls=ClientCommand, short_help="Let a group begin again, elsewhere in its stream.")
@stream_argument
@group_argument
@click.option(
    "--from",
    "start",
    type=start_of,
    metavar="first|new|OFFSET|TIME",
    help="Where; TIME is ISO 8601, without a zone this machine's.  [where its configuration says]",
)
@verb_options
def reset(
    stream: str, group: str, start: str | int | datetime | None, url: str, as_json: bool, timeout_s: float
) -> None:
    """Let a group begin again, with a new account. Its members stay; what they hold of before is stale.

    \b
    zbroker group reset orders billing --from 2026-01-31T12:00:00Z
    zbroker group reset orders billing --from new
    """  # fmt: skip
    with asking(url, timeout_s) as admin:
        result = admin.reset_group(stream, group, start)
    print_all([result], (), url, as_json=as_json)
    if not as_json:
        begins, end = result.get("start"), result.get("next")
        say(f"group {group!r} begins again at offset {begins} of stream {stream!r}, which goes up to {end}")


@group.command(cls=ClientCommand, short_help="Give nothing more to a group's members.")
@stream_argument
@group_argument
@verb_options
def pause(stream: str, group: str, url: str, as_json: bool, timeout_s: float) -> None:
    """Give nothing more to a group's members until it is resumed. What they hold they may settle.

    \b
    zbroker group pause orders billing
    """
    _set_paused(stream, group, url, as_json=as_json, timeout_s=timeout_s, verb="pause_group")


@group.command(cls=ClientCommand, short_help="Go on after a pause.")
@stream_argument
@group_argument
@verb_options
def resume(stream: str, group: str, url: str, as_json: bool, timeout_s: float) -> None:
    """Go on after a pause.

    \b
    zbroker group resume orders billing
    """
    _set_paused(stream, group, url, as_json=as_json, timeout_s=timeout_s, verb="resume_group")


def _set_paused(stream: str, group: str, url: str, *, as_json: bool, timeout_s: float, verb: str) -> None:
    with asking(url, timeout_s) as admin:
        result = getattr(admin, verb)(stream, group)
    print_all([result], (), url, as_json=as_json)
    if not as_json:
        say(
            f"group {group!r} of stream {stream!r} {_state_now(is_paused=bool(result.get('paused')), was=result.get('was'))}"
        )


def _state_now(*, is_paused: bool, was: object) -> str:
    if is_paused:
        return "is paused already" if was is True else "is paused: its members are given nothing more"
    return "goes on" if was is True else "was not paused, and goes on"


@group.command(cls=ClientCommand, short_help="Delete a group.")
@stream_argument
@group_argument
@yes_option
@verb_options
@click.pass_context
def delete(
    context: click.Context, stream: str, group: str, yes: bool, url: str, as_json: bool, timeout_s: float
) -> None:
    """Delete a group, and with it what it has and has not settled. On a terminal it asks first; elsewhere --yes must be said.

    \b
    zbroker group delete orders billing
    """
    check_yes(context, yes=yes, what="deleting a group")
    with asking(url, timeout_s) as admin:
        if not yes:
            row = admin.show_group(stream, group)
            pending = counted(number_of(row, "pending"), "message")
            confirm(f"Delete group {group!r} of stream {stream!r}, with {pending} that it has not settled?", yes=yes)
        result = admin.delete_group(stream, group)
    print_all([result], (), url, as_json=as_json)
    if not as_json:
        pending = counted(number_of(result, "pending"), "message")
        say(f"group {group!r} of stream {stream!r} is deleted; it had not settled {pending}")
