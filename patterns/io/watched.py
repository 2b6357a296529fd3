"""A bound ROUTER or XPUB with a guard on its connections: who sends more than its credit, or than a stranger may, is cut off."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Final

import zmq

from patterns.io import sockets
from patterns.io.guard import Guard
from patterns.io.guard_account import Cut, CutReason, wire_allowance
from patterns.io.guard_kernel import available
from patterns.wire.errors import BadAddress, Unavailable
from patterns.wire.limits import (
    BATCH_BYTES_MAX,
    COLUMNS_BYTES_MAX,
    HEADER_BYTES_MAX,
    PEER_PREFIXES_BYTES_MAX,
    PEER_PREFIXES_BYTES_MAX_OF_ALL,
)

_MESSAGE_BYTES_MAX: Final = BATCH_BYTES_MAX + COLUMNS_BYTES_MAX + HEADER_BYTES_MAX
SUBSCRIPTIONS_BYTES_MAX: Final = 1 << 20
"""What a peer of a Publisher's XPUB may have undelivered: a forwarder that comes back subscribes for all behind it, 30 bytes each.
What libzmq keeps to itself counts as well: a cancellation of what others still want, and 9 bytes of a SUBSCRIBE since ZMTP 3.1."""
_TOLD_S: Final = 10.0  # between two lines of the log: whoever floods must not flood that, too
_log = logging.getLogger("zbroker")


class Watch:
    """A guard over the connections of one socket.

    Args:
        socket: before its bind.
        cuts: where they are counted, by reason; in the guard's thread.
        bytes_max: what a connection may have undelivered until allow() is called; None: what a stranger may at a ROUTER.

    Attributes:
        delivered: counts a message that the engine is handed: the fd, its bytes and its frames.
        subscribed: counts what an XPUB reports of a connection: the fd, and the report.
        close: before the socket is closed.
    """

    def __init__(self, socket: zmq.Socket[bytes], cuts: Counter[str], bytes_max: int | None) -> None:
        crowd = PEER_PREFIXES_BYTES_MAX_OF_ALL if socket.type == zmq.XPUB else 0
        # no budget: the memory is the program's
        self._guard = Guard(0, tells=False, on_cut=_Teller(cuts).tell, undelivered_bytes_max=crowd)
        self._guard.watch(socket, bytes_max)
        self.delivered = self._guard.delivered
        self.subscribed = self._guard.subscribed
        self.close = self._guard.close
        self.start = self._guard.start

    def allow(self, fd: int, size: int, messages: int) -> None:
        """What a connection may have under way from now on, by its session's credit; 0 messages: it has no session."""
        self._guard.allow(fd, wire_allowance(size, messages, _MESSAGE_BYTES_MAX) if messages else 0)


def bind_watched(
    socket: zmq.Socket[bytes], endpoint: str, cuts: Counter[str], bytes_max: int | None = None
) -> Watch | None:
    """Bind a socket; what watches it, None where nothing can be measured: not Linux, ipc:// and inproc://.

    Raises:
        BadAddress, Unavailable: as sockets.make_router().
    """
    is_seen = available and endpoint.startswith("tcp://")
    watch = Watch(socket, cuts, bytes_max) if is_seen else None
    try:
        sockets.bind(socket, endpoint)
    except (BadAddress, Unavailable):
        if watch is not None:
            watch.close()
        raise
    if watch is not None:
        watch.start()
    return watch


class _Teller:
    """Says in the log that a connection was cut, now and then."""

    def __init__(self, cuts: Counter[str]) -> None:
        self._cuts = cuts
        self._told_at = -_TOLD_S

    def tell(self, cut: Cut) -> None:
        """Called by the guard's thread."""
        self._cuts[cut.reason.value] += 1
        now = time.monotonic()
        if now - self._told_at >= _TOLD_S:
            self._told_at = now
            _log.warning("cut the connection of %s, %s; %d cut so far", cut.remote, _why(cut), self._cuts.total())


def _why(cut: Cut) -> str:
    if cut.reason is CutReason.SUBSCRIPTIONS:
        limits = f"{PEER_PREFIXES_BYTES_MAX} bytes of them, all together {PEER_PREFIXES_BYTES_MAX_OF_ALL}"
        return f"which holds too many subscriptions, or too many at once with others: one may have {limits}"
    undelivered = f"{cut.undelivered_bytes} bytes not delivered, at most {cut.allowance_bytes}"
    return f"{cut.reason.value.replace('_', ' ')}: {undelivered}"
