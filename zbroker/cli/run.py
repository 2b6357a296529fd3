"""`zbroker run`: settings, the ready line, and exit statuses; the broker itself is in zbroker.processes."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zbroker.cli.exits import BAD_CONFIGURATION, FAILED, UNAVAILABLE, end
from zbroker.config import ConfigurationError, Options, file_places, load

if TYPE_CHECKING:
    from zbroker.processes.broker import Serving


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Settings from this file alone.")
@click.option(
    "--bind", metavar="ADDRESS", help="Where clients connect; port 0 picks a free one.  [tcp://127.0.0.1:7700]"
)
@click.option("--xsub", metavar="ADDRESS|off", help="For plain ZeroMQ publishers; not built yet.  [off]")
@click.option("--xpub", metavar="ADDRESS|off", help="For plain ZeroMQ subscribers; not built yet.  [off]")
@click.option("--mdp", metavar="ADDRESS|off", help="For Majordomo clients and workers; not built yet.  [off]")
@click.option("--http", metavar="ADDRESS|off", help="Health, metrics and pages; not built yet.  [off]")
@click.option("--data", metavar="DIR", help="Folder of the journal.  [./zbroker-data]")
@click.option("--no-data", is_flag=True, help="No journal: requests and live topics only.")
@click.option("--insecure", is_flag=True, default=None, help="Allow an address that other machines reach.")
@click.option("--json", "as_json", is_flag=True, help="The ready line as JSON.")
def run(config: Path | None, no_data: bool, as_json: bool, **flags: Any) -> None:
    """Run a broker in the foreground until SIGTERM or Ctrl-C."""
    if sys.platform == "win32":
        end(UNAVAILABLE, "the broker does not run on Windows; use WSL, or a container")
    if no_data and flags["data"] is not None:
        raise click.UsageError("--data and --no-data exclude each other")
    if no_data:
        flags["data"] = "off"
    try:
        options = load(flags, os.environ, file_places(os.environ, Path.home()), config)
    except ConfigurationError as error:
        end(BAD_CONFIGURATION, str(error))
    _serve(options, as_json)


def _serve(options: Options, as_json: bool) -> None:
    from patterns.wire.errors import BadAddress, Unavailable
    from zbroker.processes.broker import serve
    from zbroker.store.faults import JournalError

    try:
        serve(options, lambda serving: print(_ready_line(serving, as_json), flush=True))
    except BadAddress as error:
        end(BAD_CONFIGURATION, str(error))
    except (Unavailable, JournalError, OSError) as error:
        end(UNAVAILABLE, str(error))
    except Exception:  # noqa: BLE001  the top of the process: a fault of ours ends it, and is never hidden
        traceback.print_exc()
        sys.exit(FAILED)


def _ready_line(serving: Serving, as_json: bool) -> str:
    if not as_json:
        data = f"data {serving.data}" if serving.data else "no data"
        return f"ready {serving.native} {data} epoch {serving.epoch}"
    addresses = {"native": serving.native, "xsub": None, "xpub": None, "mdp": None, "http": None}
    return json.dumps({"ready": True, "addresses": addresses, "data": serving.data, "epoch": serving.epoch})
