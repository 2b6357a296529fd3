"""`zbroker request`: ask a service."""

from __future__ import annotations

from typing import Any

import click

from patterns.wire.errors import BadBody, RemoteError, ZbrokerError
from patterns.wire.names import check_name
from patterns.wire.words import counted
from zbroker.cli.binding import insecure_option, require_trusted
from zbroker.cli.bodies import codec_for, of_argument
from zbroker.cli.command import ClientCommand, client_options, closing, name_checked, timeout_option
from zbroker.cli.exits import FAILED, end
from zbroker.cli.lines import bodies_of, standard_input, stop_at_line
from zbroker.cli.output import Printer, error_fields


@click.command(cls=ClientCommand)
@click.argument("service", callback=name_checked(lambda name: check_name(name, "service")))
@click.argument("body")
@client_options
@timeout_option("How long each request may take, in seconds.", default=5.0)
@click.option(
    "--idempotent", is_flag=True, help="It may be done twice: ask again when a replier or the broker is lost."
)
@click.option(
    "--stream",
    "in_parts",
    is_flag=True,
    help="Print the parts of a streamed reply as they come; --timeout is for each.",
)
@insecure_option
def request(
    service: str, body: str, url: str, as_json: bool, raw: bool, timeout_s: float, idempotent: bool, in_parts: bool,
    insecure: bool,
) -> None:  # fmt: skip
    """Ask SERVICE and print its reply; BODY is JSON text, and `-` asks once for each line of standard input, in order.

    An error reply ends the command, with status 1; under --json, of lines, it is printed as {"error": ...} in its place and
    the next line is asked, and the status is 1 at the end.

    Peer to peer it connects. A BODY that begins with `-` goes behind `--`. Exit status 69: nobody offers the service;
    for a first replier it is waited 1 s, or nine tenths of --timeout if that is less.

    \b
    zbroker request price '{"sku": 7}' --url zb://localhost --timeout 2
    """
    from patterns.sync import Requester

    require_trusted("--url", url, binds=False, insecure=insecure)
    if timeout_s == 0:
        raise click.BadParameter("a request needs more than 0 seconds", param_hint="'--timeout'")
    lines = standard_input() if body == "-" else None
    try:
        bodies = bodies_of(lines, raw=raw) if lines else iter([of_argument(body, raw=raw)])
    except BadBody as error:
        raise click.BadParameter(str(error), param_hint="'BODY'") from error
    printer, done, failed = Printer(as_json=as_json, raw=raw), 0, 0
    with closing(Requester(url, codec=codec_for(raw))) as requester:

        def ask(one: Any) -> None:
            if in_parts:
                for part in requester.stream(service, one, part_timeout_s=timeout_s, idempotent=idempotent):
                    printer.message({}, part)
            else:
                printer.message({}, requester.request(service, one, timeout_s=timeout_s, idempotent=idempotent))

        try:
            for one in bodies:
                try:
                    ask(one)
                except RemoteError as error:
                    if lines is None or not as_json:
                        raise
                    printer.record(error_fields(error))
                    failed += 1
                done += 1
        except ZbrokerError as error:
            if lines is None or (done == 0 and not isinstance(error, BadBody)):
                raise
            words = counted(done, "request was answered", "requests were answered")
            stop_at_line(lines, error, FAILED, done, words, as_json=as_json)
    if failed:
        end(FAILED, counted(failed, "request was answered by an error", "requests were answered by errors"))
