"""Beginning a sidecar process. Imports next to nothing, so that a broker can begin one before it imports what it needs itself."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from zbroker.processes.line import SocketLine

_STDIN: Final = 0
_STDOUT: Final = 1
_STDERR: Final = 2
# Our own search path, whatever put it together: -m would look for packages where the broker happens to be started first.
_BOOT: Final = "import sys; sys.path[:] = sys.argv[1:]; from zbroker.processes.sidecar import main; main()"
_ROOT: Final = str(Path(__file__).parents[2])
# Read by glibc, as the process begins: left alone, it gives each page of what is read back to the system, and gets it again.
_MALLOC: Final = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(8 << 20)}
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
        command = [sys.executable, "-c", _BOOT, _ROOT, *sys.path]
        environment = {**_MALLOC, **os.environ}
        pid = os.posix_spawn(sys.executable, command, environment, file_actions=actions, setsigmask=_BLOCKED)
    except OSError:
        ours.close()
        raise
    finally:
        its.close()
    return SocketLine(ours, pid)
