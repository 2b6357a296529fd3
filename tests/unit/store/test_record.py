"""The record on the disk: every bit of it is checked, and nothing of another segment passes."""

import pytest
from google_crc32c import value

from patterns.wire.records import Record, RecordKind
from zbroker.store.record import (
    HEADER_BYTES,
    build_body,
    build_header,
    crc32c,
    padded,
    parse_body,
    parse_header,
    record_of,
)

SALT_CRC = crc32c(b"s" * 16)
RECORD = Record(7, RecordKind.APPEND, stream_id=3, base_offset=1 << 40, count=9, columns=b"col", payload=b"body")


def whole(record: Record = RECORD) -> bytes:
    prefix, body_crc = build_body(record.columns, record.payload)
    body = prefix + record.payload
    header, _ = build_header(SALT_CRC, body_crc, len(body), 6, 2, 99, record)
    return header + body


def test_a_record_reads_back_as_it_was_built() -> None:
    data = whole()
    header = parse_header(data, 0, SALT_CRC)
    assert header is not None
    assert (header.durable_index, header.epoch, header.chain) == (6, 2, 99)
    body = parse_body(data, HEADER_BYTES, header.body_bytes, header.body_crc)
    assert body is not None
    assert record_of(header, *body) == RECORD


def test_every_flipped_bit_of_header_or_body_is_noticed() -> None:
    data = whole()
    for bit in range(len(data) * 8):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        header = parse_header(bytes(bad), 0, SALT_CRC)
        assert header is None or parse_body(bytes(bad), 64, header.body_bytes, header.body_crc) is None


def test_a_rotten_body_leaves_the_header_whole() -> None:
    data = bytearray(whole())
    data[HEADER_BYTES + 5] ^= 1
    header = parse_header(bytes(data), 0, SALT_CRC)
    assert header is not None
    assert (header.stream_id, header.base_offset, header.message_count) == (3, 1 << 40, 9)


def test_another_segments_salt_makes_a_record_invalid() -> None:
    assert parse_header(whole(), 0, crc32c(b"t" * 16)) is None


@pytest.mark.parametrize("length", [0, 1, 63])
def test_a_cut_header_is_none(length: int) -> None:
    assert parse_header(whole()[:length], 0, SALT_CRC) is None


def test_a_header_with_an_index_that_nobody_reaches_is_none() -> None:
    vast = Record(1 << 53, RecordKind.OPS, stream_id=0, base_offset=0, count=0)
    assert parse_header(whole(vast), 0, SALT_CRC) is None
    assert parse_header(build_header(SALT_CRC, 0, 4, 1 << 53, 2, 99, RECORD)[0], 0, SALT_CRC) is None


def test_columns_longer_than_the_body_are_damage_even_under_a_right_crc() -> None:
    body = (100).to_bytes(4, "big") + b"short"
    assert parse_body(body, 0, len(body), value(body)) is None


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 64), (64, 64), (65, 128)])
def test_padding_rounds_up(size: int, expected: int) -> None:
    assert padded(size) == expected
