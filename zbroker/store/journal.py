"""The journal in files: appends gathered, written by one call and confirmed by one sync.

No clock and no randomness of its own: `now` comes with the calls, salts and wall time from the constructor.
What lies on the disk is FORMAT.md; what to believe of it is recovery.py.
"""

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from patterns.wire.records import FIRST_INDEX, Damage, Opened, Position, Record, RecordKind, Restorer
from zbroker.store.checkpoint import Anchor, Checkpoints
from zbroker.store.commit import Group, build_commit, lost_records, witness_group
from zbroker.store.disk import Disk, FileSystem
from zbroker.store.faults import JournalFailed, JournalFull, RecordTooLarge
from zbroker.store.folder import settle_tail, take_folder
from zbroker.store.listing import SegmentFile, cut_short, list_segments
from zbroker.store.liveness import Liveness, noting
from zbroker.store.reader import RecordReader
from zbroker.store.record import (
    COLUMNS_LENGTH_BYTES,
    COMMIT_ALIGN_BYTES,
    HEADER_BYTES,
    WITHOUT_INDEX,
    build_body,
    crc32c,
    padded,
)
from zbroker.store.recovery import LogScan
from zbroker.store.restore import Restored, known_and_fresh, next_life, restore_newest, start_of
from zbroker.store.run import Visit
from zbroker.store.segment import (
    BLOCK_BYTES,
    SALT_BYTES,
    SEGMENT_BYTES,
    SEGMENT_BYTES_MIN,
    UUID_BYTES,
    SegmentHeader,
    data_end,
    pack_header,
    reader_min_for,
    write_whole,
)
from zbroker.store.spares import OUT_OF_SPACE, Spares
from zbroker.store.syncs import Syncs

COMMIT_BYTES = 1 << 20  # what one sync covers is everybody's latency: 1.45 ms at 1 MiB, 4.6 ms at 4 MiB
WITNESS_DELAY_US = 5_000  # long enough not to double the syncs of a busy journal, short beside a human's restart


