"""What a broker and its sidecar say to one another: kinds, layouts, and how a stream of bytes is cut into them. No I/O.

Both ends are of one version and on one machine, so there is no negotiation, and columns of numbers are as the machine has
them. A message is a length of 4 bytes, a kind of 1, a body.

    B: ORDER                          open this folder
    S: STATE.. RESTORE                a checkpoint; B: ANSWER whether it is understood     } only to a broker
    S: INDEX                          where records lie; B: ANSWER                         } that knows nothing yet
    S: REINDEX.. FOUND..              single records; of FOUND, those above what the broker knows to be durable
    S: OPENED                         or FAULT; LOCKED before it while somebody else has the folder and is waited for

    B: RECORD..  S: DURABLE           up to an index, and where these records lie
    S: CHECKPOINT  B: PIECE.. END     one begins, its pieces, all was said
    S: MOVED                          batches lie elsewhere by now; after a restart, wherever that is not certain
    B: FORGET.., STATUS  S: STATUS
    B: CLOSE  S: CLOSED               or FAULT, at any time, for good
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from patterns.wire.records import Move, Opened, Position, Record
from zbroker.store import faults
from zbroker.store.faults import JournalError

ORDER, ANSWER, RECORD, PIECE, END, FORGET, STATUS, CLOSE = range(8)
STATE, RESTORE, INDEX, REINDEX, FOUND, OPENED, DURABLE, CHECKPOINT, FAULT, CLOSED, MOVED, LOCKED = range(8, 20)

HEAD: Final = struct.Struct(">IB")
_RECORD: Final = struct.Struct(">QBQQII")  # index, kind, stream id, base offset, count, bytes of columns
_RECORD_HEAD: Final = struct.Struct(">IB" + _RECORD.format[1:])
_POSITION: Final = struct.Struct(">QQII")  # segment, offset, size, generation
_DURABLE: Final = struct.Struct(">Q?")  # index, full
_PIECE: Final = struct.Struct(">Q")
_MOVE_NUMBERS: Final = 6  # segment, stream id, base offset; offset, size, generation
_PLACE_NUMBERS: Final = 3  # segment, offset, size: what was just written is of generation 0

Message = tuple[int, bytes, int, int]  # kind; the body lies in these bytes from here to there

_encode = msgspec.msgpack.Encoder().encode


class Order(msgspec.Struct, array_like=True):
    """What to open.

    Attributes:
        durable_index: None to be shown everything; else what the broker knows to be durable: it is shown what lies above.
        segment_bytes: 0 for the store's own choice.
        lock_wait_us: so long somebody else may hold the folder; a sidecar whose broker died is finishing.
    """

    folder: str
    durable_index: int | None = None
    lock_wait_us: int = 0
    segment_bytes: int = 0
    network_allowed: bool = False


class Welcome(msgspec.Struct, array_like=True):
    """The journal is open."""

    opened: Opened
    full: bool
    status: dict[str, Any]


class Inbox:
    """Cuts what arrives into messages; a body is not copied but where it arrived in pieces."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of a message that is not whole yet
        self._size = 0
        self._wanted = HEAD.size

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now."""
        if self._size:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        messages: list[Message] = []
        at, end = 0, len(data)
        wanted = HEAD.size
        while at + HEAD.size <= end:
            size, kind = HEAD.unpack_from(data, at)
            wanted = HEAD.size + size
            if at + wanted > end:
                break
            messages.append((kind, data, at + HEAD.size, at + wanted))
            at += wanted
            wanted = HEAD.size
        self._size, self._wanted = end - at, wanted
        if self._size:
            self._parts.append(data[at:])
        return messages


def said(kind: int, body: bytes = b"") -> bytes:
    """A message whose body is small, or is to be copied."""
    return HEAD.pack(len(body), kind) + body


def said_value(kind: int, value: Any) -> bytes:
    """A message whose body is a value."""
    return said(kind, _encode(value))


def value_of(message: Message, kind: Any = Any) -> Any:
    """The value in it."""
    _, data, start, end = message
    return msgspec.msgpack.decode(memoryview(data)[start:end], type=kind)


# -- records ----------------------------------------------------------------------------------------------------------


def record_head(record: Record) -> bytes:
    """RECORD up to the payload, which follows as it is."""
    columns = record.columns
    size = _RECORD.size + len(columns) + len(record.payload)
    return (
        _RECORD_HEAD.pack(
            size, RECORD, record.index, record.kind, record.stream_id, record.base_offset, record.count, len(columns)
        )
        + columns
    )


def record_of(data: bytes, start: int, end: int) -> Record:
    """The record in the body of RECORD."""
    index, kind, stream_id, base_offset, count, columns_bytes = _RECORD.unpack_from(data, start)
    start += _RECORD.size
    split = start + columns_bytes
    return Record(index, kind, stream_id, base_offset, count, data[start:split], data[split:end])


def said_at(kind: int, record: Record, position: Position) -> bytes:
    """FOUND or REINDEX: a record and where it lies."""
    place = _POSITION.pack(position.segment, position.offset, position.size, position.generation)
    body = record_head(record)[HEAD.size :] + record.payload
    return HEAD.pack(len(place) + len(body), kind) + place + body


def record_at(message: Message) -> tuple[Record, Position]:
    """What FOUND or REINDEX says."""
    _, data, start, end = message
    return record_of(data, start + _POSITION.size, end), Position(*_POSITION.unpack_from(data, start))


def said_piece(chunk: bytes, segment: int) -> bytes:
    """PIECE up to the chunk, which follows as it is."""
    return HEAD.pack(_PIECE.size + len(chunk), PIECE) + _PIECE.pack(segment)


def piece_of(message: Message) -> tuple[bytes, int]:
    """A chunk of a checkpoint, and its segment."""
    _, data, start, end = message
    return data[start + _PIECE.size : end], _PIECE.unpack_from(data, start)[0]


# -- what is durable --------------------------------------------------------------------------------------------------


def said_durable(index: int, full: bool, places: Iterable[Position]) -> bytes:
    """DURABLE, with the places of the records that became so, the last of which is `index`."""
    numbers = array("Q")
    for place in places:
        numbers.extend((place.segment, place.offset, place.size))
    return said(DURABLE, _DURABLE.pack(index, full) + numbers.tobytes())


def durable_of(message: Message) -> tuple[int, bool, list[Position]]:
    """What DURABLE says."""
    _, data, start, end = message
    index, full = _DURABLE.unpack_from(data, start)
    numbers = array("Q")
    numbers.frombytes(data[start + _DURABLE.size : end])
    triples = zip(*[iter(numbers)] * _PLACE_NUMBERS, strict=True)
    return index, full, [Position(*triple) for triple in triples]


def said_moved(moves: Iterable[Move]) -> bytes:
    """MOVED: where batches lie by now; a size of 0 says that one is gone."""
    numbers = array("Q")
    for move in moves:
        place = move.position or Position(move.segment, 0, 0)
        numbers.extend((move.segment, move.stream_id, move.base_offset, place.offset, place.size, place.generation))
    return said(MOVED, numbers.tobytes())


def moved_of(message: Message) -> list[Move]:
    """What MOVED says."""
    _, data, start, end = message
    numbers = array("Q")
    numbers.frombytes(data[start:end])
    return [
        Move(segment, stream_id, base, Position(segment, offset, size, generation) if size else None)
        for segment, stream_id, base, offset, size, generation in zip(*[iter(numbers)] * _MOVE_NUMBERS, strict=True)
    ]


# -- faults -----------------------------------------------------------------------------------------------------------


def said_fault(error: Exception) -> bytes:
    """FAULT: what the store raised, for the other process to raise it."""
    if isinstance(error, OSError):
        return said_value(FAULT, ["OSError", error.errno, error.strerror, error.filename])
    return said_value(FAULT, [type(error).__name__, str(error)])


def fault_of(message: Message) -> Exception:
    """The same error, with the same text."""
    name, *arguments = value_of(message)
    if name == "OSError":
        code, text, path = arguments
        return OSError(code, text, path) if path is not None else OSError(code, text)
    found = getattr(faults, name, JournalError)
    assert issubclass(found, JournalError)
    error: JournalError = found.__new__(found)
    error.args = (arguments[0],)
    return error
