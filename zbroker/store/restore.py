"""Finding the checkpoint that a log can be opened with, and showing it to the engine. FORMAT.md 7.

Reads only. On any doubt about a checkpoint the older one, or the whole log, is taken: a checkpoint never shortens the log.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from patterns.wire.records import FIRST_INDEX, Damage, Position, Record, RecordKind, Restorer
from zbroker.store.checkpoint import STATE, IndexMeta, Meta, checkpoint_name, index_name, parse_checkpoint_name
from zbroker.store.chunks import META, NotWhole, read_chunks
from zbroker.store.compacted import look_through
from zbroker.store.disk import Disk
from zbroker.store.listing import SegmentFile
from zbroker.store.liveness import Liveness
from zbroker.store.note import Note
from zbroker.store.record import WITHOUT_INDEX
from zbroker.store.recovery import Start
from zbroker.store.run import CHAIN_UNKNOWN, Run, read_run
from zbroker.store.segment import BLOCK_BYTES, FIRST_NUMBER, FORMAT, SegmentHeader
from zbroker.store.window import Window, find_header


class Restored(msgspec.Struct):
    """What became of the checkpoints of a folder.

    Attributes:
        meta: of the one that was shown; None: there is none to use, replay everything.
        refused: what was wrong with others.
        indexed: segments whose index is whole.
    """

    meta: Meta | None = None
    refused: list[str] = []
    indexed: set[int] = set()


def restore_newest(
    disk: Disk,
    folder: str,
    files: list[SegmentFile],
    engine: Restorer,
    liveness: Liveness,
    note: Note | None = None,
) -> Restored:
    """Show the newest usable checkpoint to the engine, with the places of all records before it."""
    result = Restored(refused=[], indexed=set())
    found = (parse_checkpoint_name(name) for name in disk.listdir(folder))
    for index in sorted((index for index in found if index is not None), reverse=True):
        path = f"{folder}/{checkpoint_name(index)}"
        try:
            chunks = list(read_chunks(disk, path))  # all before the first is shown: half a checkpoint is none
            meta = _meta_of(chunks)
        except NotWhole as error:
            result.refused.append(f"{path} {error}; an older one, or the whole log, was read instead")
            continue
        why = objection(meta, files, note)
        if why is None and not engine.restore(body for tag, body in chunks if tag == STATE):
            why = "is of another version of the broker"
        if why is not None:
            result.refused.append(f"{path} {why}; an older one, or the whole log, was read instead")
            continue
        result.meta = meta
        result.indexed = set(_index(disk, folder, files, meta, engine, liveness))
        for number, spans in meta.spans.items():
            liveness.load(number, spans, meta.sizes.get(number, []))
        if not all(engine.index(body) for tag, body in chunks if tag not in (STATE, META)):
            for file in files:
                if file.header is not None and file.number >= meta.number:
                    _rescan(disk, file, file.header, meta.first_index, engine, liveness)
        return result
    return result


def read_meta(disk: Disk, path: str) -> Meta:
    """The store's part, once every byte of the file is verified. Raises NotWhole."""
    return _meta_of((tag, body) for tag, body in read_chunks(disk, path) if tag == META)


def _meta_of(chunks: Iterable[tuple[int, bytes]]) -> Meta:
    metas = [body for tag, body in chunks if tag == META]
    if not metas:
        raise NotWhole("does not say what it is of")
    try:
        return msgspec.msgpack.decode(metas[-1], type=Meta)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise NotWhole(f"cannot be understood ({error})") from error


def objection(meta: Meta, files: list[SegmentFile], note: Note | None = None) -> str | None:
    """Why a checkpoint does not belong to these segments; None when it does.

    Where no segment has its header any more, a checkpoint is all that there is: it alone knows the streams' names and which
    offsets were given.

    Args:
        note: what LOCK says, if anything.
    """
    headers = {file.number: file.header for file in files if file.header is not None}
    if meta.reader_min > FORMAT:
        return f"needs a reader of format {meta.reader_min}, this one reads {FORMAT}"
    if not headers:
        others = {file.uuid for file in files if file.uuid is not None} | ({note.uuid} if note is not None else set())
        return "belongs to another journal" if others - {meta.uuid} else None
    newest = headers[max(headers)]
    if meta.uuid != newest.folder_uuid:
        return "belongs to another journal"
    needed = max(header.oldest_needed for header in headers.values())
    if needed > meta.first_index:
        return f"is too old: of the log before record {needed} something was given back since"
    anchor = headers.get(meta.number)
    if anchor is not None and anchor.crc != meta.header_crc:
        return f"is of another life of segment {meta.number}: a copy from another time"
    later = [header.first_index for number, header in headers.items() if number > meta.number]
    if anchor is None and later and min(later) < meta.first_index:
        return "tells of records that the log gave to others: a copy from another time"
    return None


class Judged(NamedTuple):
    """A checkpoint of a folder, and why it cannot be used; `meta` is None where it can be read least of all."""

    name: str
    first_index: int
    meta: Meta | None
    why_not: str | None


def judge_all(disk: Disk, folder: str, files: list[SegmentFile], note: Note | None = None) -> list[Judged]:
    """All checkpoints, oldest first, as far as the store can tell; no engine is asked."""
    judged: list[Judged] = []
    for name in sorted(disk.listdir(folder)):
        index = parse_checkpoint_name(name)
        if index is None:
            continue
        try:
            meta = read_meta(disk, f"{folder}/{name}")
            judged.append(Judged(name, index, meta, objection(meta, files, note)))
        except NotWhole as error:
            judged.append(Judged(name, index, None, str(error)))
    return judged


