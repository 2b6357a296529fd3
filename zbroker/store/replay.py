"""What an open reads, and what it says of it; and the whole log, for who looks: that, and before it what a checkpoint covers.

Reads only. An open and verify are of one mind because both ask replay().
"""

import msgspec

from patterns.wire.records import Damage
from zbroker.store.checkpoint import Meta
from zbroker.store.disk import Disk
from zbroker.store.listing import SegmentFile
from zbroker.store.note import Note, missing_newest
from zbroker.store.recovery import LogScan, Progress, SegmentReport, Start, report_of, silent, told_of
from zbroker.store.restore import held, is_given_back, missing_segments, start_of
from zbroker.store.run import Visit
from zbroker.store.segment import BLOCK_BYTES


class Replay(msgspec.Struct, frozen=True):
    """The log after a checkpoint, or all of it.

    Attributes:
        scan: every record, every hole there, and where the log ends.
        known: holes that the journal tells of already, and the checkpoint.
        fresh: those of which it must be told; segments among them that the checkpoint lists and that are gone.
    """

    scan: LogScan
    known: list[Damage]
    fresh: list[Damage]


def replay(
    disk: Disk,
    files: list[SegmentFile],
    visit: Visit,
    meta: Meta | None,
    note: Note | None,
    progress: Progress = silent,
) -> Replay:
    """Show each record from where the checkpoint `meta` begins, from the first one without; `note` is what LOCK says."""
    scan = LogScan(disk, files, visit, progress, start_of(meta)).run()
    if (gone := missing_newest(note, files, scan.end_index)) is not None:
        scan.lose(gone)
    known = [] if meta is None else list(meta.damage)
    known += [hole for hole in scan.known if hole not in known]
    told = [range(hole.first_index, hole.last_index + 1) for hole in known]
    missing = [] if meta is None else missing_segments(meta, files)
    fresh = [hole for hole in missing if not any(hole.first_index in span for span in told)]
    return Replay(scan, known, fresh + scan.fresh)


class Whole(msgspec.Struct):
    """A whole log.

    Attributes:
        records, bytes: readable.
        found: every hole that the bytes show now.
        known, fresh: as in a Replay, with what was found in segments that it does not read.
        end_index: what the next record carries.
        reports: of segments, by number.
    """

    records: int
    bytes: int
    found: list[Damage]
    known: list[Damage]
    fresh: list[Damage]
    end_index: int
    torn_bytes: int
    reports: list[SegmentReport]


def read_whole(
    disk: Disk,
    files: list[SegmentFile],
    visit: Visit,
    meta: Meta | None,
    note: Note | None,
    progress: Progress = silent,
) -> Whole:
    """Show each record in index order: first what the checkpoint covers, then what an open replays."""
    before = _Covered() if meta is None else _covered(disk, files, visit, meta, progress)
    after = replay(disk, files, visit, meta, note, progress)
    scan = after.scan
    return Whole(
        records=before.records + scan.records,
        bytes=before.bytes + scan.bytes,
        found=before.found + scan.found,
        known=after.known + [hole for hole in before.known if hole not in after.known],
        fresh=after.fresh + [hole for hole in before.fresh if hole not in after.fresh],
        end_index=scan.end_index,
        torn_bytes=scan.torn_bytes,
        reports=_joined(before.reports, scan.reports),
    )


class _Covered(msgspec.Struct):
    """Of segments up to the one in which a checkpoint begins, up to there."""

    records: int = 0
    bytes: int = 0
    found: list[Damage] = []
    known: list[Damage] = []
    fresh: list[Damage] = []
    reports: list[SegmentReport] = []


def _covered(disk: Disk, files: list[SegmentFile], visit: Visit, meta: Meta, progress: Progress) -> _Covered:
    """Each segment by itself, for the checkpoint tells which records it held: the next one's header may be gone, and what a
    life has left behind the end of another is void.
    """
    by_number = {file.number: file for file in files if not is_given_back(meta, file.number)}
    known = told_of(disk, list(by_number.values()))
    known = meta.damage + [hole for hole in known if hole not in meta.damage]
    found = missing_segments(meta, files)
    result = _Covered(known=known, found=found, fresh=list(found))
    for number, first, end in held(meta):
        file, until = by_number.get(number), min(end, meta.first_index)
        if file is None or file.header is None or number > meta.number or (number == meta.number and first >= until):
            continue
        start = Start(number, BLOCK_BYTES, first, until - 1)
        heard = progress if number < meta.number else silent  # the replay begins that one again
        scan = LogScan(disk, [file], visit, heard, start, until=until, known=known).run()
        result.records += scan.records
        result.bytes += scan.bytes
        result.found += scan.found
        result.fresh += scan.fresh
        result.reports += scan.reports
    scanned = {report.number for report in result.reports}
    for file in files:
        if file.number < meta.number and file.number not in scanned:
            state = "blank" if file.is_blank else "headless"
            result.reports.append(report_of(file, "dead" if is_given_back(meta, file.number) else state))
    return result


def _joined(before: list[SegmentReport], after: list[SegmentReport]) -> list[SegmentReport]:
    """One each, by number: both have looked at a part of the segment in which the checkpoint begins."""
    reports = {report.number: report for report in before}
    for report in after:
        first = reports.get(report.number)
        if first is not None:
            report.records += first.records
            report.bytes += first.bytes
            report.slack_faults += first.slack_faults
            report.state = first.state if first.state == "damaged" else report.state
        reports[report.number] = report
    return [reports[number] for number in sorted(reports)]
