"""A journal that is a list: it outlives the broker that writes it, as the files of a real one do, and ends with this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from patterns.wire.records import FIRST_INDEX, Move, Opened, Position, Record, Restorer

_SEGMENT: Final = 1
_WHY_FULL: Final = "the disk is full, as the test wants it"


class MemoryJournal:
    """Implements patterns.io.journal.Journal and Reader. Nothing is ever taken out: as large as all that was sent.

    Attributes:
        full: producers are refused; a test sets it, and takes it back.
    """

    def __init__(self) -> None:
        self.full = False
        self._records: list[Record] = []  # the index of each is its place and FIRST_INDEX
        self._durable = 0  # how many of them
        self._bytes = 0
        self._epoch = 0

    def crash(self) -> None:
        """Whoever wrote it is gone, and what was not committed with it."""
        del self._records[self._durable :]
        self._bytes = sum(map(_size, self._records))

    # -- the Journal protocol ----------------------------------------------------------------------------------------

    def open(self, visit: Callable[[Record, Position], None], restorer: Restorer | None = None) -> Opened:
        self.crash()
        self._epoch += 1
        for record in self._records:
            visit(record, _position(record))
        count = len(self._records)
        return Opened(self._epoch, FIRST_INDEX + count, count, self._bytes, [], 0)

    def append(self, record: Record) -> Position:
        assert record.index == FIRST_INDEX + len(self._records)
        kept = Record(
            record.index,
            record.kind,
            record.stream_id,
            record.base_offset,
            record.count,
            bytes(record.columns),
            bytes(record.payload),
        )
        self._records.append(kept)
        self._bytes += _size(kept)
        return _position(kept)

    def commit(self, now: int) -> int:
        self._durable = len(self._records)
        return self.durable_index

    @property
    def durable_index(self) -> int:
        return FIRST_INDEX - 1 + self._durable

    @property
    def checkpoint_due(self) -> bool:
        return False

    def begin_checkpoint(self) -> tuple[list[int], int]:
        return [], _SEGMENT

    def put_checkpoint(self, chunk: bytes, segment: int) -> None:
        """None is ever due."""

    def end_checkpoint(self, last_index: int) -> None:
        """None was begun."""

    def forget(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """A hint; memory is there."""

    @property
    def tidy_at(self) -> int | None:
        return None

    def tidy(self, now: int) -> list[Move]:
        return []

    def next_timeout(self) -> int | None:
        return None

    def handle_timeout(self, now: int) -> None:
        """Nothing is ever due."""

    def status(self) -> dict[str, object]:
        return {
            "folder": None,
            "epoch": self._epoch,
            "records": len(self._records),
            "bytes": self._bytes,
            "durable_index": self.durable_index,
            "full": self.full,
            "warnings": [_WHY_FULL] if self.full else [],
        }

    def close(self) -> None:
        self.commit(0)

    # -- the Reader protocol -----------------------------------------------------------------------------------------

    def read(self, positions: Sequence[Position]) -> list[Record | Exception]:
        return [self._records[position.offset - FIRST_INDEX] for position in positions]


def _size(record: Record) -> int:
    return len(record.columns) + len(record.payload)


def _position(record: Record) -> Position:
    return Position(_SEGMENT, record.index, _size(record))