def newest_usable(judged: list[Judged]) -> Meta | None:
    """The one that an open begins with; None: it reads the whole log."""
    return next((one.meta for one in reversed(judged) if one.why_not is None), None)


class Held(NamedTuple):
    """A segment that a checkpoint lists, and its records: up to one before `end_index`."""

    number: int
    first_index: int
    end_index: int


def held(meta: Meta) -> list[Held]:
    """All that it lists; those that were begun after the cut may hold more."""
    ends = [first for _, first in meta.segments[1:]] + [meta.last_index + 1]
    return [
        Held(number, first, meta.ends.get(number, end))
        for (number, first), end in zip(meta.segments, ends, strict=False)
    ]


def is_given_back(meta: Meta | None, number: int) -> bool:
    """Whether the log needs that segment no more, as a checkpoint tells."""
    return meta is not None and number < meta.number and all(number != listed for listed, _ in meta.segments)


def missing_segments(meta: Meta, files: list[SegmentFile]) -> list[Damage]:
    """Segments that the log had and that are not there, or have no header any more."""
    headed = {file.number for file in files if file.header is not None}
    return [
        Damage(first, end - 1, number, 0, 0, [], "segment missing")
        for number, first, end in held(meta)
        if number not in headed and first < min(end, meta.first_index)
    ]


def start_of(meta: Meta | None) -> Start | None:
    """Where the scan begins."""
    return None if meta is None else Start(meta.number, meta.offset, meta.first_index, meta.last_index)


class Life(NamedTuple):
    """What the life that begins gets: its first segment's number, an epoch, the folder's uuid, what the log needs."""

    number: int
    epoch: int
    uuid: bytes
    oldest_needed: int


def next_life(files: list[SegmentFile], meta: Meta | None, note: Note | None = None) -> Life:
    """Numbers that were never used; the uuid is empty in a new folder."""
    number = FIRST_NUMBER if not files else files[-1].number + (not files[-1].is_blank)
    life = Life(number, number, b"", FIRST_INDEX)
    newest = next((file.header for file in reversed(files) if file.header), None)
    if newest is not None:
        # Each segment whose header is lost may have begun a life of its own: never use an epoch twice.
        epoch = newest.epoch + number - newest.number
        life = Life(number, epoch, newest.folder_uuid, newest.oldest_needed)
    if meta is not None:  # its newest segments may be gone, and nothing of theirs may come twice
        number = max(number, meta.last_number + 1)
        epoch = max(life.epoch, meta.epoch + number - meta.number)
        life = life._replace(number=number, epoch=epoch, uuid=life.uuid or meta.uuid)
    if note is not None and note.uuid == (life.uuid or note.uuid):
        number = max(life.number, note.number + 1)
        epoch = max(life.epoch, note.epoch + number - note.number)
        life = life._replace(number=number, epoch=epoch, uuid=note.uuid)
    return life


# -- where the records before it lie --------------------------------------------------------------


def _index(
    disk: Disk, folder: str, files: list[SegmentFile], meta: Meta, engine: Restorer, liveness: Liveness
) -> Iterator[int]:
    """Show the index of each segment before the checkpoint's; yields those whose index is whole."""
    listed = {number for number, _ in meta.segments}
    for place, file in enumerate(files):
        if file.header is None or file.number >= meta.number:
            continue
        if file.number not in listed:
            liveness.give_up(file.number)
        elif _show_index(disk, f"{folder}/{index_name(file.number, file.generation)}", file.header, engine, liveness):
            yield file.number
        else:
            later = [other.header.first_index for other in files[place + 1 :] if other.header is not None]
            _rescan(disk, file, file.header, min([meta.first_index, *later]), engine, liveness)


def _show_index(disk: Disk, path: str, header: SegmentHeader, engine: Restorer, liveness: Liveness) -> bool:
    """False when it is not whole or not this segment's; what was shown already is shown again by the rescan, which is
    harmless.
    """
    is_ours = False
    try:
        for tag, body in read_chunks(disk, path):
            if tag == META:
                found = msgspec.msgpack.decode(body, type=IndexMeta)
                if found.header_crc != header.crc or found.reader_min > FORMAT:
                    return False
                is_ours = True
                if found.spans is not None:
                    liveness.load(header.number, found.spans, found.sizes)
            elif not is_ours or not engine.index(body):
                return False
    except (NotWhole, msgspec.MsgspecError, UnicodeError):
        return False
    return is_ours


def _rescan(
    disk: Disk, file: SegmentFile, header: SegmentHeader, bound: int, engine: Restorer, liveness: Liveness
) -> None:
    """Show each whole APPEND of a segment whose index is lost; what rots in it is found when it is read."""

    def visit(record: Record, position: Position) -> None:
        if record.kind == RecordKind.APPEND:
            liveness.note(position.segment, record.stream_id, record.base_offset, record.count, position.size)
            engine.reindex(record, position)

    liveness.load(file.number, [], [])
    if file.generation:
        look_through(disk, file.path, file.size, header, visit)
        return
    window = Window(disk, file.path, file.size)
    run = Run(BLOCK_BYTES, header.crc, header.first_index, 0, 0, None)
    try:
        while True:
            run = read_run(window, header, run, bound, visit)
            offset = run.offset + 1 if run.rotten is not None else run.offset
            found = find_header(window, offset, header, run.expected, bound)
            if found is None:
                return
            expected = found[1].record_index + (found[1].kind in WITHOUT_INDEX)  # a filler bears the one before its own
            run = Run(found[0], CHAIN_UNKNOWN, expected, 0, 0, None)
    finally:
        window.close()
