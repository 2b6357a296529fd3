"""A read-only look at a folder: what an open would find, segment by segment. Changes nothing."""

import msgspec

from patterns.wire.records import Damage, Position, Record
from zbroker.store.checkpoint import KEPT
from zbroker.store.disk import Disk
from zbroker.store.folder import hold_for_reading
from zbroker.store.listing import cut_short, list_segments
from zbroker.store.note import read_note
from zbroker.store.recovery import Progress, SegmentReport, silent
from zbroker.store.replay import read_whole
from zbroker.store.restore import judge_all, newest_usable


class CheckpointReport(msgspec.Struct, frozen=True):
    """A checkpoint: where a replay from it starts, and why it cannot be used; None when it can."""

    name: str
    first_index: int
    why_not: str | None


class FolderReport(msgspec.Struct, frozen=True):
    """What verify_folder found.

    Attributes:
        segments: in the order of their numbers.
        damage: every hole that the bytes show now; index ranges are exact where the headers are whole.
        known: holes that LOST records tell of.
        checkpoints: by age; one that cannot be used costs time at the next start, and is a sign of rot.
        cut_short: of files that have not their length: copies that broke off.
        records, bytes: readable.
        next_index: the first index after the log.
        torn_bytes: bytes after the end that are not zero: a tear, or what remains undetectable (FORMAT.md 8).
        reclaimable: bytes of files that hold nothing of the log, those that a compaction has replaced among them; the next
            open gives them back or writes to them.
    """

    segments: list[SegmentReport]
    damage: list[Damage]
    known: list[Damage]
    cut_short: list[str]
    checkpoints: list[CheckpointReport]
    records: int
    bytes: int
    next_index: int
    torn_bytes: int
    reclaimable: int

    @property
    def unusable(self) -> int:
        """Checkpoints that cannot be used, of the two newest: an older one is what a power cut brought back."""
        return sum(one.why_not is not None for one in self.checkpoints[-KEPT:])

    @property
    def is_whole(self) -> bool:
        """No hole, neither now nor told of, and both checkpoints usable; a torn tail was never confirmed, so it is none."""
        return not (self.unusable or self.damage or self.known or self.cut_short)


def verify_folder(disk: Disk, folder: str, progress: Progress = silent) -> FolderReport:
    """Scan a folder while no broker writes to it. A folder without a lock file has none.

    Args:
        progress: hears the bytes of each segment as it is begun.

    Raises:
        FolderLocked: a broker runs on it, whose newest commits would look torn.
        NotOurs, NewerFormat, FolderUnusable, LocksUnsupported: there is no journal to look at, or no way to.
    """
    lock = hold_for_reading(disk, folder)
    try:
        files = list_segments(disk, folder)
        note = None if lock is None else read_note(disk, lock)
        checkpoints = judge_all(disk, folder, files, note)
        log = read_whole(disk, files, _nothing, newest_usable(checkpoints), note, progress)
        superseded = sum(_size(disk, path) for file in files for path in file.superseded)
    finally:
        if lock is not None:
            disk.close(lock)
    return FolderReport(
        segments=log.reports,
        damage=log.found,
        known=log.known,
        cut_short=cut_short(files),
        checkpoints=[CheckpointReport(one.name, one.first_index, one.why_not) for one in checkpoints],
        records=log.records,
        bytes=log.bytes,
        next_index=log.end_index,
        torn_bytes=log.torn_bytes,
        reclaimable=sum(part.reclaimable for part in log.reports) + superseded,
    )


def _nothing(record: Record, position: Position) -> None: ...


def _size(disk: Disk, path: str) -> int:
    handle = disk.open(path)
    try:
        return disk.size(handle)
    finally:
        disk.close(handle)
