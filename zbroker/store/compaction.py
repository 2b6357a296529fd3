"""Compaction of one segment in place: what is wanted of it goes into a file of the next generation, piece by piece.

tmp, fsync, rename, fsync of the folder; the old file goes only when the engine knows the new places: compactor.py.
It reads with calls of its own, and nothing else touches what it writes.
"""

import errno
from array import array
from collections.abc import Callable, Generator, Iterator
from enum import Enum
from typing import Final

import msgspec

from patterns.wire.records import Move, Position, Record, RecordKind
from patterns.wire.settled import Range
from zbroker.store.compacted import EMPTY_BYTES, Content, Seal, first_chain, seal_of, walk
from zbroker.store.disk import Disk
from zbroker.store.liveness import Liveness, Span
from zbroker.store.record import (
    COMMIT_ALIGN_BYTES,
    HEADER_BYTES,
    WITHOUT_INDEX,
    Header,
    build_body,
    build_header,
    crc32c,
    padded,
    parse_body,
    parse_header,
    record_of,
)
from zbroker.store.segment import (
    BLOCK_BYTES,
    FORMAT,
    READER_MIN_COMPACTED,
    SegmentHeader,
    data_end,
    pack_header,
    segment_name,
    unpack_header,
    write_whole,
)
from zbroker.store.window import Window

DRAFT: Final = "compaction.tmp"
AHEAD_BYTES: Final = 256 << 10  # of headers that are looked through: a step reads no more at once
SYNC_BYTES: Final = 1 << 20  # what a sync finds to write is a commit's delay
FLUSH_BYTES: Final = 128 << 10
LOOK_COST: Final = 1_024  # of a step's budget, for a record that is looked at: 8 us in Python ..
COPY_COST: Final = 2_048  # .. and for one that is copied, beside its bytes: 15 us

# Of an APPEND record, only the messages at these offsets; None when that makes no sense of it.
Slicer = Callable[[Record, list[Range]], Record | None]


class Verdict(Enum):
    """What became of a compaction."""

    RUNNING = "running"
    DONE = "done"
    NOT_WORTH_IT = "more than half of it is live"
    LEFT_ALONE = "damaged, or tells of damage"


class _LeftAlone(Exception):
    """The segment is no clean log: what can be read of it stays as it is, and what cannot stays as evidence."""


