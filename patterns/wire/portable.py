"""What JSON can express of Python values, and the path of what it cannot (SPEC.md 3.1).

msgspec alone would write NaN as null, bytes as base64 and 1 as the key "1". Here are types and a walk, no codec's name.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from patterns.wire.errors import BadBody
from patterns.wire.limits import BODY_DEPTH_MAX

INTEGER64_MIN: Final = -(2**63)
INTEGER64_MAX: Final = 2**64 - 1  # msgpack holds both, int 64 and uint 64
_FLOAT_MAX: Final = 1.7976931348623157e308
_Finite = Annotated[float, msgspec.Meta(ge=-_FLOAT_MAX, le=_FLOAT_MAX)]  # msgspec holds NaN to be outside of any bounds
_UNROLLED: Final = 6  # levels that msgspec checks by itself, 3 % dearer than none; what is deeper is walked
_WIDE: Final = 8  # items from which on msgspec's look at the next levels is worth its 1.5 us in vain
_KEY_SHOWN_MAX: Final = 64  # characters of a key in a path; enough to find it
_BYTES: Final = (bytes, bytearray, memoryview)


def _typed(depth: int) -> Any:
    """The type of what JSON can express in `depth` levels."""
    scalar = None | bool | int | _Finite | str
    inner = _typed(depth - 1) if depth > 1 else scalar
    return scalar | list[inner] | dict[str, inner]  # type: ignore[valid-type]


Bodies: Any = list[_typed(_UNROLLED)]  # type: ignore[misc]  # for a decoder that checks while it decodes


class _Batch(msgspec.Struct, array_like=True, gc=False):
    """Bodies as a field: msgspec prepares the type of a struct once, and a bare list[..] anew in each convert()."""

    bodies: Bodies


_encode = msgspec.json.Encoder().encode
_convert = msgspec.convert
_ENCODE_ERRORS: Final = (msgspec.MsgspecError, RecursionError, TypeError, ValueError, OverflowError)
_CONVERT_ERRORS: Final = (*_ENCODE_ERRORS, AttributeError)


def _is_portable(bodies: Sequence[Any]) -> bool:
    """Whether JSON can express them, as far as msgspec tells by itself: 170 ns for six fields."""
    try:
        _convert((bodies,), _Batch)
    except _CONVERT_ERRORS:
        return False
    return True


class Fault(NamedTuple):
    """Where a value is that cannot be expressed, `[3].order.lines[0].price`, and what it is."""

    path: str
    reason: str


class Stand(msgspec.Struct, frozen=True, gc=False):
    """In a decoded body, what has no Python value of its own: the reason why nothing can be written for it."""

    reason: str


def step(key: Any) -> str:
    """A map's key as part of a path; ASCII or an identifier, so that any terminal and any codec can show it."""
    if not isinstance(key, str):
        return f"[{key!r:.{_KEY_SHOWN_MAX}}]"
    shown = key[:_KEY_SHOWN_MAX]
    return f".{shown}" if shown.isidentifier() else f"[{json.dumps(shown)}]"


def fault_in(bodies: Sequence[Any], *, integers_64: bool = False) -> Fault | None:
    """The first value that JSON cannot express, or, with `integers_64`, msgpack.

    Args:
        bodies: decoded ones.
        integers_64: whether integers beyond 64 bits are faults too; in JSON they are none.
    """
    return _fault_in_items(enumerate(bodies), integers_64, BODY_DEPTH_MAX)


def _fault(value: Any, integers_64: bool, levels: int) -> Fault | None:
    if isinstance(value, dict | list | tuple):
        if not levels:
            return Fault("", f"nested deeper than {BODY_DEPTH_MAX} levels")
        if len(value) >= _WIDE and levels > _UNROLLED and not integers_64 and _is_portable([value]):
            return None
        if isinstance(value, dict):
            return _fault_in_map(value, integers_64, levels - 1)
        return _fault_in_items(enumerate(value), integers_64, levels - 1)
    reason = _reason(value, integers_64)
    return Fault("", reason) if reason else None


def _fault_in_items(items: Iterator[tuple[int, Any]], integers_64: bool, levels: int) -> Fault | None:
    for place, item in items:
        found = _fault(item, integers_64, levels)
        if found:
            return Fault(f"[{place}]{found.path}", found.reason)  # built on the way out, so that only faults cost
    return None


def _fault_in_map(value: dict[Any, Any], integers_64: bool, levels: int) -> Fault | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return Fault(step(key), f"key of type {type(key).__name__}, and keys are strings in JSON")
        found = Fault("", "key that is no Unicode text") if _is_no_text(key) else _fault(item, integers_64, levels)
        if found:
            return Fault(step(key) + found.path, found.reason)
    return None


def _is_no_text(value: str) -> bool:
    """Whether there are lone surrogates in it, which UTF-8 cannot hold."""
    return not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)


def _reason(value: Any, integers_64: bool) -> str:
    match value:
        case None | bool():
            return ""
        case str():
            return "string with a lone surrogate" if _is_no_text(value) else ""
        case int():
            is_beyond = integers_64 and not INTEGER64_MIN <= value <= INTEGER64_MAX
            return "integer beyond 64 bits" if is_beyond else ""
        case float():
            return "" if math.isfinite(value) else f"{value}, and JSON has finite numbers only"
        case bytes() | bytearray() | memoryview():
            return "bytes; use msgpack, or write base64 yourself"
        case dt.datetime():
            return "timestamp (extension -1); send a string or a number instead"
        case msgspec.msgpack.Ext():
            return f"extension type {value.code}"
        case Stand():
            return value.reason
        case _:
            return f"value of type {type(value).__name__}"


def json_of(bodies: Sequence[Any]) -> bytes:
    """A JSON array of bodies, as msgspec writes it, without the loss.

    Dates, times, UUIDs and decimals become strings, tuples and sets arrays, structs and dataclasses objects, as Python
    users expect; a msgspec.Raw stays what it is.

    Raises:
        BadBody: with the path of a NaN, an infinity, bytes, a key that is no string.
    """
    try:
        payload: bytes = _encode(bodies)
    except _ENCODE_ERRORS as error:
        raise BadBody(f"a body cannot be written as json: {error}") from error
    if not _is_portable(bodies):  # rejected: to decode what was written and compare, three times as dear
        _check_richer(bodies)
    return payload


def _check_richer(bodies: Sequence[Any]) -> None:
    """Bodies with other types than JSON's own, or deep ones; or bad ones."""
    try:
        plain = msgspec.to_builtins(bodies, builtin_types=_BYTES, str_keys=False, enc_hook=_plain)
    except _ENCODE_ERRORS as error:
        raise BadBody(f"a body cannot be written as json: {error}") from error
    fault = None if _is_portable(plain) else fault_in(plain)
    if fault:
        raise BadBody(f"{fault.path} cannot be written as json: {fault.reason}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return None  # was encoded by the caller, who answers for it
    raise TypeError(f"objects of type {type(value).__name__} are unsupported")
