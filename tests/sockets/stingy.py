"""A broker that takes so much and no more until it is told: for what publishers do then. No test lives here."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import zmq

from patterns.wire.codec import decode
from patterns.wire.frames import MSGPACK, Message, columns_of, pack, parse
from patterns.wire.limits import BATCH_BYTES_MAX, BODY_BYTES_MAX
from patterns.wire.messages import Credit, Goodbye, Header, Hello, Limits, Ping, Pong, Publish, Ready
from tests.processes import DEADLINE_S

_PLENTY: Final = 1 << 40


class StingyBroker:
    """Speaks ZB1 with one publisher.

    Attributes:
        bodies: of all that was published, as it came.
        sequences: the same by channel: the first, and how many.
    """

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self.url = f"zb://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        self._is_generous = threading.Event()
        self._ended = threading.Event()
        self.bodies: list[Any] = []
        self.sequences: dict[bytes, list[int]] = {}
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def give(self) -> None:
        """From now on there is credit for everything."""
        self._is_generous.set()

    def _serve(self) -> None:
        peer = b""
        while not self._ended.is_set():
            if self._is_generous.is_set() and peer:
                self._tell(peer, Credit(_PLENTY, _PLENTY))
            if not self._router.poll(20):
                continue
            peer, *frames = self._router.recv_multipart()
            message = parse(frames)
            match message.header:
                case Hello():
                    limits = Limits(BODY_BYTES_MAX, BATCH_BYTES_MAX)
                    self._tell(peer, Ready(version=1, epoch=1, limits=limits, credit_messages=10, credit_bytes=1_000))
                case Ping(token=token):
                    self._tell(peer, Pong(token))
                case Goodbye():
                    self._tell(peer, Goodbye())
                case Publish() as header:
                    self._note(message, header)

    def _note(self, message: Message, header: Publish) -> None:
        sizes = columns_of(message, header.count).sizes
        found = decode(header.codec, message.payload, header.count, None if sizes is msgspec.UNSET else sizes)
        self.bodies.extend(found)
        first, count = self.sequences.setdefault(message.key, [header.sequence, 0])
        assert header.sequence == first + count, "a gap, though nothing was lost"
        self.sequences[message.key][1] += header.count

    def _tell(self, peer: bytes, header: Header) -> None:
        self._router.send_multipart([peer, *pack(header, form=MSGPACK)])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(DEADLINE_S)
        self._context.destroy(linger=0)
