"""The XPUB for plain subscribers, in a thread of its own. libzmq enters subscriptions into its trie as fast as a peer sends them, and
walks through the whole trie when a connection ends: what hostile peers make of that, only plain subscribers shall wait for.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll

from patterns.io import sockets, turn
from patterns.io.guard import Guard
from patterns.io.guard_gate import Gate
from patterns.wire.frames import Frames
from patterns.wire.limits import MIB

_UNDER_WAY_BYTES_MAX: Final = (
    16 * MIB
)  # from the loop to the thread: 47,000 messages of 100 bytes, a turn full of batches
_EACH_BYTES: Final = 256  # what a message costs libzmq besides its bytes
_BURST: Final = 256
_STOP_S: Final = 3.0  # 16 MiB of messages take a fraction of it
_STOP: Final = [b""]  # one frame: messages have two
_POLLIN: Final = int(zmq.POLLIN)
_ASKED_AGAIN_MS: Final = 10  # the loop is behind with our reports: nothing tells us when it is not
_numbers: Final = itertools.count(1)


class Outlet:
    """A bound XPUB, and two inproc ends between it and the loop.

    Args:
        context: the broker's.
        guard: watches the connections.
        address: to bind.

    Attributes:
        bound: the XPUB; the thread's as long as it lives.
        endpoint: where it is bound.
        inside: the loop's end; readable when there are reports.
        gate: in front of the XPUB; closed while this thread or the loop is behind.

    Raises:
        Unavailable: the address is in use.
        BadAddress: it is none.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], guard: Guard, address: str) -> None:
        self._guard = guard
        self.bound = sockets.bare_xpub(context)
        self.gate = Gate()
        guard.watch(self.bound, gate=self.gate)
        self.endpoint = sockets.bind(self.bound, address)
        self.inside, self._far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        for end in (self.inside, self._far):
            end.sndhwm = end.rcvhwm = 0  # bytes are counted
        name = f"inproc://zbroker-outlet-{next(_numbers)}"
        self._far.bind(name)
        self.inside.connect(name)
        self._given_bytes = 0  # by the loop
        self._taken_bytes = 0  # by the thread
        self._reported = 0  # by the thread
        self._heard = 0  # by the loop
        self._thread = threading.Thread(target=self._run, name="zbroker-outlet", daemon=True)

    def start(self) -> None:
        """From now on the thread works."""
        self._thread.start()

    def offer(self, messages: Sequence[Frames]) -> int:
        """Hand messages over. Returns how many were left out, as too much is under way already."""
        for place, (topic, body) in enumerate(messages):
            if self._given_bytes - self._taken_bytes > _UNDER_WAY_BYTES_MAX:
                return len(messages) - place
            self._given_bytes += len(topic) + len(body) + _EACH_BYTES
            turn.send(self.inside, (topic, body))
        return 0

    def reports(self) -> list[tuple[bytes, Frames]]:
        """What the XPUB has said of its connections, oldest first: the number of the fd, or nothing, and the frames."""
        found = [(peer, frames) for peer, *frames in turn.receive_many(self.inside, _BURST)]
        self._heard += len(found)
        return found

    def stop(self) -> bool:
        """What was handed over leaves for the XPUB, and the thread ends.

        Returns:
            Whether it did: libzmq may walk through a hostile trie for minutes, and nothing can interrupt it.
        """
        if self._thread.is_alive():
            turn.send(self.inside, _STOP)
            self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    def close(self, linger_ms: int) -> None:
        """Close what is ours; what the XPUB has taken has `linger_ms` to leave. After stop()."""
        self.inside.close(0)
        if not self._thread.is_alive():
            self.bound.close(linger_ms)
            self._far.close(0)
            self.gate.close()

    def _run(self) -> None:
        bell = self.gate.fileno()
        ends: list[tuple[Any, int]] = [(self.bound, _POLLIN), (self._far, _POLLIN)]
        if bell >= 0:
            ends.append((bell, _POLLIN))
        is_asked = False
        while True:
            ready = zmq_poll(ends, _ASKED_AGAIN_MS if is_asked else -1)
            if (bell, _POLLIN) in ready:
                self.gate.hush()
                is_asked = True
            stirred = self.gate.stirred
            is_read = self._report()
            if is_asked and is_read and self._reported - self._heard <= _BURST:
                self.gate.settle(stirred)
                is_asked = False
            for message in turn.receive_many(self._far, _BURST):
                if len(message) == 1:
                    return
                turn.send(self.bound, message)  # never waits: for a subscriber whose pipe is full it drops
                self._taken_bytes += len(message[0]) + len(message[1]) + _EACH_BYTES

    def _report(self) -> bool:
        """Pass on what the XPUB says. Returns whether that was all."""
        burst = turn.receive_from_many(self.bound, _BURST)
        for _, frames, fd in burst:
            if fd >= 0:
                self._guard.delivered(fd, sum(map(len, frames)), len(frames))
            turn.send(self._far, (b"%d" % fd if fd >= 0 else b"", *frames))
        self._reported += len(burst)
        return len(burst) < _BURST
