"""The reader thread on the virtual clock: reads take time, one after the other, and turns go on meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.process import Process
from zbroker.core.effects import Read
from zbroker.processes.reads import Answer
from zbroker.store.reader import RecordReader
from zbroker.testing.reads import ImmediateReads

if TYPE_CHECKING:
    from tests.simulation.world import World


class DelayedReads(ImmediateReads):
    """Of one life of a broker; what is not read when it ends is never read."""

    def __init__(self, world: World, reader: RecordReader, process: Process) -> None:
        super().__init__(reader)
        self._world = world
        self._process = process
        self._free_at = 0
        self._is_closed = False

    def ask(self, read: Read) -> None:
        world = self._world
        self._free_at = max(self._free_at, world.scheduler.now) + world.read_times.randint(0, world.read_us)
        world.scheduler.at(self._free_at, lambda: self._serve(read))

    def _serve(self, read: Read) -> None:
        if self._process.is_alive and not self._is_closed:
            self._world.coverage["reads"] += 1
            self._answers.append((read, self._reader.read(read.positions)))
            self._process.wake()

    def answers(self) -> list[Answer]:
        """One a turn, so that there are turns between them."""
        return [self._answers.popleft()]

    def close(self) -> None:
        """As the thread ends: before the journal closes."""
        self._is_closed = True
        self._reader.close()
