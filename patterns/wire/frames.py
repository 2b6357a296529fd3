"""Frames to messages and back (SPEC.md 3). The only place that knows which frame is which."""

from __future__ import annotations

from typing import Final, NoReturn, TypeVar

import msgspec

from patterns.wire.errors import BadColumns, BadFrames, BadHeader, BadSize, UnknownCommand
from patterns.wire.limits import COLUMNS_BYTES_MAX, DEPTH_MAX, HEADER_BYTES_MAX
from patterns.wire.messages import KINDS, Columns, Header

Frames = list[bytes]
MAGIC: Final = b"ZB1"
PUBLISH_PREFIX: Final = b"ZB1P"
ECHO_PREFIX: Final = b"ZB1e"
_KEY_BYTES: Final = {b"P": 1, b"e": 16}  # what a plain SUB filters on follows the kind in frame 1

_Encoder = msgspec.msgpack.Encoder | msgspec.json.Encoder
_Decoders = dict[bytes, "msgspec.msgpack.Decoder[Header] | msgspec.json.Decoder[Header]"]
_T = TypeVar("_T")


class Form(msgspec.Struct, frozen=True, eq=False, repr_omit_defaults=True):
    """How a peer writes headers and columns; there are two, MSGPACK and JSON."""

    name: str
    encoder: _Encoder
    decoders: _Decoders
    columns: msgspec.msgpack.Decoder[Columns] | msgspec.json.Decoder[Columns]
    anything: msgspec.msgpack.Decoder[object] | msgspec.json.Decoder[object]
    openings: (
        bytes  # each array and map begins with one of these; so may other bytes, so their number alone refuses nothing
    )


MSGPACK: Final = Form(
    "msgpack",
    msgspec.msgpack.Encoder(),
    {kind: msgspec.msgpack.Decoder(header) for kind, header in KINDS.items()},
    msgspec.msgpack.Decoder(Columns),
    msgspec.msgpack.Decoder(object),
    bytes((*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF)),  # fixmap, fixarray, array and map 16, 32
)
JSON: Final = Form(
    "json",
    msgspec.json.Encoder(),
    {kind: msgspec.json.Decoder(header) for kind, header in KINDS.items()},
    msgspec.json.Decoder(Columns),
    msgspec.json.Decoder(object),
    b"{[",
)
_KIND_OF: Final = {header: kind for kind, header in KINDS.items()}
_FIRST_OF: Final = {header: MAGIC + kind for kind, header in KINDS.items()}
_PLAIN_FIRSTS: Final = {MAGIC + kind: kind for kind in KINDS if kind not in _KEY_BYTES}  # frame 1 without a key, whole


class Message(msgspec.Struct, gc=False):
    """One message as it came: the header decoded, the rest as bytes.

    Attributes:
        kind: one byte, a key of KINDS.
        key: what follows the kind in frame 1: a channel, a nonce, or nothing.
        columns: empty when there are none; columns_of() decodes them.
        payload: the bodies in the header's codec; a large PUBLISH may come as a memoryview, which leaves without a copy.
        form: how the peer writes, and wants to be written to.
        size: what credit counts: the bytes of columns and payload.
        frames: as they came.
    """

    kind: bytes
    key: bytes
    header: Header
    columns: bytes
    payload: bytes
    form: Form
    size: int
    frames: Frames


def pack(
    header: Header, *, columns: bytes = b"", payload: bytes = b"", key: bytes = b"", form: Form = MSGPACK
) -> Frames:
    """Frames of a message, trailing empty ones left out. A batch keeps its payload even when that is empty."""
    first = _FIRST_OF[type(header)]
    if key:
        first += key
    encoded = form.encoder.encode(header)
    if payload:
        return [first, encoded, columns, payload]
    return [first, encoded, columns] if columns else [first, encoded]


def pack_columns(columns: Columns, form: Form) -> bytes:
    """The columns' frame."""
    return form.encoder.encode(columns)


def kind_of(header: type[Header]) -> bytes:
    """The kind byte of a header type."""
    return _KIND_OF[header]


