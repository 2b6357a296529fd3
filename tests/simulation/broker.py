"""The broker's process: the production engine, carrier and journal, over the virtual disk and network.

Its turn is that of zbroker/processes/loop.py, without sockets, guard and signals; what matters in it is the Carrier's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from patterns.wire.frames import Frames
from patterns.wire.messages import Role
from patterns.wire.records import Damage, Move, Opened, Position, Record
from patterns.wire.settled import Settled, merged
from tests.simulation.process import Process
from tests.simulation.reads import DelayedReads
from tests.simulation.violation import require
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import SESSIONS
from zbroker.core.streams import Streams
from zbroker.processes.carrier import Carrier
from zbroker.store.journal import FileJournal
from zbroker.store.listing import list_segments
from zbroker.store.reader import RecordReader
from zbroker.store.recovery import GivenBack, LogScan
from zbroker.store.restore import given_back
from zbroker.store.segment import parse_name
from zbroker.store.verify import FolderReport, verify_folder
from zbroker.testing.disk import PowerCut

if TYPE_CHECKING:
    from tests.simulation.world import World

FOLDER = "/journal"
ENDPOINT = "tcp://broker:7700"
PROOFS_US = (0, 20_000, 200_000)
INFORM_US = 1_000_000
FORGET_US = 100_000


class WatchedJournal:
    """A FileJournal that the truth looks at: what it took, and what it says is durable."""

    def __init__(self, inner: FileJournal, world: World) -> None:
        self._inner = inner
        self._world = world

    def append(self, record: Record) -> Position:
        position = self._inner.append(record)
        self._world.truth.appended(record, position)
        return position

    def commit(self, now: int) -> int:
        durable = self._inner.commit(now)
        self._world.truth.committed(durable)
        return durable

    def tidy(self, now: int) -> list[Move]:
        moves = self._inner.tidy(now)
        self._world.truth.moved(moves)
        return moves

    def forget(self, ranges: list[tuple[int, int, int]]) -> None:
        self._world.truth.forgot(ranges)
        self._inner.forget(ranges)

    @property
    def tidy_at(self) -> int | None:
        return self._inner.tidy_at

    def handle_timeout(self, now: int) -> None:
        self._inner.handle_timeout(now)
        self._world.truth.committed(self._inner.durable_index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class BrokerProcess:
    """One life of a broker.

    Attributes:
        engine, journal, carrier: None until start() has opened the folder.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.process = Process(world.scheduler, self._guarded_turn, world.chance_of_turns())
        self.router = world.network.bind(ENDPOINT, self.process.wake)
        self.engine: BrokerEngine | None = None
        self.journal: WatchedJournal | None = None
        self.carrier: Carrier | None = None
        self.reads: DelayedReads | None = None
        self._suspects: deque[tuple[int, bytes]] = deque()
        self._informed_at = 0
        self._forgot_at = 0
        self._forgotten: dict[int, Settled] = {}
        self.is_condemned = False

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> Opened:
        """Open the folder. Raises what FileJournal.open raises, and PowerCut."""
        world = self.world
        now = world.scheduler.now
        world.disk.elapsed_us = 0
        inner = world.make_journal()
        inner._checkpoints.is_due = self._is_due(inner)  # type: ignore[method-assign]
        engine = self._make_engine(now)
        report = self._verified()
        opened = inner.open(engine.recover, engine)
        log, found, gone = self._whole_log()
        world.opened(opened, log, found, gone, report, self._compacted())
        engine.opened(opened, str(inner.status().get("uuid", "")), now)
        self._compare(engine, opened, log, now)
        self.engine, self.journal = engine, WatchedJournal(inner, world)
        self.reads = DelayedReads(world, RecordReader(world.disk, FOLDER), self.process)
        self.carrier = Carrier(engine, self.journal, self._send, lambda effect: None, reads=self.reads)
        self._watch_appends(self.carrier)
        self.process.busy(world.disk.elapsed_us)
        self.process.wake()
        return opened

    def _watch_appends(self, carrier: Carrier) -> None:
        """The model hears of a record when the engine lets go of it; the journal may have no room for it yet."""
        append = carrier._append

        def watched(record: Record) -> None:
            self.world.model.handed(record)
            append(record)

        carrier._append = watched  # type: ignore[method-assign]

    def _make_engine(self, now: int) -> BrokerEngine:
        return BrokerEngine("", now, make_streams=self._make_streams, nonce=self.world.salts.randbytes(16))

    def _is_due(self, inner: FileJournal) -> Callable[[int, int], bool]:
        """Checkpoints come by a number of records that a run of seconds reaches."""
        checkpoints, wanted = inner._checkpoints, self.world.checkpoint_records
        return lambda index, size: checkpoints._writer is None and index - checkpoints._counted_from[0] >= wanted

    def _whole_log(self) -> tuple[list[tuple[Record, Position]], list[Damage], GivenBack]:
        """Every record that the folder holds now, whatever a checkpoint spares; the holes; segments that are given back.

        No fault hits this look.
        """
        disk, log = self.world.disk, list[tuple[Record, Position]]()
        faults, disk.faults = disk.faults, []
        try:
            files = list_segments(disk, FOLDER)
            gone = given_back(disk, FOLDER, files)
            scan = LogScan(disk, files, lambda record, position: log.append((record, position)), given_back=gone).run()
        finally:
            disk.faults = faults
        holes = scan.known + scan.fresh
        return log, holes, gone

    def _compacted(self) -> set[int]:
        """Numbers of segments of which records may be gone, or shorter."""
        names = (parse_name(path.rpartition("/")[2]) for path in self.world.disk.live)
        return {name[0] for name in names if name is not None and name[1]}

    def _compare(self, engine: BrokerEngine, opened: Opened, log: list[tuple[Record, Position]], now: int) -> None:
        """5: checkpoint and replay make the same as a replay of everything that was ever in the log."""
        if opened.damage or self.world.truth.is_damaged:
            return
        reference = self._make_engine(now)
        for record, position in sorted([*self.world.truth.given_back(), *log], key=lambda found: found[0].index):
            reference.recover(record, position)
        reference.opened(opened, "", now)
        for section in ("streams", "groups"):
            kept, whole = _lasting(engine.status(now)[section]), _lasting(reference.status(now)[section])
            require(kept == whole, f"5: {section} are {kept} by checkpoint, {whole} by replay")

    def _verified(self) -> FolderReport | None:
        """What `store verify` says of the image, if it can open its files."""
        if not self.world.disk.live:
            return None
        try:
            return verify_folder(self.world.disk, FOLDER)
        except OSError:
            return None

    def _make_streams(self, sessions: Any, effects: Any) -> Streams:
        world = self.world
        return Streams(sessions, effects, world.wall_ms_at, tail_bytes=world.tail_bytes)

    def stop(self) -> None:
        """In order: what SIGTERM does."""
        assert self.engine is not None
        assert self.carrier is not None
        assert self.journal is not None
        now = self.world.scheduler.now
        self.engine.drain(now)
        self.carrier.carry_out(now)
        self.engine.farewell()
        self.carrier.carry_out(now)
        if self.reads is not None:
            self.reads.close()
        self.journal.close()
        self.world.truth.committed(self.journal.durable_index)

    # -- a turn ---------------------------------------------------------------------------------------------------

    def _guarded_turn(self) -> None:
        try:
            self.turn()
        except PowerCut:
            self.world.broker_died()

    def turn(self) -> None:
        """As Loop.turn: what is there, what is due, what the engine wants."""
        world, engine, carrier = self.world, self.engine, self.carrier
        if engine is None or carrier is None:
            return
        world.disk.elapsed_us = 0
        now = world.scheduler.now
        due = self._next_due()
        self._receive(now)
        self._hear_of_connections(now)
        if due is not None and due <= now:
            carrier.expire(due, now, self._drain)
            while self._suspects and self._suspects[0][0] <= now:
                engine.suspect(SESSIONS, self._suspects.popleft()[1])
        carrier.carry_out(now)
        if world.has_retention and now - self._forgot_at >= FORGET_US:
            self._forgot_at = now
            self._forget()
        if now - self._informed_at >= INFORM_US:
            self._informed_at = now
            carrier.read_again()
        world.turned(self)
        engine.events()
        self.process.busy(world.disk.elapsed_us)
        due = self._next_due()
        if self.router.inbox or carrier.has_appended or (self.reads is not None and self.reads.is_answered):
            self.process.wake()
        elif due is not None:
            self.process.due(due)

    def _forget(self) -> None:
        """Work queues: what all groups have settled nobody wants any more, once that is durable."""
        streams, journal = self.streams, self.journal
        assert journal is not None
        recorder = streams._recorder
        if streams._dirty or recorder.failed or journal.durable_index < recorder.last_index:
            return
        for log in streams._catalog.by_id.values():
            wanted = {group for stream, group in self.world.pairs if stream == log.name}
            if not wanted or not wanted <= log.groups.keys():
                continue
            end = log.durable_next
            known = self._forgotten.setdefault(log.id, Settled())
            pieces = [piece for group in log.groups.values() for piece in group.settled.missing(0, end - 1)]
            bounds = [(-1, -1), *merged(pieces), (end, end)]
            done = [(before[1] + 1, after[0] - 1) for before, after in pairwise(bounds)]
            new = [(first, last) for first, last in done if known.count(first, last) < last - first + 1]
            for first, last in new:
                known.add(first, last)
            journal.forget([(log.id, first, last) for first, last in new])

    def _next_due(self) -> int | None:
        assert self.carrier is not None
        due = self.carrier.next_timeout()
        if self._suspects and (due is None or self._suspects[0][0] < due):
            due = self._suspects[0][0]
        return due

    def _receive(self, now: int) -> int:
        assert self.carrier is not None
        assert self.engine is not None
        inbox, taken = self.router.inbox, 0
        while inbox and taken < self.world.messages_per_turn:
            self._hand_in(*inbox.popleft(), now)
            if not taken:
                self.carrier.do(self.engine.effects(), now)
            taken += 1
        return taken

    def _hand_in(self, peer: bytes, frames: Frames, arrived: int, now: int) -> None:
        assert self.engine is not None
        self.world.trace("in", peer, frames)
        self.world.model.received(peer, frames, arrived, now)
        self.engine.receive(SESSIONS, peer, frames, now)

    def _drain(self) -> int:
        """After a stall: all that has arrived."""
        assert self.carrier is not None
        now = self.world.scheduler.now
        self._hear_all()
        return now

    def _hear_all(self) -> None:
        assert self.carrier is not None
        now = self.world.scheduler.now
        while self._receive(now):
            self.carrier.carry_out(now)

    def _hear_of_connections(self, now: int) -> None:
        while self.router.gone:
            peer = self.router.gone.popleft()
            self._suspects.extend((now + delay, peer) for delay in PROOFS_US)
        if len(self._suspects) > len(PROOFS_US):
            self._suspects = deque(sorted(self._suspects))

    def _send(self, peer: bytes, frames: Frames) -> int | None:
        world = self.world
        world.trace("out", peer, frames)
        result = self.router.send(peer, frames, world.disk.elapsed_us)
        world.model.sent(peer, frames, world.scheduler.now, reached=result is None)
        return result

    # -- what checkers ask ----------------------------------------------------------------------------------------

    @property
    def streams(self) -> Streams:
        assert self.engine is not None
        assert isinstance(self.engine._streams, Streams)
        return self.engine._streams

    def roles(self) -> list[Role]:
        """Of all sessions."""
        assert self.engine is not None
        return [session.role for session in self.engine._sessions]


def _lasting(section: Any) -> dict[str, dict[str, Any]]:
    """Without what a checkpoint may know and the log not yet: how far messages were delivered for the first time."""
    left_out = ("waiting", "lag", "batches", "first_offset")  # the latter two tell what is stored, too
    return {name: {key: row[key] for key in row if key not in left_out} for name, row in section.items()}
