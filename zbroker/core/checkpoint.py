"""Checkpoints of the streams: what is cut out of a running broker, piece by piece, and how it is put back.

A piece is consistent in itself; between pieces the broker goes on. That is right because whatever changes later stands
in the journal behind the checkpoint's first index, and replaying a record that a piece reflects already changes nothing.

Where batches lie is told by `["batches", stream id, six blocks]`, each block `[count, low, step, data]`: value n is low + n * step,
or without a step low + the n-th of `count` big-endian integers of 1, 2, 4 or 8 bytes in `data`. Earlier versions told it by
`["index", stream id, six columns]`, big-endian integers of 8, 4, 8, 8, 8 and 4 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from patterns.wire.configs import GroupConfig, StreamConfig, told
from patterns.wire.settled import Settled
from zbroker.core.column import BLOCK, decode_block, pack, widened
from zbroker.core.message_ids import MessageIds
from zbroker.core.producers import Accepted

if TYPE_CHECKING:
    from zbroker.core.catalog import Catalog
    from zbroker.core.groups import Group
    from zbroker.core.log import StreamLog
    from zbroker.core.producers import Producer, Producers

VERSION: Final = 1
CHUNK_BYTES: Final = (
    192 << 10
)  # of encoded pieces; with one more piece still below the 256 KiB that a turn has time for
STATE: Final = 0  # the segment of a chunk that is no segment's index
WAIT: Final = (b"", -1)  # no chunk: the next one needs places that the journal has yet to tell
_BATCHES: Final = BLOCK  # of a stream in one piece: 4 to 10 KiB, a block for each column
_COLUMNS: Final = 6
_PLAIN: Final = "QIQQQI"  # each column's integers, in an index of before there were blocks
_RANGES: Final = 2_048
_BITMAPS: Final = 64  # 512 bytes each

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode
Piece = list[Any]


class Unknown(Exception):
    """A chunk that this version does not understand."""


# What restore() and index() raise on bytes that are no checkpoint of this version.
NOT_OURS: Final = (Unknown, msgspec.MsgspecError, RecursionError, ValueError, TypeError, LookupError, OverflowError)


def cut(
    catalog: Catalog, producers: Producers, full: list[int], current: int, ahead: Callable[[], int] = lambda: 0
) -> Iterator[tuple[bytes, int]]:
    """Chunks of a checkpoint, each with the segment whose index it is of; STATE for what is none's.

    Between two chunks the broker may run on. WAIT stands between them as long as a batch that the state tells of has no place.

    Args:
        full: segments that nothing is added to any more, and whose index is wanted.
        current: the first segment that may still grow; its index, and later ones', comes last.
        ahead: how far the broker's own clock is ahead of the engine's now, in ms.
    """
    logs = list(catalog.by_id.values())
    for segment in full:
        pieces = (piece for log in logs for piece in _index(log, *log.span(segment, segment + 1)))
        found = False
        for chunk in _chunks(pieces):
            found = True
            yield chunk, segment
        if not found:
            yield _encode([]), segment  # nothing lies there; that, too, is worth knowing
    ends: dict[int, int] = {}
    for chunk in _chunks(_state(catalog, producers, ends, ahead)):
        yield chunk, STATE
    for id, end in ends.items():
        while id in catalog.by_id and catalog.by_id[id].placed < end:
            yield WAIT
    rest = (catalog.by_id[id] for id in ends if id in catalog.by_id)
    for chunk in _chunks(piece for log in rest for piece in _rest(log, current, ends[log.id])):
        yield chunk, current


def _chunks(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Pieces gathered into chunks. A piece is asked for only once there is room for it: it is cut at that moment."""
    parts: list[bytes] = []
    size = 0
    for piece in pieces:
        parts.append(_encode(piece))
        size += len(parts[-1])
        if size >= CHUNK_BYTES:
            yield _joined(parts)
            parts, size = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[bytes]) -> bytes:
    return b"\xdd" + len(parts).to_bytes(4, "big") + b"".join(parts)  # msgpack: an array of so many


# -- pieces -------------------------------------------------------------------------------------------------------


