"""Store and forward with power cuts at any call of the producer's disk, killed programs, brokers and connections.

Each message that the producer was told is on its disk is in the broker's stream once, in order; of others, none is there twice.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import google_crc32c
import pytest

from patterns.core.forward import ClusterChanged, Estranged, ForwardingEngine
from patterns.core.produce import Batch, Confirmed
from patterns.roles.forwarding import Forwarding
from patterns.wire.address import parse_addresses
from patterns.wire.engine import Close, Open, Send
from patterns.wire.errors import StorageFull, TooLarge, ZbrokerError
from patterns.wire.frames import Message, pack, parse
from patterns.wire.messages import Append, Codec, Confirm, ErrorHeader, Hello, Limits, Ready
from tests.processes import LONG
from zbroker.core.producers import Accepted, Producers
from zbroker.store.outbox import FileOutbox
from zbroker.testing.disk import PowerCut, VirtualDisk

SEEDS = range(2_000 if LONG else 150)
STEPS = 120
FOLDER = "/o"
S = 1_000_000


class Broker:
    """Takes batches as intake.py does, with its own Producers; durable is what the last sync has covered."""

    def __init__(self) -> None:
        self.epoch = 0
        self.records: list[tuple[str, bytes, Append, int]] = []  # name, nonce and header of each batch, and its CRC
        self.names: list[tuple[int, str, bytes, int]] = []
        self.stream: list[bytes] = []
        self.durable = 0
        self.full = False
        self.start()

    def start(self) -> None:
        """After a crash: what was not synced is gone."""
        self.epoch += 1
        del self.records[self.durable :], self.stream[self.durable :]
        self.producers = Producers()
        self.producers.opened(self.epoch)
        for known in self.names:
            self.producers.recover(*known)
        for place, (_, _, header, crc) in enumerate(self.records):
            batch = Accepted(header.sequence, place, crc, place + 1)
            self.producers.recover_batch(header.producer, header.producer_epoch, batch)
        self.producer: Any = None
        self.confirmed = 0
        self.entries: deque[tuple[Accepted, bool]] = deque()

    def hello(self, hello: Hello) -> Ready:
        producer, resumed = self.producers.hello(hello)
        if not producer.journaled:
            producer.journaled = True
            self.names.append((producer.id, producer.name, hello.nonce, producer.epoch))
        self.producer = producer
        self.entries.clear()
        return Ready(
            version=1,
            epoch=self.epoch,
            cluster="c",
            limits=Limits(1 << 20, 2 << 20),
            resumed=resumed,
            producer=producer.identity(),
            credit_messages=1 << 30,
            credit_bytes=1 << 40,
        )

    def append(self, message: Message) -> ErrorHeader | None:
        header = message.header
        assert isinstance(header, Append)
        crc = google_crc32c.value(message.columns + message.payload)
        try:
            known = self.producer.admit(header, crc)
            if known is None:
                self._check(message)
        except ZbrokerError as error:
            if not error.retryable and isinstance(error, TooLarge):
                self.producer.accept(Accepted(header.sequence, 0, crc, 0, error.anew()))
            return refusal(error, header.sequence)
        if known is not None:
            if known.error is not None:
                return refusal(known.error, header.sequence)
            self.entries.append((known, True))
            return None
        self.records.append((self.producer.name, self.producer.nonce, header, crc))
        self.stream.append(message.payload)
        accepted = Accepted(header.sequence, len(self.stream) - 1, crc, len(self.records))
        self.producer.accept(accepted)
        self.entries.append((accepted, False))
        return None

    def _check(self, message: Message) -> None:
        if message.payload.startswith(b"bad"):
            raise TooLarge("a bad one")
        if self.full:
            raise StorageFull("full", retry_after_ms=10)

    def sync(self) -> Confirm | None:
        """What was appended is durable; who is connected hears of it."""
        self.durable = len(self.records)
        if not self.entries:
            return None
        done, self.entries = self.entries, deque()
        again = [batch.sequence for batch, duplicate in done if duplicate]
        return Confirm(done[-1][0].sequence, [batch.offset for batch, _ in done], again)


def refusal(error: ZbrokerError, sequence: int) -> ErrorHeader:
    return ErrorHeader(
        number=error.number, name=error.name, scope="append", id=sequence, retryable=error.retryable,
        retry_after_ms=error.retry_after_ms,
    )  # fmt: skip


class Driver:
    """Of the one role; runs what is asked for when the world comes to it."""

    is_closed = forked = False

    def __init__(self, life: Life) -> None:
        self._life = life

    def abandon(self, call: Any) -> None:
        call()

    def run(self) -> None:
        self._life.push()


class Life:
    """One life of a program with a journal and a connection, which breaks now and then."""

    def __init__(self, world: World) -> None:
        self.world = world
        random = world.random
        self.outbox = FileOutbox(
            world.disk, FOLDER, bytes_max=1 << 30, random_bytes=random.randbytes, wall_ms=lambda: 0, segment_bytes=64 << 10
        )  # fmt: skip
        sender = self.outbox.begin("orders")
        addresses = parse_addresses("zb://a")
        self.engine = ForwardingEngine(addresses, "orders", sender, Codec.RAW, lambda: 0.0, self.outbox.last_number)
        self.link: int | None = None
        self.outgoing: deque[Message] = deque()  # on the way to the broker
        self.forwarding = Forwarding(self.outbox, self.engine, Driver(self), 1 << 30, self.told)  # type: ignore[arg-type]
        self.engine.start(world.now)
        self.push()

    def told(self, batch: Batch) -> None:
        if batch.error is None:
            self.world.told.append(self.world.posted.pop(id(batch)))

    def push(self) -> None:
        """What a driver does in each turn."""
        self.forwarding.pour(self.world.now)
        for effect in self.engine.effects():
            if isinstance(effect, Open):
                self.link = effect.link
            elif isinstance(effect, Close):
                self.link = None
                self.outgoing.clear()
            elif isinstance(effect, Send):
                self.outgoing.append(parse(effect.frames))
        for event in self.engine.events():
            if isinstance(event, Confirmed):
                self.forwarding.confirmed(event.batches)
            elif isinstance(event, Estranged | ClusterChanged):
                raise AssertionError(event)

    def connect(self) -> None:
        if self.link is not None:
            self.engine.connected(self.link, self.world.now)
            self.push()

    def cut(self) -> None:
        if self.link is not None:
            self.engine.disconnected(self.link, self.world.now)
            self.push()

    def hear(self, header: Any) -> None:
        if self.link is not None and header is not None:
            self.engine.receive(self.link, b"", pack(header), self.world.now)
            self.push()


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = VirtualDisk()
        self.broker = Broker()
        self.now = S
        self.count = 0
        self.told: list[bytes] = []
        self.posted: dict[int, bytes] = {}
        self.batches: list[Batch] = []  # so that an id is not another's
        self.life: Life | None = None
        self.kills = 0

    # -- what may happen ------------------------------------------------------------------------------

    def post(self) -> None:
        assert self.life is not None
        for _ in range(self.random.choice([1, 1, 1, 5, 80])):
            self.count += 1
            kind = b"bad" if self.random.random() < 0.02 else b"good"
            body = kind + b"%d." % self.count + b"x" * self.random.choice([0, 0, 100, 5_000])
            batch = Batch(1, Codec.RAW, body, b"")
            self.batches.append(batch)
            self.posted[id(batch)] = body
            self.life.forwarding.append([batch])

    def turn(self) -> None:
        assert self.life is not None
        self.now += self.random.choice([1_000, 100_000, S])
        self.life.engine.handle_timeout(self.now)
        self.life.push()
        self.life.forwarding.turn(self.now)
        self.life.push()

    def deliver(self) -> None:
        """Some of what is under way comes to the broker."""
        life = self.life
        assert life is not None
        for _ in range(self.random.choice([1, 3, 100])):
            if not life.outgoing:
                return
            message = life.outgoing.popleft()
            match message.header:
                case Hello() as hello:
                    life.hear(self.broker.hello(hello))
                case Append() if self.broker.producer is not None:
                    life.hear(self.broker.append(message))

    def sync(self) -> None:
        assert self.life is not None
        confirm = self.broker.sync()
        if self.random.random() < 0.8:
            self.life.hear(confirm)
        elif confirm is not None:
            self.life.cut()  # it is lost with its connection

    def cut(self) -> None:
        assert self.life is not None
        self.life.cut()

    def kill_broker(self) -> None:
        assert self.life is not None
        self.broker.start()
        self.life.cut()

    def kill_program(self) -> None:
        self.kills += 1
        self.disk.crash()
        self.life = None

    def close(self) -> None:
        assert self.life is not None
        try:
            self.life.outbox.close()
        except StorageFull:
            pass  # what had no room was promised to nobody
        self.life = None

    def fill(self) -> None:
        self.broker.full = not self.broker.full

    def fill_own(self) -> None:
        self.disk.free_bytes = 0 if self.disk.free_bytes is None else None

    def begin(self) -> None:
        try:
            self.life = Life(self)
        except StorageFull:
            self.disk.free_bytes = None

    def step(self) -> None:
        """One thing, or a new life; a power cut in the midst of any of it."""
        if self.random.random() < 0.06:
            self.disk.cut_after = self.random.randrange(40)
        try:
            if self.life is None:
                self.begin()
                return
            choices = [self.post, self.turn, self.turn, self.deliver, self.deliver, self.sync, self.life.connect]
            self.random.choice(choices)()
            if self.random.random() < 0.08:
                rare = [self.kill_broker, self.kill_program, self.close, self.fill, self.fill_own, self.cut]
                self.random.choice(rare)()
        except PowerCut:
            self.kills += 1
            self.life = None
            self.disk.power_cut(self.random)

    def settle(self) -> None:
        """Everything works from now on."""
        self.disk.cut_after, self.disk.free_bytes, self.broker.full = None, None, False
        for _ in range(3_000):
            if self.life is None:
                self.life = Life(self)
            self.life.connect()
            self.turn()
            self.deliver()
            self.life.hear(self.broker.sync())
            if self.life.forwarding.messages == 0 and not self.life.outbox.waiting_messages:
                return
        raise AssertionError(f"{self.life.outbox.waiting_messages if self.life else '?'} messages are still waiting")


def number_of(body: bytes) -> int:
    return int(body.removeprefix(b"good").split(b".")[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_on_the_producers_disk_comes_into_the_stream_once_and_in_order(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.settle()
    stored = [number_of(body) for body in world.broker.stream]
    assert stored == sorted(set(stored)), "once, and in order"
    promised = {number_of(body) for body in world.told if body.startswith(b"good")}
    assert promised <= set(stored), "all that was promised"
    assert world.life is not None
    bad = sum(body.startswith(b"bad") for body in world.told)
    assert bad <= world.life.outbox.refused_messages <= bad + sum(b"bad" in body for body in world.posted.values())


def test_the_seeds_kill_the_program_often_enough() -> None:
    kills = 0
    for seed in SEEDS[:20]:
        world = World(seed)
        for _ in range(STEPS):
            world.step()
        kills += world.kills
    assert kills > 40
