"""Engines in the middle of a dialogue, and peers that say anything: the broker to its clients, each client to its broker."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from patterns.core.consume import ConsumerEngine, Delivered
from patterns.core.publish import PeerPublisherEngine, PublisherEngine
from patterns.core.reply import Requested
from patterns.core.request import PartReceived
from patterns.core.subscribe import PeerSubscriberEngine, SubscriberEngine
from patterns.wire.engine import Send
from patterns.wire.errors import HandlerFailed
from patterns.wire.frames import JSON, MSGPACK, Form, pack, pack_columns, parse
from patterns.wire.identity import publisher_of
from patterns.wire.messages import (
    Admin,
    Append,
    Audience,
    Cancel,
    Codec,
    Columns,
    Confirm,
    Credit,
    Deliver,
    Echo,
    ErrorHeader,
    Goodbye,
    Header,
    Hello,
    Join,
    Joined,
    Leave,
    Lost,
    NoSessionHeader,
    Offer,
    Offered,
    Partial,
    Ping,
    Publish,
    Reply,
    Request,
    Resume,
    Role,
    Settle,
    Settled,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Withdraw,
)
from patterns.wire.messages import Pong as PongHeader
from patterns.wire.names import channel_of
from patterns.wire.records import Opened, Position, Record
from tests.fuzz import vectors
from tests.fuzz.script import Script, written_frames
from tests.unit.core_clients.test_any_frames import ENGINES, use
from tests.unit.core_clients.wire import NONCE, S, ready
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import PLAIN_PUBLISHERS, PLAIN_SUBSCRIBERS, SESSIONS, Read
from zbroker.core.effects import Append as AppendEffect
from zbroker.core.effects import Offer as OfferEffect
from zbroker.core.streams import Streams

_ROLES: Final = tuple(Role)
_READERS_OF_JSON: Final = (Role.SUBSCRIBER, Role.REQUESTER)
_STEPS_MAX: Final = 64
_SENDS_MAX: Final = 4_000  # of one input; what a peer says is answered at most so often
_MESSAGE_BYTES_MAX: Final = 4 << 20
_EVENTS_KEPT: Final = 4
_TAIL_BYTES: Final = 64  # of the cache, so that most batches are read back
_BODY: Final = b"\x91\x01"


def nonce_of(number: int) -> bytes:
    """Of the peer with that number in broker(); 0 has the one of tests/vectors."""
    return bytes(range(16)) if number == 0 else bytes([number]) * 16


class House:
    """A broker with a journal that is a list, and one client of each role in the middle of its work."""

    def __init__(self) -> None:
        self.now = 1 * S
        self.records: list[Record] = []
        self.engine = BrokerEngine(
            "fuzz", self.now, make_streams=lambda s, e: Streams(s, e, lambda now: now // 1_000, _TAIL_BYTES)
        )
        self.engine.opened(Opened(0, 1, 0, 0, [], 0), "fuzz", self.now)
        self.sends = 0
        for number, role in enumerate(_ROLES):
            used = Codec.JSON if role in _READERS_OF_JSON else Codec.MSGPACK
            hello = Hello(role=role, nonce=nonce_of(number), codec=used, credit_messages=50, credit_bytes=1 << 20)
            self.say(number, pack(hello, form=JSON if number % 2 else MSGPACK))
        for role, frames in _opening():
            self.say(_ROLES.index(role), frames)
            self.carry_out(sync=True)

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
    script, house = Script(data), House()
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
    heard: list[Any] = []
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
                _react(engine, heard, what // 8, now)
            case _:
                frames = script.frames()
                if frames:
                    engine.receive(link, b"p", frames, now)
        heard = [*heard, *engine.events()][-_EVENTS_KEPT:]
        for effect in engine.effects():
            assert not isinstance(effect, Send) or sum(map(len, effect.frames)) < _MESSAGE_BYTES_MAX
        engine.next_timeout()
    engine.leave(now)
    engine.effects()


def _react(engine: Any, heard: list[Any], how: int, now: int) -> None:
    """What a program does with what it was handed."""
    if isinstance(engine, PublisherEngine | PeerPublisherEngine):
        engine.publish([(1, len(_BODY), _published(0, MSGPACK))], now)
    elif isinstance(engine, SubscriberEngine | PeerSubscriberEngine):
        engine.taken(now)
    elif isinstance(engine, ConsumerEngine):
        engine.use(("batches", "slices")[how % 2], now)
    for event in heard:
        match event:
            case Requested(token=token):
                if event.takes_parts and engine.has_room(token):
                    engine.part(token, engine.codec_to(token), _BODY, b"", now)
                if how % 3 == 0:
                    engine.reply(token, engine.codec_to(token), _BODY, b"", now)
                elif how % 3 == 1:
                    engine.fail(token, HandlerFailed("it failed"), now)
                else:
                    engine.end(token, now)
            case Delivered(lease=lease, offset=offset, count=count):
                engine.taken(count, 1, now)
                engine.settle(lease, offset, offset, ("ack", "nack", "reject", "release")[how % 4])
                engine.settle_surely(lease, offset, offset + count - 1, now)
                engine.tell(now)
            case PartReceived(id=number):
                engine.widen(number, 9, 999, now)


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


@cache
def _opening() -> list[tuple[Role, list[bytes]]]:
    """What has been said before the fuzzer begins: work is offered, waited for, asked for, published, stored and lent."""
    said: list[tuple[Role, Header, bytes]] = [
        (Role.REPLIER, Offer(1, "price"), b""),
        (Role.SUBSCRIBER, Subscribe(1, "a.>"), b""),
        (Role.CONSUMER, Join(id=1, stream="s", group="g", mode="batches"), b""),
        (Role.PRODUCER, _append(1), _BODY),
        (Role.REQUESTER, Request(id=1, service="price", timeout_ms=5_000, credit_messages=4, credit_bytes=999), _BODY),
        (Role.REQUESTER, Request(id=2, service="price", timeout_ms=9_000, idempotent=True), _BODY),
        (Role.REQUESTER, Request(id=3, service="nobody", timeout_ms=9_000), _BODY),
    ]
    first = [(role, pack(header, payload=payload)) for role, header, payload in said]
    return [*first, (Role.PUBLISHER, _published(0, MSGPACK))]


def _append(sequence: int, used: Codec = Codec.MSGPACK) -> Append:
    return Append(
        stream="s", producer=1, producer_epoch=1, sequence=sequence, previous=sequence - 1, count=1, codec=used
    )


def _published(sequence: int, form: Form, columns: bytes = b"") -> list[bytes]:
    publisher, key = publisher_of(nonce_of(_ROLES.index(Role.PUBLISHER))), bytes([channel_of("a.b")])
    topic = None if columns else "a.b"
    header = Publish(publisher=publisher, sequence=sequence, count=1, topic=topic)
    return pack(header, payload=_BODY, columns=columns, key=key, form=form)


def _dialogue(form: Form) -> list[tuple[Role, bytes]]:
    """How each role goes on from the opening."""
    body, used = (_BODY, Codec.MSGPACK) if form is MSGPACK else (b"[1]", Codec.JSON)
    consumer = nonce_of(_ROLES.index(Role.CONSUMER))
    resumed = Hello(
        role=Role.CONSUMER, nonce=consumer, resume=Resume(0, 0, [1]), credit_messages=9, credit_bytes=999, codec=Codec.JSON
    )  # fmt: skip
    headers: list[tuple[Role, Header, bytes]] = [
        (Role.REPLIER, Partial(id=1, sequence=0, codec=used), body),
        (Role.REQUESTER, Credit(9, 9_999, id=1), b""),
        (Role.REPLIER, Reply(id=1, codec=used), body),
        (Role.REPLIER, ErrorHeader(number=700, scope="request", id=2, code="no"), b""),
        (Role.REQUESTER, Cancel(3), b""),
        (Role.REQUESTER, Request(id=4, service="price", timeout_ms=5_000, codec=used), body),
        (Role.REPLIER, Withdraw("price"), b""),
        (Role.SUBSCRIBER, Subscribe(2, "*.b"), b""),
        (Role.SUBSCRIBER, Unsubscribe(2), b""),
        (Role.CONSUMER, Settle(lease=1, action="extend", id=2, delay_ms=900), b""),
        (Role.CONSUMER, Settle(lease=1, action="nack", delay_ms=5), b""),
        (Role.PRODUCER, _append(2, used), body),
        (Role.PRODUCER, _append(1), _BODY),
        (Role.CONSUMER, Settle(lease=1, action="ack", id=2, ranges=[(0, 0)]), b""),
        (Role.CONSUMER, Settle(lease=2, action="ack"), b""),
        (Role.CONSUMER, Join(id=1, stream="s", group="g", mode="slices"), b""),
        (
            Role.PRODUCER,
            msgspec.structs.replace(_append(3, used), count=3),
            msgspec.msgpack.encode([1, [2], "3"]) if form is MSGPACK else b'[1,[2],"3"]',
        ),
        (Role.CONSUMER, Settle(lease=3, action="reject", reason="bad"), b""),
        (Role.CONSUMER, Settle(lease=3, action="ack", ranges=[(0, 0), (2, 2)]), b""),
        (Role.CONSUMER, Credit(90, 1 << 21), b""),
        (Role.CONSUMER, resumed, b""),
        (Role.CONSUMER, Leave(3), b""),
        (Role.CONSUMER, Join(id=4, stream="s", start=0), b""),
        (Role.ADMIN, Admin(1, "status"), b""),
        (Role.ADMIN, Ping(4), b""),
        (Role.ADMIN, PongHeader(4), b""),
        (Role.PRODUCER, Goodbye(), b""),
    ]
    topics = pack_columns(Columns(topics=["a.b", "a.c"], topic=[1]), form)
    live = [(Role.PUBLISHER, _published(1, form)), (Role.PUBLISHER, _published(9, form, topics))]
    said = [*live, *((role, pack(header, payload=payload, form=form)) for role, header, payload in headers)]
    return [(role, written_frames(frames)) for role, frames in said]


def _to_clients(form: Form) -> list[bytes]:
    """What a broker says to one role or another in the middle of its work, and a requester to a replier."""
    publisher = bytes(range(16))
    echo = pack(Echo(publisher, {"0": 3}), key=NONCE, form=form)
    headers: list[tuple[Header, bytes]] = [
        (Hello(role=Role.REQUESTER, nonce=publisher, credit_messages=9, credit_bytes=999), b""),
        (Request(id=1, service="price", timeout_ms=900, credit_messages=4, credit_bytes=99), _BODY),
        (Credit(9, 999, id=1), b""),
        (Cancel(1), b""),
        (Offered(1), b""),
        (Partial(id=1, sequence=0), _BODY),
        (Reply(id=1), _BODY),
        (ErrorHeader(number=601, scope="request", id=2), b""),
        (ErrorHeader(number=108, scope="append", id=1, retryable=True), b""),
        (ErrorHeader(number=200, scope="stream", id=1), b""),
        (Subscribed(1), b""),
        (Lost(messages=3, upstream=4), b""),
        (Lost(first=3, last=4), b""),
        (Audience(4), b""),
        (Confirm(1, [0], [1]), b""),
        (Joined(1, 0), b""),
        (Deliver(lease=1, offset=0, count=1, published_at=9), _BODY),
        (Settled(1, 0), b""),
        (Credit(900, 1 << 22), b""),
        (Ping(3), b""),
        (Goodbye("moving", 5), b""),
        (NoSessionHeader(9), b""),
    ]
    said = [pack(header, payload=payload, form=form) for header, payload in headers]
    return [
        written_frames(frames) for frames in (*said[:10], _published(0, form), _published(7, form), echo, *said[10:])
    ]


def seeds_of_clients() -> list[bytes]:
    """Each engine greeted, and told what there is to tell: all of it, and each message by itself; and the vectors."""
    seeds: list[bytes] = []
    for engine in range(len(ENGINES)):
        greeted = bytes([engine, 1, 2, 3])
        for form in (MSGPACK, JSON):
            told = [b"\4" + frames for frames in _to_clients(form)]
            seeds.append(greeted + b"\3".join(told))
            seeds += [greeted + one + bytes([3, 3 + 8, 3 + 16]) + one for one in told]
    frames = [frames for frames in vectors.messages() if frames]
    return seeds + [bytes([place % len(ENGINES), 2, 3, 4]) + written_frames(one) for place, one in enumerate(frames)]
