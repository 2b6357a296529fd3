"""Changes that leave an input almost what it was: a field of a header, the kind of a message, some bytes.

Bytes changed at random seldom leave a msgpack map with a length in front of it intact; these do.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgspec

from patterns.wire.frames import MAGIC
from patterns.wire.messages import KINDS

FIELDS: Final = sorted({field.name for header in KINDS.values() for field in msgspec.structs.fields(header)})
VALUES: Final[tuple[Any, ...]] = (
    0, 1, 2, 3, -1, 255, 65_535, 65_536, 65_537, 2**31, 2**32, 2**53 - 1, 2**53, 2**63, 2**64 - 1, -(2**63), 0.5, None, True,
    "", "a", "a.b", "a.>", "*", "s", "g", "price", "x" * 256, "\0", "é", "raw", "json", "msgpack", "new", "first", "batches",
    "slices", "ack", "nack", "reject", "release", "extend", "durable", "written", "received", "request", "session", "status",
    [], [1], [[0, 0]], [[3, 1]], [[0, 2**53 - 1]], [0, 2**53], [7, 9], ["x"], {}, {"epoch": 1, "leases": [1]}, {"a": 1}, bytes(16),
    b"", bytes(range(16)),
)  # fmt: skip
_LENGTH_BYTES: Final = 2  # as script.written() writes it


def mutated(data: bytes, chance: Random, others: Sequence[bytes] = ()) -> bytes:
    """The input with one change."""
    match chance.randrange(4):
        case 0 | 1 if MAGIC in data:
            return _with_another_message(data, chance)
        case 2 if others:
            other = chance.choice(others)
            at = chance.randrange(len(data) + 1)
            return data[:at] + other[chance.randrange(len(other) + 1) :]
        case _:
            return _with_other_bytes(data, chance)


def _with_other_bytes(data: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    until = min(len(data), at + chance.choice((0, 1, 1, 2, 4, 16, 300)))
    replaced = (
        b"", bytes([chance.randrange(256)]), b"\xff" * (until - at), bytes(until - at), data[at:until] * 2,
        chance.randbytes(until - at), msgspec.msgpack.encode(chance.choice(VALUES)), msgspec.json.encode(chance.choice(VALUES)),
    )  # fmt: skip
    return data[:at] + chance.choice(replaced) + data[until:]


def _with_another_message(data: bytes, chance: Random) -> bytes:
    """One message in it gets another kind, or one field of its header another value; the lengths stay right."""
    places = [at for at in range(len(data)) if data.startswith(MAGIC, at)]
    at = chance.choice(places)
    if chance.randrange(8) == 0:
        return data[: at + 3] + chance.choice(sorted(KINDS)) + data[at + 4 :]
    begin = at + int.from_bytes(data[max(0, at - _LENGTH_BYTES) : at], "big")
    size = int.from_bytes(data[begin : begin + _LENGTH_BYTES], "big")
    end = begin + _LENGTH_BYTES + size
    header = data[begin + _LENGTH_BYTES : end]
    form: Any = msgspec.json if header.startswith(b"{") else msgspec.msgpack
    try:
        fields = form.decode(header)
        changed = form.encode(_with_another_field(fields, chance)) if isinstance(fields, dict) else header
    except (msgspec.MsgspecError, UnicodeError, TypeError, OverflowError, RecursionError):
        return _with_other_bytes(data, chance)
    return data[:begin] + len(changed).to_bytes(_LENGTH_BYTES, "big") + changed + data[end:]


def _with_another_field(fields: dict[Any, Any], chance: Random) -> dict[Any, Any]:
    name = chance.choice([*fields, *fields, chance.choice(FIELDS)])
    if chance.randrange(6) == 0:
        return {key: value for key, value in fields.items() if key != name}
    return fields | {name: chance.choice(VALUES)}
