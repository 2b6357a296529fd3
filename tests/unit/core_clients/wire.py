"""A client engine and the other end of its links, without a socket: what tests of the engines drive and read."""

from __future__ import annotations

from typing import Any

from patterns.wire.address import parse_addresses
from patterns.wire.engine import Close, Listen, Open, Send
from patterns.wire.frames import MSGPACK, Form, Message, pack, parse
from patterns.wire.messages import Header, Limits, Ready

MS = 1_000
S = 1_000_000
NONCE = bytes(range(16))
BROKER = parse_addresses("zb://a")
BROKERS = parse_addresses("zb://a,zb://b")
PEER = parse_addresses("tcp://a:1")
PEERS = parse_addresses("tcp://a:1,tcp://b:2")


def calm() -> float:
    """No jitter at all."""
    return 0.0


def ready(epoch: int = 7, messages: int = 100, size: int = 1 << 20, **more: Any) -> Ready:
    limits = more.pop("limits", Limits(1 << 20, (1 << 20) + 65_536))
    return Ready(version=1, epoch=epoch, limits=limits, credit_messages=messages, credit_bytes=size, **more)


class Wire:
    """Plays the network and the peers of one engine; the test moves the clock."""

    def __init__(self, engine: Any, **hello: Any) -> None:
        self.engine = engine
        self.now = 1 * S
        self.opened: list[Open] = []
        self.closed: list[Close] = []
        self.listened: list[Listen] = []
        self.inbox: list[tuple[int, Message]] = []
        self.seen: list[Any] = []
        engine.start(self.now)
        self.settle()

    @property
    def link(self) -> int:
        """The newest link."""
        return self.opened[-1].link

    def settle(self) -> None:
        self.seen.extend(self.engine.events())
        for effect in self.engine.effects():
            if isinstance(effect, Open):
                self.opened.append(effect)
            elif isinstance(effect, Close):
                self.closed.append(effect)
            elif isinstance(effect, Listen):
                self.listened.append(effect)
            elif isinstance(effect, Send):
                self.inbox.append((effect.link, parse(effect.frames)))

    def connect(self, link: int | None = None) -> None:
        self.engine.connected(link or self.link, self.now)
        self.settle()

    def say(
        self, header: Header, link: int | None = None, *, form: Form = MSGPACK, peer: bytes = b"", **more: Any
    ) -> None:
        """The other end sends this."""
        self.engine.receive(link or self.link, peer, pack(header, form=form, **more), self.now)
        self.settle()

    def greet(self, link: int | None = None, **more: Any) -> None:
        """Connect, hear HELLO, say READY."""
        self.connect(link)
        self.say(ready(**more), link)

    def disconnect(self, link: int | None = None) -> None:
        self.engine.disconnected(link or self.link, self.now)
        self.settle()

    def wait(self, ms: int) -> None:
        """Let time pass, timer by timer."""
        until = self.now + ms * MS
        for _ in range(10_000):
            due = self.engine.next_timeout()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.engine.handle_timeout(self.now)
            self.settle()
        self.now = until

    def back(self, **more: Any) -> None:
        """The connection breaks, and comes back."""
        self.disconnect()
        self.wait(200)
        self.greet(**more)

    def sent(self, kind: type[Header], link: int | None = None) -> list[Any]:
        """Headers of this type that were sent, taken out."""
        return [message.header for message in self.messages(kind, link)]

    def messages(self, kind: type[Header], link: int | None = None) -> list[Message]:
        """Messages of this type that were sent, taken out."""
        found = [
            (at, message) for at, message in self.inbox if type(message.header) is kind and (link is None or at == link)
        ]
        self.inbox = [one for one in self.inbox if one not in found]
        return [message for _at, message in found]

    def heard(self, kind: type) -> list[Any]:
        """Events of this type, taken out."""
        found = [event for event in self.seen if type(event) is kind]
        self.seen = [event for event in self.seen if type(event) is not kind]
        return found
