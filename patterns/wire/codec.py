"""Bodies to payloads and back (SPEC.md 3): one array a batch, never an item at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Final

import msgspec

from patterns.wire.errors import BadArgument, BadBody, TooLarge, ValidationFailed
from patterns.wire.limits import BATCH_BYTES_TARGET, BATCH_MESSAGES_MAX, BODY_BYTES_MAX
from patterns.wire.messages import Codec
from patterns.wire.portable import json_of
from patterns.wire.words import counted, described

_msgpack_encode = msgspec.msgpack.Encoder().encode
_json_encode = msgspec.json.Encoder().encode
_msgpack_items = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_json_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_msgpack_decode = msgspec.msgpack.Decoder().decode
_json_decode = msgspec.json.Decoder().decode

# What msgspec raises on bytes or objects that it cannot turn into the other.
_DECODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, UnicodeError)
_ENCODE_ERRORS: Final = (*_DECODE_ERRORS, TypeError, ValueError, OverflowError)


class Encoded(msgspec.Struct, gc=False):
    """Part of a batch, ready to leave: `count` bodies; `sizes` for raw ones when there are several."""

    count: int
    payload: bytes
    sizes: list[int] | None = None


def encode_body(codec: Codec, body: Any) -> bytes:
    """One body as an item of the payload.

    Raises:
        BadBody: the codec cannot express it; the text says which type.
        TooLarge: above the limit of a body.
    """
    try:
        item = (
            bytes(body)
            if codec is Codec.RAW
            else _msgpack_encode(body)
            if codec is Codec.MSGPACK
            else json_of([body])[1:-1]  # without the brackets
        )
    except BadBody as error:
        raise BadBody(f"body of type {type(body).__name__}: {error.detail}") from error
    except _ENCODE_ERRORS as error:
        raise BadBody(f"body of type {type(body).__name__} cannot be written as {codec}: {error}") from error
    if len(item) > BODY_BYTES_MAX:
        raise too_large(len(item), codec, BODY_BYTES_MAX)
    return item


def too_large(size: int, codec: Codec, bytes_max: int) -> TooLarge:
    """The error of a body above the limit, which counts what it is on the wire, quotes and lengths included."""
    return TooLarge(
        f"body of {size} bytes, encoded as {codec.value}; at most {bytes_max}; send a reference to large data instead"
    )


def encode(codec: Codec, bodies: Sequence[Any], bytes_max: int = BODY_BYTES_MAX) -> list[Encoded]:
    """Bodies as few payloads of about 64 KiB; usually one, since callers collect as many as fit.

    Raises:
        BadBody, TooLarge: one of the bodies; encode_body() on each tells which.
    """
    if codec is Codec.RAW:
        return _encode_raw(bodies, bytes_max)
    try:
        payload = _msgpack_encode(bodies) if codec is Codec.MSGPACK else json_of(bodies)
    except BadBody:
        raise
    except _ENCODE_ERRORS as error:
        raise BadBody(f"a body cannot be written as {codec}: {error}") from error
    if len(payload) <= min(2 * BATCH_BYTES_TARGET, bytes_max) and len(bodies) <= BATCH_MESSAGES_MAX:
        return [Encoded(len(bodies), payload)]
    items = items_of(codec, payload, len(bodies), None)
    return [Encoded(len(part), join(codec, part)) for part in _split(codec, items, bytes_max)]


def encode_only(codec: Codec, body: Any) -> bytes:
    """The payload of a single body.

    Raises:
        BadBody: the codec cannot express it; the text says which type.
        TooLarge: above the limit of a body.
    """
    if codec is Codec.RAW and type(body) is bytes and len(body) <= BODY_BYTES_MAX:
        return body  # what a batch pays to join and to count its bodies is half of what a small request costs here
    return encode(codec, [body])[0].payload


def _encode_raw(bodies: Sequence[Any], bytes_max: int) -> list[Encoded]:
    try:
        payload = b"".join(bodies)
        sizes = list(map(len, bodies))
    except TypeError as error:
        raise BadBody(f"codec raw takes bytes: {error}") from error
    if (
        len(payload) <= min(2 * BATCH_BYTES_TARGET, bytes_max)
        and len(bodies) <= BATCH_MESSAGES_MAX
        and len(payload) == sum(sizes)
    ):
        return [Encoded(len(sizes), payload, sizes if len(sizes) > 1 else None)]
    return [
        Encoded(len(part), b"".join(part), [len(item) for item in part] if len(part) > 1 else None)
        for part in _split(Codec.RAW, [bytes(body) for body in bodies], bytes_max)
    ]


def _split(codec: Codec, items: Sequence[Any], bytes_max: int) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for item in map(bytes, items):
        if len(item) > bytes_max:
            raise too_large(len(item), codec, bytes_max)
        if part and (size + len(item) > BATCH_BYTES_TARGET or len(part) == BATCH_MESSAGES_MAX):
            yield part
            part, size = [], 0
        part.append(item)
        size += len(item)
    if part:
        yield part


def items_of(codec: Codec, payload: bytes, count: int, sizes: Sequence[int] | None) -> list[Any]:
    """The bodies still encoded: Raw for msgpack and JSON, bytes for raw. Checks the structure (SPEC.md 3).

    Raises:
        BadBody: not an array of `count` items, JSON that is not UTF-8, or sizes that do not add up.
    """
    if codec is Codec.RAW:
        return _raw_items(payload, count, sizes)
    try:
        if codec is Codec.JSON and not payload.isascii():
            payload.decode()
        items: list[Any] = _msgpack_items(payload) if codec is Codec.MSGPACK else _json_items(payload)
    except _DECODE_ERRORS as error:
        raise BadBody(f"payload is not an array in {codec}: {error}") from error
    if len(items) != count:
        raise BadBody(f"payload holds {counted(len(items), 'body', 'bodies')}, the header says {count}")
    return items


def _raw_items(payload: bytes, count: int, sizes: Sequence[int] | None) -> list[Any]:
    if count == 1 and sizes is None:
        return [payload]
    if sizes is None or len(sizes) != count or sum(sizes) != len(payload):
        raise BadBody(f"raw payload of {len(payload)} bytes needs {count} sizes that add up to it")
    if (
        count and sizes[0] and sizes.count(sizes[0]) == count
    ):  # records of one size are common, and six times as fast this way
        return list(struct.unpack(f"{sizes[0]}s" * count, payload))
    ends = list(accumulate(sizes))
    return [payload[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def check(codec: Codec, payload: bytes, count: int, sizes: Sequence[int] | None) -> None:
    """What a receiver owes at the door. Raises BadBody, TooLarge."""
    if not 1 <= count <= BATCH_MESSAGES_MAX:
        raise BadBody(f"batch of {count} messages, 1 to {BATCH_MESSAGES_MAX} allowed")
    if codec is Codec.RAW:
        if not (count == 1 and sizes is None) and (sizes is None or len(sizes) != count or sum(sizes) != len(payload)):
            raise BadBody(f"raw payload of {len(payload)} bytes needs {count} sizes that add up to it")
    elif codec is Codec.MSGPACK:
        _check_msgpack(payload, count)
    else:
        items_of(codec, payload, count, None)
    if count > 1 and len(payload) > BODY_BYTES_MAX + BATCH_BYTES_TARGET:
        raise TooLarge(f"batch of {len(payload)} bytes, at most {BODY_BYTES_MAX + BATCH_BYTES_TARGET}")


class _Skipped(msgspec.Struct, array_like=True):
    """Decodes any array and keeps nothing: 3 us for 640 items, where a list of Raw takes 27 (zbroker/core/DECISIONS.md)."""


_msgpack_skip = msgspec.msgpack.Decoder(_Skipped).decode


def _check_msgpack(payload: bytes, count: int) -> None:
    try:
        _msgpack_skip(payload)
    except _DECODE_ERRORS as error:
        raise BadBody(f"payload is not an array in msgpack: {error}") from error
    length = _array_length(payload)
    if length != count:
        raise BadBody(f"payload holds {length} bodies, the header says {count}")


def _array_length(payload: bytes) -> int:
    """Of a valid msgpack array: fixarray, array 16 or array 32."""
    first = payload[0]
    if first < 0xA0:
        return first & 0x0F
    return int.from_bytes(payload[1:3] if first == 0xDC else payload[1:5], "big")


def join(codec: Codec, items: Sequence[Any]) -> bytes:
    """A payload of bodies that are encoded already; the sizes of raw ones are the caller's."""
    if codec is Codec.RAW:
        return b"".join(items)
    raws = [item if isinstance(item, msgspec.Raw) else msgspec.Raw(item) for item in items]
    return _msgpack_encode(raws) if codec is Codec.MSGPACK else _json_encode(raws)


