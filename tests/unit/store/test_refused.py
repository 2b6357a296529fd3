"""What a broker takes of nobody stays beside the journal, a line a message."""

from __future__ import annotations

import msgspec
import pytest

from patterns.core.produce import batch_of
from patterns.wire.codec import encode
from patterns.wire.errors import Damaged, TooLarge
from patterns.wire.messages import Codec
from patterns.wire.parcel import Parcel
from zbroker.store.refused import NAME, Refused
from zbroker.testing.disk import VirtualDisk

ERROR = TooLarge("one is too large")


@pytest.fixture
def disk() -> VirtualDisk:
    disk = VirtualDisk()
    disk.make_folder("/o")
    return disk


def opened(disk: VirtualDisk) -> Refused:
    return Refused(disk, "/o", lambda: 7)


def parcel(codec: Codec, *bodies: object, **more: object) -> Parcel:
    batch = batch_of(codec, encode(codec, list(bodies))[0], **more)  # type: ignore[arg-type]
    return Parcel(41, batch.count, codec, batch.columns, batch.payload, batch.topic)


def lines(disk: VirtualDisk) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in bytes(disk.live[f"/o/{NAME}"].cache).splitlines()]


def test_each_message_has_a_line_with_all_that_it_had(disk: VirtualDisk) -> None:
    one = parcel(Codec.JSON, {"n": 1}, {"n": 2}, keys=["k", None], headers=[None, {"h": "v"}], ids=["i", None])
    opened(disk).add("orders", 41, 2, one, ERROR)
    error = {"number": TooLarge.number, "name": "TOO_LARGE", "text": "one is too large"}
    shared = {"stream": "orders", "refused_at_ms": 7, "error": error, "codec": "json"}
    assert lines(disk) == [
        {"number": 41, **shared, "key": "k", "message_id": "i", "body": {"n": 1}},
        {"number": 42, **shared, "headers": {"h": "v"}, "body": {"n": 2}},
    ]


@pytest.mark.parametrize(
    ("codec", "body"),
    [(Codec.RAW, b"\xff"), (Codec.MSGPACK, {"b": b"\xff"}), (Codec.MSGPACK, {1: 2}), (Codec.MSGPACK, float("nan"))],
)
def test_a_body_that_json_cannot_express_is_told_as_it_was(disk: VirtualDisk, codec: Codec, body: object) -> None:
    opened(disk).add("orders", 41, 1, parcel(codec, body), ERROR)
    assert "body" not in lines(disk)[0]
    assert "body_base64" in lines(disk)[0]


def test_a_batch_that_cannot_be_read_is_told_by_its_numbers(disk: VirtualDisk) -> None:
    opened(disk).add("orders", 41, 2, None, Damaged("rotten"))
    assert [line["number"] for line in lines(disk)] == [41, 42]


def test_a_torn_line_is_cut_off_and_a_batch_is_not_told_twice(disk: VirtualDisk) -> None:
    first = opened(disk)
    first.add("orders", 41, 1, parcel(Codec.RAW, b"1"), ERROR)
    first.close()
    handle = disk.open(f"/o/{NAME}")
    disk.pwrite(handle, b'{"number": 42, "str', disk.size(handle))
    again = opened(disk)
    assert again.messages == 1
    again.add("orders", 41, 1, parcel(Codec.RAW, b"1"), ERROR)
    again.add("orders", 42, 1, parcel(Codec.RAW, b"2"), ERROR)
    again.close()
    assert opened(disk).messages == 2
    assert [line["number"] for line in lines(disk)[:2]] == [41, 42]
