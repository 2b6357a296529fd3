"""Beginning a sidecar process. Imports next to nothing, so that a broker can begin one before it imports what it needs itself."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Final

from zbroker.processes.line import SocketLine

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