class Compaction:
    """Of the segment `source` into its next generation, in steps.

    Args:
        bound: first index of the next segment.
        slicer: None: a batch is copied whole as long as one message of it is wanted.
        oldest_needed: first index of the older checkpoint, which covers the segment.

    Attributes:
        verdict: RUNNING until it is done, or is not to be done.
        header: of the new file, once DONE.
        live_bytes: of records that were found to be wanted.
        written: bytes of the new file so far.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        source: SegmentHeader,
        bound: int,
        liveness: Liveness,
        slicer: Slicer | None,
        *,
        salt: bytes,
        oldest_needed: int,
        created_ms: int,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self.source = source
        self._bound = bound
        self._liveness = liveness
        self._slicer = slicer
        self.verdict = Verdict.RUNNING
        self.header = msgspec.structs.replace(
            source,
            generation=source.generation + 1,
            durable_index=bound - 1,
            salt=salt,
            created_ms=created_ms,
            oldest_needed=oldest_needed,
            format=FORMAT,
            reader_min=READER_MIN_COMPACTED,
            crc=0,
        )
        self.spans: list[Span] = []
        self.sizes: list[int] = []
        self.live_bytes = self.records = 0
        self._spans: dict[int, tuple[int, int]] = {}  # of the source
        self._live: dict[int, tuple[array[int], array[int]]] = {}  # by stream: offsets and sizes of records
        self._moves: list[array[int]] = [array("Q") for _ in range(4)]  # stream, base, offset, size; 0: gone
        self._sealed: list[Span] | None = None  # what the SEAL of the source says of the segment as it was written
        self._window: Window | None = None
        self._reading: int | None = None
        self._handle: int | None = None
        self._parts: list[bytes] = []
        self._part_bytes = self._unsynced = 0
        self.written = BLOCK_BYTES
        self._chain = first_chain(self.header)
        self._left = 0
        self._course = self._run()

    def step(self, budget: int) -> None:
        """Go on for about so many bytes, or for one call that waits for the disk.

        Raises:
            OSError: of writing: there is no space (spares.OUT_OF_SPACE), or the disk has failed; abandon() follows.
        """
        self._left = budget
        try:
            if next(self._course, True):
                self.verdict = Verdict.DONE
        except _LeftAlone:
            self.verdict = Verdict.LEFT_ALONE
        if self.verdict is not Verdict.RUNNING:
            self._close()

    def abandon(self) -> None:
        """Let go of what was begun. Raises OSError."""
        self.close()
        try:
            self._disk.unlink(f"{self._folder}/{DRAFT}")
        except FileNotFoundError:
            pass  # it had its name by then, or none yet

    @property
    def is_writing(self) -> bool:
        """Whether there is a draft that takes space."""
        return self._handle is not None

    def close(self) -> None:
        """Let go of the files, as they are."""
        self._course.close()
        self._close()

    def moves(self) -> Iterator[Move]:
        """Where the batches are now."""
        segment, generation = self.source.number, self.header.generation
        for stream_id, base, offset, size in zip(*self._moves, strict=True):
            position = Position(segment, offset, size, generation) if size else None
            yield Move(segment, stream_id, base, position)

    def _close(self) -> None:
        self._close_window()
        handles, self._reading, self._handle = (self._reading, self._handle), None, None
        for handle in handles:
            if handle is not None:
                self._disk.close(handle)

    def _close_window(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            window.close()

    # -- the course ---------------------------------------------------------------------------------------------------

    def _run(self) -> Generator[bool, None, None]:
        """Yields False wherever a step may end; whoever resumes it goes on."""
        yield from self._look()
        if 2 * (self.live_bytes + EMPTY_BYTES) > self.source.segment_bytes:
            self.verdict = Verdict.NOT_WORTH_IT
            yield False
        yield from self._copy()
        yield from self._finish()

    def _spend(self, cost: int) -> bool:
        """Whether the step is over."""
        self._left -= cost
        return self._left <= 0

    def _look(self) -> Iterator[bool]:
        """Find what is wanted."""
        source = self.source
        path = f"{self._folder}/{segment_name(source.number, source.generation)}"
        try:
            self._reading = self._disk.open(path)
            self._window = Window(self._disk, path, source.segment_bytes, AHEAD_BYTES)
        except FileNotFoundError as error:
            raise _LeftAlone from error  # somebody has deleted it
        for offset, found in self._headers(self._window):
            size = HEADER_BYTES + found.body_bytes
            if found.kind == RecordKind.LOST:
                raise _LeftAlone
            if found.kind == RecordKind.APPEND:
                self._weigh(offset, size, found)
            if self._spend(LOOK_COST + min(size, AHEAD_BYTES) // 8):
                yield False

    def _headers(self, window: Window) -> Iterator[tuple[int, Header]]:
        """The headers of all records, in the order of the file; a fault among them is none of ours to judge."""
        source = self.source
        salt_crc, end, is_log = crc32c(source.salt), data_end(source.segment_bytes), source.generation == 0
        offset, expected = BLOCK_BYTES, source.first_index
        chain = source.crc if is_log else first_chain(source)
        while expected < self._bound or not is_log:
            at = window.load(offset, HEADER_BYTES)
            found = parse_header(window.data, at, salt_crc)
            if found is None or found.chain != chain or found.epoch != source.epoch:
                raise _LeftAlone
            if offset + HEADER_BYTES + found.body_bytes > end:
                raise _LeftAlone
            if found.kind == RecordKind.SEAL:
                self._sealed = self._spans_in_seal(window, offset, found)
                return
            if is_log and found.record_index != expected - (found.kind in WITHOUT_INDEX):
                raise _LeftAlone
            expected += is_log and found.kind not in WITHOUT_INDEX
            yield offset, found
            chain = found.header_crc
            offset += padded(HEADER_BYTES + found.body_bytes)

    def _spans_in_seal(self, window: Window, offset: int, found: Header) -> list[Span]:
        at = window.load(offset, HEADER_BYTES + found.body_bytes)
        body = parse_body(window.data, at + HEADER_BYTES, found.body_bytes, found.body_crc)
        seal = None if body is None else seal_of(body[1])
        if seal is None:
            raise _LeftAlone
        return seal.spans

    def _weigh(self, offset: int, size: int, found: Header) -> None:
        stream_id, base, count = found.stream_id, found.base_offset, found.message_count
        self._spans[stream_id] = (self._spans.get(stream_id, (base, 0))[0], base + count - 1)
        wanted = sum(last - first + 1 for first, last in self._liveness.wanted(stream_id, base, base + count - 1))
        if not wanted:
            self._moved(stream_id, base, 0, 0)
            return
        self.live_bytes += padded(size if self._slicer is None else size * wanted // count)
        offsets, sizes = self._live.setdefault(stream_id, (array("Q"), array("I")))
        offsets.append(offset)
        sizes.append(size)

    def _copy(self) -> Iterator[bool]:
        path = f"{self._folder}/{DRAFT}"
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            pass  # the usual case
        self._handle = self._disk.open(path, create=True)
        for stream_id in sorted(self._live):
            for offset, size in zip(*self._live[stream_id], strict=True):
                self._copy_one(self._read(offset, size))
                if self._part_bytes >= FLUSH_BYTES:
                    self._flush()
                if self._unsynced >= SYNC_BYTES:
                    yield False
                    self._disk.fdatasync(self._handle)
                    self._unsynced = 0
                    yield False
                elif self._spend(COPY_COST + 2 * size):
                    yield False

    def _read(self, offset: int, size: int) -> bytes:
        assert self._reading is not None
        try:
            return self._disk.pread(self._reading, size, offset)
        except OSError as error:
            if error.errno == errno.EIO:
                raise _LeftAlone from error  # a bad sector is damage of the record, and no failure of the log
            raise

    def _copy_one(self, data: bytes) -> None:
        found = parse_header(data, 0, crc32c(self.source.salt))
        body = None if found is None else parse_body(data, HEADER_BYTES, found.body_bytes, found.body_crc)
        if found is None or body is None:
            raise _LeftAlone
        record = record_of(found, *body)
        stream_id, base, count = record.stream_id, record.base_offset, record.count
        wanted = self._liveness.wanted(stream_id, base, base + count - 1)
        if not wanted:
            self._moved(stream_id, base, 0, 0)
            return
        if self._slicer is not None and wanted != [(base, base + count - 1)]:
            record = self._slicer(record, wanted) or record
        offset = self._put(record)
        self._moved(stream_id, base, offset, self.written - offset)
        self.written = padded(self.written)
        self.records += 1
        if self.spans and self.spans[-1][0] == stream_id:
            self.spans[-1] = (stream_id, self.spans[-1][1], wanted[-1][1])
            self.sizes[-1] += self.written - offset
        else:
            self.spans.append((stream_id, wanted[0][0], wanted[-1][1]))
            self.sizes.append(self.written - offset)

    def _read_back(self, handle: int, length: int, header: SegmentHeader) -> Iterator[bool]:
        """From the platter: when the old file goes, this is the only copy, and drives have lost writes that they confirmed."""
        self._disk.drop_cache(handle)
        self._close_window()
        content = Content(rotten=[])
        self._window = window = Window(self._disk, f"{self._folder}/{DRAFT}", length, AHEAD_BYTES)
        at = window.load(0, BLOCK_BYTES)
        block = window.data[at : at + BLOCK_BYTES]
        for size in walk(window, header, content, lambda record, position: None):
            if self._spend(LOOK_COST + size // 2):
                yield False
        if not content.is_whole or unpack_header(block) != header:
            raise _LeftAlone

    def _moved(self, stream_id: int, base: int, offset: int, size: int) -> None:
        for column, value in zip(self._moves, (stream_id, base, offset, size), strict=True):
            column.append(value)

    def _put(self, record: Record) -> int:
        """Returns where it begins; `written` is where it ends."""
        prefix, body_crc = build_body(record.columns, record.payload)
        body_bytes = len(prefix) + len(record.payload)
        header = self.header
        built, self._chain = build_header(
            crc32c(header.salt), body_crc, body_bytes, header.durable_index, header.epoch, self._chain, record
        )
        offset = self.written
        self._parts += (built, prefix, record.payload, bytes(-body_bytes % HEADER_BYTES))
        self.written += HEADER_BYTES + body_bytes
        self._part_bytes += padded(HEADER_BYTES + body_bytes)
        return offset

    def _flush(self) -> None:
        assert self._handle is not None
        data, self._parts = b"".join(self._parts), []
        write_whole(self._disk, self._handle, [data], padded(self.written) - len(data))
        self._unsynced += len(data)
        self._part_bytes = 0

    def _finish(self) -> Iterator[bool]:
        """The SEAL and the header, then a name; from the last step on it is the segment."""
        assert self._handle is not None
        handle, number = self._handle, self.source.number
        written = self._sealed  # what an earlier compaction has taken out is told on
        if written is None:
            written = [(stream_id, *span) for stream_id, span in self._spans.items()]
        seal = msgspec.msgpack.encode(Seal(self.records, self._bound - 1, written))
        self._put(Record(self._bound - 1, RecordKind.SEAL, count=self.records, payload=seal))
        self.written = padded(self.written)
        self._flush()
        length = padded(self.written, COMMIT_ALIGN_BYTES) + BLOCK_BYTES
        header = msgspec.structs.replace(self.header, segment_bytes=length)
        block, crc = pack_header(header)
        write_whole(self._disk, handle, [block], 0)
        write_whole(self._disk, handle, [block], data_end(length))
        yield False
        self._disk.fsync(handle)
        yield False
        yield from self._read_back(handle, length, msgspec.structs.replace(header, crc=crc))
        self._disk.rename(f"{self._folder}/{DRAFT}", f"{self._folder}/{segment_name(number, header.generation)}")
        yield False
        self._disk.fsync_dir(self._folder)
        self.header = msgspec.structs.replace(header, crc=crc)
        self.written = length