def parse(frames: Frames) -> Message:
    """The message in these frames (without routing id).

    Raises:
        UnknownCommand: well formed, but of a kind that this version does not know.
        RemoteProtocolError: anything else; the text names the frame and the rule.
    """
    columns = payload = b""
    match frames:
        case [first, header, columns, payload]:
            pass
        case [first, header]:
            pass
        case [first, header, columns]:
            pass
        case _:
            raise BadFrames(f"{len(frames)} frames; a message has two to four")
    key = b""
    kind = _PLAIN_FIRSTS.get(first)
    if kind is None:
        kind, key = _kind_and_key(first)
    if len(header) > HEADER_BYTES_MAX or len(columns) > COLUMNS_BYTES_MAX:
        raise BadSize(
            f"header of {len(header)} and columns of {len(columns)} bytes, at most {HEADER_BYTES_MAX} and {COLUMNS_BYTES_MAX}"
        )
    form = JSON if header.startswith(b"{") else MSGPACK
    try:
        decoded = form.decoders[kind].decode(header)
        too_deep = (
            len(header) > DEPTH_MAX
            and len(header) - len(header.translate(None, form.openings)) > DEPTH_MAX
            and _is_deep(form.anything.decode(header))
        )  # fmt: skip
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise BadHeader(f"header of kind {kind!r}: {error}") from error
    if too_deep:
        raise BadHeader(f"header of kind {kind!r} is nested deeper than {DEPTH_MAX}")
    return Message(kind, key, decoded, columns, payload, form, len(columns) + len(payload), frames)


def _kind_and_key(first: bytes) -> tuple[bytes, bytes]:
    """What frame 1 says, where it is not just the magic and a kind that we know."""
    kind, key = first[3:4], first[4:]
    if first[:3] != MAGIC or len(kind) != 1:
        raise BadFrames(f"frame 1 begins with {first[:4]!r}, not with 'ZB1' and a kind")
    if kind not in KINDS:
        raise UnknownCommand(f"kind {kind!r} is not in version 1 of ZB1")
    if len(key) != _KEY_BYTES.get(kind, 0):
        raise BadFrames(f"frame 1 of kind {kind!r} has {len(first)} bytes, {4 + _KEY_BYTES.get(kind, 0)} expected")
    return kind, key


def _is_deep(header: object) -> bool:
    level = [header]
    for _depth in range(DEPTH_MAX):
        values = (item for one in level for item in (one.values() if isinstance(one, dict) else one))  # type: ignore[attr-defined]
        level = [item for item in values if isinstance(item, dict | list)]
        if not level:
            return False
    return True


_NO_COLUMNS: Final = Columns()


def columns_of(message: Message, count: int) -> Columns:
    """The decoded columns of a batch, each checked to be `count` long.

    Raises:
        RemoteProtocolError: not a columns map, or a column of another length.
    """
    if not message.columns:
        return _NO_COLUMNS
    try:
        columns = message.form.columns.decode(message.columns)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise BadColumns(f"columns of kind {message.kind!r}: {error}") from error
    for name in ("sizes", "topic", "keys", "headers", "ids", "delays", "offsets", "published"):
        column = getattr(columns, name)
        if column is not msgspec.UNSET and len(column) != count:
            raise BadColumns(f"column {name!r} has {len(column)} items, the batch {count}")
    _check_topics(columns)
    return columns


def _check_topics(columns: Columns) -> None:
    match columns.topics, columns.topic:
        case msgspec.UNSET, msgspec.UNSET:
            return
        case list() as topics, list() as indexes:
            if indexes and max(indexes) >= len(topics):
                raise BadColumns(f"column 'topic' points at {max(indexes)}, there are {len(topics)} topics")
        case _:
            _refuse("columns 'topics' and 'topic' come together or not at all")


def _refuse(why: str) -> NoReturn:
    raise BadColumns(why)


def reform(columns: bytes, source: Form, target: Form) -> bytes:
    """The same columns in another form. They were checked when they came."""
    if source is target or not columns:
        return columns
    return target.encoder.encode(source.columns.decode(columns))
