"""Writing checkpoints: what an engine knows, so that the log before need not be replayed. FORMAT.md 7.

A checkpoint is cut and written over many turns; it counts once it is renamed, which waits until everything that it
may reflect is durable. Beside it, each segment that is full gets an index of its own, once.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from patterns.wire.records import FIRST_INDEX, Damage
from zbroker.store.chunks import META, ChunkWriter
from zbroker.store.disk import Disk
from zbroker.store.folder import CHECKPOINT_PREFIX
from zbroker.store.liveness import Liveness, Span
from zbroker.store.segment import FORMAT, SegmentHeader, segment_name

CHECKPOINT_BYTES: Final = 64 << 20  # of log since the last one: 0.1 to 1 s of replay
CHECKPOINT_RECORDS: Final = 200_000  # the same, if records are small
SCANNED_BYTES: Final = 512 << 20  # of segments that a start reads to their ends, be they empty: each life begins one
KEPT: Final = 2  # one may rot
STATE: Final = 0  # tag of chunks that are no segment's
DRAFT: Final = "checkpoint.tmp"
INDEX_SUFFIX: Final = ".idx"
READER_MIN: Final = 1

_NAME = re.compile(rf"{CHECKPOINT_PREFIX}([0-9]{{20}})")


class Meta(msgspec.Struct, frozen=True):
    """The store's part of a checkpoint.

    Attributes:
        first_index: where a replay starts; everything before is in the checkpoint.
        last_index: of what may be in it; durable before the checkpoint got its name.
        number, offset, header_crc: the place of first_index, and the header of that segment.
        last_number: the newest segment when the cut was complete.
        segments: number and first index of every segment that the log needs; one that is listed and absent was lost, and one
            below `number` that is not listed was given back, or will be.
        spans, sizes: of the segments that can still grow, as an index has them.
        damage: holes that are known.
        ends: of segments that are listed and whose successor is not: the index after the last record. A header tells it else.
    """

    format: int
    reader_min: int
    uuid: bytes
    epoch: int
    first_index: int
    last_index: int
    number: int
    offset: int
    header_crc: int
    last_number: int
    segments: list[tuple[int, int]]
    damage: list[Damage]
    created_ms: int
    spans: dict[int, list[Span]] = {}
    sizes: dict[int, list[int]] = {}
    ends: dict[int, int] = {}


class IndexMeta(msgspec.Struct, frozen=True):
    """The store's part of a segment's index: which life of which segment it is of, and what it spans, if that is known, with
    the bytes of each span's records.
    """

    format: int
    reader_min: int
    uuid: bytes
    number: int
    header_crc: int
    spans: list[Span] | None = None
    sizes: list[int] = []


class Anchor(msgspec.Struct, frozen=True):
    """Where a replay starts, and what stands there."""

    first_index: int
    number: int
    offset: int
    header_crc: int


def checkpoint_name(first_index: int) -> str:
    """`checkpoint-<index>`, so that a listing sorts by age."""
    return f"{CHECKPOINT_PREFIX}{first_index:020d}"


def parse_checkpoint_name(name: str) -> int | None:
    """Its first index; None when the file is none."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])


def index_name(number: int, generation: int = 0) -> str:
    """The index beside a segment."""
    return segment_name(number, generation).removesuffix(".seg") + INDEX_SUFFIX


