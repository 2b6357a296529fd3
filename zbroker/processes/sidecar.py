"""The sidecar process, begun by spawn.py with the line to its broker as standard input.

It owns the folder's lock, and writes. It ends when its broker says so, or is gone. Start-up time counts, so little is imported.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from zbroker.core.slices import sliced
from zbroker.processes.clocks import now_us, wall_ms
from zbroker.processes.dialogue import Order
from zbroker.processes.line import SocketLine
from zbroker.processes.scribe import BrokerGone, Scribe
from zbroker.store.journal import FileJournal
from zbroker.store.os_disk import OsDisk
from zbroker.store.segment import SEGMENT_BYTES

_STDIN: Final = 0


class AttendedDisk(OsDisk):
    """Reads as long as anybody waits: an open may take minutes, during which nobody listens to the line.

    Args:
        is_forsaken: whether nobody does any more.
    """

    def __init__(self, is_forsaken: Callable[[], bool]) -> None:
        super().__init__()
        self._is_forsaken = is_forsaken

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        """Raises BrokerGone as well."""
        if self._is_forsaken():
            raise BrokerGone
        return super().pread(handle, length, offset)


def make_journal(order: Order, disk: OsDisk) -> FileJournal:
    """The journal that an order wants."""
    return FileJournal(
        disk,
        order.folder,
        random_bytes=os.urandom,
        wall_ms=wall_ms,
        segment_bytes=order.segment_bytes or SEGMENT_BYTES,
        network_allowed=order.network_allowed,
        slicer=sliced,
    )


def main() -> None:
    """Until the broker has gone or has said so."""
    line = SocketLine(socket.socket(fileno=_STDIN))
    disk = AttendedDisk(lambda: scribe.is_opening and line.is_hung_up())
    scribe = Scribe(line, lambda order: make_journal(order, disk))
    while not scribe.is_over:
        due = scribe.next_timeout()
        line.wait(None if due is None else due - now_us())
        scribe.turn(now_us())
    line.drain()
