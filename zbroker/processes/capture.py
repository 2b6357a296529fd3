"""The capture of a device: copies of what it forwards for one reader, and never a reason for it to wait.

libzmq's proxy hands a copy of each frame to its capture socket and waits until it is taken. So that socket is an inproc XPUB,
which drops at its high-water mark, and a thread carries what got through to the PUSH that the reader connects to.
"""

from __future__ import annotations

import itertools
import os
import threading
from typing import Final

import zmq
from zmq.backend import zmq_poll

from patterns.io import turn

_HOP_MESSAGES: Final = 1_000  # at each end of the hop: libzmq adds the two up
_BURST: Final = 64
_SUBSCRIBE_MS: Final = 5_000  # inproc: it takes microseconds
_JOIN_S: Final = 2.0
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)
_numbers: Final = itertools.count(1)


class Capture:
    """A hop of at most 2,000 messages, and a thread that empties it as fast as the reader takes.

    While the reader takes nothing, the thread sleeps, the hop is full, and libzmq drops at its entrance.

    Args:
        reader: a PUSH, bound or connected, with IMMEDIATE; the thread's from now on, which closes it.

    Attributes:
        entrance: for the proxy, which closes it.
        frame_count: frames that the reader's connection has taken.
    """

    def __init__(self, reader: zmq.Socket[bytes]) -> None:
        address = f"inproc://zbroker-capture-{next(_numbers)}"
        self.entrance: zmq.Socket[bytes] = reader.context.socket(zmq.XPUB)
        self._exit: zmq.Socket[bytes] = reader.context.socket(zmq.SUB)
        for socket in (self.entrance, self._exit):
            socket.linger = 0
            socket.sndhwm = socket.rcvhwm = _HOP_MESSAGES
        self.entrance.bind(address)
        self._exit.setsockopt(zmq.SUBSCRIBE, b"")
        self._exit.connect(address)
        heard = self.entrance.poll(_SUBSCRIBE_MS)  # before the first message: else it would be dropped for no reason
        assert heard, "the hop's own subscription"
        turn.receive(self.entrance)
        self._reader = reader
        self.frame_count = 0
        self._is_stopping = False
        self._bell, self._button = os.pipe()
        self._thread = threading.Thread(target=self._run, name="zbroker-capture", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while self._wait(self._exit, _POLLIN):
                for frames in turn.receive_many(self._exit, _BURST):
                    while not turn.send(self._reader, frames):
                        if not self._wait(self._reader, _POLLOUT):
                            return
                    self.frame_count += len(frames)
        except zmq.ContextTerminated:
            pass
        finally:
            self._exit.close()
            self._reader.close()

    def _wait(self, socket: zmq.Socket[bytes], events: int) -> bool:
        """Return when it is ready; False when it is not, and we were told to stop."""
        while not zmq_poll([(socket, events)], 0):
            if self._is_stopping:
                return False
            zmq_poll([(socket, events), (self._bell, _POLLIN)], -1)
        return True

    def close(self) -> None:
        """Hand over what the hop still holds as far as the reader takes it at once, and end."""
        self._is_stopping = True
        os.write(self._button, b"!")
        self._thread.join(_JOIN_S)
        os.close(self._button)
        os.close(self._bell)
