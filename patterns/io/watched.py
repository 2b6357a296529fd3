"""A bound ROUTER with a guard on its connections: who sends more than its credit, or than a stranger may, is cut off."""

from __future__ import annotations

import logging
import time
from typing import Final

import zmq

from patterns.io import sockets
from patterns.io.guard import Guard
from patterns.io.guard_account import Cut, wire_allowance
from patterns.io.guard_kernel import available
from patterns.wire.errors import BadAddress, Unavailable
from patterns.wire.limits import BATCH_BYTES_MAX, COLUMNS_BYTES_MAX, HEADER_BYTES_MAX

_MESSAGE_BYTES_MAX: Final = BATCH_BYTES_MAX + COLUMNS_BYTES_MAX + HEADER_BYTES_MAX
_TOLD_S: Final = 10.0  # between two lines of the log: whoever floods must not flood that, too
_log = logging.getLogger("zbroker")


class Watch:
    """A guard over the connections of one ROUTER.

    Attributes:
        delivered: counts a message that the engine is handed: the fd, its bytes and its frames.
        close: before the socket is closed.
    """

    def __init__(self, router: zmq.Socket[bytes]) -> None:
        self._guard = Guard(0, tells=False, on_cut=_Teller().tell)  # no budget: the memory is the program's
        self._guard.watch(router)
        self.delivered = self._guard.delivered
        self.close = self._guard.close
        self.start = self._guard.start

    def allow(self, fd: int, size: int, messages: int) -> None:
        """What a connection may have under way from now on, by its session's credit; 0 messages: it has no session."""
        self._guard.allow(fd, wire_allowance(size, messages, _MESSAGE_BYTES_MAX) if messages else 0)


def bind_watched(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> tuple[zmq.Socket[bytes], Watch | None]:
    """A bound ROUTER, and what watches it; None where nothing can be measured: not Linux, ipc:// and inproc://.

    Raises:
        BadAddress, Unavailable: as sockets.make_router().
    """
    if not (available and endpoint.startswith("tcp://")):
        return sockets.make_router(context, endpoint), None
    socket = sockets.bare_router(context)
    watch = Watch(socket)
    try:
        sockets.bind(socket, endpoint)
    except (BadAddress, Unavailable):
        watch.close()
        raise
    watch.start()
    return socket, watch


class _Teller:
    """Says in the log that a connection was cut, now and then."""

    def __init__(self) -> None:
        self._count = 0
        self._told_at = -_TOLD_S

    def tell(self, cut: Cut) -> None:
        """Called by the guard's thread."""
        self._count += 1
        now = time.monotonic()
        if now - self._told_at >= _TOLD_S:
            self._told_at = now
            _log.warning(
                "cut the connection of %s, %s: %d bytes not delivered, at most %d; %d cut so far",
                cut.remote, cut.reason.value.replace("_", " "), cut.undelivered_bytes, cut.allowance_bytes, self._count,
            )  # fmt: skip
