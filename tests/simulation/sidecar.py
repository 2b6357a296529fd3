"""The sidecar's process: the production Scribe and journal on a virtual line and disk, dying and standing still by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patterns.wire.records import Move, Opened, Position, Record, Restorer
from tests.simulation.disks import ProcessDisk
from tests.simulation.process import Process
from zbroker.processes.dialogue import Order
from zbroker.processes.scribe import Scribe
from zbroker.store.journal import FileJournal
from zbroker.store.run import Visit
from zbroker.testing.disk import PowerCut
from zbroker.testing.line import VirtualLine

if TYPE_CHECKING:
    from tests.simulation.broker import BrokerProcess


class WatchedJournal:
    """A FileJournal that the truth looks at: what it took, what it says is durable, and with what it opens again."""

    def __init__(self, inner: FileJournal, broker: BrokerProcess, *, is_first: bool) -> None:
        self._inner = inner
        self._broker = broker
        self._truth = broker.world.truth
        self._is_first = is_first

    def open(self, visit: Visit, restorer: Restorer | None = None) -> Opened:
        opened = self._inner.open(visit, restorer)
        if self._is_first:
            self._broker.judge(opened)
        else:
            self._truth.opened(opened, *self._broker.whole_log(), self._broker.compacted())
            self._broker.world.coverage["sidecar_returned"] += 1
        return opened

    def append(self, record: Record) -> Position:
        position = self._inner.append(record)
        self._truth.appended(record, position)
        return position

    def commit(self, now: int) -> int:
        durable = self._inner.commit(now)
        self._truth.committed(durable)
        return durable

    def tidy(self, now: int) -> list[Move]:
        moves = self._inner.tidy(now)
        self._truth.moved(moves)
        return moves

    @property
    def tidy_at(self) -> int | None:
        return self._inner.tidy_at

    def handle_timeout(self, now: int) -> None:
        self._inner.handle_timeout(now)
        self._truth.committed(self._inner.durable_index)

    def close(self) -> None:
        self._inner.close()
        self._truth.committed(self._inner.durable_index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class SidecarProcess:
    """One life of a sidecar.

    Args:
        broker: whose journal it writes.
        line: its end.
        is_first: the broker is starting; else another one has died before.
    """

    def __init__(self, broker: BrokerProcess, line: VirtualLine, *, is_first: bool) -> None:
        self.world = broker.world
        self._broker = broker
        self._line = line
        self._is_first = is_first
        self.disk = ProcessDisk(self.world.disk)
        self.process = Process(self.world.scheduler, self._guarded_turn, self.world.chance_of_turns())
        self.scribe = Scribe(line, self._make_journal)
        line.stirred = self.process.wake
        self.process.wake()

    def _make_journal(self, order: Order) -> Any:
        inner = self.world.make_journal(self.disk)
        checkpoints, wanted = inner._checkpoints, self.world.checkpoint_records

        def is_due(index: int, size: int) -> bool:
            """Checkpoints come by a number of records that a run of seconds reaches."""
            return checkpoints._writer is None and index - checkpoints._counted_from[0] >= wanted

        inner._checkpoints.is_due = is_due  # type: ignore[method-assign]
        return WatchedJournal(inner, self._broker, is_first=self._is_first)

    @property
    def is_serving(self) -> bool:
        """It holds the folder."""
        return self.process.is_alive and self.scribe._journal is not None

    def _guarded_turn(self) -> None:
        try:
            self.turn()
        except PowerCut:
            self.world.sidecar_cut(self)
        finally:
            self.world.disk.elapsed_us = 0

    def turn(self) -> None:
        """As main() of the sidecar: what was said, what is due."""
        disk = self.world.disk
        disk.elapsed_us = 0
        now = self.world.scheduler.now
        self.scribe.turn(now)
        took = disk.elapsed_us
        self.process.busy(took)
        if self.scribe.is_over:
            self.die()
            self.world.orphan_left(self)
            return
        due = self.scribe.next_timeout()
        if self._line.can_hear or self._line.can_send:
            self.process.wake()
        elif due is not None:
            self.process.due(due)

    def die(self) -> None:
        """Its descriptors go; what it has said is heard all the same."""
        self.process.kill()
        self.disk.die()
        self._line.close()
