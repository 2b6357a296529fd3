"""Payloads from one codec into another, strictly: what the target cannot express is refused with its path, never bent.

msgspec alone would turn NaN into null, bytes into base64 and integer keys into strings. raw is never translated.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import msgspec

from patterns.wire.errors import Untranslatable
from patterns.wire.messages import Codec

_FLOAT_MAX: Final = 1.7976931348623157e308
_Finite = Annotated[float, msgspec.Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]  # msgspec holds NaN to be outside of any bounds
_INTEGER_MIN: Final = -(2**63)
_INTEGER_MAX: Final = 2**64 - 1  # what msgpack can hold
_UNROLLED: Final = 6  # a typed decoder checks while it decodes, 3 % dearer than none; what is deeper is walked


def _typed(depth: int) -> Any:
    """The type of what JSON can express in `depth` levels."""
    scalar = None | bool | int | _Finite | str
    inner = _typed(depth - 1) if depth > 1 else scalar
    return scalar | list[inner] | dict[str, inner]  # type: ignore[valid-type]


_json_decode = msgspec.json.Decoder().decode
_json_encode = msgspec.json.Encoder().encode
_msgpack_encode = msgspec.msgpack.Encoder().encode
_msgpack_decode = msgspec.msgpack.Decoder().decode
_FAULTS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, ValueError, OverflowError)
_msgpack_checked = msgspec.msgpack.Decoder(list[_typed(_UNROLLED)]).decode  # type: ignore[misc]


def needed(source: Codec, target: Codec) -> bool:
    """Whether a payload must be translated for a peer that wants `target`; raw stays raw, labelled."""
    return source is not target and source is not Codec.RAW and target is not Codec.RAW


def translate(payload: bytes, source: Codec, target: Codec) -> bytes:
    """The payload, one array, in the other codec.

    Raises:
        Untranslatable: with the path of what the target cannot express, or of what is no value at all.
    """
    assert needed(source, target)
    return _to_json(payload) if target is Codec.JSON else _to_msgpack(payload)


def _to_json(payload: bytes) -> bytes:
    try:
        return _json_encode(_msgpack_checked(payload))
    except msgspec.ValidationError:
        pass  # something that JSON cannot express, or nested deeper than the type: the walk tells which, and where
    except _FAULTS as error:
        raise Untranslatable(f"msgpack body cannot be written as JSON: {error}") from error
    try:
        bodies = _msgpack_decode(payload)
        _walk(bodies, "$")
        return _json_encode(bodies)
    except Untranslatable:
        raise
    except _FAULTS as error:
        raise Untranslatable(f"msgpack body cannot be written as JSON: {error}") from error


def _walk(value: Any, path: str) -> None:
    """Refuse what JSON cannot express."""
    match value:
        case list():
            for place, item in enumerate(value):
                _walk(item, f"{path}[{place}]")
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise Untranslatable(f"key {key!r} at {path}: JSON keys are strings")
                _walk(item, f"{path}.{key}")
        case None | bool() | int() | str():
            pass
        case float():
            if not math.isfinite(value):
                raise Untranslatable(f"{value} at {path}: JSON has finite numbers only")
        case _:
            raise Untranslatable(f"{type(value).__name__} at {path}: JSON cannot express it")


def _to_msgpack(payload: bytes) -> bytes:
    try:
        bodies = _json_decode(payload)
    except _FAULTS as error:
        raise Untranslatable(f"JSON body cannot be written as msgpack: {error}") from error
    try:
        return _msgpack_encode(bodies)
    except OverflowError as error:
        path = _integer_path(bodies, "$")
        raise Untranslatable(f"integer at {path}: msgpack holds {_INTEGER_MIN} to {_INTEGER_MAX}") from error
    except RecursionError as error:
        raise Untranslatable("JSON body is nested too deeply") from error


def _integer_path(value: Any, path: str) -> str:
    """Where the first integer is that 64 bits cannot hold; empty when there is none."""
    if isinstance(value, int):
        return "" if _INTEGER_MIN <= value <= _INTEGER_MAX else path
    if isinstance(value, list):
        found = (_integer_path(item, f"{path}[{place}]") for place, item in enumerate(value))
    elif isinstance(value, dict):
        found = (_integer_path(item, f"{path}.{key}") for key, item in value.items())
    else:
        return ""
    return next(filter(None, found), "")
