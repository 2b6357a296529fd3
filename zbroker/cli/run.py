"""`zbroker run`: settings, the ready line, and exit statuses; the broker itself is in zbroker.processes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from zbroker.cli.exits import BAD_CONFIGURATION, FAILED, UNAVAILABLE, end
from zbroker.cli.settings import settings_of, settings_options
from zbroker.cli.standard_streams import print_ready
from zbroker.cli.words import say

if TYPE_CHECKING:
    from zbroker.config import Options
    from zbroker.processes.broker import Serving
    from zbroker.processes.line import SocketLine


@click.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="The ready line as JSON.")
def run(as_json: bool, **flags: Any) -> None:
    """Run a broker in the foreground until SIGTERM or Ctrl-C.

    Each setting is a flag, a variable ZBROKER_<SETTING> and a key of zbroker.toml; `zbroker config show --origin` tells
    which holds.

    \b
    zbroker run
    zbroker run --data /var/lib/zbroker --log-format json
    zbroker run --bind tcp://127.0.0.1:7800 --no-data --json
    """
    if sys.platform == "win32":
        end(UNAVAILABLE, "the broker does not run on Windows; use WSL, or a container")
    options = settings_of(flags).options
    if (file := _is_file(options.data_folder)) is not None:
        _fail(options, UNAVAILABLE, f"data = {options.data!r}: {file} is not a folder; name a folder, or --no-data")
    _serve(options, as_json)


def _is_file(folder: str | None) -> str | None:
    """The file that stands where a folder is wanted, or above it."""
    path = Path(folder) if folder is not None else None
    places = (path, *path.parents) if path is not None else ()
    found = next((str(one) for one in places if os.path.exists(one)), None)  # not Path.exists: it may raise
    return found if found is not None and not os.path.isdir(found) else None


def _serve(options: Options, as_json: bool) -> None:
    sidecar = None if options.data_folder is None else _begin_sidecar()
    from patterns.wire.errors import BadAddress, Unavailable
    from zbroker.processes.broker import serve
    from zbroker.store.faults import JournalError

    try:
        serve(options, lambda serving: print_ready(_ready_line(serving, as_json)), sidecar)
    except BadAddress as error:
        _fail(options, BAD_CONFIGURATION, str(error))
    except (Unavailable, JournalError, OSError) as error:
        _fail(options, UNAVAILABLE, str(error))
    except Exception:  # noqa: BLE001  the top of the process: a fault of ours ends it, and is never hidden
        _fail(options, FAILED, traceback.format_exc())


def _begin_sidecar() -> SocketLine | None:
    """Before all else: it imports what it needs while we do."""
    from zbroker.processes.spawn import start_sidecar

    try:
        return start_sidecar()
    except OSError:
        return None  # the broker tries it again, and says why not


def _fail(options: Options, status: int, text: str) -> NoReturn:
    """Say why in the form of the log: whoever reads JSON reads the last line too."""
    if options.log_format == "text":
        *above, last = text.splitlines() or [""]
        for line in above:  # of a traceback; a line by itself, because say() says one
            say(line)
        end(status, last)
    from zbroker.processes.broker import open_logbook

    logbook = open_logbook(options)
    logbook.write("error", "failed", status=status, text=text)
    logbook.close()
    sys.exit(status)


def _ready_line(serving: Serving, as_json: bool) -> str:
    if not as_json:
        data = f"data {serving.data}" if serving.data else "no data"
        plain = "".join(f" {name} {at}" for name, at in (("xsub", serving.xsub), ("xpub", serving.xpub)) if at)
        return f"ready {serving.native}{plain} {data} epoch {serving.epoch}"
    addresses = {"native": serving.native, "xsub": serving.xsub, "xpub": serving.xpub, "mdp": None, "http": None}
    return json.dumps({"ready": True, "addresses": addresses, "data": serving.data, "epoch": serving.epoch})
