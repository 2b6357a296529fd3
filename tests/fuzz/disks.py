"""The journal over a virtual disk whose bytes somebody changed, and the engine that recovers from what it is shown.

Changes come in two kinds: bytes of a file as they lie there (rot, which CRCs catch), and blocks and records written
anew with right CRCs (another program, or another version), so that what lies behind the CRC is reached too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, Final

import msgspec

from patterns.wire.records import Opened, Position, Record, RecordKind, decode_lost
from tests.fuzz.script import Script
from zbroker.core.broker import BrokerEngine
from zbroker.core.catalog import decode_operations
from zbroker.core.streams import Streams
from zbroker.store.faults import JournalError
from zbroker.store.journal import FileJournal
from zbroker.store.reader import RecordReader
from zbroker.store.record import build_body, build_header, crc32c, padded
from zbroker.store.segment import BLOCK_BYTES, pack_header, unpack_header
from zbroker.store.verify import verify_folder
from zbroker.testing.disk import VirtualDisk

FOLDER: Final = "/journal"
_SEGMENT_BYTES: Final = 64 << 10
_CHANGES_MAX: Final = 16
_OFFSET_MAX: Final = 1 << 24


def _journal(disk: VirtualDisk) -> FileJournal:
    return FileJournal(disk, FOLDER, segment_bytes=_SEGMENT_BYTES, random_bytes=Random(5).randbytes, wall_ms=lambda: 0)


def _visitor(found: list[tuple[Record, Position]]) -> Callable[[Record, Position], None]:
    def visit(record: Record, position: Position) -> None:
        found.append((record, position))

    return visit


@cache
def _base() -> VirtualDisk:
    """Two lives over several segments, with records of all kinds."""
    disk = VirtualDisk()
    index = 1
    for life in range(2):
        journal = _journal(disk)
        index = journal.open(_visitor([])).next_index
        for size in (0, 1, 300, 9_000, 60, 7_000, 7_000, 3_000, 7_000):
            kind = (RecordKind.APPEND, RecordKind.OPS, RecordKind.CATALOG)[index % 3]
            journal.append(Record(index, kind, index % 3, index * 10, 3, b"c" * (size % 40), bytes([life]) * size))
            journal.commit(index)
            index += 1
        journal.handle_timeout(1_000_000)
        journal.close()
    return disk


def base() -> VirtualDisk:
    """That disk, to be changed."""
    return copy.deepcopy(_base())


def _segments(disk: VirtualDisk) -> list[str]:
    return sorted(path for path in disk.live if path.endswith(".seg"))


def journals(data: bytes) -> None:
    """open(): the records that are whole, or JournalError; it can be written to, and read again.

    What was only rotten, and not forged with right CRCs, is also the same when it is opened again.
    """
    disk = base()
    script = Script(data)
    is_forged = False
    for _ in range(_CHANGES_MAX):
        if script.is_over:
            break
        is_forged = _change(disk, script) or is_forged
    found: list[tuple[Record, Position]] = []
    try:
        report = verify_folder(disk, FOLDER)
        assert report.records >= 0
        assert report.next_index >= 1
    except JournalError:
        pass
    try:
        journal = _journal(disk)
        opened = journal.open(_visitor(found))
    except JournalError:
        return
    assert [record.index for record, _ in found] == sorted({record.index for record, _ in found})
    reader = RecordReader(disk, FOLDER)
    assert reader.read([position for _, position in found]) == [record for record, _ in found], "shown and not readable"
    reader.close()
    journal.append(Record(opened.next_index, RecordKind.OPS, payload=b"after"))
    assert journal.commit(1) == opened.next_index
    journal.close()
    again: list[tuple[Record, Position]] = []
    journal = _journal(disk)
    last = journal.open(_visitor(again)).next_index
    journal.close()
    if not is_forged:
        assert last == opened.next_index + 1
        assert [record for record, _ in again][: len(found)] == [record for record, _ in found]


def _change(disk: VirtualDisk, script: Script) -> bool:
    """One change; returns whether it bears right CRCs that we did not write."""
    paths = _segments(disk)
    if not paths:
        return False
    what, path = script.byte() % 6, script.one_of(paths)
    size = len(disk.content(path))
    match what:
        case 0:
            _put(disk, path, script.number(2) % max(size, 1), script.take(script.byte() % 64))
        case 1:
            disk.zero(path, script.number(2) % max(size, 1) // 512 * 512, 512 * (script.byte() % 16))
        case 2:
            cut = script.number(2) % max(size, 1)
            inode = disk.live[path]
            del inode.cache[cut:], inode.platter[cut:]
        case 3:
            disk.remove(path)
        case 4:
            _put(disk, path, 0 if script.byte() % 2 else size - BLOCK_BYTES, _header(disk, path, script))
        case _:
            _put(disk, path, script.number(2) % max(size, 1) // 64 * 64, _record(disk, path, script))
    return what > 3


def _put(disk: VirtualDisk, path: str, offset: int, data: bytes) -> None:
    inode = disk.live[path]
    for held in (inode.cache, inode.platter):
        if offset >= 0 and offset + len(data) <= len(held):
            held[offset : offset + len(data)] = data


def _header(disk: VirtualDisk, path: str, script: Script) -> bytes:
    """A segment's header with one field changed, its CRC right."""
    header = unpack_header(disk.content(path)[:BLOCK_BYTES])
    if header is None:
        return b""
    names = [name for name in header.__struct_fields__ if isinstance(getattr(header, name), int) and name != "crc"]
    name = script.one_of(names)
    value = script.number({"format": 2, "reader_min": 2, "generation": 4, "last_covered": 8}.get(name, 8))
    try:
        return pack_header(msgspec.structs.replace(header, **{name: value}))[0]
    except Exception as error:
        if type(error).__name__ != "error":  # struct's own: the field is narrower
            raise
        return b""


