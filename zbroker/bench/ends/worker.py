"""One end of a measurement, in a process of its own: `python -m zbroker.bench.worker ROLE '{"size": 100, ..}'`.

It says what it has to say as one JSON object a line, and ends with its parent, whose end of the pipe it watches.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from zbroker.bench import disk, durable, live, requests

ROLES: Final[dict[str, Callable[..., None]]] = {
    "send-native": live.send_native,
    "send-bare": live.send_bare,
    "receive-native": live.receive_native,
    "receive-bare": live.receive_bare,
    "proxy": live.serve_proxy,
    "stop-reading": live.stop_reading,
    "serve-native": requests.serve_native,
    "serve-bare": requests.serve_bare,
    "ask-native": requests.ask_native,
    "ask-bare": requests.ask_bare,
    "produce": durable.produce,
    "consume": durable.consume,
    "send-each": durable.send_each,
    "write-and-sync": disk.write_and_sync,
}


def say(what: dict[str, Any]) -> None:
    """One line to the parent."""
    print(json.dumps(what), flush=True)


def _end_with_parent() -> None:
    while os.read(0, 4_096):
        pass
    os._exit(0)


def main(role: str, parameters: str) -> None:
    """Play a role."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ROLES[role](say, **json.loads(parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