def _state(catalog: Catalog, producers: Producers, ends: dict[int, int], ahead: Callable[[], int]) -> Iterator[Piece]:
    """All but where batches lie; `ends` learns up to which batch each stream's piece tells."""
    yield ["version", VERSION]
    logs, deleted = list(catalog.by_id.values()), list(catalog.deleted.items())  # of one moment
    for some in _parts(deleted, _RANGES):
        yield ["deleted", some]
    for log in logs:
        ends[log.id] = log.batches
        yield ["stream", log.id, log.name, log.next_offset, log.last_index, log.bytes, log.messages, log.published_at]
        if log.config != StreamConfig(log.name):
            yield ["config", log.id, told(log.config)]
        if log.ids is not None:
            for part in log.ids.pieces():
                yield ["ids", log.id, *part]
        for ranges in _parts(log.lost, _RANGES):
            yield ["lost", log.id, ranges]
        if log.given_up.floor or log.given_up.bitmaps():
            yield from _given_up(log)
    for group in list(catalog.groups.values()):
        if group.stream_id in ends:  # else it is as new as its stream
            yield from _group(group, ahead())
    for producer in list(producers):
        if producer.journaled or producer.epoch > 1:  # else no record tells of it
            yield _producer(producer)


def _given_up(log: StreamLog) -> Iterator[Piece]:
    """Of one moment, as a group's settled offsets; but between two of these nobody counts."""
    floor, bitmaps = log.given_up.floor, log.given_up.bitmaps()
    for some in _parts(bitmaps, _BITMAPS) if bitmaps else [bitmaps]:
        yield ["given_up", log.id, floor, [(chunk, Settled.encode(bits)) for chunk, bits in some]]


def _group(group: Group, ahead: int) -> Iterator[Piece]:
    """The group, its settled offsets, attempts and delays, all of one moment: its counts are of what is settled."""
    floor, bitmaps = group.settled.floor, group.settled.bitmaps()
    attempts, delays = group.attempts(), group.delays(ahead)
    counts = [group.acked, group.dead, group.expired, group.lost, group.passed]
    yield ["group", group.stream_id, group.id, group.name, group.start, group.cursor, floor, counts]
    if group.is_paused or group.config != GroupConfig(group.config.stream, group.name):
        yield ["group_config", group.stream_id, group.id, told(group.config), group.is_paused]
    for some in _parts(bitmaps, _BITMAPS):
        yield ["settled", group.stream_id, group.id, [(chunk, Settled.encode(bits)) for chunk, bits in some]]
    while pieces := list(islice(attempts, _RANGES)):
        yield ["attempts", group.stream_id, group.id, pieces]
    for blocks in delays:
        yield ["delayed", group.stream_id, group.id, [block.encoded() for block in blocks]]


def _producer(producer: Producer) -> Piece:
    """Refused batches are left out: no record tells of them, and a full replay would not know them either."""
    batches = [_accepted(one) for one in producer.batches if one.index]
    nonces = list(producer.nonces)
    return [
        "producer", producer.id, producer.name, nonces, producer.epoch, producer.stored, producer.journaled, batches
    ]  # fmt: skip


def _accepted(batch: Accepted) -> Sequence[Any]:
    row = batch.sequence, batch.offset, batch.crc, batch.index
    return (*row, batch.repeats) if batch.repeats else row


def _rest(log: StreamLog, current: int, end: int) -> Iterator[Piece]:
    """Where a stream's batches lie that are in no full segment, as far as its own piece told."""
    yield from _index(log, log.span(current, current)[0], end)


def _index(log: StreamLog, begin: int, end: int) -> Iterator[Piece]:
    for first in range(begin, end, _BATCHES):
        blocks = log.blocks(first, min(first + _BATCHES, end))
        if blocks:
            yield ["batches", log.id, [block.encoded() for block in blocks]]


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


# -- and back -----------------------------------------------------------------------------------------------------


def restore(chunks: Iterable[bytes], catalog: Catalog, producers: Producers) -> None:
    """Put the state back into an empty catalog.

    Raises:
        One of NOT_OURS; catalog and producers may then hold a part of it.
    """
    is_known = False
    for chunk in chunks:
        for kind, *fields in _decode(chunk):
            if kind == "version":
                is_known = fields == [VERSION]
            elif not is_known:
                raise Unknown(f"not of version {VERSION}")
            elif kind == "producer":
                _restore_producer(producers, *fields)
            else:
                _RESTORERS[kind](catalog, *fields)
    if not is_known:
        raise Unknown("it does not say its version")


def _restore_stream(
    catalog: Catalog, id: int, name: str, next_offset: int, last_index: int, bytes: int, messages: int, published: int
) -> None:
    log = catalog.add(id, name)
    log.next_offset, log.last_index = next_offset, last_index
    log.bytes, log.messages, log.published_at = bytes, messages, published


