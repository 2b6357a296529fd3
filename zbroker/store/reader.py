"""Reading old records by their place, verified: from files of its own, so that who writes them may be another process."""

import errno
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from patterns.wire.records import Position, Record
from zbroker.store.disk import Disk
from zbroker.store.faults import JournalError, RecordDamaged, RecordMoved, RecordUnreadable
from zbroker.store.record import HEADER_BYTES, crc32c, parse_body, parse_header, record_of
from zbroker.store.runs import Run, runs_of
from zbroker.store.segment import BLOCK_BYTES, data_end, segment_name, unpack_header

FILES_MAX = 64  # open files; segments are 64 MiB, so this covers 4 GiB of scattered reading
PASSING = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM])  # of the process or the machine, not of the record

FileKey = tuple[int, int]  # number and generation


class OpenFile(msgspec.Struct, frozen=True, gc=False):
    """A segment that is read: its handle, the CRC of its salt."""

    handle: int
    salt_crc: int


class RecordReader:
    """Needs the folder and nothing else: a segment's salt stands in its header. For one thread at a time.

    Attributes:
        records, wanted_bytes: asked for.
        calls, read_bytes: reads of the disk, those of headers included.
    """

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder.rstrip("/") or "/"
        self._files: OrderedDict[FileKey, OpenFile] = OrderedDict()  # the longest unused first
        self.records = self.wanted_bytes = self.calls = self.read_bytes = 0

    @property
    def files(self) -> int:
        """Open now."""
        return len(self._files)

    def status(self) -> dict[str, object]:
        """For people and metrics; from any thread. `read_bytes` over `wanted_bytes` is the amplification."""
        names = ("records", "wanted_bytes", "calls", "read_bytes", "files")
        return {name: getattr(self, name) for name in names}

    def read(self, positions: Sequence[Position]) -> list[Record | JournalError]:
        """The records at these positions, in this order; in the place of one that cannot be had, why.

        RecordDamaged: what is there is not it.
        RecordMoved: its file is gone, compacted or given back; whoever knows where records lie looks again.
        RecordUnreadable: no more files can be opened; it is there, and can be read later.
        """
        self.records += len(positions)
        self.wanted_bytes += sum(position.size for position in positions)
        found: dict[int, Record | JournalError] = {}
        for run in runs_of(positions):
            self._read_run(run, positions, found)
        return [found[number] for number in range(len(positions))]

    def _read_run(self, run: Run, positions: Sequence[Position], found: dict[int, Record | JournalError]) -> None:
        """One call for all of it; what is not right is read again, alone and from a file opened anew."""
        key, start = run.key, run.start
        try:
            file = self._file(key)
            data = self._pread(file, run.end - start, start)
        except OSError:
            for number in run.numbers:
                found[number] = self._read_alone(key, positions[number])
            return
        for number in run.numbers:
            position = positions[number]
            record = _parse(data, position.offset - start, position, file.salt_crc)
            found[number] = self._read_alone(key, position) if isinstance(record, str) else record

    def _read_alone(self, key: FileKey, position: Position) -> Record | JournalError:
        """The file may have been replaced since it was opened, and its bytes put to other use."""
        self._let_go(key)
        try:
            file = self._file(key)
            data = self._pread(file, position.size, position.offset)
        except FileNotFoundError:
            return RecordMoved(self._folder, position.segment)
        except OSError as error:
            if error.errno in PASSING:
                return RecordUnreadable(self._folder, position.segment, str(error))
            return self._damaged(position, str(error))
        record = _parse(data, 0, position, file.salt_crc)
        return self._damaged(position, record) if isinstance(record, str) else record

    def _damaged(self, position: Position, why: str) -> RecordDamaged:
        return RecordDamaged(self._folder, position.segment, position.offset, why)

    # -- files --------------------------------------------------------------------------------------------------------

    def _file(self, key: FileKey) -> OpenFile:
        file = self._files.get(key)
        if file is not None:
            self._files.move_to_end(key)
            return file
        handle = self._disk.open(f"{self._folder}/{segment_name(*key)}")
        try:
            salt_crc = self._salt_crc(handle, key)
        except BaseException:
            self._disk.close(handle)
            raise
        file = self._files[key] = OpenFile(handle, salt_crc)
        if len(self._files) > FILES_MAX:
            self._disk.close(self._files.popitem(last=False)[1].handle)
        return file

    def _salt_crc(self, handle: int, key: FileKey) -> int:
        """From the header, or from its copy."""
        for offset in (0, data_end(self._disk.size(handle))):
            try:
                header = unpack_header(self._pread(OpenFile(handle, 0), BLOCK_BYTES, max(0, offset)))
            except OSError as error:
                if error.errno in PASSING:
                    raise
                continue  # a sector that cannot be read: there is the other copy
            if header is not None and header.number == key[0]:
                return crc32c(header.salt)
        raise OSError(errno.EIO, "both copies of the segment's header are damaged")

    def _pread(self, file: OpenFile, length: int, offset: int) -> bytes:
        data = self._disk.pread(file.handle, length, offset)
        self.calls += 1
        self.read_bytes += len(data)
        return data

    def _let_go(self, key: FileKey) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            self._disk.close(file.handle)

    def close(self) -> None:
        """Let go of the files, until the next read; what is gone takes its space for as long as it is open."""
        for key in list(self._files):
            self._let_go(key)


def _parse(data: bytes, at: int, position: Position, salt_crc: int) -> Record | str:
    """The record that should lie at `at`, or what is wrong."""
    header = parse_header(data, at, salt_crc)
    if header is None or header.body_bytes != position.size - HEADER_BYTES:
        return "no whole header of this size"
    body = parse_body(data, at + HEADER_BYTES, header.body_bytes, header.body_crc)
    return "the body's CRC is wrong" if body is None else record_of(header, *body)
