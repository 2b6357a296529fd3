"""Producing (SPEC.md 9.1): batches that are held until they are confirmed, and sent again when a connection was lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import groupby, takewhile
from typing import Any, Final

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientEngine, ClientSession, error_of
from patterns.wire.address import Address
from patterns.wire.attributes import pieces
from patterns.wire.codec import Encoded, encode
from patterns.wire.errors import OutcomeUnknown, SequenceGap, ZbrokerError
from patterns.wire.frames import MSGPACK, Message, pack, pack_columns
from patterns.wire.limits import COLUMNS_BYTES_TARGET, PRODUCER_BATCHES_REMEMBERED, RETRY_AFTER_MS_MAX
from patterns.wire.messages import (
    Append,
    Codec,
    Columns,
    Confirm,
    ErrorHeader,
    Hello,
    ProducerIdentity,
    Ready,
    Resume,
    Role,
)

_AGAIN_MS: Final = 10  # a gap has a cause that needs a moment; the broker says how long a full disk does


class Batch(msgspec.Struct, eq=False):
    """Messages on their way to the disk.

    Attributes:
        sequence: of the producer's batches, from 1; given when it is first sent. `previous` is the one before it.
        offset: of its first message, once confirmed.
        duplicate: it had been stored by an earlier try.
        repeats: what had been stored before under its message_id, as (first place, its offset, how many messages); the others
            of the batch have offsets one after the other.
        error: why it was refused; then it is not stored.
        done: confirmed or refused.
        sent: it left, and whether it is stored is not known.
        copies: of it on this connection that have no answer yet; only what is said of the last one counts.
    """

    count: int
    codec: Codec
    payload: bytes
    columns: bytes
    topic: str | None = None
    sequence: int = 0
    previous: int = 0
    offset: int = -1
    duplicate: bool = False
    error: ZbrokerError | None = None
    done: bool = False
    sent: bool = False
    copies: int = 0
    repeats: list[tuple[int, int, int]] | None = None

    def receipt(self, place: int) -> tuple[int, bool]:
        """Offset of a message, and whether it had been stored before; of a batch that is confirmed."""
        before = 0
        for first, offset, count in self.repeats or ():
            if first <= place < first + count:
                return offset + place - first, True
            before += count if first < place else 0
        return self.offset + place - before, self.duplicate

    @property
    def size(self) -> int:
        """What credit counts: the bytes of columns and payload."""
        return len(self.columns) + len(self.payload)


class Confirmed(msgspec.Struct, gc=False):
    """These batches are done, in order."""

    batches: list[Batch]


def batch_of(
    codec: Codec,
    part: Encoded,
    *,
    keys: list[str | None] | None = None,
    headers: list[dict[str, str] | None] | None = None,
    ids: list[str | None] | None = None,
    topics: list[str | None] | None = None,
    delays: list[int] | None = None,
) -> Batch:
    """A batch of encoded bodies with what differs between its messages."""
    if part.sizes is None and all(one is None for one in (keys, headers, ids, topics, delays)):
        return Batch(part.count, codec, part.payload, b"")
    columns = Columns()
    if part.sizes is not None:
        columns.sizes = part.sizes
    if keys is not None and any(key is not None for key in keys):
        columns.keys = keys
    if headers is not None and any(headers):
        columns.headers = headers
    if ids is not None and any(one is not None for one in ids):
        columns.ids = ids
    if delays is not None and any(delays):
        columns.delays = delays
    topic = _take_topics(topics, columns)
    packed = pack_columns(columns, MSGPACK)
    return Batch(part.count, codec, part.payload, b"" if packed == b"\x80" else packed, topic)


def _take_topics(topics: list[str | None] | None, columns: Columns) -> str | None:
    """One topic of all goes into the header; several into columns. All messages have one, or none has."""
    distinct = dict.fromkeys(topics or ())
    if len(distinct) <= 1:
        return next(iter(distinct), None)
    places = {topic: place for place, topic in enumerate(distinct)}
    columns.topics = [topic for topic in distinct if topic is not None]
    columns.topic = [places[topic] for topic in topics or ()]
    return None


def batches_of(
    codec: Codec,
    bodies: Sequence[Any],
    bytes_max: int,
    *,
    keys: list[str | None],
    headers: list[dict[str, str] | None],
    ids: list[str | None],
    topics: list[str | None],
    delays: list[int],
) -> list[Batch]:
    """Bodies and what travels with each, in as few batches as both allow. Raises BadBody, TooLarge."""
    batches: list[Batch] = []
    if any(topics) and None in topics:  # columns cannot say that one of them has none
        for _, run in groupby(range(len(bodies)), lambda place: topics[place] is None):
            first, *more = run
            run_of = slice(first, first + 1 + len(more))
            batches += batches_of(
                codec,
                bodies[run_of],
                bytes_max,
                keys=keys[run_of],
                headers=headers[run_of],
                ids=ids[run_of],
                topics=topics[run_of],
                delays=delays[run_of],
            )
        return batches
    begin = 0
    for part in encode(codec, bodies, bytes_max):
        end = begin + part.count
        batch = batch_of(
            codec,
            part,
            keys=keys[begin:end],
            headers=headers[begin:end],
            ids=ids[begin:end],
            topics=topics[begin:end],
            delays=delays[begin:end],
        )
        if len(batch.columns) > COLUMNS_BYTES_TARGET and part.count > 1:
            for a, b in pieces(begin, end, len(batch.columns)):
                batches += batches_of(
                    codec,
                    bodies[a:b],
                    bytes_max,
                    keys=keys[a:b],
                    headers=headers[a:b],
                    ids=ids[a:b],
                    topics=topics[a:b],
                    delays=delays[a:b],
                )
        else:
            batches.append(batch)
        begin = end
    return batches


class ProducerEngine(ClientEngine):
    """Appends batches to one stream. Each gets one Confirmed event, whatever happens to connections in between."""

    def __init__(
        self, addresses: Sequence[Address], stream: str, nonce: bytes, codec: Codec, jitter: Jitter, name: str = ""
    ) -> None:
        super().__init__(addresses, jitter)
        self._stream = stream
        self._nonce = nonce
        self._codec = codec
        self._name = name
        self._identity: ProducerIdentity | None = None
        self._cluster = ""
        self._sequence = 0
        self._accepted = 0  # the last sequence that the broker will have taken when it has read what we sent
        self._unconfirmed: deque[Batch] = deque()
        self._unsent: deque[Batch] = deque()
        self.unconfirmed_bytes = 0
        self.confirm = "durable"  # how safe a batch is to be before it is confirmed
        self._again_at: int | None = None
        self.hindrance: ZbrokerError | None = None  # why the broker does not take anything at the moment

    def _hello(self, session: ClientSession) -> Hello:
        known = session.ready
        resume = Resume(known.epoch, self._sequence) if known is not None else None
        return Hello(role=Role.PRODUCER, nonce=self._nonce, codec=self._codec, name=self._name, resume=resume)

    @property
    def unconfirmed(self) -> int:
        """Batches that are neither confirmed nor refused."""
        return len(self._unconfirmed) + len(self._unsent)

    def append(self, batches: Sequence[Batch], now: int) -> None:
        """Send batches in order, each as soon as credit admits it."""
        for batch in batches:
            self._unsent.append(batch)
            self.unconfirmed_bytes += batch.size
        self._send_unsent(now)

    def _send_unsent(self, now: int) -> None:
        session, unsent = self.sessions[0], self._unsent
        while unsent and self._may_send(session):
            batch = unsent.popleft()
            self._unconfirmed.append(batch)
            if batch.error is not None:
                continue  # refused for good, and only waits for its turn to be told
            if not batch.sequence:
                self._sequence += 1
                batch.sequence = self._sequence
            if batch.sequence > self._accepted:
                batch.previous, self._accepted = self._accepted, batch.sequence
            self._send(session, batch, now)
        if self._unconfirmed and self._unconfirmed[0].error is not None:
            self._tell_refused()

    def _may_send(self, session: ClientSession) -> bool:
        """Never more under way than the broker remembers: a retry of an older one could not be told from a new one."""
        return (
            self._identity is not None
            and self._again_at is None
            and session.is_ready
            and session.out.is_open
            and len(self._unconfirmed) < PRODUCER_BATCHES_REMEMBERED
        )

    def _send(self, session: ClientSession, batch: Batch, now: int) -> None:
        identity = self._identity
        assert identity is not None, "READY names the producer before anything is sent"
        header = Append(
            stream=self._stream,
            producer=identity.id,
            producer_epoch=identity.epoch,
            sequence=batch.sequence,
            previous=batch.previous,
            count=batch.count,
            codec=batch.codec,
            topic=batch.topic,
            confirm=self.confirm,
        )
        batch.sent = True
        batch.repeats = None  # whoever confirms it tells all of them again
        batch.copies += 1
        session.post(batch.count, batch.size, pack(header, columns=batch.columns, payload=batch.payload), now)

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        """Number anew if the broker knows this producer further or as another, and send again what has no confirm."""
        before, identity = self._identity, ready.producer
        if identity is None:
            return
        if before is not None and ready.cluster != self._cluster:
            self._forsake()
        self._identity, self._cluster = identity, ready.cluster
        self._accepted = identity.sequence
        self._again_at = None
        self._take_back()
        if before is None or (before.id, before.epoch) != (identity.id, identity.epoch):
            self._renumber(identity)
        self._send_unsent(now)

    def _forsake(self) -> None:
        """This is another cluster: whether the one before has stored what it was sent, nobody can say here."""
        error = OutcomeUnknown("the broker that this was sent to is gone, and the one here belongs to another cluster")
        self._take_back()
        done: list[Batch] = []
        for batch in [batch for batch in self._unsent if batch.sent]:
            self._unsent.remove(batch)
            batch.error = batch.error or error
            self._finish(batch, done)
        if done:
            self.news.append(Confirmed(done))

    def _take_back(self) -> None:
        """What has no confirm is to be sent again, before anything new."""
        for batch in (*self._unconfirmed, *self._taken_back()):
            batch.copies = 0
        self._unsent.extendleft(reversed(self._unconfirmed))
        self._unconfirmed.clear()

    def _taken_back(self) -> list[Batch]:
        """What was sent before and is to be sent again; it stands in front, and is no more than was under way."""
        return list(takewhile(lambda batch: batch.sequence, self._unsent))

    def _renumber(self, identity: ProducerIdentity) -> None:
        """A new identity or epoch counts from what it last accepted; what it had accepted of ours it has not."""
        self._sequence = identity.sequence
        for batch in self._unsent:
            batch.sequence = 0

    def on_credit(self, session: ClientSession, now: int) -> None:
        self._send_unsent(now)

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Confirm() as confirm:
                self._confirmed(confirm)
                if self._unsent or self._unconfirmed:
                    self._send_unsent(now)
            case ErrorHeader(scope="append", id=sequence) as header:
                self._batch_refused(sequence, error_of(header), now)
            case _:
                self.counters["unexpected"] += 1

    def _confirmed(self, confirm: Confirm) -> None:
        duplicates = set(confirm.duplicates) if confirm.duplicates else ()
        offsets = iter(confirm.offsets)
        done: list[Batch] = []
        if confirm.exceptions:
            self._note_repeats(confirm)
        self.hindrance = None
        while self._unconfirmed and self._unconfirmed[0].sequence <= confirm.sequence:
            batch = self._unconfirmed.popleft()
            if batch.error is None:
                batch.offset = next(offsets, -1)
                if batch.offset < 0:
                    batch.error = OutcomeUnknown("the broker confirmed a batch and named no offset for it")
                batch.duplicate = batch.sequence in duplicates
            self._finish(batch, done)
        if done:
            self.news.append(Confirmed(done))

    def _note_repeats(self, confirm: Confirm) -> None:
        """Of batches that this CONFIRM, or a later one, covers."""
        known = {batch.sequence: batch for batch in self._unconfirmed}
        for sequence, place, offset, count in confirm.exceptions:
            batch = known.get(sequence)
            if batch is not None:
                batch.repeats = [*(batch.repeats or ()), (place, offset, count)]

    def _finish(self, batch: Batch, done: list[Batch]) -> None:
        self.unconfirmed_bytes -= batch.size
        batch.done = True
        batch.payload = batch.columns = b""  # whoever asks for the receipt keeps the batch, and needs no bytes
        done.append(batch)

    def _batch_refused(self, sequence: int, error: ZbrokerError, now: int) -> None:
        """A copy of this batch is refused. One that was sent again meanwhile will have an answer of its own."""
        known = (*self._unconfirmed, *self._taken_back())
        refused = next((batch for batch in known if batch.sequence == sequence and not batch.done), None)
        if refused is None:
            return
        refused.copies -= 1
        if refused.copies > 0 or refused not in self._unconfirmed:
            return  # not the last copy; or it was taken back with the one before it, which was refused
        if error.retryable:
            self._put_off(refused, error, now)
            return
        refused.error = error
        refused.done = True
        self._tell_refused()

    def _tell_refused(self) -> None:
        """What is refused is told in its turn: when nothing before it is open any more."""
        done: list[Batch] = []
        while self._unconfirmed and self._unconfirmed[0].error is not None:
            self._finish(self._unconfirmed.popleft(), done)
        if done:
            self.news.append(Confirmed(done))

    def _put_off(self, refused: Batch, error: ZbrokerError, now: int) -> None:
        """Nothing from this batch on is stored (SPEC.md 9.1): take it back, in order, and send it again in a while."""
        if not isinstance(error, SequenceGap):
            self.hindrance = error
        while self._unconfirmed and self._unconfirmed[-1].sequence >= refused.sequence:
            taken_back = self._unconfirmed.pop()
            taken_back.sent = False
            self._unsent.appendleft(taken_back)
        self._accepted = refused.previous
        self._again_at = now + min(max(error.retry_after_ms, _AGAIN_MS), RETRY_AFTER_MS_MAX) * 1_000

    def withdraw(self, batch: Batch) -> bool:
        """Take a batch back for good if it is certain that the broker has not stored it; whether that was so."""
        if batch.sent or batch.done or batch not in self._unsent:
            return False
        self._unsent.remove(batch)
        self.unconfirmed_bytes -= batch.size
        return True

    def role_timeout(self) -> int | None:
        return self._again_at

    def on_timeout(self, now: int) -> None:
        """Send again, in order, what a passing hindrance kept out."""
        if self._again_at is None or now < self._again_at:
            return
        self._again_at = None
        self._send_unsent(now)

    def shed(self, error: ZbrokerError) -> None:
        """Give up what is unconfirmed: its outcome stays unknown."""
        done: list[Batch] = []
        for batch in (*self._unconfirmed, *self._unsent):
            batch.error = error
            self._finish(batch, done)
        self._unconfirmed.clear()
        self._unsent.clear()
        if done:
            self.news.append(Confirmed(done))
