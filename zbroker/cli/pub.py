"""`zbroker pub`: publish one message, or one a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from patterns.wire.errors import BadBody, TimedOut, TooLarge
from patterns.wire.names import check_topic
from zbroker.cli.binding import insecure_option, require_trusted
from zbroker.cli.bodies import codec_for, of_argument
from zbroker.cli.command import (
    COUNT_MAX,
    ClientCommand,
    client_options,
    closing,
    is_brokered,
    name_checked,
    timeout_option,
)
from zbroker.cli.exits import FAILED
from zbroker.cli.lines import bodies_of, standard_input, stop_at_line
from zbroker.cli.output import Printer
from zbroker.cli.words import say

if TYPE_CHECKING:
    from patterns.sync import Publisher

_GATHER_S = 1.0  # peer to peer subscribers come by themselves every 0.1 s or so; nobody waits longer unasked


@click.command(cls=ClientCommand)
@click.argument("topic", callback=name_checked(check_topic))
@click.argument("body")
@client_options
@click.option(
    "--wait-for-subscribers",
    "audience",
    type=click.IntRange(0, COUNT_MAX),
    metavar="N",
    help="Wait for N subscribers before publishing; if they do not come in time, nothing is published and the exit "
    "status is 75. Without it, peer to peer, one is waited for up to a second, and it is published all the same.",
)
@timeout_option("How long to wait for the subscribers, and again until the broker has taken it all, in seconds.", default=5.0)  # fmt: skip
@insecure_option
def pub(
    topic: str, body: str, url: str, as_json: bool, raw: bool, audience: int | None, timeout_s: float, insecure: bool
) -> None:  # fmt: skip
    """Publish BODY, which is JSON text, to the subscribers of TOPIC; `-` publishes each line of standard input.

    Peer to peer it binds the address. A BODY that begins with `-` goes behind `--`. With --json it tells how many
    messages and subscribers there were; `subscribers` is null when a broker has told of none so far.

    \b
    zbroker pub orders.eu '{"sku": 7}' --url zb://localhost
    tail -f log.jsonl | zbroker pub logs - --wait-for-subscribers 1
    """
    from patterns.sync import Publisher

    require_trusted("--url", url, binds=True, insecure=insecure)
    lines = standard_input() if body == "-" else None
    try:
        bodies = bodies_of(lines, raw=raw) if lines else iter([of_argument(body, raw=raw)])
    except BadBody as error:
        raise click.BadParameter(str(error), param_hint="'BODY'") from error
    count = 0
    with closing(Publisher(url, codec=codec_for(raw), timeout_s=timeout_s)) as publisher:
        _gather(publisher, url, audience, timeout_s)
        try:
            count = _publish(publisher, topic, bodies)
        except (BadBody, TooLarge) as error:
            if lines is None:
                raise
            words = "the lines before it were published"
            stop_at_line(lines, error, FAILED, None, words, as_json=as_json)
        publisher.flush(timeout_s)
        Printer(as_json=as_json, raw=raw).record({"published": count, "subscribers": _audience(publisher, url)})


def _audience(publisher: Publisher, url: str) -> int | None:
    """How many were there; None through a broker that has not told of any: it may not have come to that yet."""
    return publisher.subscribers or (None if is_brokered(url) else 0)


def _publish(publisher: Publisher, topic: str, bodies: Iterable[Any]) -> int:
    count = 0
    for one in bodies:
        publisher.publish(topic, one)
        count += 1
    return count


def _gather(publisher: Publisher, url: str, audience: int | None, timeout_s: float) -> None:
    """Peer to peer, who publishes and leaves at once is heard by nobody."""
    if audience is not None:
        publisher.wait_for_subscribers(audience, timeout_s)
    elif not is_brokered(url):
        try:
            publisher.wait_for_subscribers(1, min(_GATHER_S, timeout_s))
        except TimedOut:
            say("no subscriber has come; publishing all the same (--wait-for-subscribers N waits)")
