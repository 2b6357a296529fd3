"""Reading a whole log back: what is valid, what is a torn tail, what is damage. FORMAT.md 5.

Reads only. The journal decides what to write about it; verify.py shows it to people.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from patterns.wire.records import FIRST_INDEX, Damage, LostRange, Position, Record, RecordKind, decode_lost
from zbroker.store.compacted import cut_off, look_through
from zbroker.store.disk import Disk
from zbroker.store.listing import SegmentFile
from zbroker.store.record import (
    HEADER_BYTES,
    WITHOUT_INDEX,
    Header,
    crc32c,
    padded,
    parse_body,
    parse_header,
)
from zbroker.store.run import CHAIN_UNKNOWN, Run, Visit, read_run
from zbroker.store.segment import BLOCK_BYTES, FIRST_NUMBER, SEGMENT_BYTES, SegmentHeader, data_end
from zbroker.store.window import Window, find_header

UNBOUNDED = 1 << 63  # above any index
_RECORD_BYTES_MIN = padded(HEADER_BYTES + 1)  # of one with an index: its body says at least how long its columns are
Progress = Callable[[int], None]


def silent(size: int) -> None:
    """Nobody watches."""


class Start(NamedTuple):
    """Where a scan begins that need not begin at the beginning: a checkpoint holds what comes before `first_index`.

    Everything up to `durable` is known to have been synced.
    """

    number: int
    offset: int
    first_index: int
    durable: int


class SegmentReport(msgspec.Struct):
    """What the scan met in one segment; `state` is whole, compacted, torn, damaged, blank, headless, or dead."""

    number: int
    name: str
    state: str
    first_index: int = 0
    last_index: int = 0
    records: int = 0
    bytes: int = 0
    slack_faults: int = 0  # unreadable PAD or WITNESS: nothing of anybody's is lost
    nonzero_after_end: int = 0
    size: int = 0  # of the file
    generation: int = 0  # how often it was compacted

    @property
    def is_empty(self) -> bool:
        """It was begun, and holds no byte behind its header."""
        return self.state == "whole" and self.last_index < self.first_index and not self.nonzero_after_end

    @property
    def reclaimable(self) -> int:
        """Bytes of a file that holds nothing of the log: prepared, or of a life without a record."""
        return self.size if self.is_empty or self.state in ("blank", "dead") else 0


class LogScan:
    """One pass over a folder's segments, in index order.

    Results: `end_index` (what the next record carries), `records`, `bytes`, `found` (every hole), `fresh` (those
    that no LOST record tells of yet), `torn_bytes`, `reports`. `progress` hears the bytes of each file as it is begun.

    With `until` the log is known to go on with that index elsewhere: what is not found before it is lost, nothing is torn, and
    a checkpoint has what compaction left out. With `known` no LOST records are read for the holes that are known.
    """

    def __init__(
        self,
        disk: Disk,
        files: list[SegmentFile],
        visit: Visit,
        progress: Progress = silent,
        start: Start | None = None,
        until: int = UNBOUNDED,
        known: list[Damage] | None = None,
    ) -> None:
        self._disk = disk
        self._progress = progress
        self._start = start
        self._until = until
        self._files = [file for file in files if start is None or file.number >= start.number]
        self._visit = visit
        self._highest: int | None = None  # W, once looked for
        self._ended = False
        self._stopped_at = BLOCK_BYTES  # where the pass left the segment before
        self._must_learn = known is None
        self.known = known or []
        self.found: list[Damage] = []
        self.fresh: list[Damage] = []
        self.reports: list[SegmentReport] = []
        self.records = self.bytes = self.torn_bytes = 0
        self.end_index = FIRST_INDEX

    def run(self) -> "LogScan":
        """Scan everything. Raises OSError only for what is no damage (no permission, too many files)."""
        if self._start is not None:
            self.end_index = self._start.first_index
        if self._must_learn:
            self.known = told_of(self._disk, self._files)
        headless: list[SegmentFile] = []
        for place, file in enumerate(self._files):
            report = report_of(file, "blank" if file.is_blank else "headless")
            self.reports.append(report)
            self._progress(file.size)
            if file.header is None:
                headless.append(file)
            elif not self._ended:
                self._close_gap(place, file.header, headless)
                headless = []
                if file.generation:
                    self._compacted(place, file, file.header, report)
                else:
                    self._segment(place, file.path, file.size, file.header, report)
        if self._until != UNBOUNDED:
            self._close_end()
        elif not self._ended:
            self._trailing(headless)
        if self._start is not None and not any(file.header or self._record_bytes(file) for file in self._files):
            self._all_gone(self._start)
        return self

    def _bound(self, place: int) -> int:
        """The next segment's first index: what an older one holds from there on is void."""
        return min(self._until, _first_after(self._files, place))

    # -- the pass -------------------------------------------------------------------------------------

    def _segment(self, place: int, path: str, size: int, header: SegmentHeader, report: SegmentReport) -> None:
        window = Window(self._disk, path, size)
        report.state = "whole"
        report.first_index = header.first_index
        bound = self._bound(place)
        visit = self._visit_unless_known if self.known else self._visit
        offset, chain = BLOCK_BYTES, header.crc
        if self._start is not None and header.number == self._start.number:
            offset, chain = self._start.offset, CHAIN_UNKNOWN
        try:
            while True:
                start = Run(offset, chain, self.end_index, report.records, report.bytes, None)
                run = read_run(window, header, start, bound, visit)
                offset, self.end_index, report.records, report.bytes = run.offset, *run[2:5]
                if self.end_index >= bound:
                    break
                resume = self._anomaly(place, window, header, run, bound, report)
                if resume is None:
                    break
                offset, chain = resume
            self._stopped_at = offset
            report.last_index = self.end_index - 1
            report.nonzero_after_end = window.nonzero_end(offset, data_end(header.segment_bytes)) - offset
            if bound == UNBOUNDED:
                self.torn_bytes = report.nonzero_after_end
                if self.torn_bytes and report.state == "whole":
                    report.state = "torn"
        finally:
            window.close()
        self.records += report.records
        self.bytes += report.bytes

    def _compacted(self, place: int, file: SegmentFile, header: SegmentHeader, report: SegmentReport) -> None:
        """Was synced as a whole: no tail can be torn. Its gaps are damage only without a checkpoint that has what was left out."""
        found: list[tuple[Record, Position]] = []
        content = look_through(
            self._disk, file.path, file.size, header, lambda record, position: found.append((record, position))
        )
        last = self._bound(place) - 1 if self._bound(place) != UNBOUNDED else header.durable_index
        ends: dict[int, int] = {}
        for record, position in sorted(found, key=lambda one: one[0].index):
            ends[record.stream_id] = record.base_offset + record.count
            self._visit(record, position)
        report.state = "compacted" if content.is_whole else "damaged"
        report.first_index, report.last_index = header.first_index, last
        report.records, report.bytes = content.records, content.bytes
        self.records += content.records
        self.bytes += content.bytes
        for lost in content.rotten:
            self.lose(Damage(lost.index, lost.index, header.number, 0, 0, [lost], "body"))
        if content.lost_bytes or content.seal is None:
            lost_bytes = max(content.lost_bytes, HEADER_BYTES)
            self.lose(Damage(header.first_index, last, header.number, 0, lost_bytes, [], "header"))
        elif self._until == UNBOUNDED:
            self.lose(Damage(header.first_index, last, header.number, 0, 0, cut_off(content, ends), "compacted"))
        self.end_index, self._stopped_at = last + 1, data_end(header.segment_bytes)

    def _visit_unless_known(self, record: Record, position: Position) -> None:
        if any(damage.first_index <= record.index <= damage.last_index for damage in self.known):
            self.records -= 1
            self.bytes -= position.size
        else:
            self._visit(record, position)

    # -- where a record should be and none is ---------------------------------------------------------

    def _anomaly(
        self,
        place: int,
        window: Window,
        header: SegmentHeader,
        run: Run,
        bound: int,
        report: SegmentReport,
    ) -> tuple[int, int] | None:
        """Torn tail or damage? Returns offset and chain to go on with, None at the end of this segment."""
        expected, offset = self.end_index, run.offset
        if run.rotten is not None:
            return self._rotten_body(place, window, header, offset, run.rotten, report)
        end = data_end(header.segment_bytes)
        if bound == UNBOUNDED:
            window.nonzero_end(offset, end)  # an end like any other: nothing but zeros, and no look-ahead
        limit = self._island_limit(place, window, header, offset, bound)
        island = _island(window, offset, header, expected, limit)
        upto = UNBOUNDED
        if island is not None:
            upto = island[1].record_index - (island[1].kind not in WITHOUT_INDEX)
            if upto < expected:
                report.slack_faults += 1
                return island[0], CHAIN_UNKNOWN
        elif bound != UNBOUNDED:
            return None  # the next segment's first index says how much is missing
        highest = self._highest_durable(place, window, header, offset)
        if expected > highest or (island is None and highest == UNBOUNDED):
            self._ended = expected > highest
            return None
        last = min(upto, highest)
        # Without an island the hole may reach to the end: what lay there may be zeros by now.
        lost_bytes = max(HEADER_BYTES, (island[0] if island else end) - offset)
        report.state = "damaged"
        self.lose(Damage(expected, last, header.number, offset, lost_bytes, [], "header"))
        if island is None or last < upto:  # what lies above `last` was never confirmed: void
            self._ended = True
            return None
        return island[0], CHAIN_UNKNOWN

    def _rotten_body(
        self,
        place: int,
        window: Window,
        header: SegmentHeader,
        offset: int,
        rotten: Header,
        report: SegmentReport,
    ) -> tuple[int, int] | None:
        after = offset + padded(HEADER_BYTES + rotten.body_bytes)
        if rotten.record_index > self._highest_durable(place, window, header, after):
            self._ended = True
            return None
        lost = LostRange(
            index=rotten.record_index,
            kind=rotten.kind,
            stream_id=rotten.stream_id,
            base_offset=rotten.base_offset,
            count=rotten.message_count,
        )
        report.state = "damaged"
        self.lose(Damage(lost.index, lost.index, header.number, offset, 0, [lost], "body"))
        return after, rotten.header_crc

    def _close_gap(self, place: int, header: SegmentHeader, headless: list[SegmentFile]) -> None:
        """Before a segment that begins above what is expected: everything between is lost."""
        if header.first_index <= self.end_index:
            return
        before = self._files[place - 1 - len(headless)] if place > len(headless) else None
        first_number = FIRST_NUMBER if self._start is None else self._start.number
        absent = range(before.number + 1 if before else first_number, header.number - len(headless))
        missing = len(absent)
        lost_bytes = sum(file.size for file in headless) + missing * header.segment_bytes
        number, offset, reason = header.number, 0, "segment header" if headless else "segment missing"
        if before is not None and before.header is not None:
            # Its last records may be among the lost, however its end looks now.
            number, offset = before.number, self._stopped_at
            lost_bytes += data_end(before.header.segment_bytes) - offset
            if not headless and not missing:
                reason = "header"
                self.reports[place - 1].state = "damaged"
        first, last = self.end_index, header.first_index - 1
        self.lose(Damage(first, last, number, offset, max(1, lost_bytes), [], reason))

    def _close_end(self) -> None:
        """What was here, as somebody knows who has seen it, and cannot be found: zeros at the end look like an end."""
        file, first = self._files[-1], self.end_index
        if first >= self._until:
            return
        lost_bytes = max(1, data_end(file.size) - self._stopped_at)
        hole = Damage(first, self._until - 1, file.number, self._stopped_at, lost_bytes, [], "header")
        self.end_index = self._until
        if self._not_told(hole):
            self.reports[-1].state = "damaged"
            self.lose(hole)

    def _trailing(self, headless: list[SegmentFile]) -> None:
        """Segments after the last good header. Records are written only once the header is synced, so one with
        bytes where records go and no header is damage. How many indexes it used is unknown: as many as fit.
        """
        extent = sum(self._record_bytes(file) for file in headless)
        if extent == 0:
            return
        extent += self.torn_bytes
        self.torn_bytes = 0
        last = self.end_index + max(1, extent // HEADER_BYTES) - 1
        last = max(last, 0 if self._start is None else self._start.durable)
        first = next(file for file in headless if not file.is_blank)
        self.lose(Damage(self.end_index, last, first.number, 0, extent, [], "segment header"))

    def _all_gone(self, start: Start) -> None:
        """The segment in which the checkpoint began, and all after it: what they held is unknown, and was no more than
        is written until the next checkpoint is complete.
        """
        lost_bytes = 4 * SEGMENT_BYTES
        last = max(self.end_index - 1, start.durable) + lost_bytes // HEADER_BYTES
        self.lose(Damage(self.end_index, last, start.number, start.offset, lost_bytes, [], "segment missing"))

    def _record_bytes(self, file: SegmentFile) -> int:
        if file.is_blank or file.header is not None:
            return 0
        window = Window(self._disk, file.path, file.size)
        try:
            return window.nonzero_end(BLOCK_BYTES, data_end(file.size)) - BLOCK_BYTES
        finally:
            window.close()

    def lose(self, damage: Damage) -> None:
        """A hole at the end of what was found."""
        self.end_index = damage.last_index + 1
        self.found.append(damage)
        self.fresh += self._not_told(damage)

    def _not_told(self, damage: Damage) -> list[Damage]:
        pieces = [damage]
        for known in self.known:
            pieces = [rest for piece in pieces for rest in _without(piece, known)]
        return pieces

    # -- what was confirmed ---------------------------------------------------------------------------

    def _highest_durable(self, place: int, window: Window, header: SegmentHeader, offset: int) -> int:
        """W: the highest durable index that anything valid from here on knows of.

        Looked for once: a later anomaly's W could differ only by records between the two, and those know of
        nothing at or above it.
        """
        if self._highest is None:
            later = self._files[place + 1 :]
            highest = max(file.header.durable_index for file in self._files if file.header)
            highest = max(highest, 0 if self._start is None else self._start.durable)
            highest = max(highest, durable_in(window, header, offset))
            for file in later:
                if file.header is not None:
                    other = Window(self._disk, file.path, file.size)
                    highest = max(highest, durable_in(other, file.header, BLOCK_BYTES))
                    other.close()
            if any(self._record_bytes(file) for file in self._after_last_header()):
                highest = UNBOUNDED  # that segment was begun only after all before it was synced
            self._highest = highest
        return self._highest

    def _after_last_header(self) -> list[SegmentFile]:
        headed = [place for place, file in enumerate(self._files) if file.header]
        return self._files[headed[-1] + 1 :] if headed else self._files

    def _island_limit(self, place: int, window: Window, header: SegmentHeader, offset: int, bound: int) -> int:
        """Below which index valid records after an anomaly are to be believed.

        Normally the next segment's first index. When the next header is lost, void records can no longer be told
        by it; then only what this life itself knew to be durable counts.
        """
        number = header.number
        for file in self._files[place + 1 :]:
            number += 1
            if file.header is not None and file.header.previous == header.number:
                return bound  # what is missing between the two held nothing
            if file.number != number or self._record_bytes(file):
                break  # records of a later life may have been here
            if file.header is not None:
                return bound
        else:
            return bound
        same = [file.header for file in self._files if file.header and file.header.epoch == header.epoch]
        known = max(other.durable_index for other in same)
        return min(bound, max(known, durable_in(window, header, offset)) + 1)


def report_of(file: SegmentFile, state: str) -> SegmentReport:
    """One in which nothing was met."""
    name = file.path.rpartition("/")[2]
    return SegmentReport(file.number, name, state, size=file.size, generation=file.generation)


def told_of(disk: Disk, files: list[SegmentFile]) -> list[Damage]:
    """The known holes: they stay holes even if their bytes read well again today."""
    known: list[Damage] = []
    for place, file in enumerate(files):
        bound = _first_after(files, place)
        if file.header is not None and file.header.first_index < bound:
            window = Window(disk, file.path, file.size, BLOCK_BYTES)
            known += _leading_losses(window, file.header, bound)
            window.close()
    return known


def _first_after(files: list[SegmentFile], place: int) -> int:
    headers = (file.header for file in files[place + 1 :] if file.header is not None)
    return next((header.first_index for header in headers), UNBOUNDED)


def _leading_losses(window: Window, header: SegmentHeader, bound: int) -> list[Damage]:
    """What the LOST records tell; a journal writes them first of all into the segment that it begins."""
    losses: list[Damage] = []
    offset, index, salt_crc = BLOCK_BYTES, header.first_index, crc32c(header.salt)
    while index < bound:
        at = window.load(offset, HEADER_BYTES)
        found = parse_header(window.data, at, salt_crc)
        if found is None or found.kind != RecordKind.LOST or found.record_index != index:
            break
        at = window.load(offset, HEADER_BYTES + found.body_bytes)
        body = parse_body(window.data, at + HEADER_BYTES, found.body_bytes, found.body_crc)
        if body is not None:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeError):  # what is no list of losses tells of none
                losses += decode_lost(body[1])
        index += 1
        offset += padded(HEADER_BYTES + found.body_bytes)
    return losses


