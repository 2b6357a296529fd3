"""Who is said to be gone, and when the proof is due: a notice is a hint only, and a PING that libzmq cannot route is the proof."""

from __future__ import annotations

from collections import deque
from typing import Final

PROOFS_US: Final = (0, 20_000, 200_000)  # libzmq may take one message for a connection that has just gone


class Suspects:
    """Peers with proofs to come, however often they are suspected meanwhile.

    Behind a stall the ROUTER has messages of connections that are gone and of those that took over their fd numbers, by turns: each one is a
    suspicion. So one costs the same whether ten or ten thousand are known.
    """

    def __init__(self) -> None:
        self._queues: tuple[deque[tuple[int, bytes]], ...] = tuple(deque() for _ in PROOFS_US)  # each in order of time
        self._is_again: dict[bytes, bool] = {}  # whether a peer with proofs to come was suspected once more

    @property
    def due(self) -> int | None:
        """When the next proof is, us; None: nobody is suspected."""
        if not self._is_again:
            return None
        return min(queue[0][0] for queue in self._queues if queue)

    def add(self, peer: bytes, now: int) -> None:
        """One more hint; `now` never goes back. Who has proofs to come gets others behind them, not more at once."""
        if peer in self._is_again:
            self._is_again[peer] = True
            return
        self._is_again[peer] = False
        for queue, delay in zip(self._queues, PROOFS_US, strict=True):
            queue.append((now + delay, peer))

    def take(self, now: int) -> list[bytes]:
        """Who is to be sent a proof now."""
        found = []
        for queue in self._queues:
            while queue and queue[0][0] <= now:
                found.append(queue.popleft()[1])
                if queue is self._queues[-1] and self._is_again.pop(found[-1]):
                    self.add(found[-1], now)
        return found