def _record(disk: VirtualDisk, path: str, script: Script) -> bytes:
    """A record anywhere, its CRCs right for the segment."""
    header = unpack_header(disk.content(path)[:BLOCK_BYTES])
    salt_crc = crc32c(header.salt) if header else 0
    payload = script.take(script.byte())
    prefix, body_crc = build_body(script.take(script.byte() % 32), payload)
    body_bytes = script.number(4) if script.byte() % 4 == 0 else len(prefix) + len(payload)
    record = Record(
        script.number(8) if script.byte() % 4 == 0 else script.byte(), script.byte(), script.number(2),
        script.number(8), script.number(4),
    )  # fmt: skip
    built, _ = build_header(salt_crc, body_crc, body_bytes, script.byte(), script.byte() % 4, script.number(4), record)
    return (built + prefix + payload).ljust(padded(len(built) + len(prefix) + len(payload)), b"\0")


def recoveries(data: bytes) -> None:
    """recover(): records whose CRCs are right and whose contents are anything leave an engine that starts."""
    script = Script(data)
    engine = BrokerEngine("", 0, make_streams=lambda sessions, effects: Streams(sessions, effects, lambda now: now))
    index = 0
    while not script.is_over and index < 32:
        index += 1
        kind = script.one_of((RecordKind.CATALOG, RecordKind.APPEND, RecordKind.OPS, RecordKind.LOST, 99))
        record = Record(
            index, int(kind), script.byte() % 4, script.number(script.byte() % 4), 1 + script.byte(), script.text(),
            script.text(),
        )  # fmt: skip
        if _is_vast(record):
            continue
        engine.recover(record, Position(1, index * 64, 64))
    engine.opened(Opened(1, index + 1, index, 0, [], 0), "fuzz", 1)
    for now in (1, 3_000_000):
        engine.turn(now)
        engine.handle_timeout(now)
        engine.effects()
    msgspec.msgpack.encode(engine.status(3_000_000))


def _is_vast(record: Record) -> bool:
    """Whether it names more offsets than a test has time for: what is settled is kept by the 4,096 (DECISIONS.md of the core)."""
    try:
        match record.kind:
            case RecordKind.OPS:
                values = [value for *_, value in decode_operations(record.payload)]
                return any(number > _OFFSET_MAX for value in values for number in _numbers(value))
            case RecordKind.LOST:
                found = decode_lost(record.payload)
                vast = [number for one in found for lost in one.ranges for number in (lost.base_offset, lost.count)]
                return any(number > _OFFSET_MAX for number in [*vast, *(one.lost_bytes for one in found)])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    return False


def _numbers(value: list[list[int]] | int) -> list[int]:
    return [value] if isinstance(value, int) else [number for item in value for number in item]


def catalogued() -> list[bytes]:
    """Seeds of recoveries(): a catalog, batches, operations and damage as the engine writes them."""
    encode = msgspec.msgpack.encode
    records: list[tuple[int, int, int, bytes, bytes]] = [
        (0, 0, 0, b"", encode(["stream", "orders"])),
        (0, 1, 0, b"", encode(["group", 1, "billing", 0])),
        (0, 0, 0, b"", encode(["producer", 4_294_967_297, "till", bytes(16), 2])),
        (1, 1, 0, _stored(), b"\x93\x01\x02\x03"),
        (2, 1, 0, b"", encode([["acked", 1, 2, [[0, 1]]], ["delivered", 1, 2, 3], ["attempts", 1, 2, [[2, 2, 1]]]])),
        (2, 1, 0, b"", encode([["lost", 1, 2, [[5, 9]]], ["dead", 1, 2, [[2, 2]]]])),
        (3, 0, 0, b"", encode([[3, 4, 1, 8192, 100, [[3, 1, 1, 0, 3]], "body"]])),
        (3, 0, 0, b"", encode([_damage()])),
    ]
    seeds: list[bytes] = []
    whole = b""
    for kind, stream, base, columns, payload in records:
        count = b"\x02"
        one = bytes([kind, stream, 1, base]) + count + _sized(columns) + _sized(payload)
        whole += one
        seeds.append(one)
    return [*seeds, whole]


def _sized(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _damage() -> dict[str, Any]:
    lost = {"index": 3, "kind": 1, "stream_id": 1, "base_offset": 0, "count": 3}
    return {
        "first_index": 3, "last_index": 4, "segment": 1, "offset": 8_192, "lost_bytes": 100, "ranges": [lost],
        "reason": "body",
    }  # fmt: skip


def _stored() -> bytes:
    from zbroker.core.tail import Stored

    return msgspec.msgpack.encode(Stored(4_294_967_297, 2, 1, 0, 7, "msgpack", None, 1_700_000_000_000, b""))  # type: ignore[arg-type]
