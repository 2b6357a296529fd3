"""A run: one seed, one broker's machine, its clients, the faults, and what is checked on the way and at the end."""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from patterns.wire.records import Damage, Opened, Position, Record
from tests.simulation import faults as fault_kinds
from tests.simulation.broker import FOLDER, BrokerProcess
from tests.simulation.chance import Chances
from tests.simulation.client import Client
from tests.simulation.disks import FaultyDisk
from tests.simulation.durable_actors import MemberActor
from tests.simulation.faults import SECOND, Fault
from tests.simulation.held import check_held, check_tail
from tests.simulation.live import Live
from tests.simulation.message_ids import MessageIds
from tests.simulation.model import Model
from tests.simulation.rogue import RogueMember
from tests.simulation.shape import shape
from tests.simulation.sidecar import SidecarProcess
from tests.simulation.steward import Steward
from tests.simulation.truth import LogTruth
from tests.simulation.violation import Violation, require
from zbroker.core.catalog import Catalog
from zbroker.core.effects import SESSIONS
from zbroker.core.slices import sliced
from zbroker.core.streams import Streams
from zbroker.store.disk import Disk
from zbroker.store.faults import FolderLocked, JournalError
from zbroker.store.journal import FileJournal
from zbroker.store.verify import FolderReport
from zbroker.testing.disk import PowerCut
from zbroker.testing.network import Connection, Network
from zbroker.testing.scheduler import Scheduler

BEGIN_US = SECOND
SETTLING_US = 400 * SECOND  # faults stopped: all must be settled and everybody READY by then
WALL_MS = 1_700_000_000_000
CHECK_TURNS = 7  # the engine's own books are looked through every so many turns; a prime, so no rhythm hides from it


