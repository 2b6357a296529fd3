"""The journal in files: appends gathered, written by one call and confirmed by one sync.

No clock and no randomness of its own: `now` comes with the calls, salts and wall time from the constructor.
What lies on the disk is FORMAT.md; what to believe of it is recovery.py.
"""

from collections.abc import Callable, Iterable

from patterns.wire.records import Damage, Move, Opened, Position, Record, Restorer
from zbroker.store.checkpoint import Anchor, Checkpoints
from zbroker.store.commit import lost_records
from zbroker.store.compaction import Slicer
from zbroker.store.compactor import Compactor, remove_superseded
from zbroker.store.disk import Disk, FileSystem
from zbroker.store.faults import AFTER_A_CHANGE, AFTER_A_REFUSAL, EpochsSpent, JournalFailed
from zbroker.store.folder import FolderChanged, require_unchanged, settle_tail, take_folder
from zbroker.store.listing import SegmentFile, cut_short, list_segments
from zbroker.store.liveness import Liveness, noting
from zbroker.store.note import Note, read_note, write_note
from zbroker.store.recovery import LogScan
from zbroker.store.replay import replay
from zbroker.store.restore import Restored, next_life, restore_newest
from zbroker.store.run import Visit
from zbroker.store.segment import (
    BLOCK_BYTES,
    EPOCH_MAX,
    NUMBER_MAX,
    SEGMENT_BYTES,
    SEGMENT_BYTES_MIN,
    UUID_BYTES,
    SegmentHeader,
)
from zbroker.store.spares import OUT_OF_SPACE
from zbroker.store.writer import LogWriter

GIVE_BACK_US = (
    10_000_000  # between checkpoints for the sake of space: as long as a broker writes, others are due before
)
LOOK_US = 1_000_000  # so often the folder is looked at when nothing is written: people hear of it before they need it


