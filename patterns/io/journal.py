"""The storage as a broker knows it; no knowledge of files crosses this line.

Served in-process by zbroker.store.journal.FileJournal, and by a sidecar process that has one: there `append` goes into a
socketpair, `commit` flushes it and returns the durable index *known so far* instead of waiting, and news come on a
descriptor. So a caller never assumes that commit() covers what it just appended: it releases whatever lies at or below
the index returned.

What was written is read back by a Reader, which shares nothing with the journal but its folder: so a read waits for no
sync, and no sync for a read.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from patterns.wire.records import Move, Opened, Position, Record, Restorer


class Journal(Protocol):
    """An ordered log of records, durable up to an index. Instants are microseconds, monotonic."""

    def open(self, visit: Callable[[Record, Position], None], restorer: Restorer | None = None) -> Opened:
        """Show the newest checkpoint and the records after it, in index order; then be ready for appends.

        Without a restorer, or without a checkpoint that can be used, every record of the log is shown.
        """
        ...

    def append(self, record: Record) -> Position | None:
        """Take a record whose index is the last one plus one; never touches the disk.

        Returns:
            Where it will lie; None when that is told later, once it is durable.
        """
        ...

    def commit(self, now: int) -> int:
        """Make what was appended durable; returns the highest index known to be."""
        ...

    @property
    def durable_index(self) -> int:
        """Highest index known to be on the disk; 0 when none is."""
        ...

    @property
    def full(self) -> bool:
        """Whether producers must be refused; operations still fit. Heals by itself."""
        ...

    @property
    def checkpoint_due(self) -> bool:
        """Whether so much was written since the last checkpoint that a replay would take long, and now is a time for one."""
        ...

    def begin_checkpoint(self) -> tuple[list[int], int]:
        """What is durable now need not be replayed once the checkpoint that begins here is complete.

        Returns:
            Segments (of positions) that are full and whose index the journal does not have yet; and the one that is
            written to now.
        """
        ...

    def put_checkpoint(self, chunk: bytes, segment: int) -> None:
        """One piece of the state (segment 0), or of the index of a segment; at most 256 KiB.

        All of one full segment come together, before the first of the state; those of segments not full come last.
        """
        ...

    def end_checkpoint(self, last_index: int) -> None:
        """All was said; it counts once records up to last_index, which it may reflect, are durable."""
        ...

    def forget(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """Nobody will read these offsets (stream id, first, last) any more: a hint, to be given again after each open.

        Whatever makes it so is durable by then: they may be gone at once.
        """
        ...

    @property
    def tidy_at(self) -> int | None:
        """When tidy() has something to do; None while nothing is."""
        ...

    def tidy(self, now: int) -> list[Move]:
        """Do a bounded piece of what can wait: after the commit, once a turn.

        Returns:
            Batches that lie elsewhere from now on. Their old places can be read until the next call, and for as long as
            whoever reads has the file open.
        """
        ...

    def next_timeout(self) -> int | None:
        """When handle_timeout wants to be called; None when nothing is due."""
        ...

    def handle_timeout(self, now: int) -> None:
        """Do what is due by now."""
        ...

    def status(self) -> dict[str, object]:
        """For people and metrics."""
        ...

    def close(self) -> None:
        """Make durable what was appended and let go of the storage."""
        ...


@runtime_checkable
class DistantJournal(Journal, Protocol):
    """A Journal that writes elsewhere, and tells what is durable on a descriptor."""

    @property
    def trouble(self) -> str:
        """Why confirms wait, for people; empty when they do not."""
        ...

    def fileno(self) -> int:
        """What to poll; -1 while there is nothing. It may be another one after hear() and handle_timeout()."""
        ...

    @property
    def is_blocked(self) -> bool:
        """Whether to poll for room to send as well."""
        ...

    def hear(self, now: int) -> list[tuple[int, Position]]:
        """Take in news; returns the indexes that became durable, in order, and where their records lie."""
        ...


class Reader(Protocol):
    """Durable records, by their positions. For one thread at a time, which need not be the journal's."""

    def read(self, positions: Sequence[Position]) -> Sequence[Record | Exception]:
        """The records, verified and in this order; in the place of one that cannot be had, why."""
        ...

    def status(self) -> dict[str, object]:
        """For people and metrics; from any thread."""
        ...

    def close(self) -> None:
        """Let go of the storage, until the next read."""
        ...