class Checkpoints:
    """The checkpoints of a folder: when the next is due, the one being written, those that are kept.

    Calls that touch the disk raise OSError; abandon() then forgets the one being written, and nothing is worse.
    """

    def __init__(self, disk: Disk, folder: str, wall_ms: Callable[[], int], liveness: Liveness) -> None:
        self._disk = disk
        self._liveness = liveness
        self._folder = folder
        self._wall_ms = wall_ms
        self._anchor: Anchor | None = None  # of the draft
        self._writer: ChunkWriter | None = None
        self._index: tuple[int, ChunkWriter] | None = None  # the segment's index being written
        self._last_index: int | None = None  # None until the engine has said all
        self._meta: Meta | None = None  # once all is written
        self._dead: set[int] = set()  # segments that the draft leaves out
        self._counted_from = (0, 0)  # records and bytes of log at the last one
        self._counted_segment = 0  # the newest then
        self.left_out: set[int] = set()  # segments that the two newest leave out: another one changes nothing for them
        self.indexed: set[int] = set()  # segments whose index is whole
        self.newest: Meta | None = None
        self.older_index = 0  # first index of the one before the newest; 0: not known to be there
        self.abandoned = 0
        self.oldest_needed = FIRST_INDEX  # once segments are to be given back, for the headers of new ones

    @property
    def is_writing(self) -> bool:
        """Whether one is begun and not done."""
        return self._writer is not None

    @property
    def newest_index(self) -> int:
        """Where a replay from the newest starts; 0: there is none."""
        return self.newest.first_index if self.newest else 0

    def is_due(self, index: int, log_bytes: int) -> bool:
        """Whether so much was written since the last one that a replay of it would take long."""
        records, size = index - self._counted_from[0], log_bytes - self._counted_from[1]
        return self._writer is None and (size >= CHECKPOINT_BYTES or records >= CHECKPOINT_RECORDS)

    def is_far_behind(self, segment: int, segment_bytes: int) -> bool:
        """Whether lives that ended soon have begun so many segments that to look where each ends would take long."""
        return self._writer is None and (segment - self._counted_segment) * segment_bytes >= SCANNED_BYTES

    def count_from(self, index: int, log_bytes: int, segment: int) -> None:
        """The next one is due so much later than this."""
        self._counted_from = (index, log_bytes)
        self._counted_segment = segment

    def begin(self, anchor: Anchor, headers: Mapping[int, SegmentHeader]) -> None:
        """Everything before the anchor is durable, and will be in the chunks.

        Of all segments those are not listed that are dead now: the state that follows knows so. What dies while it is cut it
        may not know yet.
        """
        self.abandon_draft()
        self._anchor = anchor
        self._dead = self._liveness.droppable(headers, anchor.number)
        self._writer = ChunkWriter(self._disk, f"{self._folder}/{DRAFT}")

    def put(self, chunk: bytes, segment: int, header: SegmentHeader | None) -> None:
        """A chunk of the state, or of a segment's index: in a file of its own when the segment is full."""
        assert self._anchor is not None
        assert self._writer is not None
        if segment == STATE or segment >= self._anchor.number:
            self._end_index()
            self._writer.put(segment, chunk)
            return
        if self._index is None or self._index[0] != segment:
            self._end_index()
            assert header is not None
            self._index = segment, ChunkWriter(self._disk, f"{self._folder}/{index_name(segment, header.generation)}")
            spans, sizes = self._liveness.spans(segment), self._liveness.sizes(segment)
            meta = IndexMeta(FORMAT, READER_MIN, header.folder_uuid, segment, header.crc, spans, sizes)
            self._index[1].put(META, msgspec.msgpack.encode(meta))
        self._index[1].put(segment, chunk)

    def _end_index(self) -> None:
        if self._index is not None:
            segment, writer = self._index
            self._index = None
            writer.finish()
            self.indexed.add(segment)

    def end(self, last_index: int) -> None:
        """All was said; nothing of it depends on a record above last_index."""
        self._end_index()
        self._last_index = last_index

    def is_complete(self, durable_index: int) -> bool:
        """Whether it may get its name: nothing in it can be lost any more."""
        return self._last_index is not None and self._last_index <= durable_index

    def publish(self, headers: dict[int, SegmentHeader], damage: list[Damage]) -> list[int]:
        """One step of two, so that no turn waits for both: make it durable; then give it its name, and forget all but
        the two newest. `is_writing` tells whether another is left.

        Returns:
            Segments that are gone now: neither of the two needs them.
        """
        assert self._writer is not None
        if self._meta is None:
            self._meta = self._describe(headers, damage)
            self._writer.put(META, msgspec.msgpack.encode(self._meta))
            self._writer.finish()
            return []
        self._disk.rename(self._writer.path, f"{self._folder}/{checkpoint_name(self._meta.first_index)}")
        self._disk.fsync_dir(self._folder)
        older, self.newest = self.newest, self._meta
        for number in self._dead:
            self._liveness.give_up(number)
        dead = bool(self._dead)
        self.left_out = self._dead - {number for number, _ in older.segments} if older is not None else set()
        self.abandon_draft()
        self.older_index = older.first_index if older is not None else 0
        self._prune({self.newest.first_index, self.older_index})
        if older is None or not dead:
            return []
        self.oldest_needed = older.first_index
        return self._give_back(headers, older, self.newest)

    def _give_back(self, headers: dict[int, SegmentHeader], older: Meta, newest: Meta) -> list[int]:
        """Unlink what both leave out. What is found again after a power cut, nobody lists: it goes another time."""
        listed = {number for meta in (older, newest) for number, _ in meta.segments}
        gone = [number for number in sorted(headers) if number < older.number and number not in listed]
        for number in gone:
            generation = headers[number].generation
            for name in (segment_name(number, generation), index_name(number, generation)):
                try:
                    self._disk.unlink(f"{self._folder}/{name}")
                except FileNotFoundError:
                    pass  # an index need not exist
        return gone

    def _describe(self, headers: dict[int, SegmentHeader], damage: list[Damage]) -> Meta:
        anchor, last_index = self._anchor, self._last_index
        assert anchor is not None
        assert last_index is not None
        header = headers[anchor.number]
        growing = [number for number in headers if number >= anchor.number]
        return Meta(
            format=FORMAT,
            reader_min=READER_MIN,
            uuid=header.folder_uuid,
            epoch=header.epoch,
            first_index=anchor.first_index,
            last_index=last_index,
            number=anchor.number,
            offset=anchor.offset,
            header_crc=header.crc,
            last_number=max(headers),
            segments=[(number, headers[number].first_index) for number in sorted(headers) if number not in self._dead],
            damage=damage,
            created_ms=self._wall_ms(),
            spans={number: self._liveness.spans(number) or [] for number in growing},
            sizes={number: self._liveness.sizes(number) for number in growing},
            ends=self._ends(headers),
        )

    def _ends(self, headers: dict[int, SegmentHeader]) -> dict[int, int]:
        known = {} if self.newest is None else self.newest.ends
        ends: dict[int, int] = {}
        for number in headers.keys() - self._dead:
            following = headers.get(number + 1)
            if following is None and number in known:
                ends[number] = known[number]
            elif following is not None and following.number in self._dead:
                ends[number] = following.first_index
        return ends

    def _prune(self, kept: set[int]) -> None:
        """All others go, those with a higher index too: they were refused when the folder was opened."""
        for name in self._disk.listdir(self._folder):
            index = parse_checkpoint_name(name)
            if index is not None and index not in kept:
                self._disk.unlink(f"{self._folder}/{name}")

    def find_older(self) -> None:
        """The one before the newest, in a folder where all that are there can be used."""
        names = (parse_checkpoint_name(name) for name in self._disk.listdir(self._folder))
        self.older_index = max((index for index in names if index and index < self.newest_index), default=0)

    def abandon(self) -> None:
        """It could not be written; another one is due when as much was written again."""
        self.abandon_draft()
        self.abandoned += 1

    def abandon_draft(self) -> None:
        """Let go of what was begun; the next draft overwrites it."""
        if self._index is not None:
            self._index[1].close()
        if self._writer is not None:
            self._writer.close()
        self._writer = self._anchor = self._last_index = self._index = self._meta = None
