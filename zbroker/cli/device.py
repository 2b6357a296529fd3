"""`zbroker device`: a plain ZeroMQ proxy in the foreground; the processes are in zbroker.processes.device and .proxy."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from patterns.wire.words import counted
from zbroker.cli.binding import insecure_option, require_trusted
from zbroker.cli.command import PEERS, ClientCommand, check_scheme
from zbroker.cli.exits import UNAVAILABLE, end
from zbroker.cli.standard_streams import print_ready
from zbroker.cli.suggestions import Choice
from zbroker.cli.words import say

if TYPE_CHECKING:
    from zbroker.processes.device import Report
    from zbroker.processes.proxy import Ready, Traffic


def _check_address(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    from patterns.wire.address import parse_address
    from patterns.wire.errors import BadAddress

    if value is None:
        return None
    try:
        check_scheme(value, PEERS)
        parse_address(value)
    except BadAddress as error:
        raise click.BadParameter(
            f"{error}; a device stands between plain ZeroMQ sockets", context, parameter
        ) from error
    return value


@click.command(cls=ClientCommand)
@click.argument("kind", type=Choice(["forwarder", "queue", "streamer"]), is_eager=True)  # the first to be complained of
@click.option(
    "--frontend",
    required=True,
    metavar="ADDRESS",
    callback=_check_address,
    help="Where publishers, requesters or pushers are.",
)
@click.option(
    "--backend",
    required=True,
    metavar="ADDRESS",
    callback=_check_address,
    help="Where subscribers, repliers or pullers are.",
)
@click.option(
    "--capture",
    metavar="ADDRESS",
    callback=_check_address,
    help="Where a PULL socket reads copies of all frames; what it does not take is dropped and counted.",
)
@insecure_option
@click.option("--json", "as_json", is_flag=True, help="The ready line and the statistics as JSON, on standard output.")
def device(kind: str, frontend: str, backend: str, capture: str | None, *, insecure: bool, as_json: bool) -> None:
    """Forward between plain ZeroMQ sockets until SIGTERM or Ctrl-C.

    forwarder: PUB to SUB (XSUB, XPUB). queue: REQ to REP (ROUTER, DEALER). streamer: PUSH to PULL (PULL, PUSH).
    An ADDRESS is bound; with a leading > it is connected to. Port 0 picks a free one. SIGUSR1 prints statistics.

    \b
    zbroker device queue --frontend tcp://127.0.0.1:5559 \\
                         --backend tcp://127.0.0.1:5560
    zbroker device forwarder --frontend '>tcp://10.0.0.5:6000' \\
                             --backend ipc:///tmp/feed --json
    """  # fmt: skip
    if sys.platform == "win32":
        end(UNAVAILABLE, "devices do not run on Windows; use WSL, or a container")
    for name, address in (("frontend", frontend), ("backend", backend), ("capture", capture)):
        if address is not None:
            require_trusted(name, address, binds=True, insecure=insecure)
    from zbroker.processes.device import Supervisor
    from zbroker.processes.proxy import Device

    described = Device(kind=kind, frontend=frontend, backend=backend, capture=capture)
    Supervisor(described, _Words(described, as_json=as_json)).run()


class _Words:
    """Says what happens: JSON for programs on standard output, or lines for people."""

    def __init__(self, device: Any, *, as_json: bool) -> None:
        self._kind: str = device.kind
        self._has_capture = device.capture is not None
        self._as_json = as_json

    def ready(self, where: Ready) -> None:
        ends = {"frontend": where.frontend, "backend": where.backend, "capture": where.capture}
        if self._as_json:
            print_ready(json.dumps({"ready": True, "kind": self._kind, **ends}))
        else:
            print_ready(" ".join(["ready", *(f"{name} {end}" for name, end in ends.items() if end is not None)]))

    def report(self, report: Report) -> None:
        if self._as_json:
            print(json.dumps(self._fields(report)), flush=True)
        else:
            say(self._sentence(report))

    def warn(self, text: str) -> None:
        say(text)

    def _fields(self, report: Report) -> dict[str, Any]:
        counts = report.counts
        return {
            "statistics": True,
            "kind": self._kind,
            "to_backend": _pair(counts.to_backend),
            "to_frontend": _pair(counts.to_frontend),
            "capture": {"frames": counts.captured, "missed_frames": counts.missed} if self._has_capture else None,
            "restarts": report.restarts,
            "blocked": counts.blocked,
            "final": report.is_final,
        }

    def _sentence(self, report: Report) -> str:
        counts = report.counts
        parts = [
            f"{self._kind}: to the backend {_words(counts.to_backend)}, to the frontend {_words(counts.to_frontend)}"
        ]
        if self._has_capture:
            parts.append(f"captured {counts.captured:,} frames, missed {counts.missed:,}")
        if counts.blocked:
            parts.append("blocked: the backend takes nothing")
        if report.restarts:
            parts.append(f"{counted(report.restarts, 'restart')}, each with up to half a second uncounted")
        return "; ".join(parts)


def _pair(traffic: Traffic) -> dict[str, int]:
    return {"frames": traffic.frames, "bytes": traffic.bytes}


def _words(traffic: Traffic) -> str:
    return f"{traffic.frames:,} frames of {traffic.bytes:,} bytes"
