"""Pacing beside the measured link: the receiver tells how far it is, the sender stays at most a window ahead.

So nothing is dropped at a high-water mark, and the rate is what the receiver got. Bare sockets are paced the same way.
"""

from __future__ import annotations

from typing import Final

import zmq

WINDOW: Final = 32_768  # messages ahead: 50 batches of 64 KiB at 100 B, below the high-water mark of 1,000 batches
WINDOW_BYTES: Final = 16 * 1024 * 1024  # large bodies: what a receiver holds stays bounded
TELL_EVERY: Final = 4_096  # one small message beside as many measured ones costs nothing
TIMEOUT_MS: Final = 5_000


def window_of(size: int) -> tuple[int, int]:
    """(messages ahead, messages between two tellings) for bodies of a size; powers of two."""
    ahead = 1 << (max(64, min(WINDOW, WINDOW_BYTES // size)).bit_length() - 1)
    return ahead, min(TELL_EVERY, ahead // 8)


class Stalled(Exception):
    """The receiver has told nothing for TIMEOUT_MS: what is missing counts as lost."""


class SenderWindow:
    """The sender's end; binds."""

    def __init__(self, ahead: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.rcvtimeo = TIMEOUT_MS
        self._socket.linger = 0
        self._socket.bind("tcp://127.0.0.1:*")
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._ahead = ahead
        self._told = 0

    def wait_for_start(self, timeout_ms: int) -> bool:
        """Whether the receiver has told that it listens."""
        return bool(self._socket.poll(timeout_ms)) and int(self._socket.recv()) == 0

    def keep(self, sent: int) -> None:
        """Return when the receiver is near enough. Raises Stalled."""
        while sent - self._told > self._ahead:
            try:
                self._told = int(self._socket.recv())
            except zmq.Again:
                raise Stalled(f"the receiver stopped at {self._told} of {sent}") from None

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class ReceiverWindow:
    """The receiver's end; connects."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.linger = 100
        self._socket.connect(address)

    def tell(self, received: int) -> None:
        """So many are here."""
        self._socket.send(b"%d" % received)

    def close(self) -> None:
        self._socket.close()
        self._context.term()