def decode(codec: Codec, payload: bytes, count: int, sizes: Sequence[int] | None) -> list[Any]:
    """All bodies of a payload as Python values. Raises BadBody."""
    if codec is Codec.RAW:
        return _raw_items(payload, count, sizes)
    try:
        bodies = _msgpack_decode(payload) if codec is Codec.MSGPACK else _json_decode(payload)
    except _DECODE_ERRORS as error:
        raise BadBody(f"payload is not valid {codec}: {error}") from error
    if not isinstance(bodies, list) or len(bodies) != count:
        raise BadBody(f"payload is not an array of {count} bodies in {codec}")
    return bodies


class BodyDecoder:
    """Decodes one body at a time into a type; for requests, and for batches in which one body is bad."""

    def __init__(self, type: Any = Any) -> None:
        self._type = type
        self._passes_raw = type in (Any, bytes)
        try:
            self._msgpack = msgspec.msgpack.Decoder(type)
        except TypeError as error:
            raise BadArgument(
                f"type={type!r}: a msgspec Struct, or an annotation such as dict[str, int]; {error}"
            ) from error
        self._json = msgspec.json.Decoder(type)
        self._msgpack_only = msgspec.msgpack.Decoder(tuple[type])
        self._json_only = msgspec.json.Decoder(tuple[type])

    def only(self, codec: Codec, payload: bytes) -> Any:
        """The body of a payload that holds one. Raises as decode()."""
        if codec is Codec.RAW and self._passes_raw:
            return payload
        try:
            if codec is Codec.MSGPACK:
                return self._msgpack_only.decode(payload)[0]
            if codec is Codec.JSON:
                return self._json_only.decode(payload)[0]
        except Exception:  # noqa: BLE001  see decode(), which finds the words
            pass
        return self.decode(codec, items_of(codec, payload, 1, None)[0])

    def decode(self, codec: Codec, item: Any) -> Any:
        """Raises: ValidationFailed with the path in the body, or with what the program's own type raises while it is made;
        BadBody when it is not of the codec at all.
        """
        try:
            if codec is Codec.RAW:
                return item if self._passes_raw else msgspec.convert(item, self._type)
            return self._msgpack.decode(item) if codec is Codec.MSGPACK else self._json.decode(item)
        except msgspec.ValidationError as error:
            raise ValidationFailed(f"body is no {self._name}: {error}") from error
        except _DECODE_ERRORS as error:
            raise BadBody(f"body is not valid {codec}: {error}") from error
        except Exception as error:  # a __post_init__ may raise anything, and msgspec hands on all but two kinds
            raise ValidationFailed(f"body is no {self._name}: its own code raises {described(error)}") from error

    @property
    def _name(self) -> object:
        return getattr(self._type, "__name__", self._type)
