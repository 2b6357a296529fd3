"""A peer that speaks the protocol and does not keep it: gaps, other bytes under a known sequence, acks of what is not its own."""

from __future__ import annotations

from typing import Any

from patterns.wire import codec
from patterns.wire.engine import Close, Open, Send
from patterns.wire.errors import ZbrokerError
from patterns.wire.frames import pack, parse
from patterns.wire.messages import Append, Codec, Credit, Deliver, Goodbye, Hello, Join, Leave, Ready, Role, Settle
from tests.simulation.client import ADDRESS, Client

ACTIONS = ("ack", "ack", "nack", "reject", "release", "extend", "eat")


class RogueEngine:
    """Just enough of an engine to have a session; it opens another connection whenever it loses one."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._effects: list[Any] = []
        self._link = 0
        self._again_at: int | None = None
        self.ready: Ready | None = None
        self.leases: list[tuple[int, int, int]] = []  # lease, first, last: of any session it ever had
        self.closed = False
        self.news: list[Any] = []

    def start(self, now: int) -> None:
        self._link += 1
        self.ready, self._again_at = None, None
        self._effects.append(Open(self._link, ADDRESS.endpoint))

    def connected(self, link: int, now: int) -> None:
        self.say(pack(self._hello))

    def disconnected(self, link: int, now: int) -> None:
        if link == self._link:
            self._effects.append(Close(link))
            self.ready, self._again_at = None, now + 200_000

    unreachable = disconnected

    def say(self, frames: list[bytes]) -> None:
        self._effects.append(Send(self._link, b"", frames))

    def receive(self, link: int, peer: bytes, frames: list[bytes], now: int) -> None:
        try:
            header = parse(frames).header
        except ZbrokerError:
            return
        if isinstance(header, Ready):
            self.ready = header
        elif isinstance(header, Deliver) and header.lease:
            self.leases.append((header.lease, header.offset, header.offset + header.count - 1))
        elif type(header).__name__ == "NoSessionHeader" or getattr(header, "scope", "") == "session":
            self.disconnected(self._link, now)

    def effects(self) -> list[Any]:
        effects, self._effects = self._effects, []
        return effects

    def events(self) -> list[Any]:
        return []

    def next_timeout(self) -> int | None:
        return self._again_at

    def handle_timeout(self, now: int) -> None:
        if self._again_at is not None and self._again_at <= now:
            self.start(now)


class RogueProducer(Client):
    """Re-uses sequences, leaves gaps, names producers and epochs that are not its own, writes what is no payload."""

    def make_engine(self) -> RogueEngine:
        self._sequence = 0
        self._count = 0
        return RogueEngine(Hello(role=Role.PRODUCER, nonce=self.nonce(), codec=Codec.MSGPACK))

    def act(self, now: int) -> int:
        ready = self.engine.ready
        if ready is not None and ready.producer is not None and not self.is_quiet:
            self._append(ready)
        return self.random.randint(5_000, 200_000)

    def _append(self, ready: Ready) -> None:
        random, identity = self.random, ready.producer
        assert identity is not None
        self._sequence = max(self._sequence, identity.sequence)
        sequence, previous = self._sequence + 1, self._sequence
        wrong = random.choice(["", "", "", "again", "gap", "epoch", "producer", "bytes", "frames"])
        self.world.injected[f"rogue_{wrong}" if wrong else "rogue_right"] += 1
        if wrong == "again":
            sequence, previous = max(1, self._sequence), max(0, self._sequence - 1)
        elif wrong == "gap":
            sequence, previous = sequence + 5, previous + random.randint(1, 4)
        self._count += 1
        payload = codec.encode(Codec.MSGPACK, [[f"{self.name}.{self.life}.{self._count}", ""]])[0].payload
        header = Append(
            stream="rogue",
            producer=identity.id + (wrong == "producer"),
            producer_epoch=identity.epoch + (wrong == "epoch"),
            sequence=sequence,
            previous=previous,
            count=1,
            codec=Codec.MSGPACK,
        )
        frames = pack(header, payload=b"\xc1" if wrong == "bytes" else payload)
        if wrong == "frames":
            frames = [random.randbytes(random.randint(0, 40)) for _ in range(random.randint(1, 6))]
        elif not wrong:
            self._sequence = sequence
        self.engine.say(frames)


class RogueMember(Client):
    """Settles leases of others, of former sessions and of the future, with ranges of its own making."""

    def __init__(self, world: Any, name: str, stream: str, group: str) -> None:
        super().__init__(world, name)
        self.stream, self.group = stream, group

    def make_engine(self) -> RogueEngine:
        self._granted = 0
        return RogueEngine(Hello(role=Role.CONSUMER, nonce=self.nonce(), codec=Codec.MSGPACK))

    def act(self, now: int) -> int:
        engine, random = self.engine, self.random
        if engine.ready is None:
            self._granted = 0
        elif not self._granted:
            self._granted = random.choice([3, 40])
            engine.say(pack(Join(id=1, stream=self.stream, group=self.group, mode="slices")))
            engine.say(pack(Credit(self._granted, 1 << 20)))
        elif random.random() < 0.02:
            engine.say(pack(random.choice([Goodbye(), Leave(id=2)])))
        else:
            self._settle()
        return random.randint(5_000, 200_000)

    def _settle(self) -> None:
        random, leases = self.random, self.engine.leases
        others = [one.engine.leases for one in self.world.clients if isinstance(one, RogueMember) and one.engine]
        pool = random.choice(others or [leases])
        if not pool:
            return
        lease, first, last = random.choice(pool)
        if random.random() < 0.1:
            lease += random.choice([1, 50, 1 << 32])
        self._granted += 2
        self.world.injected["rogue_settle"] += 1
        ranges = [(first + random.randint(-1, 1), last + random.randint(0, 2))] if random.random() < 0.5 else []
        ranges = [(max(0, low), max(0, low, high)) for low, high in ranges]
        action = random.choice(ACTIONS)
        number = random.randint(1, 1 << 20) if random.random() < 0.5 else 0
        self.engine.say(pack(Settle(lease=lease, action=action, id=number, ranges=ranges)))
        self.engine.say(pack(Credit(self._granted, 1 << 20)))
