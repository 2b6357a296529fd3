"""Engines in the middle of a dialogue, and peers that say anything: the broker to its clients, each client to its broker."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from patterns.wire.engine import Send
from patterns.wire.frames import JSON, MSGPACK, Form, pack, pack_columns, parse
from patterns.wire.messages import (
    Admin,
    Append,
    Cancel,
    Codec,
    Columns,
    Credit,
    Goodbye,
    Header,
    Hello,
    Join,
    Leave,
    Offer,
    Ping,
    Publish,
    Reply,
    Request,
    Resume,
    Role,
    Settle,
    Subscribe,
)
from patterns.wire.messages import Pong as PongHeader
from patterns.wire.names import channel_of
from patterns.wire.records import Opened, Position, Record
from tests.fuzz import vectors
from tests.fuzz.script import Script, written_frames
from tests.unit.core_clients.test_any_frames import ENGINES, use
from tests.unit.core_clients.wire import S, ready
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import PLAIN_PUBLISHERS, PLAIN_SUBSCRIBERS, SESSIONS, Read
from zbroker.core.effects import Append as AppendEffect
from zbroker.core.effects import Offer as OfferEffect
from zbroker.core.streams import Streams

_ROLES: Final = tuple(Role)
_STEPS_MAX: Final = 64
_SENDS_MAX: Final = 4_000  # of one input; what a peer says is answered at most so often
_MESSAGE_BYTES_MAX: Final = 4 << 20


def nonce_of(number: int) -> bytes:
    """Of the peer with that number in broker(); 0 has the one of tests/vectors."""
    return bytes(range(16)) if number == 0 else bytes([number]) * 16


class _House:
    """A broker with a journal that is a list, and one client of each role that has said HELLO."""

    def __init__(self) -> None:
        self.now = 1 * S
        self.records: list[Record] = []
        self.engine = BrokerEngine("fuzz", self.now, make_streams=lambda s, e: Streams(s, e, lambda now: now // 1_000))
        self.engine.opened(Opened(0, 1, 0, 0, [], 0), "fuzz", self.now)
        self.sends = 0
        for number, role in enumerate(_ROLES):
            hello = Hello(role=role, nonce=nonce_of(number), credit_messages=50, credit_bytes=1 << 20)
            self.say(number, pack(hello, form=JSON if number % 2 else MSGPACK))

    def say(self, number: int, frames: list[bytes]) -> None:
        self.engine.receive(0, bytes([number]), frames, self.now)

    def say_plainly(self, link: int, number: int, frames: list[bytes]) -> None:
        """As a plain PUB or SUB does, after its connection has come."""
        self.engine.connected(link, bytes([number]), self.now)
        self.engine.receive(link, bytes([number]), frames, self.now)

    def carry_out(self, *, sync: bool) -> None:
        self.engine.turn(self.now)
        for _ in range(8):
            effects = self.engine.effects()
            if not effects:
                break
            for effect in effects:
                self._do(effect)
            if sync and self.records:
                self.engine.persisted(self.records[-1].index, self.now)

    def _do(self, effect: Any) -> None:
        match effect:
            case Send() if effect.link == SESSIONS:
                parse(effect.frames)
                self.sends += 1
                assert sum(map(len, effect.frames)) < _MESSAGE_BYTES_MAX
            case AppendEffect(record):
                assert record.index == len(self.records) + 1
                self.records.append(record)
                self.engine.placed(record.index, Position(1, record.index, 64))
            case OfferEffect(messages):
                self.sends += len(messages)
            case Read():
                found: list[Record | None] = [self.records[position.offset - 1] for position in effect.positions]
                self.engine.loaded(effect.token, found, self.now)


def broker(data: bytes) -> None:
    """Whatever clients say, in whatever order: it is answered or counted, and the broker goes on."""
    script, house = Script(data), _House()
    for _ in range(_STEPS_MAX):
        if script.is_over:
            break
        what = script.byte()
        number = what % len(_ROLES)
        match what // 32:
            case 5:
                house.engine.disconnected(0, bytes([number]), house.now)
            case 6:
                house.now += script.number(3)
                house.engine.handle_timeout(house.now)
            case 7:
                house.engine.storage(full=bool(what & 8), failed=bool(what & 16) and number == 0)
            case 3:
                house.say_plainly(
                    PLAIN_PUBLISHERS if what & 16 else PLAIN_SUBSCRIBERS, number, script.frames() or [b""]
                )
                house.carry_out(sync=True)
            case step:
                house.say(number, script.frames())
                house.carry_out(sync=step != 4)
    house.carry_out(sync=True)
    house.now += 60 * S
    house.engine.handle_timeout(house.now)
    house.carry_out(sync=True)
    assert house.sends < _SENDS_MAX
    msgspec.msgpack.encode(house.engine.status(house.now))
    msgspec.json.encode(house.engine.status(house.now))


def clients(data: bytes) -> None:
    """Whatever a broker or a peer says to a client's engine: it is counted, and the engine goes on."""
    script = Script(data)
    engine: Any = ENGINES[sorted(ENGINES)[script.byte() % len(ENGINES)]]()
    now = 1 * S
    engine.start(now)
    link = max((effect.link for effect in engine.effects()), default=1)
    for _ in range(_STEPS_MAX):
        if script.is_over:
            break
        what = script.byte()
        link = max([link, *(session.link for session in getattr(engine, "sessions", ()))])
        match what % 8:
            case 0:
                now += script.number(3)
                engine.handle_timeout(now)
            case 1:
                (engine.connected, engine.disconnected, engine.unreachable)[what // 8 % 3](link, now)
            case 2:
                engine.connected(link, now)
                engine.receive(link, b"p", pack(ready(services=["price"])), now)
            case 3:
                use(engine, now)
            case _:
                frames = script.frames()
                if frames:
                    engine.receive(link, b"p", frames, now)
        engine.events()
        engine.effects()
        engine.next_timeout()


def seeds_of_broker() -> list[bytes]:
    """Whole dialogues of each role, in both forms, and the vectors said by whom they belong to."""
    seeds = [bytes([number]) + written_frames(frames) for frames in vectors.messages() for number in (0, 3, 4, 5)]
    for form in (MSGPACK, JSON):
        said = b"".join(bytes([_ROLES.index(role)]) + frames for role, frames in _dialogue(form))
        seeds += [_plain() + said + _plain(), bytes([6 * 32]) + b"\x10\0\0" + said]
        seeds += [bytes([_ROLES.index(role)]) + frames for role, frames in _dialogue(form)]
    return seeds


def _plain() -> bytes:
    """A plain SUB subscribes, a plain PUB publishes."""
    return bytes([3 * 32]) + written_frames([b"\1a."]) + bytes([3 * 32 + 16]) + written_frames([b"a.b", b"body"])


def _dialogue(form: Form) -> list[tuple[Role, bytes]]:
    body = msgspec.msgpack.encode([1]) if form is MSGPACK else b"[1]"
    used = Codec.MSGPACK if form is MSGPACK else Codec.JSON
    topics = pack_columns(Columns(topics=["a.b"], topic=[0]), form)
    key = bytes([channel_of("a.b")])
    publisher = nonce_of(_ROLES.index(Role.PUBLISHER))
    consumer = nonce_of(_ROLES.index(Role.CONSUMER))
    headers: list[tuple[Role, Header, dict[str, bytes]]] = [
        (Role.REPLIER, Offer(1, "price"), {}),
        (Role.REQUESTER, Request(id=1, service="price", timeout_ms=5_000, codec=used, credit_messages=4, credit_bytes=999), {"payload": body}),
        (Role.REPLIER, Reply(id=1, codec=used), {"payload": body}),
        (Role.REQUESTER, Cancel(1), {}),
        (Role.SUBSCRIBER, Subscribe(1, "a.>"), {}),
        (Role.PUBLISHER, Publish(publisher=publisher, sequence=0, count=1, codec=used, topic="a.b"), {"payload": body, "key": key}),
        (Role.PUBLISHER, Publish(publisher=publisher, sequence=1, count=1, codec=used), {"payload": body, "key": key, "columns": topics}),
        (Role.CONSUMER, Join(id=1, stream="s", group="g", mode="batches"), {}),
        (Role.PRODUCER, Append(stream="s", producer=1, producer_epoch=0, sequence=1, previous=0, count=1, codec=used), {"payload": body}),
        (Role.CONSUMER, Settle(lease=1, action="ack", id=2, ranges=[(0, 0)]), {}),
        (Role.CONSUMER, Settle(lease=1, action="nack", delay_ms=5), {}),
        (Role.CONSUMER, Credit(90, 1 << 21), {}),
        (Role.CONSUMER, Hello(role=Role.CONSUMER, nonce=consumer, resume=Resume(0, 0, [1]), credit_messages=9, credit_bytes=999), {}),
        (Role.CONSUMER, Leave(3), {}),
        (Role.ADMIN, Admin(1, "status"), {}),
        (Role.ADMIN, Ping(4), {}),
        (Role.ADMIN, PongHeader(4), {}),
        (Role.PRODUCER, Goodbye(), {}),
    ]  # fmt: skip
    return [(role, written_frames(pack(header, form=form, **more))) for role, header, more in headers]


def seeds_of_clients() -> list[bytes]:
    """READY, then each vector, at each engine."""
    engines = range(len(ENGINES))
    frames = [frames for frames in vectors.messages() if frames]
    return [
        bytes([engine, 2, 3, 4]) + written_frames(one)
        for engine in engines
        for place, one in enumerate(frames)
        if place % len(engines) in (engine, (engine + 5) % len(engines))
    ]
