"""A read-only look at a folder: what an open would find, segment by segment. Changes nothing, takes no lock."""

import msgspec

from patterns.wire.records import Damage
from zbroker.store.disk import Disk
from zbroker.store.listing import list_segments
from zbroker.store.recovery import LogScan, SegmentReport


class FolderReport(msgspec.Struct, frozen=True):
    """What verify_folder found.

    Attributes:
        segments: in the order of their numbers.
        damage: every hole that the bytes show now; index ranges are exact where the headers are whole.
        known: holes that LOST records tell of.
        records, bytes: readable.
        next_index: the first index after the log.
        torn_bytes: bytes after the end that are not zero: a tear, or what remains undetectable (FORMAT.md 7).
    """

    segments: list[SegmentReport]
    damage: list[Damage]
    known: list[Damage]
    records: int
    bytes: int
    next_index: int
    torn_bytes: int

    @property
    def is_whole(self) -> bool:
        """No hole, neither now nor told of; a torn tail is none, for it was never confirmed."""
        return not self.damage and not self.known


def verify_folder(disk: Disk, folder: str) -> FolderReport:
    """Scan a folder that a broker may be writing to at this moment: its last commit may then look torn.

    Raises:
        NotOurs, NewerFormat: as FileJournal.open.
        OSError: the folder cannot be read.
    """
    scan = LogScan(disk, list_segments(disk, folder), lambda record, position: None).run()
    return FolderReport(
        segments=scan.reports,
        damage=scan.found,
        known=scan.known,
        records=scan.records,
        bytes=scan.bytes,
        next_index=scan.end_index,
        torn_bytes=scan.torn_bytes,
    )
