"""What the records of a Producer's own journal say, and where its batches lie. FORMAT.md 10. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from patterns.wire.messages import Codec
from patterns.wire.parcel import Parcel, Sender
from patterns.wire.records import Move, Position, Record, RecordKind, decode_lost

STREAM_ID: Final = 1
ROOM_BYTES: Final = 4_096  # a commit ends at such a block, and most batches are one of their own
_PLACES_A_CHUNK: Final = 4_096  # 30 bytes each: half of what a chunk may have
VERSION: Final = 1

said: Final = msgspec.msgpack.Encoder().encode
_Owner = tuple[str, Sender]


class Head(msgspec.Struct, array_like=True, gc=False):
    """The columns of an APPEND record: what else travels with the payload."""

    codec: Codec
    columns: bytes
    topic: str | None = None


class Place(msgspec.Struct, gc=False, array_like=True):
    """A batch that waits: its messages, the bytes that count for it, and where it lies."""

    count: int
    room: int
    position: Position


class _Told(msgspec.Struct):
    """The state in a checkpoint."""

    version: int
    stream: str
    sender: Sender | None
    settled: int
    next_number: int
    segment: int


_heads: Final = msgspec.msgpack.Decoder(Head)
_owners: Final = msgspec.msgpack.Decoder(_Owner)
_rows: Final = msgspec.msgpack.Decoder(list[tuple[int, int, int, int, int, int, int]])


def head_of(parcel: Parcel) -> bytes:
    """The columns of its record."""
    return said(Head(parcel.codec, parcel.columns, parcel.topic))


def parcel_of(record: Record) -> Parcel:
    """What head_of() and the payload say. Raises msgspec.MsgspecError for what we did not write."""
    head = _heads.decode(record.columns)
    return Parcel(record.base_offset, record.count, head.codec, head.columns, record.payload, head.topic)


class State:
    """Shown a log, knows what waits in it; a visit and a Restorer (patterns/wire/records.py).

    Attributes:
        next_number: of the next message.
        settled: messages up to this one do not wait.
        places: of the batches that do, in order.
        segment: that was written to when the last checkpoint began.
    """

    def __init__(self) -> None:
        self.stream = ""
        self.sender: Sender | None = None
        self.settled = self.segment = 0
        self.next_number = 1
        self.places: dict[int, Place] = {}

    def add(self, number: int, place: Place) -> None:
        """The next batch."""
        self.places[number] = place
        self.next_number = number + place.count

    def settle(self, last: int) -> list[int]:
        """The batches that do not wait any more, which are the caller's to remove."""
        numbers: list[int] = []
        for number in self.places:
            if number > last:
                break
            numbers.append(number)
        self.settled = max(self.settled, last)
        return numbers

    def move(self, move: Move) -> None:
        """A batch lies elsewhere."""
        place = self.places.get(move.base_offset) if move.stream_id == STREAM_ID else None
        if place is not None and move.position is not None:
            place.position = move.position

    # -- records --------------------------------------------------------------------------------------

    def visit(self, record: Record, position: Position) -> None:
        """A record of the log, in order."""
        match record.kind:
            case RecordKind.APPEND if record.stream_id == STREAM_ID:
                self._note(record, position)
            case RecordKind.OPS:
                for number in self.settle(msgspec.msgpack.decode(record.payload, type=int)):
                    del self.places[number]
            case RecordKind.CATALOG:
                self.stream, self.sender = _owners.decode(record.payload)
            case RecordKind.LOST:
                self._lost(record)

    def _note(self, record: Record, position: Position) -> None:
        number = record.base_offset
        if number >= self.next_number:
            self.add(number, Place(record.count, _room(position), position))

    def _lost(self, record: Record) -> None:
        """What is lost was given numbers, which a broker may know: none of them twice."""
        for damage in decode_lost(record.payload):
            for lost in damage.ranges:
                if lost.stream_id == STREAM_ID:
                    self.next_number = max(self.next_number, lost.base_offset + lost.count)
            self.next_number += damage.lost_bytes

    # -- checkpoints ----------------------------------------------------------------------------------

    def told(self) -> bytes:
        """All but the places."""
        return said(_Told(VERSION, self.stream, self.sender, self.settled, self.next_number, self.segment))

    def by_segment(self) -> dict[int, list[bytes]]:
        """The places, by segment, in pieces."""
        rows: dict[int, list[Any]] = {}
        for number, place in self.places.items():
            at = place.position
            row = (number, place.count, place.room, at.segment, at.offset, at.size, at.generation)
            rows.setdefault(at.segment, []).append(row)
        return {segment: list(_pieces(all_of_it)) for segment, all_of_it in rows.items()}

    def restore(self, chunks: Iterable[bytes]) -> bool:
        """See Restorer."""
        try:
            found = msgspec.msgpack.decode(b"".join(chunks), type=_Told)
        except msgspec.MsgspecError:
            return False
        if found.version != VERSION:
            return False
        self.stream, self.sender, self.settled = found.stream, found.sender, found.settled
        self.next_number, self.segment = found.next_number, found.segment
        self.places = {}
        return True

    def index(self, chunk: bytes) -> bool:
        """See Restorer: segments come in order."""
        try:
            rows = _rows.decode(chunk)
        except msgspec.MsgspecError:
            return False
        for number, count, room, *at in rows:
            if number > self.settled:
                self.places[number] = Place(count, room, Position(*at))
        return True

    def reindex(self, record: Record, position: Position) -> None:
        """See Restorer."""
        if record.stream_id == STREAM_ID and self.settled < record.base_offset < self.next_number:
            self.places[record.base_offset] = Place(record.count, _room(position), position)


def _room(position: Position) -> int:
    return -(-position.size // ROOM_BYTES) * ROOM_BYTES


def _pieces(rows: list[Any]) -> Iterator[bytes]:
    for begin in range(0, len(rows), _PLACES_A_CHUNK):
        yield said(rows[begin : begin + _PLACES_A_CHUNK])
