"""A member of a group that shows all the broker says: each message that is lent to it, each answer. No credit renews itself. No test lives here."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import zmq

from patterns.wire import codec
from patterns.wire.frames import columns_of, pack, parse
from patterns.wire.messages import (
    Codec,
    Credit,
    Deliver,
    ErrorHeader,
    Header,
    Hello,
    Join,
    Joined,
    NoSessionHeader,
    Ping,
    Pong,
    Ready,
    Resume,
    Role,
    Settle,
    Settled,
)

PING_S = 1.0
CREDIT_BYTES = 1 << 40


@dataclass
class Lent:
    """One DELIVER."""

    lease: int
    offset: int
    attempt: int
    bodies: list[Any]

    @property
    def offsets(self) -> range:
        return range(self.offset, self.offset + len(self.bodies))


class BareMember:
    """One session on one connection; another one is made for what comes after a restart.

    Attributes:
        ready: None until the broker has answered HELLO.
        joined: whether it has answered JOIN.
        lent: what came and nobody has taken from here.
        settled: by id of the SETTLE, how many messages were not ours.
        refused: leases that STALE_LEASE was told of.
        is_over: the broker does not know the session any more.
    """

    def __init__(
        self, url: str, stream: str, group: str, *, older: BareMember | None = None, leases: tuple[int, ...] = ()
    ) -> None:
        self.stream, self.group = stream, group
        self.nonce = older.nonce if older else os.urandom(16)
        resume = Resume(older.ready.epoch, 0, list(leases)) if older and older.ready else None
        self.ready: Ready | None = None
        self.joined = False
        self.granted = self.taken = 0
        self.lent: deque[Lent] = deque()
        self.settled: dict[int, int] = {}
        self.refused: list[int] = []
        self.errors: list[ErrorHeader] = []
        self.is_over = False
        self._ids = 0
        self._pinged_at = time.monotonic()
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.rcvhwm = self._socket.sndhwm = 0
        self._socket.linger = 0
        self._socket.connect(url.replace("zb://", "tcp://"))
        self.say(Hello(role=Role.CONSUMER, nonce=self.nonce, codec=Codec.MSGPACK, resume=resume))

    def say(self, header: Header) -> None:
        self._socket.send_multipart(pack(header))

    def grant(self, messages: int) -> None:
        """So many more."""
        self.granted += messages
        self.say(Credit(self.granted, CREDIT_BYTES))

    def settle(self, lease: int, action: str, *offsets: int, delay_ms: int = 0) -> int:
        """Ask for it, with an answer; returns the id that this will have."""
        self._ids += 1
        ranges = [(offset, offset) for offset in offsets]
        self.say(Settle(lease=lease, action=action, id=self._ids, ranges=ranges, delay_ms=delay_ms))
        return self._ids

    def hear(self) -> None:
        """All that has come; and a sign of life now and then."""
        now = time.monotonic()
        if now - self._pinged_at > PING_S:
            self._pinged_at = now
            self.say(Ping())
        while not self.is_over and self._socket.poll(0):
            self._take(self._socket.recv_multipart())

    def _take(self, frames: list[bytes]) -> None:
        message = parse(frames)
        match message.header:
            case Ready() as ready:
                self.ready = ready
                self.say(Join(id=1, stream=self.stream, group=self.group, mode="slices"))
            case Joined():
                self.joined = True
            case Deliver() as header:
                columns = columns_of(message, header.count)
                sizes = columns.sizes if isinstance(columns.sizes, list) else None
                bodies = codec.decode(header.codec, message.payload, header.count, sizes)
                self.taken += header.count
                self.lent.append(Lent(header.lease, header.offset, header.attempt, bodies))
            case Settled() as answer:
                self.settled[answer.id] = answer.stale
            case ErrorHeader() as error if error.name == "STALE_LEASE":
                self.refused.append(error.id)
            case ErrorHeader() as error:
                self.errors.append(error)
            case Ping() as ping:
                self.say(Pong(ping.token))
            case NoSessionHeader():
                self.is_over = True

    def die(self) -> None:
        """As SIGKILL looks from the other end: no GOODBYE."""
        self._socket.close()
        self.is_over = True
