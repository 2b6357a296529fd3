"""Payloads from one codec into another, strictly (SPEC.md 3.1): lossless, or refused with the path; never bent.

The quick way is two calls of msgspec with types that admit what both sides can say. Who is wrong, and where, diagnosis.py finds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from patterns.wire.errors import Untranslatable
from patterns.wire.limits import BATCH_BYTES_MAX, BODY_BYTES_MAX
from patterns.wire.messages import Codec
from patterns.wire.portable import Bodies, Fault, fault_in
from patterns.wire.words import counted
from zbroker.core import diagnosis

_FAULTS: Final = (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, ValueError, OverflowError)
_ARRAY_BYTES: Final = 2  # what makes one body an array: "[]" in JSON, one byte in msgpack
_json_checked = msgspec.json.Decoder(Bodies).decode
_json_decode = msgspec.json.Decoder().decode
_json_encode = msgspec.json.Encoder().encode
_msgpack_checked = msgspec.msgpack.Decoder(Bodies).decode
_msgpack_decode = msgspec.msgpack.Decoder().decode
_msgpack_encode = msgspec.msgpack.Encoder().encode


def needed(source: Codec, target: Codec) -> bool:
    """Whether a payload must be translated for a peer that wants `target`; raw stays raw, labelled."""
    return source is not target and source is not Codec.RAW and target is not Codec.RAW


def translate(payload: bytes, source: Codec, target: Codec, *, strict: bool = False) -> bytes:
    """The payload, one array, in the other codec.

    Args:
        payload: what the producer sent.
        source: the codec that it is in.
        target: the codec that it is wanted in.
        strict: refuse a map with the same key twice; otherwise its last one wins.

    Raises:
        Untranslatable: with the path of what the target cannot express, or of what is no value at all; or it grows
            above the limit of a body or a batch.
    """
    assert needed(source, target)
    return _to_json(payload, strict) if target is Codec.JSON else _to_msgpack(payload, strict)


Translate = Callable[[bytes, Codec, Codec], bytes]
strictly: Final[Translate] = partial(translate, strict=True)


def _to_json(payload: bytes, strict: bool) -> bytes:
    try:
        bodies = _msgpack_checked(payload)
    except _FAULTS:
        bodies = _deep_msgpack(payload)
    if strict and _msgpack_encode(bodies) != payload:  # the same bytes again: nothing was left out
        _refuse(diagnosis.of_msgpack(payload, strict=True), "msgpack")
    try:
        written = _json_encode(bodies)
    except _FAULTS as error:
        raise Untranslatable(f"msgpack body cannot be written as JSON: {error}") from error
    return _fitting(written, len(bodies))


def _deep_msgpack(payload: bytes) -> Any:
    """Bodies nested deeper than the type. Raises Untranslatable when that is not all."""
    try:
        bodies = _msgpack_decode(payload)
    except _FAULTS as error:
        _refuse(diagnosis.of_msgpack(payload), "msgpack")
        raise Untranslatable(f"msgpack body is none: {error}") from error
    if not isinstance(bodies, list):
        raise Untranslatable("msgpack payload is not an array")
    _refuse(fault_in(bodies), "msgpack")
    return bodies


def _to_msgpack(payload: bytes, strict: bool) -> bytes:
    try:
        bodies = _json_checked(payload)
    except _FAULTS:
        bodies = _deep_json(payload)
    if strict and _json_encode(bodies) != payload:
        _refuse(diagnosis.of_json(payload, strict=True), "JSON")
    try:
        written = _msgpack_encode(bodies)
    except _FAULTS as error:
        _refuse(fault_in(bodies, integers_64=True), "JSON")
        raise Untranslatable(f"JSON body cannot be written as msgpack: {error}") from error
    return _fitting(written, len(bodies))


def _deep_json(payload: bytes) -> Any:
    try:
        bodies = _json_decode(payload)
    except _FAULTS as error:
        _refuse(diagnosis.of_json(payload), "JSON")
        raise Untranslatable(f"JSON body is none: {error}") from error
    if not isinstance(bodies, list):
        raise Untranslatable("JSON payload is not an array")
    _refuse(fault_in(bodies), "JSON")
    return bodies


def _fitting(written: bytes, count: int) -> bytes:
    """A body may grow sixfold, U+0000 to \\u0000; libzmq cuts the connection of whoever gets more than he allows."""
    limit = BODY_BYTES_MAX + _ARRAY_BYTES if count == 1 else BATCH_BYTES_MAX
    if len(written) > limit:
        raise Untranslatable(
            f"{counted(count, 'body', 'bodies')} of {len(written)} bytes when translated, at most {limit}"
        )
    return written


def _refuse(fault: Fault | None, source: str) -> None:
    if fault:
        raise Untranslatable(f"{fault.path} in a {source} batch cannot be translated: {fault.reason}")
