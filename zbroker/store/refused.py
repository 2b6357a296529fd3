"""Messages of a Producer's own journal that no broker takes: `refused.jsonl` beside it, for people, one JSON object a message.

A line is on the disk before its batch is settled, so it may be written again after a crash: `number` says which those are. What a
crash has torn is cut off at the next open; that batch still waits.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from patterns.wire.codec import items_of
from patterns.wire.errors import ZbrokerError
from patterns.wire.messages import Codec, Columns
from patterns.wire.parcel import Parcel
from zbroker.store.disk import Disk
from zbroker.store.segment import write_whole

NAME: Final = "refused.jsonl"
_PIECE_BYTES: Final = 1 << 20

_json: Final = msgspec.json.Encoder()
_columns: Final = msgspec.msgpack.Decoder(Columns)


class Refused:
    """The file; it is made with the first line, and may be removed whenever no program has it open. Calls raise OSError.

    Attributes:
        messages, bytes: in it.
    """

    def __init__(self, disk: Disk, folder: str, wall_ms: Callable[[], int]) -> None:
        self._disk = disk
        self._folder = folder
        self._wall_ms = wall_ms
        self._handle: int | None = None
        self.messages = self.bytes = 0
        self._newest = 0  # number of the last message in it
        if NAME in disk.listdir(folder):
            self._look()

    @property
    def path(self) -> str:
        return f"{self._folder}/{NAME}"

    def _look(self) -> None:
        """Count the lines; what follows the last one is torn."""
        self._handle = self._disk.open(self.path)
        size, last = self._disk.size(self._handle), b""
        offset = 0
        while offset < size:
            piece = self._disk.pread(self._handle, _PIECE_BYTES, offset)
            self.messages += piece.count(b"\n")
            offset += len(piece)
            last = (last + piece)[-2 * _PIECE_BYTES :] if b"\n" not in piece else last + piece
            whole, _, rest = last.rpartition(b"\n")
            if whole:
                self._newest = _number_of(whole.rpartition(b"\n")[2]) or self._newest
            last = rest
        self.bytes = size - len(last)

    def add(self, stream: str, number: int, count: int, parcel: Parcel | None, error: ZbrokerError) -> None:
        """Write a line for each message of a batch, and sync them. None: what it held cannot be read."""
        if number <= self._newest:
            return  # by the life before, which a crash has ended before it was settled
        about = {"number": error.number, "name": error.name, "text": error.detail}
        shared = {"stream": stream, "refused_at_ms": self._wall_ms(), "error": about}
        messages = ({} for _ in range(count)) if parcel is None else _messages(parcel)
        lines = b"".join(
            _json.encode({"number": number + place, **shared, **one}) + b"\n" for place, one in enumerate(messages)
        )
        if self._handle is None:
            self._handle = self._disk.open(self.path, create=True)
            self._disk.fsync(self._handle)
            self._disk.fsync_dir(self._folder)
        write_whole(self._disk, self._handle, [lines], self.bytes)
        self._disk.fdatasync(self._handle)
        self.bytes += len(lines)
        self.messages += count
        self._newest = number + count - 1

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            self._disk.close(self._handle)
        self._handle = None


def _number_of(line: bytes) -> int:
    try:
        return int(msgspec.json.decode(line)["number"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return 0  # somebody has edited it


def _messages(parcel: Parcel) -> Iterator[dict[str, Any]]:
    """What each message is, as far as its batch can be understood."""
    columns = _columns.decode(parcel.columns) if parcel.columns else Columns()
    sizes = None if columns.sizes is msgspec.UNSET else columns.sizes
    items = items_of(parcel.codec, parcel.payload, parcel.count, sizes)
    lists: dict[str, Any] = {
        "key": columns.keys,
        "headers": columns.headers,
        "message_id": columns.ids,
        "topic": columns.topics,
    }
    lists["delay_ms"] = columns.delays
    for place, item in enumerate(items):
        told: dict[str, Any] = {"codec": parcel.codec.value}
        if parcel.topic is not None:
            told["topic"] = parcel.topic
        for name, values in lists.items():
            if values is not msgspec.UNSET and values[place] is not None:
                told[name] = values[place]
        told.update(_body(parcel.codec, bytes(item)))
        yield told


def _body(codec: Codec, item: bytes) -> dict[str, Any]:
    if codec is not Codec.RAW:
        try:
            body = msgspec.msgpack.decode(item) if codec is Codec.MSGPACK else msgspec.json.decode(item)
            if msgspec.json.decode(_json.encode(body)) == body:
                return {"body": body}
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError):
            pass  # bytes, keys that are no strings, ..: as it is
    return {"body_base64": base64.b64encode(item).decode()}
