"""Checkpoints whose bytes somebody changed: files that are whole or not, and pieces under right CRCs that say anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import msgspec

from patterns.wire.records import Position, Record
from tests.fuzz.dialogues import House
from tests.fuzz.disks import FOLDER, base
from tests.fuzz.script import Script, written
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import Checkpoint
from zbroker.core.streams import Streams
from zbroker.store.checkpoint import STATE, IndexMeta, Meta, checkpoint_name, index_name
from zbroker.store.chunks import META, ChunkWriter, NotWhole, read_chunks
from zbroker.store.listing import list_segments
from zbroker.store.liveness import Liveness
from zbroker.store.restore import restore_newest

_TAGS: Final = (STATE, META, 1, 2)
_CHUNKS_MAX: Final = 16


def _engine() -> BrokerEngine:
    return BrokerEngine("", 0, make_streams=lambda sessions, effects: Streams(sessions, effects, lambda now: now))


def pieces(data: bytes) -> None:
    """restore() and index() of an engine: understood, or False and as new."""
    script, engine = Script(data), _engine()
    chunks = [script.text() for _ in range(script.byte() % _CHUNKS_MAX)]
    if not engine.restore(iter(chunks)):
        assert engine.status(1)["streams"] == {}
    while not script.is_over:
        engine.index(script.text())


class _Shown:
    """What a restorer is shown, and whether it says that it understood."""

    def __init__(self, says: int) -> None:
        self._says = says

    def restore(self, chunks: Iterator[bytes]) -> bool:
        assert all(isinstance(chunk, bytes) for chunk in chunks)
        return bool(self._says & 1)

    def index(self, chunk: bytes) -> bool:
        return bool(self._says & 2)

    def reindex(self, record: Record, position: Position) -> None:
        assert record.count >= 0
        assert position.size > 0


def files(data: bytes) -> None:
    """restore_newest(): one that is whole and belongs to the folder, or none with the reason why."""
    script, disk = Script(data), base()
    segments = list_segments(disk, FOLDER)
    shown: Any = _Shown(script.byte())
    for name in (checkpoint_name(5), index_name(1)):
        if script.byte() % 4 == 0:
            disk.close(handle := disk.open(f"{FOLDER}/{name}", create=True))
            disk.pwrite(handle := disk.open(f"{FOLDER}/{name}"), script.text(), 0)
            disk.close(handle)
            continue
        writer = ChunkWriter(disk, f"{FOLDER}/{name}")
        for _ in range(script.byte() % _CHUNKS_MAX):
            writer.put(script.one_of(_TAGS), script.text())
        writer.finish()
    for name in (checkpoint_name(5), index_name(1), "absent"):
        with contextlib.suppress(NotWhole):
            assert all(isinstance(body, bytes) for _, body in read_chunks(disk, f"{FOLDER}/{name}"))
    restored = restore_newest(disk, FOLDER, segments, shown, Liveness())
    assert restored.meta is not None or restored.refused


@cache
def _cut() -> list[bytes]:
    """The pieces of a checkpoint of a broker in the middle of its work."""
    house = House()
    house.engine.begin_checkpoint([], 1)
    found: list[bytes] = []
    for _ in range(_CHUNKS_MAX):
        house.engine.turn(house.now)
        found += [effect.chunk for effect in house.engine.effects() if isinstance(effect, Checkpoint)]
    return found


def seeds_of_pieces() -> list[bytes]:
    whole = b"".join(map(written, _cut()))
    return [bytes([len(_cut())]) + whole + whole, *(b"\1" + written(chunk) + written(chunk) for chunk in _cut())]


def seeds_of_files() -> list[bytes]:
    header = next(file.header for file in list_segments(base(), FOLDER) if file.header)
    encode = msgspec.msgpack.encode
    meta = encode(
        Meta(1, 1, header.folder_uuid, 1, 5, 6, header.number, 4_096, header.crc, 3, [(1, 1), (2, 6)], [], 1_700_000_000_000)
    )  # fmt: skip
    ours = encode(IndexMeta(1, 1, header.folder_uuid, 1, header.crc))
    state = b"".join(b"\0" + written(chunk) for chunk in _cut()[:4])
    good = bytes([1, 1 + len(_cut()[:4])]) + state + b"\1" + written(meta)
    return [bytes([says]) + good + b"\1\2\1" + written(ours) + b"\2" + written(b"x") for says in (1, 3)] + [
        b"\3\0" + written(b"ZBCHUNK1 and so on") + b"\0" + written(b"")
    ]
