"""A read-only look at a folder: what an open would find, segment by segment. Changes nothing."""

import msgspec

from patterns.wire.records import Damage, Position, Record
from zbroker.store.checkpoint import KEPT, Meta, parse_checkpoint_name
from zbroker.store.chunks import NotWhole
from zbroker.store.disk import Disk
from zbroker.store.folder import hold_for_reading
from zbroker.store.listing import SegmentFile, cut_short, list_segments
from zbroker.store.note import Note, missing_newest, read_note
from zbroker.store.recovery import GivenBack, LogScan, Progress, SegmentReport, silent
from zbroker.store.restore import given_back, missing_segments, objection, read_meta, start_of


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
        checkpoints, newest = _checkpoints(disk, folder, files, note)
        scan, beyond = _scanned(disk, files, progress, given_back(disk, folder, files, note), newest)
        superseded = sum(_size(disk, path) for file in files for path in file.superseded)
    finally:
        if lock is not None:
            disk.close(lock)
    end_index = beyond[-1].last_index + 1 if beyond else scan.end_index
    if (gone := missing_newest(note, files, end_index)) is not None:
        beyond.append(gone)
    damage = scan.found + beyond
    damage += _missing(damage + scan.known, newest, files)
    return FolderReport(
        segments=scan.reports,
        damage=damage,
        known=scan.known,
        cut_short=cut_short(files),
        checkpoints=checkpoints,
        records=scan.records,
        bytes=scan.bytes,
        next_index=beyond[-1].last_index + 1 if beyond else scan.end_index,
        torn_bytes=scan.torn_bytes,
        reclaimable=sum(part.reclaimable for part in scan.reports) + superseded,
    )


def _scanned(
    disk: Disk, files: list[SegmentFile], progress: Progress, dead: GivenBack, newest: Meta | None
) -> tuple[LogScan, list[Damage]]:
    """A scan of all, and what is lost behind its end. Where the segment in which the newest checkpoint begins has no header
    any more, nor one after it, an open scans no other: then this is done with those behind as well, so both find the same.
    """
    if newest is None or any(file.header for file in files if file.number >= newest.number):
        scan = LogScan(disk, files, _nothing, progress, given_back=dead).run()
        return scan, _beyond_the_end(scan, newest)
    before = [file for file in files if file.number < newest.number]
    scan = LogScan(disk, before, _nothing, progress, given_back=dead).run()
    scan.end_index = min(scan.end_index, newest.first_index)
    scan.found = [
        msgspec.structs.replace(hole, last_index=min(hole.last_index, newest.first_index - 1))
        for hole in scan.found
        if hole.first_index < newest.first_index
    ]
    tail = LogScan(disk, files, _nothing, progress, start=start_of(newest)).run()
    scan.reports += tail.reports
    last = newest.first_index - 1
    missing = Damage(scan.end_index, last, newest.number, 0, 0, [], "segment missing")
    return scan, ([missing] if scan.end_index <= last else []) + tail.found


def _nothing(record: Record, position: Position) -> None: ...


def _checkpoints(
    disk: Disk, folder: str, files: list[SegmentFile], note: Note | None
) -> tuple[list[CheckpointReport], Meta | None]:
    """All of them, and the newest that can be used."""
    reports, newest = [], None
    for name in sorted(disk.listdir(folder)):
        index = parse_checkpoint_name(name)
        if index is None:
            continue
        try:
            meta = read_meta(disk, f"{folder}/{name}")
            why = objection(meta, files, note)
            newest = meta if why is None else newest
        except NotWhole as error:
            why = str(error)
        reports.append(CheckpointReport(name, index, why))
    return reports, newest


def _size(disk: Disk, path: str) -> int:
    handle = disk.open(path)
    try:
        return disk.size(handle)
    finally:
        disk.close(handle)


def _missing(known: list[Damage], newest: Meta | None, files: list[SegmentFile]) -> list[Damage]:
    """Segments that a checkpoint lists and that are gone; beside a compacted one the indexes alone do not tell."""
    if newest is None:
        return []
    told = [range(hole.first_index, hole.last_index + 1) for hole in known]
    return [hole for hole in missing_segments(newest, files) if not any(hole.first_index in span for span in told)]


def _beyond_the_end(scan: LogScan, newest: Meta | None) -> list[Damage]:
    """Records that a checkpoint knows to have been synced, and that the scan took for a torn tail or never met: an open,
    which begins at that checkpoint, finds the same hole.
    """
    if newest is None or newest.last_index < scan.end_index:
        return []
    last = scan.reports[-1]
    is_there = any(part.number >= newest.number for part in scan.reports if part.state != "headless")
    if is_there and last.state in ("torn", "whole"):
        last.state = "damaged"
    reason = "header" if is_there else "segment missing"
    return [Damage(scan.end_index, newest.last_index, newest.number, 0, max(1, scan.torn_bytes), [], reason)]
