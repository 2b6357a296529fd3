"""Where a payload is wrong that msgspec refuses to decode, or decodes with loss: slow, exact, and only after a refusal."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from typing import Any, Final

from patterns.wire.limits import BODY_DEPTH_MAX
from patterns.wire.portable import Fault, Stand, fault_in, step

_VALUES_MAX: Final = 100_000  # looked at in search of a path, 60 ms; more than fit a batch of the usual 64 KiB
_DIGITS_64: Final = 20  # of the longest integers of 64 bits, the minus included
_TIMESTAMP: Final = -1


def of_json(payload: bytes, *, strict: bool = False) -> Fault | None:
    """The first fault in a JSON array of bodies; None if there is none, or if it is no JSON at all.

    The standard library's decoder takes lone surrogates, 1e999 and NaN, and so lets us see where they are.

    Args:
        payload: the array.
        strict: whether the same key twice is a fault too.
    """
    hook = _unique if strict else None
    try:
        bodies = json.loads(payload.decode(), parse_int=_integer, parse_float=_float, object_pairs_hook=hook)
    except RecursionError:
        return _too_deep("")
    except ValueError:
        return None
    return fault_in(bodies, integers_64=True) if isinstance(bodies, list) else None


def _integer(digits: str) -> int | Stand:
    # int() of a million digits takes a second, and above 4,300 it raises
    return int(digits) if len(digits) <= _DIGITS_64 else Stand("integer beyond 64 bits")


def _float(digits: str) -> float | Stand:
    value = float(digits)
    return value if math.isfinite(value) else Stand("number beyond a double")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Stand:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return Stand(f"the key {json.dumps(twice)} twice")


def _too_deep(path: str) -> Fault:
    return Fault(path, f"nested deeper than {BODY_DEPTH_MAX} levels")


def of_msgpack(payload: bytes, *, strict: bool = False) -> Fault | None:
    """The first fault in a msgpack array of bodies: what JSON cannot express, or where it is no msgpack.

    Args:
        payload: the array.
        strict: whether the same key twice is a fault too; then the whole payload is looked at, however long it takes.
    """
    walk = _Walk(payload, strict)
    try:
        walk.value()
    except _FaultFound as found:
        return Fault("".join(walk.path), str(found))
    return None


class _FaultFound(Exception):
    """Ends a walk; the walk's path says where."""


class _Walk:
    """Goes through msgpack without decoding what it need not; `path` is where it stands."""

    def __init__(self, payload: bytes, strict: bool) -> None:
        self.path: list[str] = []
        self._payload = payload
        self._at = 0
        self._values = 0
        self._strict = strict

    def value(self) -> Any:
        """Step over one value. Returns a string, as it may be a key, and else its kind's name as a Stand."""
        self._values += 1
        if self._values > _VALUES_MAX and not self._strict:
            del self.path[1:]
            raise _FaultFound(f"a value behind the first {_VALUES_MAX} of the batch")
        head = self._take(1)[0]
        if head < 0x80 or head >= 0xE0:
            return Stand("int")
        if head < 0x90:
            return self._map(head & 0x0F)
        if head < 0xA0:
            return self._array(head & 0x0F)
        if head < 0xC0:
            return self._string(head & 0x1F)
        if head in _PLAIN:
            self._take(_PLAIN[head])
            return Stand("nil" if head == 0xC0 else "bool" if head < 0xC4 else "int")
        if head not in _OTHERS:
            raise _FaultFound(f"byte {head:#x}, which is not msgpack")
        width, method = _OTHERS[head]
        return method(self, int.from_bytes(self._take(width), "big") if width else _FIXED[head])

    def _take(self, size: int) -> bytes:
        begin = self._at
        self._at += size
        if self._at > len(self._payload):
            raise _FaultFound("msgpack that ends too early")
        return self._payload[begin : self._at]

    def _string(self, size: int) -> Any:
        try:
            return self._take(size).decode()
        except UnicodeDecodeError:
            raise _FaultFound("string that is not UTF-8") from None

    def _float(self, size: int) -> Any:
        (value,) = struct.unpack(">f" if size == 4 else ">d", self._take(size))
        if not math.isfinite(value):
            raise _FaultFound(f"{value}, and JSON has finite numbers only")
        return Stand("float")

    def _bytes(self, size: int) -> Any:
        self._take(size)
        raise _FaultFound("bytes; use msgpack, or write base64 yourself")

    def _extension(self, size: int) -> Any:
        code = int.from_bytes(self._take(1), "big", signed=True)
        self._take(size)
        if code == _TIMESTAMP:
            raise _FaultFound("timestamp (extension -1); send a string or a number instead")
        raise _FaultFound(f"extension type {code}")

    def _enter(self) -> None:
        if len(self.path) > BODY_DEPTH_MAX:
            raise _FaultFound(f"nested deeper than {BODY_DEPTH_MAX} levels")

    def _array(self, size: int) -> Any:
        self._enter()
        for place in range(size):
            self.path.append(f"[{place}]")
            self.value()
            self.path.pop()
        return Stand("array")

    def _map(self, size: int) -> Any:
        self._enter()
        seen: set[str] = set()
        for place in range(size):
            self.path.append(f"[key {place}]")
            key = self.value()
            if not isinstance(key, str):
                raise _FaultFound(f"key of type {key.reason}, and keys are strings in JSON")
            self.path[-1] = step(key)
            if self._strict and key in seen:
                self.path.pop()
                raise _FaultFound(f"the key {json.dumps(key)} twice")
            seen.add(key)
            self.value()
            self.path.pop()
        return Stand("map")


# What follows the first byte, where that is all that there is to it.
_PLAIN: Final = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8
}  # fmt: skip
# The bytes of the length, and who takes the rest.
_OTHERS: Final[dict[int, tuple[int, Callable[[_Walk, int], Any]]]] = {
    0xC4: (1, _Walk._bytes), 0xC5: (2, _Walk._bytes), 0xC6: (4, _Walk._bytes),
    0xC7: (1, _Walk._extension), 0xC8: (2, _Walk._extension), 0xC9: (4, _Walk._extension),
    0xD9: (1, _Walk._string), 0xDA: (2, _Walk._string), 0xDB: (4, _Walk._string),
    0xDC: (2, _Walk._array), 0xDD: (4, _Walk._array), 0xDE: (2, _Walk._map), 0xDF: (4, _Walk._map),
    **dict.fromkeys(range(0xD4, 0xD9), (0, _Walk._extension)),
    **dict.fromkeys((0xCA, 0xCB), (0, _Walk._float)),
}  # fmt: skip
_FIXED: Final = {0xCA: 4, 0xCB: 8, 0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
