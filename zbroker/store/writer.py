"""The writing end of the log: appends gathered, written by one call and confirmed by one sync, segment after segment.

FORMAT.md 4. Calls that touch the disk raise OSError; the journal ends this life then. No clock: `now` comes with the calls.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from patterns.wire.records import FIRST_INDEX, Position, Record, RecordKind
from zbroker.store.commit import Group, build_commit, witness_group
from zbroker.store.disk import Disk
from zbroker.store.faults import JournalFull, RecordTooLarge
from zbroker.store.filling import Filling
from zbroker.store.liveness import Liveness
from zbroker.store.record import (
    COLUMNS_LENGTH_BYTES,
    COMMIT_ALIGN_BYTES,
    HEADER_BYTES,
    WITHOUT_INDEX,
    build_body,
    crc32c,
    padded,
)
from zbroker.store.segment import (
    BLOCK_BYTES,
    READER_MIN_GIVEN_BACK,
    SALT_BYTES,
    SegmentHeader,
    data_end,
    pack_header,
    segment_name,
    write_whole,
)
from zbroker.store.spares import Spares
from zbroker.store.syncs import Syncs

COMMIT_BYTES = 1 << 20  # what one sync covers is everybody's latency: 1.45 ms at 1 MiB, 4.6 ms at 4 MiB
WITNESS_DELAY_US = 5_000  # long enough not to double the syncs of a busy journal, short beside a human's restart


class LogWriter:
    """Where records go; nothing is written before begin().

    Args:
        begun: told of the header of each segment that is begun, before the first record of it is written.

    Attributes:
        number: of the segment that is written to.
        last_index, durable_index: of the last record taken, and of the last one that is synced.
        epoch, uuid: of this life; those, `oldest_needed` and `checkpoint_index` stand in the headers of new segments.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        *,
        segment_bytes: int,
        random_bytes: Callable[[int], bytes],
        wall_ms: Callable[[], int],
        liveness: Liveness,
        begun: Callable[[SegmentHeader], None],
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._commit_bytes = min(COMMIT_BYTES, segment_bytes // 8)
        self._random_bytes = random_bytes
        self._wall_ms = wall_ms
        self._liveness = liveness
        self._begun = begun
        self.spares = Spares(disk, folder, segment_bytes)
        self.filling = Filling(disk, segment_bytes)
        self.syncs = Syncs()
        self.number = self.epoch = self.checkpoint_index = 0
        self.uuid = b""
        self.oldest_needed = FIRST_INDEX
        self.last_index = self.durable_index = 0
        self._witnessed_index = self._synced_at = 0
        self._groups: deque[Group] = deque()
        self._group: Group | None = None  # the last of _groups, while it takes more
        self._group_end = 0  # up to which it takes them
        # The segment being written, and where the next append goes (which may already be a later one).
        self._handle = -1
        self._written_to = self._tail_segment = self._tail = 0
        self._chain = self._salt_crc = 0

    def begin(self, number: int, epoch: int, uuid: bytes, end_index: int, previous: int = 0) -> None:
        """Begin a life with a segment of its own; `end_index` is that of the next record, `previous` the newest segment that stays.

        Raises:
            JournalFull: there is no space for it.
        """
        self.epoch, self.uuid = epoch, uuid
        self.last_index = self.durable_index = self._witnessed_index = end_index - 1
        self.spares.find_ballast()
        handle = self.spares.make(number)
        if handle is None:
            raise JournalFull(self._folder, self._segment_bytes, self.spares.full or "")
        self.spares.retry_at = 0 if self.spares.full is not None else None
        self._handle, self.number = handle, previous
        self._begin_segment(number, handle)
        self._tail_segment, self._tail = number, BLOCK_BYTES

    # -- state ----------------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Whether something that was appended is not durable yet."""
        return bool(self._groups)

    @property
    def waiting_bytes(self) -> int:
        """Of it."""
        return sum(group.end - group.start for group in self._groups)

    @property
    def tail(self) -> int:
        """Where the next append goes, once nothing waits: a byte of segment `number`."""
        return self._tail

    @property
    def handle(self) -> int:
        """Of the segment that is written to."""
        return self._handle

    @property
    def log_bytes(self) -> int:
        """Grows with the log; an empty rest of a segment counts as written."""
        return self.number * self._segment_bytes + self._tail

    # -- append and commit ----------------------------------------------------------------------------

    def append(self, record: Record) -> Position:
        """Take a record; it is written by the next commit. The disk is not touched.

        Raises:
            JournalFull: there is no room and none can be made at present. Nothing was taken.
            RecordTooLarge: no segment can hold it. Nothing was taken.
        """
        assert record.index == self.last_index + 1, f"index {record.index} after {self.last_index}"
        assert record.kind not in WITHOUT_INDEX
        size = HEADER_BYTES + COLUMNS_LENGTH_BYTES + len(record.columns) + len(record.payload)
        room = padded(size)
        group = self._group
        if group is None or group.end + room > self._group_end:
            group = self._room(room, size)
        prefix, body_crc = build_body(record.columns, record.payload)
        group.entries.append((record, prefix, body_crc))
        offset = group.end
        group.end = offset + room
        self.last_index = record.index
        if record.kind == RecordKind.APPEND:
            self._liveness.note(group.segment, record.stream_id, record.base_offset, record.count, size)
        return Position(group.segment, offset, size)

    def _room(self, room: int, size: int) -> Group:
        """A new group for the next `room` bytes, which the open one has no room for."""
        if self._group is not None:
            self._close_group(self._group)
        segment, start = self._tail_segment, self._tail
        if start + room > data_end(self._segment_bytes):
            bytes_max = self._segment_bytes - 2 * BLOCK_BYTES
            if room > bytes_max:
                raise RecordTooLarge(self._folder, size, bytes_max)
            segment, start = segment + 1, BLOCK_BYTES
        full = self.spares.full
        if full is not None and segment != self.number and self.spares.prepared is None:
            raise JournalFull(self._folder, size, full)
        self._tail_segment, self._tail = segment, start
        self._liveness.begin(segment)
        self._group = Group(segment, start)
        self._group_end = min(start + self._commit_bytes, data_end(self._segment_bytes))
        self._groups.append(self._group)
        return self._group

    def _close_group(self, group: Group) -> None:
        self._tail = padded(group.end, COMMIT_ALIGN_BYTES)
        self._group = None

    def commit(self, now: int) -> None:
        """Write and sync what was appended, at most 1 MiB a sync, as far as there is space for it."""
        if self._group is not None:
            self._close_group(self._group)
        while self._groups and self._advance(self._groups[0].segment, now):
            self._write(self._groups[0])
            self._groups.popleft()
            self._synced_at = now
            if self._written_to > self._segment_bytes // 4:
                self.spares.prepare(self.number + 1, now)

    def _write(self, group: Group) -> None:
        """One commit: one write, one sync."""
        parts, chain = build_commit(group, self._salt_crc, self.epoch, self._chain, self.durable_index)
        written = write_whole(self._disk, self._handle, parts, group.start)
        self._sync(self._handle)
        self._chain = chain
        self._written_to = group.start + written
        self.filling.note(self._written_to, written)
        self.durable_index = group.entries[-1][0].index

    def _sync(self, handle: int) -> None:
        self.syncs.note(self._disk.fdatasync(handle))

    # -- segments -------------------------------------------------------------------------------------

    def _advance(self, segment: int, now: int) -> bool:
        """Be in `segment`, the current one or the next; False when that cannot be made for want of space."""
        if segment == self.number:
            return True
        self.spares.prepare(self.number + 1, now)
        prepared = self.spares.take()
        if prepared is None:
            return False
        self._disk.close(self._handle)
        self._handle = prepared  # at once: a handle must not be closed twice
        self._begin_segment(segment, self._handle)
        return True

    def _begin_segment(self, number: int, handle: int) -> None:
        """Write both copies of the header and sync them before any record: so a segment that holds records and
        no header is damaged for certain, never torn.

        It is locked, so that nobody else writes to it even if somebody removes LOCK.
        """
        if not self._disk.lock(handle):
            raise OSError(f"another process writes to {segment_name(number)}")
        salt = self._random_bytes(SALT_BYTES)
        header = SegmentHeader(
            folder_uuid=self.uuid,
            number=number,
            last_covered=number,
            generation=0,
            epoch=self.epoch,
            first_index=self.durable_index + 1,
            durable_index=self.durable_index,
            checkpoint_index=self.checkpoint_index,
            salt=salt,
            segment_bytes=self._segment_bytes,
            created_ms=self._wall_ms(),
            oldest_needed=self.oldest_needed,
            previous=self.number,
            reader_min=READER_MIN_GIVEN_BACK,
        )
        block, crc = pack_header(header)
        write_whole(self._disk, handle, [block], 0)
        write_whole(self._disk, handle, [block], data_end(self._segment_bytes))
        self._sync(handle)
        self._witnessed_index = self.durable_index  # the header says so
        self.number = number
        self._chain, self._salt_crc = crc, crc32c(salt)
        self._written_to = BLOCK_BYTES
        self.filling.begin()
        self._begun(msgspec.structs.replace(header, crc=crc))

    # -- time -----------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When handle_timeout() has something to do."""
        due = self.spares.retry_at
        if not self._groups:
            if self.filling.is_due:
                fill_at = self._synced_at + 1  # in a turn of its own: what has come meanwhile goes first
                due = fill_at if due is None else min(due, fill_at)
            elif self._witnessed_index < self.durable_index:
                witness_at = self._synced_at + WITNESS_DELAY_US
                due = witness_at if due is None else min(due, witness_at)
        return due

    def handle_timeout(self, now: int) -> None:
        """Write zeros ahead, or the witness; try for space again and write what waited for it."""
        if not self._groups and self.filling.is_due and now > self._synced_at:
            self.filling.fill(self._handle)
        if self.spares.retry_at is not None and self.spares.retry_at <= now:
            self.spares.prepare(self.number + 1, now)
            self.commit(now)
        if not self._groups and now >= self._synced_at + WITNESS_DELAY_US:
            self.witness()

    def witness(self) -> None:
        """Say on the disk that the last commit was synced: without it, rot in that commit looks like a tear."""
        if self._witnessed_index >= self.durable_index:
            return
        self._witnessed_index = self.durable_index  # also when there is no room: the next header says it
        if self._tail + COMMIT_ALIGN_BYTES > data_end(self._segment_bytes):
            return
        group = witness_group(self.number, self._tail, self.durable_index)
        self._tail = padded(group.end, COMMIT_ALIGN_BYTES)
        self._write(group)

    # -- end ------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Write what waits, now or never, and the witness.

        Raises:
            JournalFull: records still waited for space.
        """
        self.spares.retry_at = None  # the last chance is now
        self.commit(self._synced_at)
        if self._groups:
            raise JournalFull(self._folder, self.waiting_bytes, self.spares.full or "")
        self.witness()

    def close(self) -> None:
        """Let go of the files."""
        self.spares.close()
        if self._handle >= 0:
            self._disk.close(self._handle)
        self._handle = -1
