"""One end of a measurement, in a process of its own: `python -m zbroker.bench.ends.worker ROLE '{"size": 100, ..}'`.

It says what it has to say as one JSON object a line, and ends with its parent, whose end of the pipe it watches: by SIGTERM to
itself, so that a broker drains and a server takes its own child along.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from zbroker.bench.ends import starting

# The module of each role's function; imported when it is played: a broker shall not hold the clients' code.
ROLES: Final[dict[str, str]] = {
    "send-native": "live:send_native",
    "receive-native": "live:receive_native",
    "stop-reading": "live:stop_reading",
    "send-bare": "bare:send_bare",
    "receive-bare": "bare:receive_bare",
    "stop-pulling": "bare:stop_pulling",
    "proxy": "bare:serve_proxy",
    "serve-native": "requests:serve_native",
    "ask-native": "requests:ask_native",
    "serve-bare": "requests:serve_bare",
    "ask-bare": "requests:ask_bare",
    "produce": "durable:produce",
    "consume": "durable:consume",
    "send-each": "durable:send_each",
    "post-paced": "durable:post_paced",
    "post-steadily": "durable:post_steadily",
    "take-paced": "durable:take_paced",
    "stop-taking": "durable:stop_taking",
    "send-together": "singles:send_together",
    "take-singles": "singles:take_singles",
    "take-groups": "groups:take_groups",
    "post-delayed": "delayed:post_delayed",
    "take-delayed": "delayed:take_delayed",
    "write-and-sync": "disk:write_and_sync",
    "watch-for": "disk:watch_for",
    "store-lmdb": "stores:store_in_lmdb",
    "store-sqlite": "stores:store_in_sqlite",
    "store-zbroker": "stores:store_in_zbroker",
    "nats-server": "nats:serve",
    "nats-send": "nats:send",
    "nats-receive": "nats:receive",
    "nats-reply": "nats:serve_requests",
    "nats-ask": "nats:ask",
    "listen": "crowd:listen",
    "publish-by-turns": "crowd:publish",
}
COMMAND: Final = "zbroker"  # the program itself, with the arguments that follow


def say(what: dict[str, Any]) -> None:
    """One line to the parent."""
    print(json.dumps(what), flush=True)


def _end_with_parent() -> None:
    while os.read(0, 4_096):
        starting.go.set()
    os.kill(os.getpid(), signal.SIGTERM)


def main(role: str, *parameters: str) -> None:
    """Play a role."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if role == COMMAND:
        sys.argv = [COMMAND, *parameters]
        runpy.run_module("zbroker", run_name="__main__", alter_sys=True)
        return
    module, _, function = ROLES[role].partition(":")
    play: Callable[..., None] = getattr(import_module(f"zbroker.bench.ends.{module}"), function)
    play(say, **json.loads(*parameters))


if __name__ == "__main__":
    main(*sys.argv[1:])
