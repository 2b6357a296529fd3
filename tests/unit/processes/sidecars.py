"""A broker's journal and its sidecars in one process, over a virtual disk: each sidecar is a Scribe that a test turns and kills."""

from __future__ import annotations

from random import Random

from patterns.wire.records import Record, RecordKind
from zbroker.processes.dialogue import Order
from zbroker.processes.scribe import Scribe
from zbroker.processes.sidecar_journal import SidecarJournal
from zbroker.store.journal import FileJournal
from zbroker.testing.disk import VirtualDisk
from zbroker.testing.line import VirtualLine, virtual_pair

FOLDER = "/j"
SECOND = 1_000_000


def record(index: int, size: int = 100) -> Record:
    return Record(index, RecordKind.APPEND, 1, index, 1, b"c", bytes([index % 256]) * size)


class Sidecars:
    """Makes sidecars for one broker, and keeps the time.

    Attributes:
        scribe: the one that lives; None when none does.
        refuses: raise this instead of starting one.
        dies_at_birth: how many of the next ones never say a word.
    """

    def __init__(self, disk: VirtualDisk | None = None, room_bytes: int = 1 << 17) -> None:
        self.disk = disk or VirtualDisk()
        self.now = SECOND
        self.scribe: Scribe | None = None
        self.made: list[FileJournal] = []
        self.refuses: OSError | None = None
        self.dies_at_birth = 0
        self.started = 0
        self._room_bytes = room_bytes
        self._random = Random(1)
        self._its: VirtualLine | None = None

    def journal(self, lock_wait_us: int = 0, **more: int) -> SidecarJournal:
        order = Order(FOLDER, lock_wait_us=lock_wait_us, segment_bytes=64 << 10)
        self._journal = SidecarJournal(self.start, order, lambda: self.now, **more)
        return self._journal

    def opened(self, **more: int) -> SidecarJournal:
        journal = self.journal(**more)
        journal.open(lambda record, position: None)
        return journal

    def start(self) -> VirtualLine:
        if self.refuses is not None:
            raise self.refuses
        self.started += 1
        ours, its = virtual_pair(1_000 + self.started, self._room_bytes)
        if self.dies_at_birth:
            self.dies_at_birth -= 1
            its.close()
            return ours
        self.scribe, self._its = Scribe(its, self.make), its
        ours.pump = self.turn
        its.pump = self._journal._take_in  # while it opens, the sidecar asks, and the broker answers at once
        return ours

    def make(self, order: Order) -> FileJournal:
        self.made.append(
            FileJournal(
                self.disk,
                order.folder,
                segment_bytes=order.segment_bytes,
                random_bytes=self._random.randbytes,
                wall_ms=lambda: 0,
            )
        )
        return self.made[-1]

    def turn(self) -> None:
        """The sidecar runs until it has nothing to do now; a millisecond passes."""
        for _ in range(100):
            if self.scribe is None:
                return
            self.scribe.turn(self.now)
            if self.scribe.is_over:
                self.hang_up()
                return
            due = self.scribe.next_timeout()
            if not self._its.can_hear and (due is None or due > self.now):  # type: ignore[union-attr]
                break
        self.now += 1_000

    def kill(self, ending: str = "signal 9") -> None:
        """As SIGKILL: the page cache stays, the lock goes."""
        self.scribe = None
        self.disk.crash()
        self.hang_up(ending)

    def hang_up(self, ending: str = "") -> None:
        self.scribe = None
        if self._its is not None:
            self._its._peer.ending = ending
            self._its.close()


def settle(sidecars: Sidecars, journal: SidecarJournal) -> list[tuple[int, int]]:
    """Both run until all is confirmed; returns the (index, segment) of what was."""
    placed = []
    for _ in range(1_000):
        journal.commit(sidecars.now)
        sidecars.turn()
        placed += [(index, place.segment) for index, place in journal.hear(sidecars.now)]
        if journal.durable_index == journal._last_index and not journal.trouble:
            return placed
        journal.handle_timeout(sidecars.now)
    raise AssertionError(f"not settled: {journal.status()}")
