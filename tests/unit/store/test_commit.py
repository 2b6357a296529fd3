"""A commit's bytes: whole records, a chain, filled up to 4 KiB."""

from patterns.wire.records import Record, RecordKind
from zbroker.store.commit import JOIN_BYTES, Group, build_commit
from zbroker.store.record import build_body, crc32c, padded, parse_header

SALT_CRC = crc32c(b"s" * 16)


def group_of(*payloads: bytes) -> Group:
    group = Group(1, 4096)
    for index, payload in enumerate(payloads, 1):
        record = Record(index, RecordKind.APPEND, payload=payload)
        group.entries.append((record, *build_body(b"", payload)))
        group.end += padded(64 + 4 + len(payload))
    return group


def test_a_commit_ends_on_a_block_and_its_gap_is_a_pad() -> None:
    parts, chain = build_commit(group_of(b"a", b"b"), SALT_CRC, 1, 77, 0)
    data = b"".join(parts)
    assert len(data) == 4096
    pad = parse_header(data, 256, SALT_CRC)
    assert pad is not None
    assert (pad.kind, pad.record_index, pad.body_bytes) == (RecordKind.PAD, 2, 4096 - 256 - 64)
    assert chain == pad.header_crc


def test_each_record_is_chained_to_the_one_before() -> None:
    data = b"".join(build_commit(group_of(b"a", b"b"), SALT_CRC, 1, 77, 0)[0])
    first, second = parse_header(data, 0, SALT_CRC), parse_header(data, 128, SALT_CRC)
    assert first is not None
    assert second is not None
    assert (first.chain, second.chain) == (77, first.header_crc)


def test_a_commit_that_fills_its_blocks_has_no_pad() -> None:
    data = b"".join(build_commit(group_of(bytes(4096 - 68)), SALT_CRC, 1, 0, 0)[0])
    assert len(data) == 4096


def test_a_large_payload_is_handed_on_without_a_copy() -> None:
    payload = b"x" * JOIN_BYTES
    parts, _ = build_commit(group_of(b"small", payload), SALT_CRC, 1, 0, 0)
    assert any(part is payload for part in parts)
