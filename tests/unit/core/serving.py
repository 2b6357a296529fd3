"""A broker engine and its peers, without a socket: what tests of the engine send and read."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from patterns.wire.engine import Send
from patterns.wire.frames import JSON, MSGPACK, Form, Frames, Message, pack, pack_columns, parse
from patterns.wire.identity import publisher_of
from patterns.wire.messages import (
    Codec,
    Columns,
    Header,
    Hello,
    Offer,
    Ping,
    Pong,
    Publish,
    Reply,
    Request,
    Role,
    Subscribe,
)
from patterns.wire.names import channel_of
from zbroker.core.broker import BrokerEngine

MS = 1_000
S = 1_000_000


class Client:
    """One connection of a Bench, with what it was sent and has not looked at yet."""

    _numbers = itertools.count(1)

    def __init__(self, bench: Bench, role: Role, form: Form, codec: Codec) -> None:
        self.bench, self.role, self.form, self.codec = bench, role, form, codec
        number = next(self._numbers)
        self.peer = number.to_bytes(5, "big")
        self.nonce = number.to_bytes(16, "big")
        self.inbox: list[Message] = []
        self.raw: list[Frames] = []
        self.reads = True  # and so answers PINGs

    def send(self, header: Header, *, payload: bytes = b"", columns: bytes = b"", key: bytes = b"") -> None:
        frames = pack(header, columns=columns, payload=payload, key=key, form=self.form)
        self.bench.engine.receive(0, self.peer, frames, self.bench.now)
        self.bench.settle()

    def hello(self, messages: int = 1_000, size: int = 1 << 20, **more: Any) -> None:
        self.send(
            Hello(
                role=self.role, nonce=self.nonce, codec=self.codec, credit_messages=messages, credit_bytes=size, **more
            )
        )

    def take(self, header: type[Header]) -> list[Any]:
        """Headers of that type that came; they are taken out of the inbox."""
        found = [message for message in self.inbox if type(message.header) is header]
        self.inbox = [message for message in self.inbox if type(message.header) is not header]
        return [message.header for message in found]

    def messages(self, header: type[Header]) -> list[Message]:
        """Whole messages of that type that came."""
        return [message for message in self.inbox if type(message.header) is header]

    # what each role says most

    def request(self, id: int, service: str = "price", body: object = 1, timeout_ms: int = 5_000, **more: Any) -> None:
        payload = self.form.encoder.encode([body]) if self.codec is not Codec.RAW else body
        assert isinstance(payload, bytes)
        header = Request(id=id, service=service, timeout_ms=timeout_ms, codec=self.codec, **more)
        self.send(header, payload=payload)

    def reply(self, id: int, body: object = 2, codec: Codec = Codec.MSGPACK) -> None:
        encode = msgspec.msgpack.encode if codec is Codec.MSGPACK else msgspec.json.encode
        self.send(Reply(id=id, codec=codec), payload=encode([body]))

    def offer(self, service: str = "price") -> None:
        self.send(Offer(1, service))

    def subscribe(self, pattern: str, id: int = 1) -> None:
        self.send(Subscribe(id, pattern))

    def publish(self, topics: list[str], sequence: int = 0, body: bytes = b"x", **more: Any) -> None:
        """One raw message for each topic."""
        columns = Columns(sizes=[len(body)] * len(topics), topics=list(topics), topic=list(range(len(topics))))
        header = Publish(
            publisher=publisher_of(self.nonce), sequence=sequence, count=len(topics), codec=Codec.RAW, **more
        )
        key = bytes([channel_of(topics[0])])
        self.send(header, payload=body * len(topics), columns=pack_columns(columns, self.form), key=key)


class Bench:
    """An engine without a journal, and a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1 * S
        self.engine = BrokerEngine("test", self.now, epoch=7)
        self.clients: dict[bytes, Client] = {}
        self.others: list[object] = []  # effects of the last settle() that no client receives

    def client(self, role: str, *, form: Form = MSGPACK, codec: Codec = Codec.MSGPACK, **hello: Any) -> Client:
        client = Client(self, Role(role), form, codec)
        self.clients[client.peer] = client
        client.hello(**hello)
        return client

    def settle(self) -> None:
        """Let the engine do its turn, and hand out what it sends."""
        self.engine.turn(self.now)
        pings: list[tuple[Client, int]] = []
        self.others = []
        for effect in self.engine.effects():
            if isinstance(effect, Send) and effect.peer in self.clients:
                client = self.clients[effect.peer]
                client.raw.append(effect.frames)
                message = parse(effect.frames)
                client.inbox.append(message)
                if isinstance(message.header, Ping) and client.reads:
                    pings.append((client, message.header.token))
            else:
                self.others.append(effect)
        for client, token in pings:
            client.send(Pong(token))

    def wait(self, ms: int) -> None:
        """Move the clock, timers included."""
        self.now += ms * MS
        self.engine.handle_timeout(self.now)
        self.settle()

    def disconnect(self, client: Client) -> None:
        self.engine.disconnected(0, client.peer, self.now)
        self.settle()


__all__ = ["JSON", "MSGPACK", "Bench", "Client"]
