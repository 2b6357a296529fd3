"""Pacing beside the measured link: receivers tell how far they are, a sender stays at most a window ahead of the last.

So nothing is dropped at a high-water mark, and the rate is what receivers got. Bare sockets are paced the same way.
"""

from __future__ import annotations

from typing import Final

import zmq

WINDOW: Final = 32_768  # messages ahead: 50 batches of 64 KiB at 100 B, below the high-water mark of 1,000 batches
WINDOW_BYTES: Final = 4 * 1024 * 1024  # half of what the broker keeps for a subscriber without credit (8 MiB)
TELL_EVERY: Final = 4_096  # one small message beside as many measured ones costs nothing
TIMEOUT_MS: Final = 5_000
START_MS: Final = 30_000  # nine processes start on two cores, which others use too


def window_of(size: int, senders: int = 1) -> tuple[int, int]:
    """(messages that each of the senders may be ahead, messages between two tellings) for bodies of a size; powers of two."""
    ahead = 1 << (max(1, min(WINDOW, WINDOW_BYTES // size) // senders).bit_length() - 1)
    return ahead, min(TELL_EVERY, max(1, ahead // 8))


class Stalled(Exception):
    """A receiver has told nothing for TIMEOUT_MS: what is missing counts as lost."""


class SenderWindow:
    """The sender's end; binds.

    Args:
        ahead: the most messages under way.
        every: how many are sent at once.
        receivers: how many tell.
    """

    def __init__(self, ahead: int, every: int, receivers: int = 1) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.rcvtimeo = TIMEOUT_MS
        self._socket.linger = 0
        self._socket.bind("tcp://127.0.0.1:*")
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._ahead = ahead - every  # so that the next part fits
        self._receivers = receivers
        self._told: dict[int, int] = {}
        self._least = 0

    def wait_for_start(self, timeout_ms: int) -> bool:
        """Whether all receivers have told that they listen; asked again until they have."""
        while len(self._told) < self._receivers and self._socket.poll(timeout_ms):
            self._take()
        return len(self._told) == self._receivers

    def is_behind(self, sent: int) -> bool:
        """Whether keep() would wait."""
        return sent - self._least > self._ahead

    def keep(self, sent: int) -> None:
        """Return when the last receiver is near enough. Raises Stalled."""
        while sent - self._least > self._ahead:
            try:
                self._take()
            except zmq.Again:
                raise Stalled(f"a receiver stopped at {self._least} of {sent}") from None

    def _take(self) -> None:
        who, count = self._socket.recv().split()
        self._told[int(who)] = int(count)
        self._least = min(self._told.values())

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class ReceiverWindow:
    """A receiver's end; connects. `who` is its number among the receivers of one sender."""

    def __init__(self, address: str, who: int = 0) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.linger = 100
        self._socket.connect(address)
        self._who = who

    def tell(self, received: int) -> None:
        """So many are here."""
        self._socket.send(b"%d %d" % (self._who, received))

    def close(self) -> None:
        self._socket.close()
        self._context.term()
