"""The broker's process: the production engine, carrier and journal, over the virtual disk and network.

Its turn is that of zbroker/processes/loop.py, without sockets, guard and signals; what matters in it is the Carrier's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from patterns.wire.frames import Frames
from patterns.wire.messages import Role
from patterns.wire.records import Damage, Opened, Position, Record
from tests.simulation.burials import recount
from tests.simulation.disks import ProcessDisk
from tests.simulation.process import Process
from tests.simulation.reads import DelayedReads
from tests.simulation.sidecar import SidecarProcess
from tests.simulation.violation import require
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import SESSIONS
from zbroker.core.policy import Policy
from zbroker.core.streams import Streams
from zbroker.processes.carrier import Carrier
from zbroker.processes.dialogue import Order
from zbroker.processes.sidecar_journal import SidecarJournal
from zbroker.processes.suspects import Suspects
from zbroker.store.listing import list_segments
from zbroker.store.reader import RecordReader
from zbroker.store.replay import read_whole
from zbroker.store.restore import is_given_back, judge_all, newest_usable
from zbroker.store.segment import parse_name
from zbroker.store.verify import FolderReport, verify_folder
from zbroker.testing.disk import PowerCut
from zbroker.testing.line import VirtualLine, virtual_pair

if TYPE_CHECKING:
    from tests.simulation.world import World

FOLDER = "/journal"
ENDPOINT = "tcp://broker:7700"
INFORM_US = 1_000_000


class BrokerProcess:
    """One life of a broker.

    Attributes:
        engine, journal, carrier: None until start() has opened the folder.
        captors: how many streams have captured at once.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.process = Process(world.scheduler, self._guarded_turn, world.chance_of_turns())
        self.router = world.network.bind(ENDPOINT, self.process.wake)
        self.engine: BrokerEngine | None = None
        self.journal: SidecarJournal | None = None
        self.sidecar: SidecarProcess | None = None
        self.disk = ProcessDisk(world.disk)
        self.judge: Callable[[Opened], None] = lambda opened: None  # of the first open
        self._opening: SidecarJournal | None = None
        self._line: VirtualLine | None = None
        self._news_at = 0  # the sidecar says what it has done when it has done it
        self.carrier: Carrier | None = None
        self.reads: DelayedReads | None = None
        self._suspects = Suspects()
        self._informed_at = 0
        self.is_condemned = False
        self.captors = 0

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> Opened:
        """Open the folder. Raises what FileJournal.open raises, and PowerCut."""
        world = self.world
        now = world.scheduler.now
        world.disk.elapsed_us = 0
        journal = self._opening = SidecarJournal(
            self._start_sidecar,
            Order(FOLDER),
            lambda: world.scheduler.now,
            unconfirmed_bytes_max=world.unconfirmed_bytes,
        )
        engine = self._make_engine(now)
        report, log = self._verified(), list[tuple[Record, Position]]()
        self.judge = lambda opened: log.extend(self._judge(opened, report))
        opened = journal.open(engine.recover, engine)
        engine.opened(opened, str(journal.status().get("uuid", "")), now)
        self._compare(engine, opened, log, now)
        self.engine, self.journal = engine, journal
        world.look(self.streams)
        self.reads = DelayedReads(world, RecordReader(self.disk, FOLDER), self.process)
        self.carrier = Carrier(engine, self.journal, self._send, lambda effect: None, reads=self.reads)
        self._watch_appends(self.carrier)
        self._watch_forgets(self.journal)
        world.live.watch(self)
        self.process.busy(world.disk.elapsed_us)
        world.disk.elapsed_us = 0
        self.process.wake()
        return opened

    def _judge(self, opened: Opened, report: FolderReport | None) -> list[tuple[Record, Position]]:
        """The folder is open, and nothing was written since."""
        log, found, gone = self.whole_log()
        self.world.opened(opened, log, found, gone, report, self.compacted())
        return log

    def _start_sidecar(self) -> VirtualLine:
        ours, its = virtual_pair(room_bytes=self.world.line_bytes)
        is_first = self.sidecar is None
        self._line, self.sidecar = ours, SidecarProcess(self, its, is_first=is_first)
        ours.stirred = self._stirred
        ours.pump = self.sidecar.turn  # at the start, and at the end, nobody else runs
        its.pump = self._answer
        return ours

    def _answer(self) -> None:
        """While it opens, the sidecar asks what the broker makes of a checkpoint."""
        assert self._opening is not None
        self._opening._take_in()

    def _stirred(self) -> None:
        self._news_at = self.world.scheduler.now + self.world.disk.elapsed_us
        self.process.due(self._news_at)

    def lose_news(self) -> None:
        """The sidecar dies before it could say what it has done."""
        if self._line is not None and self.world.scheduler.now < self._news_at:
            self._line._arrived.clear()

    def die(self) -> None:
        """Its descriptors go."""
        self.process.kill()
        self.disk.die()
        if self._line is not None:
            self._line.close()

    def _watch_appends(self, carrier: Carrier) -> None:
        """The model hears of a record when the engine lets go of it; the journal may have no room for it yet."""
        append = carrier._append

        def watched(record: Record) -> bool:
            self.world.handed(record)
            return append(record)

        carrier._append = watched  # type: ignore[method-assign]

    def _watch_forgets(self, journal: SidecarJournal) -> None:
        """The truth hears of what is given up when the journal is told: who reads may miss it from now on."""
        forget = journal.forget

        def watched(ranges: Iterable[tuple[int, int, int]]) -> None:
            told = list(ranges)
            self.world.truth.forgot(told, self.world.model.books.is_settled)
            forget(told)

        journal.forget = watched  # type: ignore[method-assign]

    def _make_engine(self, now: int) -> BrokerEngine:
        return BrokerEngine("", now, make_streams=self._make_streams, nonce=self.world.salts.randbytes(16))

    def whole_log(self) -> tuple[list[tuple[Record, Position]], list[Damage], Callable[[int], bool]]:
        """Every record that the folder holds now, whatever a checkpoint spares; the holes; segments that are given back.

        No fault hits this look.
        """
        disk, log = self.world.disk, list[tuple[Record, Position]]()
        faults, disk.faults = disk.faults, []
        try:
            files = list_segments(disk, FOLDER)
            newest = newest_usable(judge_all(disk, FOLDER, files))
            whole = read_whole(disk, files, lambda record, position: log.append((record, position)), newest, None)
        finally:
            disk.faults = faults
        return log, whole.known + whole.fresh, partial(is_given_back, newest)

    def compacted(self) -> set[int]:
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
        whole_log = msgspec.structs.replace(opened, segments=[])  # with those that were given back meanwhile
        reference.opened(whole_log, "", now)
        for section in ("streams", "groups"):
            kept, whole = _lasting(engine.status(now)[section]), _lasting(reference.status(now)[section])
            require(kept == whole, f"5: {section} are {kept} by checkpoint, {whole} by replay")
        self._recount(engine, [record for record, _ in (*self.world.truth.given_back(), *log)])

    def _recount(self, engine: BrokerEngine, records: list[Record]) -> None:
        """8: what groups count is what records say, each of which the checker reads by itself."""
        assert isinstance(engine._streams, Streams)
        by_id = recount(records)
        for key, group in engine._streams._catalog.groups.items():
            for what in ("acked", "dead", "expired"):
                counted, said = getattr(group, what), by_id.get((*key, what), 0)
                require(counted == said, f"8: group {key} counts {counted} {what}, its records say {said}")

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
        return Streams(
            sessions,
            effects,
            world.wall_ms_at,
            tail_bytes=world.tail_bytes,
            policy=Policy(stream_bytes=world.stream_bytes),
        )

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

    # -- a turn ---------------------------------------------------------------------------------------------------

    def _guarded_turn(self) -> None:
        try:
            self.turn()
        except PowerCut:
            self.world.broker_died()
        finally:
            self.world.disk.elapsed_us = 0  # what happens between turns happens now

    def turn(self) -> None:
        """As Loop.turn: what is there, what is due, what the engine wants."""
        world, engine, carrier = self.world, self.engine, self.carrier
        if engine is None or carrier is None:
            return
        world.disk.elapsed_us = 0
        now = world.scheduler.now
        due = self._next_due()
        self._receive(now)
        self._hear_journal(now)
        self._hear_of_connections(now)
        if due is not None and due <= now:
            carrier.expire(due, now, self._drain)
            for peer in self._suspects.take(now):
                engine.suspect(SESSIONS, peer)
        carrier.carry_out(now)
        if now - self._informed_at >= INFORM_US:
            self._informed_at = now
            carrier.read_again()
        world.turned(self)
        engine.events()
        self.process.busy(world.disk.elapsed_us)
        due = self._next_due()
        if self._has_journal_news:
            self.process.due(self._news_at)
        if self.router.inbox or carrier.has_appended or (self.reads is not None and self.reads.is_answered):
            self.process.wake()
        elif due is not None:
            self.process.due(due)

    @property
    def _has_journal_news(self) -> bool:
        """What the poll of the loop says of the line."""
        line, journal = self._line, self.journal
        if line is None or journal is None or line._is_closed or journal.fileno() < 0:
            return False
        return line.can_hear or line.can_send

    def _hear_journal(self, now: int) -> None:
        if self._has_journal_news and now >= self._news_at:
            assert self.carrier is not None
            assert self.journal is not None
            self.carrier.hear(self.journal, now)

    def _next_due(self) -> int | None:
        assert self.carrier is not None
        due, proof = self.carrier.next_timeout(), self._suspects.due
        return proof if due is None or (proof is not None and proof < due) else due

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
        self.world.trace("in", peer, frames)
        self.world.model.received(peer, frames, arrived, now)
        is_verb, were = bytes(frames[0])[3:4] in b"JM", dict(self.streams._catalog.by_name)
        if bytes(frames[0])[3:4] == b"P":
            self.world.live.received(self, peer, frames, now)
        else:
            self.receive(peer, frames, now)
        if is_verb:
            self.world.model.look(self.streams._catalog, were)

    def receive(self, peer: bytes, frames: Frames, now: int) -> None:
        """Give a message to the engine."""
        assert self.engine is not None
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
            self._suspects.add(self.router.gone.popleft(), now)

    def _send(self, peer: bytes, frames: Frames) -> int | None:
        world = self.world
        world.trace("out", peer, frames)
        if bytes(frames[0])[3:4] == b"P":
            world.live.told(frames)
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
    left_out = (
        "waiting",
        "delayed",
        "lag",
        "lag_s",
        "batches",
        "first_offset",
        "kept_messages",
    )  # the latter three tell what is stored, too
    return {name: {key: row[key] for key in row if key not in left_out} for name, row in section.items()}
