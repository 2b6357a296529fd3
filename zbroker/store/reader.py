"""Reading one record by its place, verified; from files of its own, so that another thread may do it."""

import errno
from collections import OrderedDict

from patterns.wire.records import Position, Record
from zbroker.store.disk import Disk
from zbroker.store.faults import RecordDamaged, RecordUnreadable
from zbroker.store.record import HEADER_BYTES, parse_body, parse_header, record_of
from zbroker.store.segment import segment_name

FILES_MAX = 64  # open files; segments are 64 MiB, so this covers 4 GiB of scattered reading
PASSING = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOMEM])  # of the process or the machine, not of the record


class RecordReader:
    """Salts come from the journal's thread, files are opened and closed by the thread that reads."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self._disk = disk
        self._folder = folder
        self._salts: dict[int, int] = {}  # segment number -> CRC of its salt
        self._handles: OrderedDict[int, int] = OrderedDict()  # the longest unused first

    @property
    def segments(self) -> int:
        """How many it knows."""
        return len(self._salts)

    def add(self, segment: int, salt_crc: int) -> None:
        """A segment that may be read from now on."""
        self._salts[segment] = salt_crc

    def forget(self, segment: int) -> None:
        """A segment that is gone."""
        self._salts.pop(segment, None)

    def read(self, position: Position) -> Record:
        """The record at a position.

        Raises:
            RecordDamaged: what is there is not it.
            RecordUnreadable: no more files can be opened; it is there, and can be read later.
        """
        segment, offset, size = position.segment, position.offset, position.size
        salt_crc = self._salts.get(segment)
        if salt_crc is None:
            raise RecordDamaged(self._folder, segment, offset, "there is no such segment")
        try:
            data = self._disk.pread(self._handle(segment), size, offset)
        except OSError as error:
            if error.errno in PASSING:
                raise RecordUnreadable(self._folder, segment, str(error)) from error
            raise RecordDamaged(self._folder, segment, offset, str(error)) from error
        header = parse_header(data, 0, salt_crc)
        if header is None or header.body_bytes != size - HEADER_BYTES:
            raise RecordDamaged(self._folder, segment, offset, "no whole header of this size")
        body = parse_body(data, HEADER_BYTES, header.body_bytes, header.body_crc)
        if body is None:
            raise RecordDamaged(self._folder, segment, offset, "the body's CRC is wrong")
        return record_of(header, *body)

    def _handle(self, segment: int) -> int:
        handle = self._handles.get(segment)
        if handle is not None:
            self._handles.move_to_end(segment)
            return handle
        handle = self._handles[segment] = self._disk.open(f"{self._folder}/{segment_name(segment)}")
        if len(self._handles) > FILES_MAX:
            self._disk.close(self._handles.popitem(last=False)[1])
        return handle

    def close(self) -> None:
        """Let go of the files; the reading thread has ended before."""
        for handle in self._handles.values():
            self._disk.close(handle)
        self._handles.clear()