def _island(window: Window, offset: int, header: SegmentHeader, expected: int, limit: int) -> tuple[int, Header] | None:
    """The next record that may stand where it is found: each one before it took a header's bytes and a body's at least.

    What a misdirected write has brought here says otherwise, and would take all records up to it along.
    """
    at = offset
    while (found := find_header(window, at, header, expected, limit)) is not None:
        missing = found[1].record_index - expected + (found[1].kind in WITHOUT_INDEX)
        if missing * _RECORD_BYTES_MIN <= found[0] - offset:
            break
        at = found[0] + HEADER_BYTES
    return found


def durable_in(window: Window, header: SegmentHeader, offset: int) -> int:
    """The highest durable index that any whole record of the segment, from an offset on, knows of."""
    highest = 0
    while (hit := find_header(window, offset, header, 0, UNBOUNDED)) is not None:
        highest = max(highest, hit[1].durable_index)
        offset = hit[0] + padded(HEADER_BYTES + hit[1].body_bytes)
    return highest


def _without(damage: Damage, known: Damage) -> list[Damage]:
    """What of `damage` a known hole does not cover."""
    if known.last_index < damage.first_index or known.first_index > damage.last_index:
        return [damage]
    pieces = []
    if damage.first_index < known.first_index:
        pieces.append(msgspec.structs.replace(damage, last_index=known.first_index - 1))
    if damage.last_index > known.last_index:
        pieces.append(msgspec.structs.replace(damage, first_index=known.last_index + 1))
    return pieces