def _restore_group(
    catalog: Catalog, stream_id: int, id: int, name: str, start: int, cursor: int, floor: int, counts: list[int]
) -> None:
    group = catalog.add_group(catalog.by_id[stream_id], id, name, start)
    group.cursor, group.settled = cursor, Settled(floor)
    group.acked, group.dead, group.expired, group.lost, *later = counts
    group.passed = sum(later)  # none in what earlier versions wrote


def _restore_config(catalog: Catalog, id: int, config: dict[str, Any]) -> None:
    catalog.by_id[id].config = msgspec.convert(config, StreamConfig)


def _restore_ids(catalog: Catalog, id: int, digests: bytes, offsets: list[Any], instants: list[Any]) -> None:
    log = catalog.by_id[id]
    if log.ids is None:  # not `or`: until it is opened it has a length of 0, and the pieces before would be forgotten
        log.ids = MessageIds()
    log.ids.restore(digests, offsets, instants)


def _restore_group_config(catalog: Catalog, stream_id: int, id: int, config: dict[str, Any], is_paused: bool) -> None:
    group = catalog.groups[stream_id, id]
    group.config, group.is_paused = msgspec.convert(config, GroupConfig), is_paused


def _restore_lost(catalog: Catalog, id: int, ranges: list[tuple[int, int]]) -> None:
    catalog.by_id[id].lost += [(first, last) for first, last in ranges]


def _restore_given_up(catalog: Catalog, id: int, floor: int, bitmaps: list[tuple[int, bytes]]) -> None:
    given_up = catalog.by_id[id].given_up
    given_up.floor = max(given_up.floor, floor)
    for number, encoded in bitmaps:
        given_up.restore(number, encoded)


def _restore_settled(catalog: Catalog, stream_id: int, id: int, bitmaps: list[tuple[int, bytes]]) -> None:
    for number, encoded in bitmaps:
        catalog.groups[stream_id, id].settled.restore(number, encoded)


def _restore_attempts(catalog: Catalog, stream_id: int, id: int, pieces: list[list[int]]) -> None:
    catalog.groups[stream_id, id].recover("attempts", pieces)


def _restore_delayed(catalog: Catalog, stream_id: int, id: int, columns: list[list[Any]]) -> None:
    group = catalog.groups[stream_id, id]
    blocks = [decode_block(*column) for column in columns]
    firsts, mores, *others = (block.values(0, block.count) for block in blocks)
    lasts = [first + more for first, more in zip(firsts, mores, strict=True)]
    if max(lasts) >= group.cursor:
        raise Unknown(f"offset {max(lasts)} is delayed, and the group came to {group.cursor}")
    group.recover("delayed", [list(row) for row in zip(firsts, lasts, *others, strict=True)])


def _restore_deleted(catalog: Catalog, ends: list[list[int]]) -> None:
    for id, end in ends:
        catalog.deleted[id] = end


_RESTORERS: Final[dict[str, Callable[..., None]]] = {
    "deleted": _restore_deleted,
    "stream": _restore_stream,
    "config": _restore_config,
    "ids": _restore_ids,
    "group_config": _restore_group_config,
    "lost": _restore_lost,
    "given_up": _restore_given_up,
    "group": _restore_group,
    "settled": _restore_settled,
    "attempts": _restore_attempts,
    "delayed": _restore_delayed,
}


def _restore_producer(
    producers: Producers,
    id: int,
    name: str,
    nonces: list[bytes],
    epoch: int,
    stored: int,
    journaled: bool,
    batches: list[list[Any]],
) -> None:
    producer = producers.restore(id, name, nonces, epoch)
    producer.journaled = journaled
    for sequence, offset, crc, index, *more in batches:
        repeats = [(place, known) for place, known in more[0]] if more else None
        producer.accept(Accepted(sequence, offset, crc, index, None, repeats))
    producer.sequence = producer.stored = stored


def index(chunk: bytes, catalog: Catalog) -> None:
    """Put back where batches lie; those that are known are passed over. Raises as restore()."""
    for piece in _decode(chunk):
        match piece:
            case ["batches", int(id), list(columns)] if len(columns) == _COLUMNS:
                blocks = [decode_block(*column) for column in columns]
            case ["index", int(id), list(columns)] if len(columns) == _COLUMNS:  # as earlier versions have it
                blocks = [pack(widened(code, data)) for code, data in zip(_PLAIN, columns, strict=True) if any(columns)]
            case _:
                raise Unknown(f"a piece called {str(piece[:1])[:32]}")
        if len({block.count for block in blocks}) > 1:
            raise Unknown("columns that differ in length")
        log = catalog.by_id.get(id)
        if log is not None and blocks:
            log.restore(blocks)
