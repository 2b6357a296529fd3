"""`zbroker reply`: a service from the command line."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import click
import msgspec

from patterns.wire.errors import BadArgument, BadBody, ZbrokerError
from patterns.wire.names import check_name
from patterns.wire.words import counted
from zbroker.cli.binding import insecure_option, require_trusted
from zbroker.cli.bodies import as_bytes, is_json, parse, shown
from zbroker.cli.command import (
    ClientCommand,
    client_options,
    closing,
    count_option,
    is_brokered,
    name_checked,
    timeout_option,
)
from zbroker.cli.output import Printer
from zbroker.cli.until import Until
from zbroker.cli.words import say

if TYPE_CHECKING:
    from patterns.sync import IncomingRequest, Replier

_CONNECT_S = 5.0
_FAREWELL_S = 20.0  # for the request under way; who stops services often waits 30 s before SIGKILL
_GIVEN_UP_S: Final = 0.5  # so the requester's own clock decides first: its time is up, and not the command's fault


@click.command(cls=ClientCommand)
@click.argument("service", callback=name_checked(lambda name: check_name(name, "service")))
@client_options
@click.option(
    "--echo", is_flag=True, help="Answer with the request's own body. This is what happens without --command too."
)
@click.option(
    "--command",
    "shell_command",
    metavar="CMD",
    help="Run CMD in a shell: the body as JSON on its standard input, its standard output is the reply.",
)
@click.option(
    "--stream", "in_parts", is_flag=True, help="Each line that CMD prints is a part of the reply, as it comes."
)
@count_option("Exit after so many requests.")
@timeout_option("Exit after so many seconds: with status 75 if --count was not reached, else with 0.")  # fmt: skip
@insecure_option
def reply(
    service: str, url: str, as_json: bool, raw: bool, echo: bool, shell_command: str | None, in_parts: bool,
    count: int | None, timeout_s: float | None, insecure: bool,
) -> None:  # fmt: skip
    """Offer SERVICE and answer requests, one at a time, until Ctrl-C. Peer to peer it binds the address.

    SIGTERM: the request under way is answered, and the exit status is 0; a second one does not wait.

    What CMD prints is the reply: JSON if it parses, else a string. If CMD fails, the requester gets an application
    error with the last lines of its standard error. With --raw bodies are bytes both ways. --json prints each request
    that was answered.

    \b
    zbroker reply price --command 'jq .sku' --url zb://localhost
    """
    from patterns.sync import Replier

    require_trusted("--url", url, binds=True, insecure=insecure)
    if echo and shell_command is not None:
        raise click.UsageError("--echo and --command exclude each other")
    if in_parts and shell_command is None:
        raise click.UsageError("--stream is about the lines of --command")
    until, printer = Until(count, timeout_s), Printer(as_json=as_json, raw=raw)
    codec = "raw" if raw else "msgpack" if shell_command is None else "json"
    with closing(Replier(url, service, codec=codec)) as replier, _Goodbye(replier) as goodbye:
        if is_brokered(url):
            replier.ready(until.at_most(_CONNECT_S))
        say(f"service {service!r} is offered at {replier.address}")
        while until.goes_on:
            request = replier.receive(until.remaining_s)
            if request is None:
                if goodbye.is_said:
                    answered = counted(until.done, "request was answered", "requests were answered")
                    say(f"service {service!r} is not offered any more; {answered}")
                else:
                    until.time_is_up("requests")
                return
            error = _answer(request, shell_command, raw, in_parts)
            if as_json:
                printer.message({"service": service, "error": error}, request.body)
            until.had_one()


class _Goodbye:
    """On SIGTERM: nothing new is taken, the request under way is answered, then the loop ends. A second one does not wait."""

    def __init__(self, replier: Replier) -> None:
        self._replier = replier
        self._closer: threading.Thread | None = None

    @property
    def is_said(self) -> bool:
        return self._closer is not None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._signalled)
        return self

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        if self._closer is not None:
            sys.exit(128 + number)
        # in a thread: the main one may hold, at this very place, what close() needs
        self._closer = threading.Thread(target=self._close, daemon=True)
        self._closer.start()

    def _close(self) -> None:
        say("told to stop: nothing new is taken")
        self._replier.close(_FAREWELL_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closer is not None and error is None:
            self._closer.join(_FAREWELL_S)
        signal.signal(signal.SIGTERM, self._before)


def _answer(request: IncomingRequest, shell_command: str | None, raw: bool, in_parts: bool) -> str | None:
    """Reply, or fail the request; what went wrong."""
    try:
        if in_parts:
            assert shell_command is not None
            _send_lines(request, shell_command, raw)
        else:
            request.reply(_reply_to(request, shell_command, raw))
    except ZbrokerError as error:
        say(f"a request failed: {error.code or error.name}: {error}")
        request.fail(error.code or error.name.lower(), error.detail)
        return error.code or error.name
    return None


def _reply_to(request: IncomingRequest, shell_command: str | None, raw: bool) -> Any:
    if shell_command is None:
        return as_bytes(request.body, None) if raw else request.body
    from zbroker.cli.shell import run

    written = run(shell_command, _standard_input(request, raw), request.remaining_s + _GIVEN_UP_S)
    return written if raw else _read_reply(written)


def _send_lines(request: IncomingRequest, shell_command: str, raw: bool) -> None:
    """A part for each line, as far as the requester takes them; a pipe that nobody reads stops the command."""
    from zbroker.cli.shell import run_lines

    if not request.takes_parts:
        raise BadArgument(f"service {request.service!r} replies in parts: ask it with --stream")
    for line in run_lines(shell_command, _standard_input(request, raw), lambda: not request.is_cancelled):
        request.send_part(line if raw else _read_reply(line))
    request.end()


def _standard_input(request: IncomingRequest, raw: bool) -> bytes:
    body = request.body
    if not raw and not is_json(body) and not isinstance(body, bytes):
        raise BadBody("the request's body has what JSON cannot express; reply --raw takes it as bytes")
    return shown(body, None, raw=raw)


def _read_reply(written: bytes) -> Any:
    """JSON if it parses, else a string."""
    try:
        return parse(written, raw=False)
    except BadBody:
        pass
    try:
        return msgspec.Raw(msgspec.json.encode(written.decode().removesuffix("\n")))
    except UnicodeDecodeError as error:
        raise BadBody(f"the command's output is not UTF-8 ({error}); reply --raw takes any bytes") from error