class FileJournal:
    """The Journal protocol over a Disk, in this process.

    All calls belong to one thread, but read() may be called by another one of its own. Records are readable once
    they are durable.
    """

    def __init__(
        self,
        disk: Disk,
        folder: str,
        *,
        random_bytes: Callable[[int], bytes],
        wall_ms: Callable[[], int],
        segment_bytes: int = SEGMENT_BYTES,
        network_allowed: bool = False,
    ) -> None:
        assert segment_bytes % BLOCK_BYTES == 0 <= segment_bytes - SEGMENT_BYTES_MIN
        self._disk = disk
        self._folder = folder.rstrip("/") or "/"
        self._random_bytes = random_bytes
        self._wall_ms = wall_ms
        self._segment_bytes = segment_bytes
        self._commit_bytes = min(COMMIT_BYTES, segment_bytes // 8)
        self._network_allowed = network_allowed
        self._file_system = FileSystem("unknown", False, [])
        self._notes: list[str] = []  # what to say of files that were found
        self._headers: dict[int, SegmentHeader] = {}
        self._liveness = Liveness()
        self._checkpoints = Checkpoints(disk, self._folder, wall_ms, self._liveness)
        self._lock: int | None = None
        self._failed: str | None = None
        self._spares = Spares(disk, self._folder, segment_bytes)
        self._reader = RecordReader(disk, self._folder)
        self._groups: deque[Group] = deque()
        self._group: Group | None = None  # the last of _groups, while it takes more
        self._syncs = Syncs()
        self._damage: list[Damage] = []
        self._last_index = self._durable_index = self._witnessed_index = self._synced_at = 0
        # The segment being written, and where the next append goes (which may already be a later one).
        self._number = 0
        self._handle = -1
        self._written_to = self._tail_segment = self._tail = 0
        self._chain = self._salt_crc = self._epoch = 0
        self._uuid = b""
        self._oldest_needed = FIRST_INDEX

    # -- open -----------------------------------------------------------------------------------------

    def open(self, visit: Visit, restorer: Restorer | None = None) -> Opened:
        """Lock the folder, show the newest checkpoint and every record after it in index order, begin a segment of a new
        epoch. Without a restorer, or without a checkpoint that can be used, all records are shown.

        Holes are told of by LOST records, visited at their index like all others; those of holes found just now
        come last.

        Raises:
            FolderLocked, NotOurs, NewerFormat, NetworkFileSystem, LocksUnsupported, FolderUnusable: nothing was changed.
            JournalFull: there is no space for the new segment.
            JournalFailed: the disk refused a sync or a write.
        """
        self._lock, self._file_system = take_folder(self._disk, self._folder, network_allowed=self._network_allowed)
        try:
            settle_tail(self._disk, self._folder)
            files = list_segments(self._disk, self._folder)
            restored = Restored()
            if restorer is not None:
                restored = restore_newest(self._disk, self._folder, files, restorer, self._liveness)
            self._notes = cut_short(files) + restored.refused
            scan = LogScan(self._disk, files, noting(visit, self._liveness), start=start_of(restored.meta)).run()
            for report in scan.reports:
                self._liveness.begin(report.number)
            self._begin_life(files, scan.end_index, restored)
            self._checkpoints.count_from(self._last_index - scan.records, self._log_bytes - scan.bytes)
            known, fresh = known_and_fresh(scan, restored)
            lost_records, lost_bytes = self._write_lost(fresh, visit)
            self._remove_empty(files, scan)
        except OSError as error:
            self._let_go()
            raise self._fail(error) from error
        except BaseException:
            self._let_go()
            raise
        self._damage = known + fresh
        return Opened(
            epoch=self._epoch,
            next_index=self._last_index + 1,
            records=scan.records + lost_records,
            bytes=scan.bytes + lost_bytes,
            damage=list(self._damage),
            torn_bytes=scan.torn_bytes,
        )

    def _begin_life(self, files: list[SegmentFile], end_index: int, restored: Restored) -> None:
        number, self._epoch, uuid, self._oldest_needed = next_life(files, restored.meta)
        self._uuid = uuid or self._random_bytes(UUID_BYTES)
        if restored.meta is not None:
            self._checkpoints.newest, self._checkpoints.indexed = restored.meta, restored.indexed
        for file in files:
            if file.header is not None:
                self._headers[file.number] = file.header
                self._reader.add(file.number, crc32c(file.header.salt))
        self._last_index = self._durable_index = self._witnessed_index = end_index - 1
        self._spares.find_ballast()
        handle = self._spares.make(number)
        if handle is None:
            raise JournalFull(self._folder, self._segment_bytes, self._spares.full or "")
        self._spares.retry_at = 0 if self._spares.full is not None else None
        self._handle = handle
        self._begin_segment(number, handle)
        self._tail_segment, self._tail = number, BLOCK_BYTES

    def _write_lost(self, damage: list[Damage], visit: Visit) -> tuple[int, int]:
        positions = [(record, self.append(record)) for record in lost_records(damage, self._last_index + 1)]
        if positions:
            self.commit(0)
            for record, position in positions:
                visit(record, position)
        return len(positions), sum(position.size for _, position in positions)

    def _remove_empty(self, files: list[SegmentFile], scan: LogScan) -> None:
        """A life without a record leaves nothing behind: else a broker in a restart loop fills the disk."""
        by_number = {file.number: file for file in files}
        for report in scan.reports:
            if report.reclaimable and report.state == "whole" and report.number != self._number:
                self._disk.unlink(by_number[report.number].path)
                self._reader.forget(report.number)
                self._headers.pop(report.number)

    # -- append and commit ----------------------------------------------------------------------------

    def append(self, record: Record) -> Position:
        """Take a record; it is written by the next commit. The disk is not touched.

        Raises:
            JournalFull: there is no room and none can be made at present. Nothing was taken.
            RecordTooLarge: no segment can hold it. Nothing was taken.
            JournalFailed: for ever.
        """
        if self._failed is not None:
            raise JournalFailed(self._folder, self._failed)
        assert record.index == self._last_index + 1, f"index {record.index} after {self._last_index}"
        assert record.kind not in WITHOUT_INDEX
        size = HEADER_BYTES + COLUMNS_LENGTH_BYTES + len(record.columns) + len(record.payload)
        group = self._room(padded(size), size)
        prefix, body_crc = build_body(record.columns, record.payload)
        group.entries.append((record, prefix, body_crc))
        offset = group.end
        group.end = offset + padded(size)
        self._last_index = record.index
        if record.kind == RecordKind.APPEND:
            self._liveness.note(group.segment, record.stream_id, record.base_offset, record.count)
        return Position(group.segment, offset, size)

    def _room(self, room: int, size: int) -> Group:
        """The group that takes the next `room` bytes, a new one where the open one is done."""
        group = self._group
        if group is not None:
            is_small = group.end + room - group.start <= self._commit_bytes
            if is_small and group.end + room <= data_end(self._segment_bytes):
                return group
            self._tail = padded(group.end, COMMIT_ALIGN_BYTES)
            self._group = None
        segment, start = self._tail_segment, self._tail
        if start + room > data_end(self._segment_bytes):
            bytes_max = self._segment_bytes - 2 * BLOCK_BYTES
            if room > bytes_max:
                raise RecordTooLarge(self._folder, size, bytes_max)
            segment, start = segment + 1, BLOCK_BYTES
        full = self._spares.full
        if full is not None and segment != self._number and self._spares.prepared is None:
            raise JournalFull(self._folder, size, full)
        self._tail_segment, self._tail = segment, start
        self._liveness.begin(segment)
        self._group = Group(segment, start)
        self._groups.append(self._group)
        return self._group

    def commit(self, now: int) -> int:
        """Write and sync what was appended, at most 1 MiB a sync.

        Returns:
            The highest durable index. It is below the last appended one only while there is no space for the
            next segment; what waits is written once that heals.

        Raises:
            JournalFailed: the disk refused; now and for ever. What was appended since the last commit is neither
                known to be durable nor known not to be.
        """
        if self._failed is not None:
            raise JournalFailed(self._folder, self._failed)
        if self._group is not None:
            self._tail = padded(self._group.end, COMMIT_ALIGN_BYTES)
            self._group = None
        try:
            while self._groups and self._advance(self._groups[0].segment, now):
                self._write(self._groups[0])
                self._groups.popleft()
                self._synced_at = now
                if self._written_to > self._segment_bytes // 4:
                    self._spares.prepare(self._number + 1, now)
        except OSError as error:
            raise self._fail(error) from error
        return self._durable_index

    def _write(self, group: Group) -> None:
        """One commit: one write, one sync."""
        parts, chain = build_commit(group, self._salt_crc, self._epoch, self._chain, self._durable_index)
        written = write_whole(self._disk, self._handle, parts, group.start)
        self._sync(self._handle)
        self._chain = chain
        self._written_to = group.start + written
        self._durable_index = group.entries[-1][0].index

    def _sync(self, handle: int) -> None:
        self._syncs.note(self._disk.fdatasync(handle))

    # -- segments -------------------------------------------------------------------------------------

    def _advance(self, segment: int, now: int) -> bool:
        """Be in `segment`, the current one or the next; False when that cannot be made for want of space."""
        if segment == self._number:
            return True
        self._spares.prepare(self._number + 1, now)
        prepared = self._spares.take()
        if prepared is None:
            return False
        self._disk.close(self._handle)
        self._handle = prepared  # at once: a handle must not be closed twice
        self._begin_segment(segment, self._handle)
        return True

    def _begin_segment(self, number: int, handle: int) -> None:
        """Write both copies of the header and sync them before any record: so a segment that holds records and
        no header is damaged for certain, never torn.
        """
        salt = self._random_bytes(SALT_BYTES)
        header = SegmentHeader(
            folder_uuid=self._uuid,
            number=number,
            last_covered=number,
            generation=0,
            epoch=self._epoch,
            first_index=self._durable_index + 1,
            durable_index=self._durable_index,
            checkpoint_index=self._checkpoints.newest_index,
            salt=salt,
            segment_bytes=self._segment_bytes,
            created_ms=self._wall_ms(),
            oldest_needed=self._oldest_needed,
            reader_min=reader_min_for(self._oldest_needed),
        )
        block, crc = pack_header(header)
        write_whole(self._disk, handle, [block], 0)
        write_whole(self._disk, handle, [block], data_end(self._segment_bytes))
        self._sync(handle)
        self._witnessed_index = self._durable_index  # the header says so
        self._number = number
        self._headers[number] = msgspec.structs.replace(header, crc=crc)
        self._chain, self._salt_crc = crc, crc32c(salt)
        self._reader.add(number, self._salt_crc)
        self._written_to = BLOCK_BYTES

    # -- time -----------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When the witness or another try for space is due."""
        if self._failed is not None or self._lock is None:
            return None
        due = [] if self._spares.retry_at is None else [self._spares.retry_at]
        if self._checkpoints.is_complete(self._durable_index):
            due.append(0)
        if not self._groups and self._witnessed_index < self._durable_index:
            due.append(self._synced_at + WITNESS_DELAY_US)
        return min(due, default=None)

    def handle_timeout(self, now: int) -> None:
        """Write the witness; try for space again and write what waited for it.

        Raises:
            JournalFailed: as commit().
        """
        due = self.next_timeout()
        if due is None or due > now:
            return
        if self._checkpoints.is_complete(self._durable_index):
            self._try_checkpoint(self._publish)
        if self._spares.retry_at is not None and self._spares.retry_at <= now:
            try:
                self._spares.prepare(self._number + 1, now)
            except OSError as error:
                raise self._fail(error) from error
            self.commit(now)
        if not self._groups and now >= self._synced_at + WITNESS_DELAY_US:
            self._witness()

    def _witness(self) -> None:
        """Say on the disk that the last commit was synced: without it, rot in that commit looks like a tear."""
        if self._witnessed_index >= self._durable_index:
            return
        self._witnessed_index = self._durable_index  # also when there is no room: the next header says it
        if self._tail + COMMIT_ALIGN_BYTES > data_end(self._segment_bytes):
            return
        group = witness_group(self._number, self._tail, self._durable_index)
        self._tail = padded(group.end, COMMIT_ALIGN_BYTES)
        try:
            self._write(group)
        except OSError as error:
            raise self._fail(error) from error

    # -- checkpoints ----------------------------------------------------------------------------------

    @property
    def checkpoint_due(self) -> bool:
        """Whether 64 MiB or 200,000 records were written since the last one, and none waits to be written now."""
        return not self._groups and self._failed is None and self._checkpoints.is_due(self._last_index, self._log_bytes)

    @property
    def _log_bytes(self) -> int:
        """Grows with the log; an empty rest of a segment counts as written."""
        return self._number * self._segment_bytes + self._tail

    def begin_checkpoint(self) -> tuple[list[int], int]:
        """Begin one at the end of the log, which is durable; see the protocol.

        Raises:
            JournalFailed: as commit().
        """
        assert not self._groups
        anchor = Anchor(self._durable_index + 1, self._number, self._tail, self._headers[self._number].crc)
        self._checkpoints.count_from(self._last_index, self._log_bytes)
        self._try_checkpoint(lambda: self._checkpoints.begin(anchor, self._headers))
        return sorted(self._headers.keys() - self._checkpoints.indexed - {self._number}), self._number

    def put_checkpoint(self, chunk: bytes, segment: int) -> None:
        """Write a piece of it; nothing, if it was given up. Raises JournalFailed."""
        if self._checkpoints.is_writing:
            header = self._headers.get(segment)
            self._try_checkpoint(lambda: self._checkpoints.put(chunk, segment, header))

    def end_checkpoint(self, last_index: int) -> None:
        """All was said; handle_timeout() finishes it. Raises JournalFailed."""
        if self._checkpoints.is_writing:
            self._try_checkpoint(lambda: self._checkpoints.end(last_index))

    def _publish(self) -> None:
        for number in self._checkpoints.publish(self._headers, self._damage):
            del self._headers[number]
            self._reader.forget(number)
            self._liveness.drop(number)
        self._oldest_needed = max(self._oldest_needed, self._checkpoints.oldest_needed)

    def forget(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """Nobody will read these offsets (stream id, first, last). A segment of which nothing else is left goes when two
        checkpoints in a row did not need it. Not remembered by the journal: say it again after each open.
        """
        self._liveness.forget(ranges)

    def _try_checkpoint(self, call: Callable[[], None]) -> None:
        """Without space it is given up, and due again later. A disk that fails otherwise has failed for the log too."""
        if self._failed is not None:
            return
        try:
            call()
        except OSError as error:
            self._checkpoints.abandon()
            if error.errno not in OUT_OF_SPACE:
                raise self._fail(error) from error

    # -- reading, state, end --------------------------------------------------------------------------

    @property
    def durable_index(self) -> int:
        """Highest index known to be synced; 0 when none is."""
        return self._durable_index

    @property
    def full(self) -> bool:
        """The next segment could not be made; the rest of the current one is for operations."""
        return self._spares.full is not None

    def read(self, position: Position) -> Record:
        """The durable record at a position.

        Raises:
            RecordDamaged: what is there is not it.
        """
        return self._reader.read(position)

    def status(self) -> dict[str, object]:
        """For people and metrics; bytes of the folder's segments and spares, times in microseconds or, for ages, ms."""
        segments, size, newest = len(self._headers), self._segment_bytes, self._checkpoints.newest
        live, rest = segments - self._liveness.count_dead(self._headers, self._number), size - self._tail
        return {
            "folder": self._folder,
            "uuid": self._uuid.hex(),
            "epoch": self._epoch,
            "durable_index": self._durable_index,
            "waiting_records": self._last_index - self._durable_index,
            "segments": segments,
            "bytes": segments * size + self._spares.bytes,
            "live_bytes": live * size - rest,
            "reserve_bytes": rest + self._spares.bytes,
            **self._syncs.status(),
            "checkpoint_index": self._checkpoints.newest_index,
            "checkpoint_age_ms": max(0, self._wall_ms() - newest.created_ms) if newest else None,
            "checkpoint_records_behind": self._durable_index
            + 1
            - (newest.first_index if newest else self._oldest_needed),
            "checkpoints_abandoned": self._checkpoints.abandoned,
            "damage": list(self._damage),
            "full": self._spares.full,
            "failed": self._failed,
            "file_system": self._file_system.kind,
            "warnings": [*self._file_system.warnings, *self._notes],
        }

    def _fail(self, error: OSError) -> JournalFailed:
        self._failed = str(error)
        return JournalFailed(self._folder, self._failed)

    def close(self) -> None:
        """Commit, leave a witness, unlock. The caller's reader thread has ended before.

        Raises:
            JournalFailed: the last commit failed; the folder is unlocked all the same.
            JournalFull: records still waited for space; the folder is unlocked all the same.
        """
        if self._lock is None:
            return
        try:
            if self._failed is None:
                self._spares.retry_at = None  # the last chance is now
                self.commit(self._synced_at)
                if self._groups:
                    waiting = sum(group.end - group.start for group in self._groups)
                    raise JournalFull(self._folder, waiting, self._spares.full or "")
                self._witness()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._reader.close()
        self._checkpoints.abandon_draft()
        self._spares.close()
        for handle in (self._handle, self._lock):
            if handle is not None and handle >= 0:
                self._disk.close(handle)
        self._handle, self._lock = -1, None
