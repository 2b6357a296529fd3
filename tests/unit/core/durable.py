"""Streams with real Sessions and real frames, over a journal that is a list. Clients are routing ids."""

from __future__ import annotations

from typing import Any, TypeVar

from patterns.wire import codec
from patterns.wire.engine import Close, Send
from patterns.wire.frames import JSON, MSGPACK, Form, Message, columns_of, pack, pack_columns, parse
from patterns.wire.limits import CREDIT_BYTES, CREDIT_MESSAGES, GRACE_MS
from patterns.wire.messages import (
    Admin,
    Append,
    Codec,
    Columns,
    Confirm,
    Credit,
    Deliver,
    ErrorHeader,
    Header,
    Hello,
    Join,
    Joined,
    Limits,
    Ready,
    Result,
    Resume,
    Role,
    Settle,
    Settled,
)
from patterns.wire.records import Position, Record
from patterns.wire.server import Session, Sessions
from patterns.wire.session import ServerState
from zbroker.core.checkpoint import STATE
from zbroker.core.effects import MOVED, Checkpoint, CheckpointEnd, Forget, Moved, Read
from zbroker.core.effects import Append as AppendEffect
from zbroker.core.streams import Streams

SECOND = 1_000_000
_H = TypeVar("_H", bound=Header)


