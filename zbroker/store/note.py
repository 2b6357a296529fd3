"""What LOCK says of the newest segment, so that one that somebody removes is missed by the next open. FORMAT.md 1.

A hint: it is not synced, and one that cannot be written or read tells nothing.
"""

import contextlib
import struct
from typing import Final, NamedTuple

from patterns.wire.limits import INTEGER_MAX
from patterns.wire.records import Damage
from zbroker.store.disk import Disk
from zbroker.store.listing import SegmentFile
from zbroker.store.record import HEADER_BYTES, crc32c
from zbroker.store.segment import NUMBER_MAX, UUID_BYTES, SegmentHeader

_MAGIC: Final = b"ZBNEWEST"
_NOTE: Final = struct.Struct(">8s16sQIQQ")
_CRC: Final = struct.Struct(">I")


class Note(NamedTuple):
    """The newest segment of the life that wrote this."""

    uuid: bytes
    number: int
    epoch: int
    first_index: int
    segment_bytes: int


def write_note(disk: Disk, lock: int, header: SegmentHeader) -> None:
    """Once the segment is begun: its name is on the platter before anything here can be."""
    note = _NOTE.pack(_MAGIC, header.folder_uuid, header.number, header.epoch, header.first_index, header.segment_bytes)
    with contextlib.suppress(OSError):  # a full disk has no block for it
        disk.pwrite(lock, note + _CRC.pack(crc32c(note)), 0)


def read_note(disk: Disk, lock: int) -> Note | None:
    """None: there is none, or it is not whole."""
    try:
        found = disk.pread(lock, _NOTE.size + _CRC.size, 0)
    except OSError:
        return None
    if len(found) != _NOTE.size + _CRC.size or _CRC.unpack_from(found, _NOTE.size)[0] != crc32c(found[: _NOTE.size]):
        return None
    magic, uuid, number, epoch, first_index, segment_bytes = _NOTE.unpack_from(found)
    fits = len(uuid) == UUID_BYTES and max(number, epoch) < NUMBER_MAX and max(first_index, segment_bytes) < INTEGER_MAX
    return Note(uuid, number, epoch, first_index, segment_bytes) if magic == _MAGIC and fits else None


def missing_newest(note: Note | None, files: list[SegmentFile], end_index: int) -> Damage | None:
    """What was in the newest segments if they are gone, or were begun and look prepared: all before the one that is noted, and in it as many records as fit.

    Args:
        end_index: of what is there, as far as the scan knows.
    """
    if note is None or any(file.number == note.number and not file.is_blank for file in files):
        return None
    headers = [file.header for file in files if file.header is not None]
    newest = headers[-1].number if headers else 0
    if newest > note.number or (headers and headers[-1].folder_uuid != note.uuid):
        return None
    last = note.first_index + note.segment_bytes // HEADER_BYTES - 1
    if last < end_index:
        return None  # the scan has given up more, as a checkpoint told it
    lost_bytes = (note.number - newest) * note.segment_bytes
    return Damage(end_index, last, note.number, 0, lost_bytes, [], "segment missing")
