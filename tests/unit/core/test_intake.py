"""What is checked at the door."""

from __future__ import annotations

import msgspec
import pytest

from patterns.wire.errors import BadBody
from patterns.wire.messages import Codec, Columns
from zbroker.core.intake import check_payload


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_arrays_of_every_head_size_are_counted(count: int) -> None:
    check_payload(Codec.MSGPACK, msgspec.msgpack.encode([1] * count), count, Columns())


@pytest.mark.parametrize(
    "payload", [b"", b"\x90", b"\x92\x01", b"\x91\x01\x01", b"\x80", b"\x91\xc1", b"\xc0", b"\xdc\x00", b"\x91" * 5_000]
)
def test_what_is_not_one_array_of_the_count_is_refused(payload: bytes) -> None:
    with pytest.raises(BadBody):
        check_payload(Codec.MSGPACK, payload, 1, Columns())


def test_a_count_beyond_the_limits_is_refused() -> None:
    for count in (0, 65_537):
        with pytest.raises(BadBody):
            check_payload(Codec.MSGPACK, msgspec.msgpack.encode([1] * count), count, Columns())
