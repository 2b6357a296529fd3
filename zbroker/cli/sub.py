"""`zbroker sub`: print the messages of topics as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from patterns.wire.errors import ZbrokerError
from patterns.wire.messages import Overflow
from patterns.wire.names import check_meant
from patterns.wire.words import counted
from zbroker.cli.binding import insecure_option, require_trusted
from zbroker.cli.bodies import codec_for
from zbroker.cli.command import (
    ClientCommand,
    client_options,
    closing,
    count_option,
    is_brokered,
    name_checked,
    timeout_option,
)
from zbroker.cli.listening import announce, take
from zbroker.cli.output import Printer
from zbroker.cli.until import Until
from zbroker.cli.words import cleaned, say

if TYPE_CHECKING:
    from patterns.sync import Subscriber

_CONNECT_S = 5.0


@click.command(cls=ClientCommand)
@click.argument("pattern", callback=name_checked(check_meant))
@client_options
@count_option("Exit after so many messages.")
@timeout_option("Exit after so many seconds: with status 75 if --count was not reached, else with 0.")
@click.option(
    "--overflow",
    type=click.Choice([policy.value for policy in Overflow]),
    default=Overflow.DROP_NEWEST.value,
    help="What to lose when this is too slow for the broker: drop_newest (default), drop_oldest, or disconnect, which fails.",
)
@insecure_option
def sub(
    url: str, pattern: str, as_json: bool, raw: bool, count: int | None, timeout_s: float | None, overflow: str,
    insecure: bool,
) -> None:  # fmt: skip
    """Print each message whose topic matches PATTERN: `*` is one token, a last `>` is the rest.

    Peer to peer it connects, and waits for publishers that are not there yet. Without --json a line is the topic and
    the body; with --raw alone it is the body's bytes.

    \b
    zbroker sub 'orders.>' --url zb://localhost --json
    """
    from patterns.sync import Subscriber

    require_trusted("--url", url, binds=False, insecure=insecure)
    until = Until(count, timeout_s)
    printer = Printer(as_json=as_json, raw=raw)
    with closing(Subscriber(url, pattern, codec=codec_for(raw), overflow=overflow)) as subscriber:
        if is_brokered(url):
            subscriber.ready(until.at_most(_CONNECT_S))
        announce(f"listening for {pattern!r} at {url}")
        try:
            _print(subscriber, printer, until, with_topic=not raw)
        finally:
            if subscriber.lost or subscriber.interruptions:
                breaks = counted(subscriber.interruptions, "break")
                say(f"missed: {counted(subscriber.lost, 'message')}, and {breaks} of unknown size")


def _print(subscriber: Subscriber, printer: Printer, until: Until, *, with_topic: bool) -> None:
    while until.goes_on:
        message = take(subscriber.receive, until)
        if message is None:
            until.time_is_up("messages")
            return
        prefix = f"{cleaned(message.topic)} " if with_topic else ""
        try:
            body = message.body
        except ZbrokerError as error:
            say(f"a message of {message.topic} cannot be decoded: {error}")
            continue
        printer.message({"topic": message.topic, "sequence": message.sequence}, body, prefix=prefix)
        until.had_one()
