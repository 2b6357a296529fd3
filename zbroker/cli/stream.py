"""`zbroker stream`: make, change, look at, empty and delete streams."""

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
from zbroker.cli.config_options import from_file, given, making_options, stream_config_options
from zbroker.cli.replay import replay
from zbroker.cli.suggestions import Group
from zbroker.cli.tables import GROUP_COLUMNS, STREAM_COLUMNS, facts_of, table_of
from zbroker.cli.verbs import (
    asking,
    changes_of,
    check_yes,
    config_lines,
    confirm,
    print_all,
    stream_argument,
    verb_options,
    yes_option,
)
from zbroker.cli.words import say, size_of

_FACTS: Final = (
    "messages", "bytes", "kept_messages", "kept_bytes", "first_offset", "next_offset", "published_first", "published_last", "producers",
    "groups", "lost",
)  # fmt: skip


@click.group(cls=Group)
def stream() -> None:
    """Make, change, look at, empty and delete streams."""


@stream.command("list", cls=ClientCommand, short_help="List the streams.")
@verb_options
def list_(url: str, as_json: bool, timeout_s: float) -> None:
    """List the streams, in the order in which they were made.

    \b
    zbroker stream list
    zbroker stream list --json | jq -r .name
    """
    with asking(url, timeout_s) as admin:
        rows = admin.list_streams()
    named = {str(row.get("name")): row for row in rows}
    print_all(rows, table_of("streams", STREAM_COLUMNS, named), url, as_json=as_json)


@stream.command(cls=ClientCommand, short_help="Show a stream, its configuration and its groups.")
@stream_argument
@verb_options
def show(stream: str, url: str, as_json: bool, timeout_s: float) -> None:
    """Show a stream, its configuration and its groups; under --json without the groups, which `group list` has.

    \b
    zbroker stream show orders
    zbroker stream show orders --json | jq .config > orders.json
    """
    with asking(url, timeout_s) as admin:
        row = admin.show_stream(stream)
        groups = [] if as_json else admin.list_groups(stream)
    print_all([row], _shown(stream, row, groups), url, as_json=as_json)


def _shown(name: str, row: dict[str, Any], groups: list[dict[str, Any]]) -> Iterator[str]:
    yield from facts_of(f"stream {name}", {fact: row.get(fact) for fact in _FACTS})
    yield from config_lines(row, "name")
    yield from table_of("groups", GROUP_COLUMNS, {str(one.get("name")): one for one in groups})


@stream.command(cls=ClientCommand, short_help="Make a stream, or change what it is.")
@stream_argument
@stream_config_options
@making_options
@verb_options
def create(
    stream: str, url: str, as_json: bool, timeout_s: float, file: Path | None, dry_run: bool, change: bool, **flags: Any
) -> None:
    """Make a stream. If it is there with this configuration nothing happens; with another one it is refused (77), unless
    --change is said: then what flags and --config say is changed, and the rest stays.

    \b
    zbroker stream create orders --retention work --topic 'orders.>' --messages-max 1000000
    zbroker stream create orders --age-max-s 7d --change --dry-run
    zbroker stream create orders --config orders.json
    """
    from patterns.sync import StreamConfig
    from patterns.wire.configs import config_of
    from patterns.wire.errors import NoSuchStream

    said = {**from_file(file, {"name": stream}), **given(flags)}
    with asking(url, timeout_s) as admin:
        if change:
            try:
                said = {**config_in(admin.show_stream(stream), url), **said}
            except NoSuchStream:
                pass  # it is made
        config = config_of(StreamConfig, {**said, "name": stream})
        result = admin.create_stream(config, dry_run=dry_run, change=change)
    print_all([result], changes_of(result), url, as_json=as_json)
    if not as_json:
        say(made(f"stream {stream!r}", result, change=change))


def made(what: str, result: dict[str, Any], *, change: bool) -> str:
    """What a create_* has done, in a sentence."""
    would = "would be" if result.get("dry_run") else "is"
    if result.get("created"):
        return f"{what} {would} made"
    if not result.get("changes"):
        return f"{what} is there already, with this configuration"
    hint = "" if change else "; that takes --change"
    return f"{what} is there, and {would} changed{hint}"


@stream.command(cls=ClientCommand, short_help="Delete a stream, its messages and its groups.")
@stream_argument
@yes_option
@verb_options
@click.pass_context
def delete(context: click.Context, stream: str, yes: bool, url: str, as_json: bool, timeout_s: float) -> None:
    """Delete a stream, its messages and its groups. On a terminal it asks first; elsewhere --yes must be said.

    \b
    zbroker stream delete orders
    zbroker stream delete orders --yes --json
    """
    check_yes(context, yes=yes, what="deleting a stream")
    with asking(url, timeout_s) as admin:
        if not yes:
            row = admin.show_stream(stream)
            confirm(f"Delete stream {stream!r} with {_contents(row)}, and {_groups(row)}?", yes=yes)
        result = admin.delete_stream(stream)
    print_all([result], (), url, as_json=as_json)
    if not as_json:
        say(
            f"stream {stream!r} is deleted, with {counted(number_of(result, 'messages'), 'message')} and {_groups(result)}"
        )


def _before(text: str) -> int | datetime:
    from zbroker.cli.receive import start_of

    found = start_of(text)
    if isinstance(found, str):
        raise click.BadParameter(f"{text!r} is neither an offset nor a time like 2026-01-31T12:00:00Z")
    return found


@stream.command(cls=ClientCommand, short_help="Throw away messages of a stream.")
@stream_argument
@click.option("--keep", type=click.IntRange(0), metavar="N", help="Leave so many of the newest.")
@click.option("--before", type=_before, metavar="OFFSET|TIME", help="Only what is older than this.")
@yes_option
@verb_options
@click.pass_context
def purge(
    context: click.Context, stream: str, keep: int | None, before: int | datetime | None, yes: bool, url: str, as_json: bool,
    timeout_s: float,
) -> None:  # fmt: skip
    """Throw away messages of a stream, all or the oldest of them; what groups have not settled counts as expired there.

    On a terminal it asks first; elsewhere --yes must be said.

    \b
    zbroker stream purge orders --keep 1000
    zbroker stream purge orders --before 2026-01-31T12:00:00Z --yes
    """
    check_yes(context, yes=yes, what="purging a stream")
    if keep is not None and before is not None:
        raise click.UsageError("--keep and --before exclude each other")
    with asking(url, timeout_s) as admin:
        if not yes:
            row = admin.show_stream(stream)
            some = "what is older than that of" if before is not None else "all but the newest of" if keep else "all of"
            confirm(f"Throw away {some} the {_contents(row)} in stream {stream!r}?", yes=yes)
        result = admin.purge_stream(stream, keep=keep, before=before)
    print_all([result], (), url, as_json=as_json)
    if not as_json:
        gone = counted(number_of(result, "purged"), "message")
        say(f"{gone} thrown away; stream {stream!r} begins at offset {result.get('below')}")


def _contents(row: dict[str, Any]) -> str:
    return f"{counted(number_of(row, 'kept_messages'), 'message')} ({size_of(number_of(row, 'kept_bytes'))})"


def _groups(row: dict[str, Any]) -> str:
    return counted(number_of(row, "groups"), "group")


stream.add_command(replay)
