"""Bodies as a command line has them: JSON text or bytes in, lines out; nothing is bent to fit."""

from __future__ import annotations

import base64
import math
import os
from typing import Any, Final

import msgspec

from patterns.wire.codec import encode_body
from patterns.wire.errors import BadBody
from patterns.wire.messages import Codec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_SHOWN_MAX: Final = 40  # characters of a body that is no JSON; enough to recognise it


def parse(text: bytes, *, raw: bool) -> Any:
    """A body to send: the bytes themselves, or JSON that travels as it was written.

    Raises:
        BadBody: it is not JSON; the text says what to do.
    """
    if raw:
        return text
    try:
        _decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        shown = text[:_SHOWN_MAX].decode(errors="backslashreplace") + ("..." if len(text) > _SHOWN_MAX else "")
        raise BadBody(
            f"{shown!r} is not JSON ({error}); a string is '\"text\"', quotes included, or use --raw"
        ) from error
    return msgspec.Raw(text)  # not what was decoded: 1.0 and integers of 70 bits stay what they are


def of_argument(text: str, *, raw: bool) -> Any:
    """The BODY of a command line. Raises BadBody."""
    return parse(os.fsencode(text), raw=raw)


def codec_for(raw: bool) -> str:
    """What is written, or preferred: with --raw nothing is translated on the way."""
    return Codec.RAW.value if raw else Codec.JSON.value


def is_json(value: Any) -> bool:
    """Whether JSON can express a decoded body exactly. (msgspec would turn NaN into null and bytes into base64.)

    False, too, of one that is nested so deeply that nobody can look: a decoder goes down further than a function.
    """
    try:
        return _is_json(value)
    except RecursionError:
        return False


def _is_json(value: Any) -> bool:
    match value:
        case None | bool() | int() | str():
            return True
        case float():
            return math.isfinite(value)
        case list():
            return all(map(_is_json, value))
        case dict():
            return all(isinstance(key, str) for key in value) and all(map(_is_json, value.values()))
        case _:
            return False


def keyed(body: Any, encoded: bytes | None, *, raw: bool) -> dict[str, Any]:
    """`body`, or `body_base64` of as_bytes() when bytes are wanted or JSON cannot express it."""
    if not raw and is_json(body):
        return {"body": body}
    return {"body_base64": base64.b64encode(as_bytes(body, encoded)).decode()}


def as_bytes(body: Any, encoded: bytes | None) -> bytes:
    """A body's bytes: themselves, or as they were encoded, or else as they could have been."""
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    if encoded is not None:
        return encoded
    return _encode(body) if is_json(body) else encode_body(Codec.MSGPACK, body)


def shown(body: Any, encoded: bytes | None, *, raw: bool) -> bytes:
    """A body for people, without the end of the line: JSON; bytes as they are; what is neither, as body_base64."""
    if raw or isinstance(body, bytes | bytearray):
        return as_bytes(body, encoded)
    return _encode(body if is_json(body) else keyed(body, encoded, raw=False))


def line_of(fields: dict[str, Any]) -> bytes:
    """One JSON object, without the end of the line."""
    return _encode(fields)
