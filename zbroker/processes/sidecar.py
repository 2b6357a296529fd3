"""The sidecar process: `python -m zbroker.processes.sidecar`, with the line to its broker as standard input.

It owns the folder's lock, and writes. It ends when its broker says so, or is gone. Start-up time counts, so little is imported.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from typing import Final

from zbroker.processes.dialogue import Order
from zbroker.processes.line import SocketLine
from zbroker.processes.scribe import Scribe
from zbroker.store.journal import FileJournal
from zbroker.store.os_disk import OsDisk

_STDIN: Final = 0
_STDOUT: Final = 1
_STDERR: Final = 2
_MODULE: Final = "zbroker.processes.sidecar"
# A terminal, and systemd, signal all of a group: when to end is the broker's decision.
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_sidecar() -> SocketLine:
    """Begin a sidecar process.

    Raises:
        OSError: the system has no room for another process, or no descriptors.
    """
    ours, its = socket.socketpair()
    try:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, its.fileno(), _STDIN),
            (
                os.POSIX_SPAWN_OPEN,
                _STDOUT,
                os.devnull,
                os.O_WRONLY,
                0,
            ),  # who reads our output must not wait for its end
        ]
        if sys.stderr is None:
            actions.append((os.POSIX_SPAWN_OPEN, _STDERR, os.devnull, os.O_WRONLY, 0))
        pid = os.posix_spawn(
            sys.executable, [sys.executable, "-m", _MODULE], os.environ, file_actions=actions, setsigmask=_BLOCKED
        )
    except OSError:
        ours.close()
        raise
    finally:
        its.close()
    return SocketLine(ours, pid)


def now_us() -> int:
    """Monotonic microseconds."""
    return time.monotonic_ns() // 1_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def make_journal(order: Order) -> FileJournal:
    """The journal that an order wants, on the real disk."""
    return FileJournal(
        OsDisk(),
        order.folder,
        random_bytes=os.urandom,
        wall_ms=_wall_ms,
        segment_bytes=order.segment_bytes,
        network_allowed=order.network_allowed,
    )


def main() -> None:
    """Until the broker has gone or has said so."""
    line = SocketLine(socket.socket(fileno=_STDIN))
    scribe = Scribe(line, make_journal)
    while not scribe.is_over:
        due = scribe.next_timeout()
        line.wait(None if due is None else due - now_us())
        scribe.turn(now_us())
    line.drain()


if __name__ == "__main__":
    main()