class FileJournal:
    """The Journal protocol over a Disk, in this process.

    All calls belong to one thread. Records are readable, with a RecordReader, once they are durable.
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
        slicer: Slicer | None = None,
        is_producers: bool = False,
    ) -> None:
        assert segment_bytes % BLOCK_BYTES == 0 <= segment_bytes - SEGMENT_BYTES_MIN
        self._disk = disk
        self._folder = folder.rstrip("/") or "/"
        self._random_bytes = random_bytes
        self._wall_ms = wall_ms
        self._segment_bytes = segment_bytes
        self._network_allowed = network_allowed
        self._is_producers = is_producers
        self._file_system = FileSystem("unknown", False, [])
        self._notes: list[str] = []  # what to say of files that were found
        self._headers: dict[int, SegmentHeader] = {}
        self._liveness = Liveness()
        self._checkpoints = Checkpoints(disk, self._folder, wall_ms, self._liveness)
        self._lock: int | None = None
        self._looked_at: int | None = None  # when the folder was still ours
        self._weighed_at = 0  # when it was looked last whether a checkpoint would give space back
        self._has_more_dead = False  # since then
        self._abandoned_then = 0  # checkpoints that had been given up
        self._gives_back = False
        self._is_told = (
            False  # of a checkpoint, from its begin to its end: pieces on their way are its own, given up or not
        )
        self._begun_index = 0  # the last index when this life began
        self._failed: str | None = None
        self._advice = AFTER_A_REFUSAL
        self._damage: list[Damage] = []
        self._writer = LogWriter(
            disk,
            self._folder,
            segment_bytes=segment_bytes,
            random_bytes=random_bytes,
            wall_ms=wall_ms,
            liveness=self._liveness,
            begun=self._begun_now,
        )
        self._compactor = Compactor(
            disk,
            self._folder,
            self._liveness,
            self._checkpoints,
            self._headers,
            random_bytes=random_bytes,
            wall_ms=wall_ms,
            slicer=slicer,
            begun=self._begun,
        )
        self._writer.spares.relieve = self._compactor.make_room

    # -- open -----------------------------------------------------------------------------------------

    def open(self, visit: Visit, restorer: Restorer | None = None) -> Opened:
        """Lock the folder, show the newest checkpoint and every record after it in index order, begin a segment of a new
        epoch. Without a restorer, or without a checkpoint that can be used, all records are shown.

        Holes are told of by LOST records, visited at their index like all others; those of holes found just now
        come last.

        Raises:
            FolderLocked, NotOurs, NewerFormat, NetworkFileSystem, LocksUnsupported, FolderUnusable, EpochsSpent: nothing
                was changed.
            JournalFull: there is no space for the new segment.
            JournalFailed: the disk refused a sync or a write.
        """
        self._lock, self._file_system = take_folder(
            self._disk, self._folder, network_allowed=self._network_allowed, is_producers=self._is_producers
        )
        self._writer.filling.is_wanted = self._file_system.marks_unwritten
        try:
            settle_tail(self._disk, self._folder)
            files = list_segments(self._disk, self._folder)
            restored, note = Restored(), read_note(self._disk, self._lock)
            if restorer is not None:
                restored = restore_newest(self._disk, self._folder, files, restorer, self._liveness, note)
            self._notes = cut_short(files) + restored.refused
            found = replay(self._disk, files, noting(visit, self._liveness), restored.meta, note)
            scan, known, fresh = found.scan, found.known, found.fresh
            for report in scan.reports:
                self._liveness.begin(report.number)
            self._begin_life(files, scan, restored, note)
            first = min((report.number for report in scan.reports), default=self._writer.number)
            log_bytes = self._writer.log_bytes - scan.bytes
            self._checkpoints.count_from(self._writer.last_index - scan.records, log_bytes, first)
            lost_records, lost_bytes = self._write_lost(fresh, visit)
            self._remove_empty(files, scan)
            remove_superseded(self._disk, self._folder, files)
            self._compactor.wake()
        except OSError as error:
            self._let_go()
            raise self._fail(error) from error
        except BaseException:
            self._let_go()
            raise
        self._damage = known + fresh
        self._begun_index = self._writer.last_index
        return Opened(
            epoch=self._writer.epoch,
            next_index=self._writer.last_index + 1,
            records=scan.records + lost_records,
            bytes=scan.bytes + lost_bytes,
            damage=list(self._damage),
            torn_bytes=scan.torn_bytes,
            segments=sorted(self._headers),
        )

    def _begin_life(self, files: list[SegmentFile], scan: LogScan, restored: Restored, note: Note | None) -> None:
        number, epoch, uuid, self._writer.oldest_needed = next_life(files, restored.meta, note)
        if epoch > EPOCH_MAX or number > NUMBER_MAX:
            raise EpochsSpent(self._folder, number, epoch, EPOCH_MAX)
        if restored.meta is not None:
            self._checkpoints.newest, self._checkpoints.indexed = restored.meta, restored.indexed
            self._writer.checkpoint_index = restored.meta.first_index
            if not restored.refused:
                self._checkpoints.find_older()
        for file in files:
            if file.header is not None:
                self._begun(file.header)
        empty = {report.number for report in scan.reports if report.is_empty}
        previous = max((file.number for file in files if not file.is_blank and file.number not in empty), default=0)
        self._writer.begin(number, epoch, uuid or self._random_bytes(UUID_BYTES), scan.end_index, previous)

    def _begun(self, header: SegmentHeader) -> None:
        """A segment that is part of the log from now on."""
        self._headers[header.number] = header

    def _begun_now(self, header: SegmentHeader) -> None:
        """One of ours, and the newest."""
        self._begun(header)
        assert self._lock is not None
        write_note(self._disk, self._lock, header)

    def _write_lost(self, damage: list[Damage], visit: Visit) -> tuple[int, int]:
        positions = [(record, self.append(record)) for record in lost_records(damage, self._writer.last_index + 1)]
        if positions:
            self.commit(0)
            for record, position in positions:
                visit(record, position)
        return len(positions), sum(position.size for _, position in positions)

    def _remove_empty(self, files: list[SegmentFile], scan: LogScan) -> None:
        """A life without a record leaves nothing behind: else a broker in a restart loop fills the disk."""
        by_number = {file.number: file for file in files}
        for report in scan.reports:
            if report.is_empty and report.number != self._writer.number:
                self._disk.unlink(by_number[report.number].path)
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
            self._require_health()
        return self._writer.append(record)

    def commit(self, now: int) -> int:
        """Write and sync what was appended, at most 1 MiB a sync.

        Returns:
            The highest durable index. It is below the last appended one only while there is no space for the
            next segment; what waits is written once that heals.

        Raises:
            JournalFailed: the disk refused; now and for ever. What was appended since the last commit is neither
                known to be durable nor known not to be.
        """
        self._require_health()
        before = self._writer.durable_index
        try:
            self._writer.commit(now)
            if self._writer.durable_index > before:
                self._look(now)
        except OSError as error:
            raise self._fail(error) from error
        return self._writer.durable_index

    def _look(self, now: int) -> None:
        """Before anything is confirmed, and once a second: what is synced into a file without a name is lost. Raises OSError."""
        assert self._lock is not None
        writer = self._writer
        require_unchanged(self._disk, self._folder, self._lock, writer.number, writer.handle, self._segment_bytes)
        self._looked_at = now

    # -- time -----------------------------------------------------------------------------------------

    def next_timeout(self) -> int | None:
        """When the witness, another try for space or a look at the folder is due."""
        if self._failed is not None or self._lock is None:
            return None
        if self._looked_at is None or self._checkpoints.is_complete(self._writer.durable_index):
            return 0
        due = [self._writer.next_timeout(), self._looked_at + LOOK_US, self._weigh_at]
        return min(at for at in due if at is not None)

    def handle_timeout(self, now: int) -> None:
        """Write the witness; try for space again and write what waited for it; finish a checkpoint; look at the folder.

        Raises:
            JournalFailed: as commit().
        """
        due = self.next_timeout()
        if due is None or due > now:
            return
        if self._checkpoints.is_complete(self._writer.durable_index):
            self._try_checkpoint(self._publish)
        if self._weigh_at is not None and self._weigh_at <= now:
            self._weigh(now)
        before = self._writer.durable_index
        try:
            self._writer.handle_timeout(now)
            if self._looked_at is None or now - self._looked_at >= LOOK_US or self._writer.durable_index > before:
                self._look(now)
        except OSError as error:
            raise self._fail(error) from error

    def _weigh(self, now: int) -> None:
        """Whether a checkpoint would give space back. Two in a row must leave a segment out, and have a record between them."""
        is_wanted, checkpoints = self._compactor.wants_checkpoint(), self._checkpoints
        self._gives_back = (
            is_wanted and not checkpoints.is_writing and self._writer.durable_index >= checkpoints.newest_index
        )
        self._weighed_at, self._has_more_dead = now, is_wanted and not self._gives_back
        self._abandoned_then = checkpoints.abandoned

    @property
    def _weigh_at(self) -> int | None:
        if not self._has_more_dead:
            return None
        is_urgent = self.full and self._checkpoints.abandoned == self._abandoned_then  # else there is no space for one
        return self._weighed_at + (LOOK_US if is_urgent else GIVE_BACK_US)

    # -- checkpoints ----------------------------------------------------------------------------------

    @property
    def checkpoint_due(self) -> bool:
        """Whether 64 MiB or 200,000 records were written since the last one, or 512 MiB of segments begun, or it would give
        space back; and none waits to be written now.
        """
        writer, checkpoints = self._writer, self._checkpoints
        if not self.may_checkpoint or writer.last_index == self._begun_index:  # right after an open nothing is new
            return self.may_checkpoint and self._gives_back
        return (
            self._gives_back
            or checkpoints.is_due(writer.last_index, writer.log_bytes)
            or checkpoints.is_far_behind(writer.number, self._segment_bytes)
        )

    @property
    def may_checkpoint(self) -> bool:
        """Whether one could begin now, due or not."""
        is_quiet = not self._writer.is_waiting and self._failed is None and not self._compactor.is_moving
        return is_quiet and not (self._checkpoints.is_writing or self._is_told)

    def begin_checkpoint(self) -> tuple[list[int], int]:
        """Begin one at the end of the log, which is durable; see the protocol.

        Raises:
            JournalFailed: as commit().
        """
        writer = self._writer
        assert not writer.is_waiting
        self._gives_back = False
        self._is_told = True
        anchor = Anchor(writer.durable_index + 1, writer.number, writer.tail, self._headers[writer.number].crc)
        self._checkpoints.count_from(writer.last_index, writer.log_bytes, writer.number)
        self._try_checkpoint(lambda: self._checkpoints.begin(anchor, self._headers))
        return sorted(self._headers.keys() - self._checkpoints.indexed - {writer.number}), writer.number

    def put_checkpoint(self, chunk: bytes, segment: int) -> None:
        """Write a piece of it; nothing, if it was given up. Raises JournalFailed."""
        if self._checkpoints.is_writing:
            header = self._headers.get(segment)
            self._try_checkpoint(lambda: self._checkpoints.put(chunk, segment, header))

    def end_checkpoint(self, last_index: int) -> None:
        """All was said; handle_timeout() finishes it. Raises JournalFailed."""
        self._is_told = False
        if self._checkpoints.is_writing:
            self._try_checkpoint(lambda: self._checkpoints.end(last_index))

    def _publish(self) -> None:
        for number in self._checkpoints.publish(self._headers, self._damage):
            del self._headers[number]
            self._liveness.drop(number)
            self._compactor.drop(number)
        self._writer.oldest_needed = max(self._writer.oldest_needed, self._checkpoints.oldest_needed)
        self._writer.checkpoint_index = self._checkpoints.newest_index
        self._compactor.wake()
        self._has_more_dead = True

    def forget(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """Nobody will read these offsets (stream id, first, last). A segment of which nothing else is left goes when two
        checkpoints in a row did not need it; one of which less than half is left is compacted. Not remembered by the
        journal: say it again after each open. What makes it so must be durable: a batch without them is, at once.
        """
        self._liveness.forget(ranges)
        self._compactor.wake()
        self._has_more_dead = True

    # -- compaction -----------------------------------------------------------------------------------

    @property
    def tidy_at(self) -> int | None:
        """When tidy() has something to do; None while nothing is, and while what makes messages dead may not be durable."""
        is_open = self._failed is None and self._lock is not None
        return self._compactor.due if is_open and not self._writer.is_waiting else None

    def tidy(self, now: int) -> list[Move]:
        """See the protocol. Raises JournalFailed."""
        if self.tidy_at is None:
            return []
        try:
            moves = self._compactor.step(now, self._damage)
        except OSError as error:
            raise self._fail(error) from error
        self._writer.oldest_needed = max(self._writer.oldest_needed, self._compactor.oldest_needed)
        return moves

    def _try_checkpoint(self, call: Callable[[], None]) -> None:
        """Without space it is given up, and due again later. A disk that fails otherwise has failed for the log too."""
        if self._failed is not None:
            return
        try:
            call()
        except OSError as error:
            self._checkpoints.abandon()
            self._has_more_dead = True
            if error.errno not in OUT_OF_SPACE:
                raise self._fail(error) from error

    # -- reading, state, end --------------------------------------------------------------------------

    @property
    def durable_index(self) -> int:
        """Highest index known to be synced; 0 when none is."""
        return self._writer.durable_index

    @property
    def number(self) -> int:
        """Of the segment that is written to."""
        return self._writer.number

    @property
    def segments(self) -> int:
        """How many segments the log has now."""
        return len(self._headers)

    @property
    def full(self) -> bool:
        """The next segment could not be made; the rest of the current one is for operations."""
        return self._writer.spares.full is not None

    @property
    def notes(self) -> list[str]:
        """What to say of files that the open found: copies that broke off, checkpoints that cannot be used."""
        return list(self._notes)

    def status(self) -> dict[str, object]:
        """For people and metrics; bytes of the folder's segments and spares, times in microseconds or, for ages, ms."""
        writer, newest = self._writer, self._checkpoints.newest
        spare, rest = writer.spares.bytes, self._segment_bytes - writer.tail
        used = {number: header.segment_bytes for number, header in self._headers.items()}
        live = sum(used[number] for number in used if number >= writer.number or not self._liveness.is_dead(number))
        return {
            "folder": self._folder,
            "uuid": writer.uuid.hex(),
            "epoch": writer.epoch,
            "durable_index": writer.durable_index,
            "waiting_records": writer.last_index - writer.durable_index,
            "segments": len(used),
            "bytes": sum(used.values()) + spare,
            "live_bytes": live - rest,
            **self._compactor.status(),
            "reserve_bytes": rest + spare,
            **writer.syncs.status(),
            "checkpoint_index": self._checkpoints.newest_index,
            "checkpoint_age_ms": max(0, self._wall_ms() - newest.created_ms) if newest else None,
            "checkpoint_records_behind": writer.durable_index
            + 1
            - (newest.first_index if newest else writer.oldest_needed),
            "checkpoints_abandoned": self._checkpoints.abandoned,
            "damage": list(self._damage),
            "full": writer.spares.full,
            "failed": self._failed,
            "file_system": self._file_system.kind,
            "warnings": [*self._file_system.warnings, *self._notes],
        }

    def _require_health(self) -> None:
        if self._failed is not None:
            raise JournalFailed(self._folder, self._failed, self._advice)

    def _fail(self, error: OSError) -> JournalFailed:
        self._failed = str(error)
        self._advice = AFTER_A_CHANGE if isinstance(error, FolderChanged) else AFTER_A_REFUSAL
        return JournalFailed(self._folder, self._failed, self._advice)

    def close(self) -> None:
        """Commit, leave a witness, unlock.

        Raises:
            JournalFailed: the last commit failed; the folder is unlocked all the same.
            JournalFull: records still waited for space; the folder is unlocked all the same.
        """
        if self._lock is None:
            return
        try:
            if self._failed is None:
                self._writer.finish()
        except OSError as error:
            raise self._fail(error) from error
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._checkpoints.abandon_draft()
        self._compactor.close()
        self._writer.close()
        if self._lock is not None:
            self._disk.close(self._lock)
        self._lock = None