class Durable:
    """One life of a broker over `records`, which survive it.

    Attributes:
        records: on disk. written: taken by the journal, not on disk. damaged: indexes that read as None. moved: likewise.
        reads: Read effects seen; held back while `slow_disk`.
    """

    def __init__(
        self,
        records: list[Record] | None = None,
        epoch: int = 1,
        now: int = 0,
        *,
        chunks: list[bytes] | None = None,
        **options: Any,
    ) -> None:
        self.records = records if records is not None else []
        self.written: list[Record] = []
        self.damaged: set[int] = set()
        self.moved: set[int] = set()  # their file is gone; in another one of a higher generation they are there
        self.reads: list[Read] = []
        self.slow_disk = False
        self.now = now
        self.epoch = epoch
        self.asked = 0
        self.closed: list[bytes] = []
        self.forgotten: list[tuple[int, int, int]] = []  # stream id, first and last offset: the journal was told
        self.inbox: dict[bytes, list[Message]] = {}
        self.producers: dict[bytes, Client] = {}  # those that a test keeps here
        self.effects: list[Any] = []
        self.sessions = Sessions(self, self.effects, epoch, {Role.CONSUMER: GRACE_MS * 1_000})
        self.streams = Streams(self.sessions, self.effects, lambda now: 1_700_000_000_000 + now // 1_000, **options)
        if chunks is not None:
            assert self.streams.restore(chunks)
        for record in self.records:
            self.streams.recover(record, _position(record))
        self.streams.opened(epoch, self.records[-1].index + 1 if self.records else 1, now)

    def admit(self, session: Session, hello: Hello, now: int) -> Ready:
        ready = Ready(
            version=1,
            epoch=self.epoch,
            limits=Limits(1 << 20, (1 << 20) + 65_536),
            credit_messages=CREDIT_MESSAGES,
            credit_bytes=CREDIT_BYTES,
        )
        self.streams.admit(session, hello, ready, now)
        return ready

    def ended(self, session: Session, reason: str, now: int) -> None:
        self.streams.ended(session, reason, now)

    # -- the loop -------------------------------------------------------------------------------------------------

    def send(
        self, peer: bytes, header: Header, *, columns: bytes = b"", payload: bytes = b"", form: Form = MSGPACK
    ) -> None:
        """One message from a client, and nothing else yet."""
        found = self.sessions.receive(0, peer, pack(header, columns=columns, payload=payload, form=form), self.now)
        if found is None:
            return
        if isinstance(header, Admin):
            self.streams.administer(found[0], header, self.now)
        else:
            self.streams.receive(*found, self.now)

    def turn(self, *, sync: bool = True) -> None:
        """The end of a loop turn; without `sync` the disk is still busy."""
        self.streams.turn(self.now)
        self._carry_out()
        if sync:
            self.sync()

    def sync(self) -> None:
        if self.written:
            self.records += self.written
            self.written = []
            self.streams.persisted(self.records[-1].index, self.now)
        self._carry_out()

    def pass_time(self, us: int) -> None:
        """Time in which every connected client is heard of; so only what else is due happens."""
        self.now += us
        for session in self.sessions:
            if session.state is ServerState.READY:
                session.heard_at = self.now
        self.sessions.handle_timeout(self.now)
        self.streams.handle_timeout(self.now)
        self.turn()

    def _carry_out(self) -> None:
        while self.effects:
            effects = list(self.effects)
            self.effects.clear()
            for effect in effects:
                match effect:
                    case Send():
                        self.inbox.setdefault(effect.peer, []).append(parse(effect.frames))
                    case AppendEffect(record):
                        self.written.append(record)
                        self.streams.placed(record.index, _position(record))
                    case Read():
                        self.reads.append(effect)
                        if not self.slow_disk:
                            self.answer(effect)
                    case Close():
                        self.closed.append(effect.peer)
                    case Forget():
                        self.forgotten += effect.ranges

    def answer(self, read: Read) -> None:
        by_index = {record.index: record for record in self.records}
        found: list[Record | Moved | None] = []
        for position in read.positions:
            is_gone = position.offset in self.moved and not position.segment > 1
            found.append(MOVED if is_gone else None if position.offset in self.damaged else by_index[position.offset])
        self.streams.loaded(read.token, found, self.now)
        self._carry_out()

    @staticmethod
    def position(record: Record) -> Position:
        return _position(record)

    # -- clients --------------------------------------------------------------------------------------------------

    def hello(self, peer: bytes, role: Role, **fields: Any) -> Ready | ErrorHeader:
        fields.setdefault("nonce", peer.ljust(16, b"."))
        form = fields.pop("form", MSGPACK)
        self.send(peer, Hello(role=role, **fields), form=form)
        self._carry_out()
        answer = self.inbox[peer].pop().header
        assert isinstance(answer, Ready | ErrorHeader)
        return answer

    def producer(self, peer: bytes = b"p", **fields: Any) -> Client:
        ready = self.hello(peer, Role.PRODUCER, **fields)
        assert isinstance(ready, Ready)
        assert ready.producer is not None
        return Client(self, peer, ready)

    def consumer(
        self, peer: bytes = b"c", stream: str = "s", group: str = "g", credit: int = 1_000, **fields: Any
    ) -> bytes:
        """A consumer that has joined."""
        join = {name: fields.pop(name) for name in ("start", "published_at", "mode") if name in fields}
        form = fields.get("form", MSGPACK)
        self.hello(peer, Role.CONSUMER, credit_messages=credit, credit_bytes=1 << 30, **fields)
        self.send(peer, Join(id=1, stream=stream, group=group, **join), form=form)
        self.turn()
        return peer

    def resume(self, old: bytes, new: bytes, leases: list[int], epoch: int | None = None, credit: int = 1_000) -> Ready:
        ready = self.hello(
            new,
            Role.CONSUMER,
            nonce=old.ljust(16, b"."),
            resume=Resume(epoch or self.epoch, 0, leases),
            credit_messages=credit,
            credit_bytes=1 << 30,
        )
        assert isinstance(ready, Ready)
        return ready

    def credit(self, peer: bytes, messages: int) -> None:
        self.send(peer, Credit(messages, 1 << 30))
        self.turn()

    def settle(self, peer: bytes, delivery: Delivery | int, action: str = "ack", **fields: Any) -> None:
        lease = delivery if isinstance(delivery, int) else delivery.lease
        self.send(peer, Settle(lease=lease, action=action, **fields))

    def disconnect(self, peer: bytes) -> None:
        self.sessions.disconnected((0, peer), self.now)

    def ask(self, verb: str, *, sync: bool = True, **arguments: Any) -> Any:
        """What an administrator is answered: the result, or the ERROR; None without an answer yet."""
        if b"admin" not in self.inbox:
            self.hello(b"admin", Role.ADMIN)
        self.asked += 1
        self.send(b"admin", Admin(self.asked, verb, arguments))
        self.turn(sync=sync)
        return self.answered()

    def answered(self) -> Any:
        """The answer to what an administrator asked last, if it has come."""
        box, self.inbox[b"admin"] = self.inbox[b"admin"], []
        for message in box:
            if isinstance(message.header, ErrorHeader | Result):
                assert message.header.id == self.asked
                if isinstance(message.header, ErrorHeader):
                    return message.header
                return codec.decode(message.header.codec, message.payload, 1, None)[0]
        return None

    def take(self, peer: bytes, kind: type[_H]) -> list[_H]:
        """What the client got and did not take yet, of this kind."""
        box = self.inbox.get(peer, [])
        self.inbox[peer] = [message for message in box if not isinstance(message.header, kind)]
        return [message.header for message in box if isinstance(message.header, kind)]

    def deliveries(self, peer: bytes) -> list[Delivery]:
        box = self.inbox.get(peer, [])
        self.inbox[peer] = [message for message in box if not isinstance(message.header, Deliver)]
        return [Delivery(message) for message in box if isinstance(message.header, Deliver)]

    def errors(self, peer: bytes) -> list[str]:
        return [error.name for error in self.take(peer, ErrorHeader)]

    def confirms(self, peer: bytes) -> list[tuple[int, list[int], list[int]]]:
        return [(c.sequence, c.offsets, c.duplicates) for c in self.take(peer, Confirm)]

    def settled(self, peer: bytes) -> list[tuple[int, int]]:
        return [(s.id, s.stale) for s in self.take(peer, Settled)]

    def joined(self, peer: bytes) -> list[int]:
        return [j.next for j in self.take(peer, Joined)]

    def group(self, name: str = "s/g") -> dict[str, Any]:
        return self.streams.status(1_000, self.now)["groups"][name]  # type: ignore[index, no-any-return]

    def stream(self, name: str = "s") -> dict[str, Any]:
        return self.streams.status(1_000, self.now)["streams"][name]  # type: ignore[index, no-any-return]

    def names(self) -> list[str]:
        """Of all streams."""
        return sorted(self.streams.status(1_000, self.now)["streams"])  # type: ignore[call-overload]

    def crash(self, **options: Any) -> Durable:
        """The next life: what was not on disk is gone."""
        return Durable(list(self.records), self.epoch + 1, self.now + SECOND, **options)


class Client:
    """A producer that numbers its batches."""

    def __init__(self, rig: Durable, peer: bytes, ready: Ready) -> None:
        assert ready.producer is not None
        self.rig, self.peer, self.identity = rig, peer, ready.producer
        self.sequence = ready.producer.sequence

    def append(
        self, *bodies: Any, stream: str = "s", columns: Columns | None = None, form: Form = MSGPACK, **fields: Any
    ) -> None:
        kind = fields.setdefault("codec", Codec.MSGPACK)
        encoded = codec.encode(kind, bodies)[0]
        if encoded.sizes is not None:
            columns = columns or Columns()
            columns.sizes = encoded.sizes
        fields.setdefault("previous", self.sequence)
        fields.setdefault("sequence", self.sequence + 1)
        fields.setdefault("count", len(bodies))
        fields.setdefault("producer", self.identity.id)
        fields.setdefault("producer_epoch", self.identity.epoch)
        self.sequence = max(self.sequence, fields["sequence"])
        payload = fields.pop("payload", encoded.payload)
        packed = pack_columns(columns, form) if columns else b""
        self.rig.send(self.peer, Append(stream=stream, **fields), columns=packed, payload=payload, form=form)


class Delivery:
    """A DELIVER with its bodies."""

    def __init__(self, message: Message) -> None:
        header = message.header
        assert isinstance(header, Deliver)
        self.header = header
        self.lease, self.offset, self.count, self.attempt = header.lease, header.offset, header.count, header.attempt
        self.columns = columns_of(message, header.count)
        sizes = self.columns.sizes if isinstance(self.columns.sizes, list) else None
        self.bodies = codec.decode(header.codec, message.payload, header.count, sizes)
        self.payload, self.form = message.payload, message.form

    @property
    def offsets(self) -> list[int]:
        return list(range(self.offset, self.offset + self.count))


def restarted(rig: Durable, epoch: int, *, with_checkpoint: bool) -> Durable:
    """The next life, from records, or from a checkpoint and those that came since it began."""
    if not with_checkpoint:
        return Durable(rig.records, epoch=epoch, now=rig.now)
    rig.streams.begin_checkpoint([], 1)
    while not any(isinstance(effect, CheckpointEnd) for effect in rig.effects):
        rig.streams.turn(rig.now)
    chunks = [one.chunk for one in rig.effects if isinstance(one, Checkpoint) and one.segment == STATE]
    return Durable(rig.records, epoch=epoch, now=rig.now, chunks=chunks)


def _position(record: Record) -> Position:
    return Position(1, record.index, 64 + len(record.columns) + len(record.payload))


__all__ = ["JSON", "MSGPACK", "SECOND", "Client", "Delivery", "Durable", "restarted"]
