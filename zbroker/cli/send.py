"""`zbroker send`: store messages in a stream; each is confirmed before it is printed."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from patterns.wire.errors import BadBody, ContentError, TooLarge, ZbrokerError
from patterns.wire.names import check_name, check_topic
from patterns.wire.words import counted
from zbroker.cli.bodies import codec_for, of_argument
from zbroker.cli.command import (
    ClientCommand,
    closing,
    name_checked,
    stream_options,
    timeout_option,
)
from zbroker.cli.exits import FAILED, status_of
from zbroker.cli.lines import Lines, bodies_of, standard_input, stop_at_line
from zbroker.cli.output import Printer
from zbroker.cli.progress import progress_bar
from zbroker.cli.stream_names import complete_stream

if TYPE_CHECKING:
    from patterns.sync import Posted, Producer, Receipt

_SHOWN_EVERY: Final = 1_024  # messages a redraw of the bar; more often costs and shows nothing
_UNDER_WAY_MAX: Final = 8_192  # messages without a confirm; a batch of small ones holds as many


def _topic_checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return value and name_checked(check_topic)(context, parameter, value)


@click.command(cls=ClientCommand)
@click.argument(
    "stream", callback=name_checked(lambda name: check_name(name, "stream")), shell_complete=complete_stream
)
@click.argument("body", required=False)
@stream_options
@click.option(
    "--file",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="F",
    help="One message from each line of a file.",
)
@click.option("--key", metavar="K", help="The key of each message.")
@click.option("--topic", metavar="T", help="Deliver each live too, once it is stored.", callback=_topic_checked)
@click.option(
    "--id", "message_id", metavar="ID", help="Of BODY: what the stream remembers under it is not stored again."
)
@click.option(
    "--delay", "delay_s", type=float, metavar="S", help="How long groups wait before they deliver it, in seconds."
)
@click.option(
    "--journal",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Store in this folder first, and forward what waits in it when the broker is there.",
)
@timeout_option("How long to wait for a confirm, in seconds.", default=10.0)  # fmt: skip
def send(
    stream: str, body: str | None, url: str, as_json: bool, raw: bool, source: Path | None, key: str | None,
    topic: str | None, message_id: str | None, delay_s: float | None, journal: Path | None, timeout_s: float,
) -> None:  # fmt: skip
    """Store BODY, which is JSON text, in STREAM and exit when it is on disk; `-` stores each line of standard input.

    Lines are sent as they come, many under way at once, and stored in order. If one is refused, what came before it is
    stored, and the exit status is 1. A BODY that begins with `-` goes behind `--`. With --journal a message is stored when
    it is on this disk, offset null, and forwarded in order, once, by this command or the next with that folder.

    \b
    zbroker send orders '{"sku": 7}' --url zb://localhost --json
    zbroker send orders --file orders.jsonl --key eu
    zbroker send orders '{"sku": 7}' --id order-4711 --topic orders.eu.created
    zbroker send reminders '{"user": 7}' --delay 3600
    zbroker send readings '{"celsius": 21}' --journal outbox
    """
    if (body is None) == (source is None):
        raise click.UsageError("say one of BODY, --file F, and - for lines of standard input")
    if message_id is not None and body in (None, "-"):
        raise click.UsageError("--id is of one BODY: many messages would be one")
    printer = Printer(as_json=as_json, raw=raw)
    if body is None or body == "-":
        lines = standard_input() if source is None else Lines(source.open("rb"))
        opened = _opened(url, stream, raw, timeout_s, journal)
        with opened as producer, _bar(source, as_json) as show:
            _Sender(producer, printer, key, topic, delay_s, timeout_s, lambda: show(lines.bytes_taken)).send(lines, raw)
        return
    try:
        one = of_argument(body, raw=raw)
    except BadBody as error:
        raise click.BadParameter(str(error), param_hint="'BODY'") from error
    with _opened(url, stream, raw, timeout_s, journal) as producer:
        _print(printer, producer.send(one, key=key, topic=topic, message_id=message_id, delay_s=delay_s))


@contextmanager
def _opened(url: str, stream: str, raw: bool, timeout_s: float, folder: Path | None) -> Iterator[Producer]:
    """A producer, closed at the end; what its journal keeps then is told."""
    from patterns.sync import Producer

    if folder is None:
        with closing(Producer(url, stream, codec=codec_for(raw), timeout_s=timeout_s)) as producer:
            yield producer
        return
    from zbroker.store import open_journal

    with open_journal(folder) as journal:
        opened = Producer(url, stream, codec=codec_for(raw), timeout_s=timeout_s, journal=journal)
        with closing(opened) as producer:
            yield producer
        if opened.waiting:
            click.echo(f"{counted(opened.waiting, 'message')} in {folder} for when the broker is there", err=True)
        if opened.refused:
            click.echo(f"{counted(opened.refused, 'refused message')} in {folder / 'refused.jsonl'}", err=True)


@contextmanager
def _bar(source: Path | None, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Tells how much of a file is confirmed, on a terminal; not between lines of JSON on the same one."""
    if source is None or not source.is_file() or (as_json and sys.stdout.isatty()):
        yield lambda done: None
        return
    shown = 0
    with progress_bar(f"sending {source.name}", source.stat().st_size) as move:

        def show(done: int) -> None:
            nonlocal shown
            move(done - shown)
            shown = done

        yield show


def _print(printer: Printer, receipt: Receipt) -> None:
    printer.record({"offset": receipt.offset, "duplicate": receipt.duplicate})


class _Sender:
    """Keeps many messages under way, and tells of each in order once it is confirmed."""

    def __init__(
        self,
        producer: Producer,
        printer: Printer,
        key: str | None,
        topic: str | None,
        delay_s: float | None,
        timeout_s: float,
        show: Callable[[], None],
    ) -> None:
        self._producer = producer
        self._printer = printer
        self._key = key
        self._topic = topic
        self._delay_s = delay_s
        self._timeout_s = timeout_s
        self._show = show
        self._posted: deque[Posted] = deque()
        self._confirmed = 0

    def send(self, lines: Lines, raw: bool) -> None:
        """Send all lines, and exit if one cannot be sent or is refused."""
        try:
            try:
                for body in bodies_of(lines, raw=raw, before_waiting=self._settle):
                    self._post(body)
            except (BadBody, TooLarge):  # a bad line: what was sent before it is waited for, and told of
                self._settle()
                raise
            self._settle()
        except ZbrokerError as error:
            words = counted(self._confirmed, "message is confirmed", "messages are confirmed")
            as_json = self._printer.as_json
            stop_at_line(lines, error, self._status(error), self._confirmed, words, as_json=as_json)

    def _post(self, body: object) -> None:
        self._posted.append(self._producer.post(body, key=self._key, topic=self._topic, delay_s=self._delay_s))
        while self._posted and (len(self._posted) > _UNDER_WAY_MAX or self._posted[0].done()):
            self._settle_one()

    def _settle(self) -> None:
        while self._posted:
            self._settle_one()

    def _settle_one(self) -> None:
        receipt = self._posted[0].result(self._timeout_s)
        self._posted.popleft()
        self._confirmed += 1
        if self._confirmed % _SHOWN_EVERY == 0 or not self._posted:
            self._show()
        _print(self._printer, receipt)

    def _status(self, error: ZbrokerError) -> int:
        """Once something is stored, the work is half done: 1, whatever the reason; before that, the reason's own."""
        return FAILED if self._confirmed or isinstance(error, ContentError) else status_of(error)
