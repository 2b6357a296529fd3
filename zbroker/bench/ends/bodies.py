"""What the rows send: distinct bodies, made before the clock starts, known at both ends so that each can be checked."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

import msgspec

DISTINCT: Final = (
    16_384  # 2 MB of 100-byte bodies: more than a first-level cache, less than the memory of a small machine
)
END: Final = b"end"  # shorter than any body
PROBE: Final = b"probe"  # with the sender's number behind it
SIZE_MIN: Final = 16
SIZE_MAX: Final = 1_048_576
_POOL_BYTES: Final = 64 * 1024 * 1024
TOPIC: Final = "bench.live"
PATTERN: Final = "bench.>"
STAMP: Final = Struct(">QQ")  # intended send time in ns on the machine's monotonic clock, number of the message
_SENDER_SHIFT: Final = 48  # of the number that a raw body begins with; its second byte


def raw_bodies(size: int, sender: int = 0) -> list[bytes]:
    """Bytes of one size, each different in its first 8 bytes and in what follows; the second byte is the sender's number."""
    count = 1 << (max(64, min(DISTINCT, _POOL_BYTES // size)).bit_length() - 1)  # a whole number of tellings
    first = first_number(sender)
    return [body_of(number, size) for number in range(first, first + count)]


def first_number(sender: int) -> int:
    """What the first raw body of a sender begins with; the others count on."""
    return (sender << _SENDER_SHIFT) + 1


def body_of(number: int, size: int) -> bytes:
    """The raw body with this number."""
    return (number.to_bytes(8, "big") * (size // 8 + 1))[:size]


def number_of(body: bytes) -> int:
    """Which one a raw body is; 0 when it is none."""
    number = int.from_bytes(body[:8], "big")
    return number if number and body == body_of(number, len(body)) else 0


def sender_of(body: bytes) -> int:
    """Whose a raw body is."""
    return body[1]


def filling(size: int) -> bytes:
    """What follows the stamp in a stamped body."""
    return (b"zbroker." * (size // 8 + 1))[: size - STAMP.size]


def record(number: int) -> dict[str, Any]:
    """A dict of six fields."""
    return {
        "number": number,
        "sku": f"sku-{number % 977:04d}",
        "price": number * 0.25,
        "quantity": number % 12,
        "in_stock": number % 3 > 0,
        "warehouse": "eu-west",
    }


END_RECORD: Final = record(-1)


def records() -> list[dict[str, Any]]:
    """As many different ones."""
    return [record(number) for number in range(1, DISTINCT + 1)]


def pool_of(body: str, size: int, sender: int = 0) -> tuple[list[Any], Any, int]:
    """(bodies, what ends the stream, bytes of one on the wire)."""
    if body == "dict":
        pool = records()
        return pool, END_RECORD, sum(len(msgspec.msgpack.encode(one)) for one in pool) // len(pool)
    return raw_bodies(size, sender), END, size


_WHOLE_EVERY: Final = 16  # of the dicts, one in so many is compared whole; of each the number


def differing_bytes(got: list[Any], expected: list[Any]) -> int:
    """How many bodies are not what they should be: all bytes of all, compared as lists since that costs least."""
    if got == expected:
        return 0
    return sum(a != b for a, b in zip(got, expected, strict=False))


def differing_records(got: list[Any], expected: list[Any]) -> int:
    """The number of each; one in _WHOLE_EVERY whole."""
    wrong = [a["number"] for a in got] != [b["number"] for b in expected[: len(got)]]
    if not wrong and got[::_WHOLE_EVERY] == expected[: len(got) : _WHOLE_EVERY]:
        return 0
    return sum(a != b for a, b in zip(got, expected, strict=False))
