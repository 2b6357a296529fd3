"""`zbroker receive`: take messages from a stream; each is acked after its line was written."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from patterns.wire.errors import StaleLease, ZbrokerError
from patterns.wire.names import check_name
from zbroker.cli.bodies import codec_for
from zbroker.cli.command import (
    ClientCommand,
    closing,
    count_option,
    name_checked,
    stream_options,
    timeout_option,
)
from zbroker.cli.listening import announce, take
from zbroker.cli.output import Printer
from zbroker.cli.stream_names import complete_stream
from zbroker.cli.until import Until
from zbroker.cli.words import say

if TYPE_CHECKING:
    from patterns.sync import Consumer, Delivery

_CONNECT_S: Final = 5.0
_CREDIT: Final = 1_000  # the library's own; fewer when --count says so, for nobody else works on what we hold


def start_of(text: str) -> str | int | datetime:
    """Where to begin: first, new, an offset, or an instant; raises BadParameter."""
    if text in ("first", "new"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not `first`, `new`, an offset, or a time like 2026-01-31T12:00:00Z"
        ) from error
    return instant if instant.tzinfo else instant.astimezone()  # without a zone: the one of this machine


@click.command(cls=ClientCommand)
@click.argument(
    "stream", callback=name_checked(lambda name: check_name(name, "stream")), shell_complete=complete_stream
)
@stream_options
@click.option(
    "--group",
    metavar="G",
    help="As a member of a group: each message goes to one member, until it is acked.",
    callback=lambda context, parameter, value: value and name_checked(_group)(context, parameter, value),
)
@click.option(
    "--from",
    "start",
    type=start_of,
    default="first",
    metavar="first|new|OFFSET|TIME",
    help="Where to begin; for a group, when it is made by this. TIME is ISO 8601; without a zone, this machine's.  [first]",
)
@count_option("Exit after so many messages.")
@timeout_option("Exit after so many seconds: with status 75 if --count was not reached, else with 0.")
@click.option("--no-ack", is_flag=True, help="Give the messages back to the group in the end.")  # fmt: skip
def receive(
    stream: str, url: str, as_json: bool, raw: bool, group: str | None, start: str | int | datetime, count: int | None,
    timeout_s: float | None, no_ack: bool,
) -> None:  # fmt: skip
    """Print messages of STREAM, and ack each after it was printed. Without --group it reads, and leaves no trace.

    A message whose line could not be written is not acked. Without --json a line is the body alone.

    \b
    zbroker receive orders --group billing --url zb://localhost --json
    zbroker receive orders --from 1000 --count 10
    zbroker receive orders --from 2026-01-31T12:00:00Z --timeout 5
    """
    from patterns.sync import Consumer

    until = Until(count, timeout_s)
    printer = Printer(as_json=as_json, raw=raw)
    credit = min(count or _CREDIT, _CREDIT)
    with closing(Consumer(url, stream, group=group, start=start, credit=credit, codec=codec_for(raw))) as consumer:
        consumer.ready(until.at_most(_CONNECT_S))
        announce(f"reading stream {stream!r} at {url}, and waiting for more")
        try:
            _print(consumer, printer, until, acks=group is not None and not no_ack)
        finally:
            if consumer.lost_offsets:
                say(f"damage on the broker's disk took these offsets: {consumer.lost_offsets}")


def _group(name: str) -> str:
    return check_name(name, "group")


def _print(consumer: Consumer, printer: Printer, until: Until, *, acks: bool) -> None:
    while until.goes_on:
        delivery = take(consumer.receive, until)
        if delivery is None:
            until.time_is_up("messages")
            return
        _print_one(printer, delivery)
        until.had_one()
        if acks:
            _ack(delivery, last=not until.goes_on)


def _print_one(printer: Printer, delivery: Delivery) -> None:
    fields = {
        "offset": delivery.offset,
        "attempt": delivery.attempt,
        "key": delivery.key,
        "headers": delivery.headers,
    }
    printer.message(fields, body_of(delivery), delivery.raw)


def body_of(delivery: Delivery) -> Any:
    """What is shown of a body: one that is not what its codec says is shown as it is."""
    try:
        return delivery.body
    except ZbrokerError:
        return delivery.raw


def _ack(delivery: Delivery, *, last: bool) -> None:
    """The last ack is waited for: acks are stored in order, so then all of them are on disk."""
    try:
        delivery.ack(confirm=last)
    except StaleLease as error:
        say(f"offset {delivery.offset} will be delivered again: {error}")
