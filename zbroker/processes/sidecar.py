"""The sidecar process, begun by spawn.py with the line to its broker as standard input.

It owns the folder's lock, and writes. It ends when its broker says so, or is gone. Start-up time counts, so little is imported.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from zbroker.core.slices import sliced
from zbroker.processes.dialogue import Order
from zbroker.processes.line import SocketLine
from zbroker.processes.scribe import Scribe
from zbroker.store.journal import FileJournal
from zbroker.store.os_disk import OsDisk
from zbroker.store.segment import SEGMENT_BYTES

_STDIN: Final = 0


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
        segment_bytes=order.segment_bytes or SEGMENT_BYTES,
        network_allowed=order.network_allowed,
        slicer=sliced,
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
