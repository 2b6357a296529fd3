"""Many raw subscribers in one process: `python -m tests.sockets.crowd URL COUNT FORM PATTERN..`. No test lives here.

Prints "ready" when all are subscribed. Then, for each number that it is told, it waits until each subscriber has received
so many messages in all, every one in order, and says so.
"""

from __future__ import annotations

import os
import sys
import time

import zmq

from patterns.wire.frames import JSON, MSGPACK, Form, pack, parse
from patterns.wire.messages import (
    Codec,
    Credit,
    ErrorHeader,
    Header,
    Hello,
    Lost,
    Ping,
    Pong,
    Publish,
    Ready,
    Role,
    Subscribe,
    Subscribed,
)

WINDOW = 1 << 20
UNDER_WAY = 200
HEARTBEAT_S = 1.0  # a session of which nothing is heard for 6 s ends


class Raw:
    """One subscriber over a bare DEALER."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], url: str, form: Form, patterns: list[str]) -> None:
        self.form, self.patterns = form, patterns
        self.asked = self.confirmed = self.received = self.size = self.granted = 0
        self.socket = context.socket(zmq.DEALER)
        self.socket.rcvhwm = self.socket.sndhwm = 0
        self.socket.connect(url.replace("zb://", "tcp://"))
        codec = Codec.JSON if form is JSON else Codec.MSGPACK
        hello = Hello(
            role=Role.SUBSCRIBER, nonce=os.urandom(16), codec=codec, credit_messages=WINDOW, credit_bytes=WINDOW
        )
        self.say(hello)

    def say(self, header: Header) -> None:
        self.said_at = time.monotonic()
        self.socket.send_multipart(pack(header, form=self.form))

    def ask(self) -> None:
        while self.asked < min(len(self.patterns), self.confirmed + UNDER_WAY):
            self.asked += 1
            self.say(Subscribe(self.asked, self.patterns[self.asked - 1]))

    def take(self) -> None:
        """One message; whatever is wrong ends the program."""
        frames = self.socket.recv_multipart()
        message = parse(frames)
        assert message.form is self.form
        match message.header:
            case Ready():
                self.ask()
            case Subscribed():
                self.confirmed += 1
                self.ask()
            case Ping(token=token):
                self.say(Pong(token))
            case Publish(sequence=sequence, count=count):
                assert sequence == self.received, f"message {sequence} after {self.received}"
                self.received += count
                self.size += message.size
                if self.size - self.granted > WINDOW // 2:
                    self.granted = self.size
                    self.say(Credit(self.received + WINDOW, self.size + WINDOW))
            case Pong():
                pass
            case Lost() | ErrorHeader() as header:
                raise AssertionError(header)


def main(url: str, count: str, form: str, *patterns: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, int(count) + 10)
    raws = [Raw(context, url, JSON if form == "json" else MSGPACK, list(patterns)) for _ in range(int(count))]
    by_socket = {raw.socket: raw for raw in raws}
    poller = zmq.Poller()
    for raw in raws:
        poller.register(raw.socket, zmq.POLLIN)

    def until(done: str, target: int) -> None:
        while min(getattr(raw, done) for raw in raws) < target:
            turn()

    def turn(*others: int) -> bool:
        """Take what is there; whether one of the other descriptors is readable."""
        ready = dict(poller.poll(1_000 * HEARTBEAT_S))
        for socket in ready:
            if socket in by_socket:
                by_socket[socket].take()
        for raw in raws:
            if time.monotonic() - raw.said_at > HEARTBEAT_S:
                raw.say(Ping(1))
        return any(other in ready for other in others)

    until("confirmed", len(patterns))
    print("ready", flush=True)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    while True:
        if turn(sys.stdin.fileno()):
            line = sys.stdin.readline()  # they come one at a time, each after the answer to the one before
            if not line:
                return
            until("received", int(line))
            print(line.strip(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
