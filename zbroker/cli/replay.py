"""`zbroker stream replay`: print or copy what a stream holds, from an offset or a time on, up to where it ends now."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click
import msgspec

from patterns.wire.errors import BadArgument, TimedOut, ZbrokerError
from patterns.wire.names import check_name
from patterns.wire.words import counted
from zbroker.cli.answer import Extent, extent_of
from zbroker.cli.bodies import codec_for, line_of
from zbroker.cli.command import ClientCommand, closing, count_option, name_checked, stream_options, timeout_option
from zbroker.cli.exits import FAILED, end, end_as_json
from zbroker.cli.listening import take
from zbroker.cli.output import Printer
from zbroker.cli.progress import progress_bar, shows_progress
from zbroker.cli.receive import body_of, start_of
from zbroker.cli.stream_names import complete_stream
from zbroker.cli.tables import instant_of
from zbroker.cli.until import Until
from zbroker.cli.verbs import stream_argument
from zbroker.cli.words import say

if TYPE_CHECKING:
    from patterns.sync import Admin, Consumer, Delivery, Posted, Producer

_CREDIT: Final = 1_000
_UNDER_WAY_MAX: Final = 8_192  # copies without a confirm; a batch of small ones holds as many
_SHOWN_EVERY: Final = 256  # messages a redraw of the bar
_EARLIEST: Final = "first"


def _place(text: str) -> str | int | datetime:
    found = start_of(text)
    if found == "new":
        raise click.BadParameter("`new` is where a replay ends; `zbroker receive --from new` waits for what comes")
    return found


def _limit(text: str) -> int | datetime:
    found = start_of(text)
    if isinstance(found, str):
        raise click.BadParameter(f"{text!r} is neither an offset nor a time like 2026-01-31T12:00:00Z")
    return found


def _target(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    check = name_checked(lambda name: check_name(name, "stream"))
    return None if value is None else check(context, parameter, value)


@click.command(cls=ClientCommand, short_help="Print or copy what a stream holds, from an offset or a time on.")
@stream_argument
@stream_options
@click.option(
    "--from",
    "start",
    type=_place,
    default=_EARLIEST,
    metavar="first|OFFSET|TIME",
    help="Where to begin. TIME is ISO 8601; without a zone, this machine's.  [first]",
)
@click.option(
    "--until",
    "limit",
    type=_limit,
    metavar="OFFSET|TIME",
    help="Where to end, which is left out.  [where the stream ends now]",
)
@click.option(
    "--to",
    "target",
    metavar="STREAM",
    callback=_target,
    shell_complete=complete_stream,
    help="Copy into this stream instead of printing.",
)
@count_option("End after so many messages.")
@timeout_option("How long to wait for the broker, in seconds.", default=10.0)
def replay(
    stream: str,
    url: str,
    as_json: bool,
    raw: bool,
    start: str | int | datetime,
    limit: int | datetime | None,
    target: str | None,
    count: int | None,
    timeout_s: float,
) -> None:
    """Print what STREAM holds, or copy it into another stream, up to where it ended when the command began.

    Nothing is settled, and no trace is left: a Consumer without a group does the same in Python, and `zbroker receive` goes on
    with what comes. A copy keeps body, key, headers and message id; it is published now, and to no live topic.

    \b
    zbroker stream replay orders --from 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z --json
    zbroker stream replay orders --from 1000 --count 500 --to orders-again
    """  # fmt: skip
    from patterns.sync import Admin, Consumer

    if target == stream:
        raise click.UsageError(
            f"--to {target}: that is where they are; `zbroker group reset` lets a group have them again"
        )
    with closing(Admin(url, timeout_s=timeout_s)) as admin:
        span = _span(stream, extent_of(admin.show_stream(stream), url), start, limit)
        codec = codec_for(raw or target is not None)  # a copy is as it was stored
        with (
            ExitStack() as stack,
            _bar(stream, span, count, is_shown=target is not None) as show,
        ):
            messages: Iterator[Delivery] = iter(())
            if span:
                made = Consumer(url, stream, start=start, credit=_CREDIT, codec=codec)
                found = _Reading(admin, stack.enter_context(_told(made)), stream, url, span, limit, timeout_s)
                messages = found.messages(count)
            if target is None:
                _print(messages, Printer(as_json=as_json, raw=raw), show)
            else:
                _copy(messages, url, stream, target, timeout_s, show, as_json=as_json)


@contextmanager
def _told(consumer: Consumer) -> Iterator[Consumer]:
    """Close it in the end, and tell what it was not given."""
    with closing(consumer):
        try:
            yield consumer
        finally:
            if consumer.lost_offsets:
                say(f"damage on the broker's disk took these offsets: {consumer.lost_offsets}")


def _span(stream: str, found: Extent, start: str | int | datetime, limit: int | datetime | None) -> range:
    """The offsets that there are to read, as far as they are known before it. Raises BadArgument."""
    first, last = found.first_offset, found.durable_next
    if isinstance(start, int):
        if start > last:
            raise BadArgument(f"--from {start} lies beyond the next offset {last} of stream {stream!r}")
        first = max(first, start)
    elif isinstance(start, datetime) and (found.published_last or 0) < start.timestamp() * 1_000:
        first = last  # nothing is so young
    return range(first, min(last, limit) if isinstance(limit, int) else last)


@contextmanager
def _bar(stream: str, span: range, count: int | None, *, is_shown: bool) -> Iterator[Callable[[int], None]]:
    """Moves with the messages; not between lines on the same terminal."""
    total = min(len(span), count or len(span))
    with progress_bar(f"replaying {stream}", total if is_shown or shows_progress() else 0) as move:
        waiting = 0

        def show(done: int) -> None:
            nonlocal waiting
            waiting += done
            if waiting >= _SHOWN_EVERY:
                move(waiting)
                waiting = 0

        yield show


class _Reading:
    """The messages of a span, until it ends or nothing is left of it."""

    def __init__(
        self,
        admin: Admin,
        consumer: Consumer,
        stream: str,
        url: str,
        span: range,
        limit: int | datetime | None,
        timeout_s: float,
    ) -> None:
        self._admin = admin
        self._consumer = consumer
        self._stream = stream
        self._url = url
        self._span = span
        self._limit = limit
        self._timeout_s = timeout_s
        self._next = span.start

    def messages(self, count: int | None) -> Iterator[Delivery]:
        """In order. Raises TimedOut: nothing came, though it should."""
        taken = 0
        while self._next < self._span.stop and taken != count:
            delivery = take(self._consumer.receive, Until(None, self._timeout_s))
            if delivery is None:
                if self._is_over():
                    return
                raise TimedOut(f"stream {self._stream!r}: no message for {self._timeout_s:g} s, at offset {self._next}")
            if delivery.offset >= self._span.stop or self._is_beyond(delivery):
                return
            self._next = delivery.offset + 1
            taken += 1
            yield delivery

    def _is_beyond(self, delivery: Delivery) -> bool:
        return isinstance(self._limit, datetime) and delivery.published_at >= self._limit

    def _is_over(self) -> bool:
        """Whether what was still to come is gone: damaged, or thrown away meanwhile."""
        lost = max((last + 1 for _, last in self._consumer.lost_offsets), default=0)
        found = extent_of(self._admin.show_stream(self._stream), self._url)
        return max(lost, found.first_offset) >= self._span.stop


def _print(messages: Iterator[Delivery], printer: Printer, show: Callable[[int], None]) -> None:
    for one in messages:
        fields = {
            "offset": one.offset,
            "published_at": instant_of(one.published_at.timestamp() * 1_000),
            "topic": one.topic,
            "key": one.key,
            "headers": one.headers,
        }
        printer.message(fields, body_of(one), one.raw)
        show(1)


def _copy(
    messages: Iterator[Delivery], url: str, stream: str, target: str, timeout_s: float, show: Callable[[int], None], *,
    as_json: bool,
) -> None:  # fmt: skip
    with ExitStack() as stack:
        copier = _Copier(stack, url, target, timeout_s, show)
        try:
            for one in messages:
                copier.post(one)
            copier.settle()
        except ZbrokerError as error:
            if not copier.done:
                raise
            if as_json:
                end_as_json(FAILED, error, copied=copier.done)
            end(FAILED, f"{error}; {counted(copier.done, 'message')} copied before")
    if as_json:
        click.echo(line_of({"stream": stream, "to": target, "copied": copier.done}))
    else:
        say(f"{counted(copier.done, 'message')} copied from {stream!r} to {target!r}")


class _Copier:
    """Sends messages as they were stored, in their order, many under way at once.

    A Producer writes one codec, so there is one for each that comes up; the one before has confirmed all when another begins.
    """

    def __init__(self, stack: ExitStack, url: str, target: str, timeout_s: float, show: Callable[[int], None]) -> None:
        self._stack = stack
        self._url = url
        self._target = target
        self._timeout_s = timeout_s
        self._show = show
        self._producers: dict[str, Producer] = {}
        self._posted: deque[Posted] = deque()
        self._codec = ""
        self.done = 0

    def post(self, one: Delivery) -> None:
        if one.codec != self._codec:
            self.settle()
            self._codec = one.codec
        body = one.raw if one.codec == "raw" else msgspec.Raw(one.raw)
        self._posted.append(self._producer().post(body, key=one.key, headers=one.headers, message_id=one.message_id))
        while self._posted and (len(self._posted) > _UNDER_WAY_MAX or self._posted[0].done()):
            self._settle_one()

    def _producer(self) -> Producer:
        from patterns.sync import Producer

        producer = self._producers.get(self._codec)
        if producer is None:
            made = Producer(self._url, self._target, codec=self._codec, timeout_s=self._timeout_s)
            producer = self._producers[self._codec] = self._stack.enter_context(closing(made))
        return producer

    def settle(self) -> None:
        """Wait until all of it is on disk."""
        while self._posted:
            self._settle_one()

    def _settle_one(self) -> None:
        self._posted[0].result(self._timeout_s)
        self._posted.popleft()
        self.done += 1
        self._show(1)