class World:
    """Everything of one run.

    Args:
        seed: decides all.
        kinds: admit these kinds of faults; None: the seed's own choice.
        only: strike only these of the faults, by place in the plan; for shrinking.
    """

    def __init__(
        self,
        seed: int,
        *,
        kinds: Sequence[str] | None = None,
        only: Sequence[int] | None = None,
        trace: bool = False,
    ) -> None:
        self.seed = seed
        self.chances = Chances(seed)
        self.scheduler = Scheduler(BEGIN_US)
        self.network = Network(self.scheduler, self.chances.of("latency"))
        self.disk = FaultyDisk(self.chances.of("disk"))
        self.salts = self.chances.of("salts")
        self.read_times = self.chances.of("reads")
        self.read_us = self.read_times.choice([0, 200, 10_000, 500_000])  # a read of the disk takes at most so long
        self.truth = LogTruth(self.disk)
        self.coverage: Counter[str] = Counter()
        self.model = Model(self)
        self.message_ids = MessageIds(self)
        self.live = Live(self)
        self.injected: Counter[str] = Counter()
        self.asked: dict[str, bool] = {}  # request -> whether it is idempotent
        self.served: dict[str, int] = {}
        self.ids_used: dict[str, deque[str]] = {}  # stream -> message ids, the latest last
        self.wall_offset_ms = 0
        self.broker: BrokerProcess | None = None
        self._orphans: list[SidecarProcess] = []  # whose broker has died
        self.clients: list[Client] = []
        self.steward: Steward | None = None
        self.pairs: list[tuple[str, str]] = []
        self.duration_us = self.segment_bytes = self.tail_bytes = self.messages_per_turn = self.stream_bytes = 0
        self.checkpoint_records = self.latency_us = self.unconfirmed_bytes = self.line_bytes = 0
        self.trace_crc = 0
        self.lines: list[str] | None = [] if trace else None
        self._turns = 0
        self._fate = self.chances.of("fate")
        self._doom = "process"
        self._is_over = False
        shape(self, self.chances.of("shape"))
        plan = fault_kinds.plan(self.chances, self.duration_us, kinds)
        self.plan: list[Fault] = plan if only is None else [plan[place] for place in only]

    def serve(self, body: str) -> None:
        """A replier is given a request."""
        self.served[body] = self.served.get(body, 0) + 1
        require(body in self.asked, f"11: nobody asked {body}")
        require(self.asked[body] or self.served[body] == 1, f"11: {body} is run twice, and is not idempotent")

    def chance_of_turns(self) -> int:
        """How long a process takes from being woken to its turn."""
        return self.latency_us

    # -- the run --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """The whole of it. Raises Violation."""
        self.start_broker()
        for client in self.clients:
            client.start()
        for fault in self.plan:
            self.scheduler.at(BEGIN_US + fault.at, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        self.scheduler.run(BEGIN_US + self.duration_us)
        self._quieten()
        deadline = self.scheduler.now + SETTLING_US
        while not self._is_settled():
            require(self.scheduler.now < deadline, f"13: not settled: {self._unsettled()}")
            self.scheduler.run(self.scheduler.now + SECOND)
        self._finish()

    def _strike(self, fault: Fault) -> None:
        if self._is_over:
            return
        self.trace("fault", fault.kind.encode(), [])
        self.injected[fault.kind] += 1
        fault_kinds.KINDS[fault.kind][0](self, Random(f"{self.seed}/{fault.kind}/{fault.number}"))

    def _quieten(self) -> None:
        """Faults stop, the network heals; members come anew, as prompt ones, so that everything can settle."""
        self._is_over = True
        self.disk.faults.clear()
        self.disk.cut_after = None
        self.disk.lose_next = self.disk.misdirect_next = 0
        self.heal_sync()
        self.free_space()
        self.clear_weather()
        if self.broker is not None and self.broker.carrier is not None and self.broker.carrier.is_failed:
            self.stop_broker(self._fate)
        for client in list(self.clients):
            client.is_quiet = True
            if isinstance(client, MemberActor | RogueMember):
                client.crash()
                self.clients.remove(client)
        for number, (stream, group) in enumerate(self.pairs):
            last = MemberActor(self, f"last{number}", stream, group)
            last.is_quiet, last.manner = True, "prompt"
            self.clients.append(last)
            last.start()

    def _is_settled(self) -> bool:
        broker = self.broker
        if broker is None or broker.engine is None or any(not client.settled() for client in self.clients):
            return False
        if broker.journal is not None and broker.journal.next_timeout() is not None:
            return False  # no sidecar yet: the disk had no room for one, and what waits for it is on no disk
        groups = broker.streams._catalog.groups.values()
        by_id = broker.streams._catalog.by_id
        served = [group for group in groups if (by_id[group.stream_id].name, group.name) in self.pairs]
        return all(group.pending(by_id[group.stream_id].durable_next) == 0 for group in served)  # damage takes names

    def _unsettled(self) -> str:
        clients = [client.name for client in self.clients if not client.settled()]
        status = (
            self.broker.streams.status(100, self.scheduler.now)["groups"]
            if self.broker and self.broker.engine
            else "no broker"
        )
        return f"clients {clients}, groups {status}"

    def _finish(self) -> None:
        """Stop in order, look at the image once more."""
        assert self.broker is not None
        self.check_books(self.broker)
        check_tail(self.broker.streams._tail)
        self.model.settled()
        for client in self.clients:
            client.crash()
        self.broker.stop()
        self._bury(silent=False)
        self.model.books.stopped()
        self.start_broker()

    # -- the broker's life ----------------------------------------------------------------------------------------

    def make_journal(self, disk: Disk | None = None) -> FileJournal:
        """Another opener of the same folder."""
        return FileJournal(
            disk or self.disk,
            FOLDER,
            random_bytes=self.salts.randbytes,
            wall_ms=self.wall_ms,
            segment_bytes=self.segment_bytes,
            slicer=sliced,
        )

    def start_broker(self) -> None:
        """A new process; if it cannot open its folder, somebody starts it again a second later."""
        if self.broker is not None:
            return
        broker = self.broker = BrokerProcess(self)
        try:
            broker.start()
        except PowerCut:
            self.broker_died()
        except (JournalError, OSError) as error:
            self.coverage[f"start_{type(error).__name__}"] += 1
            require(self._may_fail_to_start(error), f"4: the broker does not start: {error}")
            self._bury(silent=False)
            self._start_later(SECOND)

    def _may_fail_to_start(self, error: Exception) -> bool:
        if isinstance(error, FolderLocked):
            return bool(self._orphans)  # the sidecar of the broker before is finishing
        return not self._is_over and bool(
            self.injected["no_space"] + self.injected["full_disk"] + self.injected["sync_error"]
        )

    def _start_later(self, delay: int) -> None:
        self.scheduler.after(delay, self.start_broker)

    def doom(self, random: Random, how: str) -> None:
        """Kill the broker, at once or in the midst of its next calls to the disk."""
        self._doom = how
        if self.broker is not None and random.random() < 0.7:
            self.disk.cut_after = random.randint(0, 12)
        elif self.broker is not None:
            self.broker_died()

    def broker_died(self) -> None:
        """Its process is gone, and perhaps the machine under it."""
        silent = self._doom == "power"
        self.model.books.crashed()
        self._bury(silent=silent)
        if silent:
            self._kill_orphans()
            self.disk.power_cut(self.chances.of(f"power/{self.scheduler.now}"))
        self.disk.cut_after = None
        self.coverage[f"died_{self._doom}"] += 1
        self._start_later(self._fate.choice([50_000, 500_000, 3 * SECOND]))

    def orphan(self) -> None:
        """Kill the broker alone: its sidecar finishes, and goes."""
        broker = self.broker
        if broker is None or broker.sidecar is None:
            return
        self._orphans.append(broker.sidecar)
        broker.sidecar = None
        self._doom = "orphaning"
        self.broker_died()

    def doom_sidecar(self, random: Random) -> None:
        """Kill the sidecar alone, at once or in the midst of its next calls to the disk."""
        self._doom = "sidecar"
        sidecar = None if self.broker is None else self.broker.sidecar
        if sidecar is not None and random.random() < 0.7:
            self.disk.cut_after = random.randint(0, 12)
        elif sidecar is not None:
            self.sidecar_cut(sidecar)

    def sidecar_cut(self, sidecar: SidecarProcess) -> None:
        """It was killed between two calls to the disk, or in one; with it whoever was meant to."""
        if sidecar in self._orphans:
            self._orphans.remove(sidecar)
            sidecar.die()
            self.disk.cut_after = None
        elif self._doom != "sidecar" or self.broker is None:
            self.broker_died()
        else:
            self.coverage["died_sidecar"] += 1
            self.disk.cut_after = None
            self.broker.lose_news()
            sidecar.die()

    def orphan_left(self, sidecar: SidecarProcess) -> None:
        """It has finished."""
        if sidecar in self._orphans:
            self._orphans.remove(sidecar)
            self.coverage["orphan_finished"] += 1

    def _kill_orphans(self) -> None:
        for sidecar in self._orphans:
            sidecar.die()
        self._orphans.clear()

    def stop_broker(self, random: Random) -> None:
        """In order, and again."""
        broker = self.broker
        if broker is None or broker.engine is None or broker.process._busy_until > self.scheduler.now:
            return
        try:
            broker.stop()
        except PowerCut:
            self.broker_died()
            return
        except JournalError as error:
            self.coverage[f"stop_{type(error).__name__}"] += 1
            self.model.books.crashed()
        else:
            assert broker.carrier is not None
            assert broker.journal is not None
            if broker.journal._unconfirmed or broker.carrier.is_failed:
                self.model.books.crashed()  # the disk was full, or worse: what waited for room is gone
            else:
                self.model.books.stopped()
        self._bury(silent=False)
        self._start_later(random.choice([50_000, 2 * SECOND]))

    def _bury(self, *, silent: bool) -> None:
        broker, self.broker = self.broker, None
        assert broker is not None
        if broker.engine is not None:
            for name, count in broker.engine._sessions.refused.items():
                self.coverage[f"error_{name}"] += count
        broker.die()
        if broker.sidecar is not None:
            broker.sidecar.die()
        broker.router.close(self._fate, silent=silent)

    @property
    def is_storage_failed(self) -> bool:
        """The broker that runs serves nothing durable."""
        return self.broker is not None and self.broker.carrier is not None and self.broker.carrier.is_failed

    def opened(
        self,
        opened: Opened,
        log: list[tuple[Record, Position]],
        found: list[Damage],
        gone: Callable[[int], bool],
        report: FolderReport | None,
        compacted: set[int],
    ) -> None:
        """A folder was opened: compare with the truth, and with what verify had said of the image."""
        is_same = not (
            self.injected["sync_error"] or self.injected["lost_write"]
        )  # the cache, which verify reads, shows it
        if report is not None and is_same and not opened.damage:
            require(
                report.next_index == opened.next_index,
                f"4: by verify the next index is {report.next_index}, by the open {opened.next_index}",
            )
        if opened.records < len(log):
            self.coverage["opened_by_checkpoint"] += 1
        self.truth.opened(opened, log, found, gone, compacted)
        records = [record for record, _ in (*self.truth.given_back(), *log)]
        self.model.opened(opened, records)
        self.message_ids.opened(records)
        self.live.begin()
        if compacted:
            self.coverage["opened_compacted"] += 1

    def look(self, streams: Streams) -> None:
        """A life begins: who was told that something is done, finds it so."""
        self.model.look(streams._catalog)
        self.check_configured(streams._catalog)

    def check_configured(self, catalog: Catalog) -> None:
        """11: what a verb was answered for has been done, and stays."""
        if self.steward is None or self.truth.is_damaged:
            return
        for stream, group in self.pairs:
            log = catalog.by_name.get(stream)
            self.steward.check_stream(stream, log)
            self.steward.check((stream, group), None if log is None else log.groups.get(group))

    def handed(self, record: Record) -> None:
        """The engine has let go of a record; the journal may have no room for it yet."""
        self.truth.holdings.handed(record)
        self.model.handed(record)
        self.message_ids.handed(record)
        self.live.handed(record)

    def turned(self, broker: BrokerProcess) -> None:
        """After each turn of the broker."""
        self._turns += 1
        self.model.turned()
        self.live.turned(broker)
        for log in broker.streams._catalog.by_id.values():
            self.truth.holdings.decided(log.id, log.given_up.floor)
        if self._turns % CHECK_TURNS == 0:
            self.check_books(broker)
        assert broker.carrier is not None
        if broker.carrier.is_failed and not broker.is_condemned:
            broker.is_condemned = True
            self.coverage["storage_failed"] += 1
            delay = self._fate.choice([200_000, 2 * SECOND])
            self.scheduler.after(delay, lambda: self._replace(broker))

    def _replace(self, broker: BrokerProcess) -> None:
        """Whoever runs it sees STORAGE_FAILED and starts it again."""
        if self.broker is broker:
            self._doom = "process"
            self.broker_died()

    def check_books(self, broker: BrokerProcess) -> None:
        """8: each group's account; 6: no message is lent twice, whatever the engine's members say."""
        catalog = broker.streams._catalog
        self.check_configured(catalog)
        check_held(broker)
        self._check_gone(catalog)
        for group in catalog.groups.values():
            log = catalog.by_id[group.stream_id]
            require(group.balance(log.durable_next), f"8: {log.name}/{group.name} does not balance")
        lent: dict[Any, int] = {}
        for member in broker.streams._consumers._members.values():
            for lease in member.leases:
                mask = lease.held << lease.first
                before = lent.get(lease.group, 0)
                require(not before & mask, f"6: lease {lease.id} holds what another one holds")
                lent[lease.group] = before | mask
        for group in catalog.groups.values():
            require(lent.get(group, 0).bit_count() == group.leased, f"8: {group.name} counts {group.leased} as lent")

    def _check_gone(self, catalog: Catalog) -> None:
        """11: what a record on disk says is gone does not come back."""
        if self.truth.is_damaged:
            return
        for id, log in catalog.by_id.items():
            require(id not in self.truth.holdings.deleted, f"11: stream {log.name} was deleted, and is there")
            below = self.truth.holdings.purged.get(id, 0)
            require(
                log.first_offset >= below, f"11: {log.name} was purged below {below}, and begins at {log.first_offset}"
            )
        for key, group in catalog.groups.items():
            require(
                key not in self.truth.holdings.deleted_groups,
                f"11: group {group.name} of {key[0]} was deleted, and is there",
            )

    # -- what faults do -------------------------------------------------------------------------------------------

    def any_connection(self, random: Random) -> Connection | None:
        """One that stands."""
        connections = list(self.network.connections)
        return random.choice(connections) if connections else None

    def clear_weather(self) -> None:
        self.network.weather.delay_share = 0

    def heal_sync(self) -> None:
        self.disk.slow_sync_us = 0

    def free_space(self) -> None:
        self.disk.free_bytes = None

    def kill_client(self, client: Client, delay: int) -> None:
        """Kill it; another life follows."""
        client.crash()
        self.scheduler.after(delay, lambda: self._revive(client))

    def _revive(self, client: Client) -> None:
        if client in self.clients:
            client.start()

    def violated(self, claim: str) -> None:
        raise Violation(claim)

    def has_session(self, peer: bytes) -> bool:
        """Whether the engine has one for this connection."""
        assert self.broker is not None
        assert self.broker.engine is not None
        return self.broker.engine._sessions.at((SESSIONS, peer)) is not None

    def account(self) -> Counter[str]:
        """What was injected and what was met, by name, for the sum over many runs."""
        total: Counter[str] = Counter()
        for prefix, counter in (
            ("fault", self.injected),
            ("fault.disk", self.disk.injected),
            ("fault.network", Counter({name: self.network.counters[name] for name in ("lost", "delayed")})),
            ("met", self.coverage),
            ("met", self.truth.coverage),
            ("met", self.truth.burials.coverage),
            ("met", self.model.coverage),
            ("net", self.network.counters),
        ):
            for name, count in counter.items():
                total[f"{prefix}.{name}"] += count
        return total

    # -- time and trace -------------------------------------------------------------------------------------------

    def wall_ms(self) -> int:
        return WALL_MS + self.wall_offset_ms + self.scheduler.now // 1_000

    def wall_ms_at(self, now: int) -> int:
        return WALL_MS + self.wall_offset_ms + now // 1_000

    def trace(self, what: str, who: bytes, frames: Sequence[Any]) -> None:
        """One line of what happened; its hash is the run's."""
        self.trace_crc = zlib.crc32(b"%d %s %s " % (self.scheduler.now, what.encode(), who), self.trace_crc)
        for frame in frames:
            self.trace_crc = zlib.crc32(frame, self.trace_crc)
        if self.lines is not None:
            kind = bytes(frames[0][3:4]).decode(errors="replace") if frames else ""
            self.lines.append(
                f"{self.scheduler.now / SECOND:11.6f} {what:5} {who.hex() if frames else who.decode()} {kind}"
            )
