"""What the rows send: distinct bodies, made before the clock starts, known at both ends so that each can be checked."""

from __future__ import annotations

from typing import Any, Final

DISTINCT: Final = (
    16_384  # 2 MB of 100-byte bodies: more than a first-level cache, less than the memory of a small machine
)
END: Final = b"end"  # shorter than any body
PROBE: Final = b"probe"
SIZE_MIN: Final = 16
SIZE_MAX: Final = 1_048_576
_POOL_BYTES: Final = 64 * 1024 * 1024
TOPIC: Final = "bench.live"


def raw_bodies(size: int) -> list[bytes]:
    """Bytes of one size, each different in its first 8 bytes and in what follows."""
    count = 1 << (max(64, min(DISTINCT, _POOL_BYTES // size)).bit_length() - 1)  # a whole number of tellings
    return [(number.to_bytes(8, "big") * (size // 8 + 1))[:size] for number in range(1, count + 1)]


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
