"""The faults of a run: which kinds a seed admits, when each one strikes, and what it does. A list that can be cut down."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.simulation.chance import Chances, some
from tests.simulation.disks import BLOCK_BYTES
from zbroker.store.faults import FolderLocked, JournalError
from zbroker.store.segment import parse_name
from zbroker.testing.disk import SECTOR_BYTES, PowerCut

if TYPE_CHECKING:
    from tests.simulation.world import World

SECOND: Final = 1_000_000
FOLDER: Final = "/journal"


class Fault(NamedTuple):
    """One blow: `kind` names the function, `number` its randomness."""

    at: int
    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.at / SECOND:9.3f} s  {self.kind} #{self.number}"


Strike = Callable[["World", Random], None]


# -- the network ----------------------------------------------------------------------------------------------------


def cut(world: World, random: Random) -> None:
    """A connection breaks; both ends hear of it."""
    connection = world.any_connection(random)
    if connection is not None:
        world.network.cut(connection, random)


def half_open(world: World, random: Random) -> None:
    """A connection breaks, and one end or none hears of it until libzmq's heartbeats tell, 6 to 8 s later, or never."""
    connection = world.any_connection(random)
    if connection is None:
        return
    world.network.cut(connection, random, tell_dealer=False, tell_router=random.random() < 0.5)
    late = random.randint(6 * SECOND, 8 * SECOND)
    if random.random() < 0.7:
        world.scheduler.after(late, lambda: world.network.dealer_hears(connection))


def swap(world: World, random: Random) -> None:
    """libzmq reconnects before our engine hears that anything broke."""
    connection = world.any_connection(random)
    if connection is not None:
        world.network.swap(connection, random, random.choice([1_000, 100_000, 3 * SECOND]))


def bad_weather(world: World, random: Random) -> None:
    """Packets are lost and repeated for a while: some messages are late, and all behind them."""
    weather = world.network.weather
    weather.delay_share, weather.delay_us = random.choice([5, 50, 300]), random.choice([20_000, 300_000, 3 * SECOND])
    world.scheduler.after(random.randint(SECOND, 6 * SECOND), world.clear_weather)


# -- processes ------------------------------------------------------------------------------------------------------


def kill_broker(world: World, random: Random) -> None:
    """SIGKILL of broker and sidecar, now or in the middle of the disk calls that follow; the page cache stays."""
    world.doom(random, "process")


def kill_broker_alone(world: World, random: Random) -> None:
    """SIGKILL of the broker, while its sidecar goes on to the end of what it has been given."""
    world.orphan()


def kill_sidecar(world: World, random: Random) -> None:
    """SIGKILL of the sidecar alone, now or in the middle of its disk calls; the broker starts another."""
    world.doom_sidecar(random)


def stall_sidecar(world: World, random: Random) -> None:
    """SIGSTOP of the sidecar: what waits for confirms waits, and nothing else does."""
    if world.broker is not None and world.broker.sidecar is not None:
        world.broker.sidecar.process.busy(random.choice([20_000, 300_000, 3 * SECOND, 20 * SECOND]))


def power_cut(world: World, random: Random) -> None:
    """The machine of the broker loses its power, now or in the middle of the disk calls that follow."""
    world.doom(random, "power")


def stop_broker(world: World, random: Random) -> None:
    """SIGTERM, and a start."""
    world.stop_broker(random)


def stall_broker(world: World, random: Random) -> None:
    """SIGSTOP for a while, longer than sessions and leases live."""
    if world.broker is not None:
        world.broker.process.busy(random.choice([300_000, 3 * SECOND, 12 * SECOND, 45 * SECOND]))


def stall_client(world: World, random: Random) -> None:
    """SIGSTOP of a client, while its sockets fill."""
    clients = [client for client in world.clients if client.process.is_alive]
    if clients:
        random.choice(clients).process.busy(random.choice([300_000, 3 * SECOND, 9 * SECOND, 40 * SECOND]))


def kill_client(world: World, random: Random) -> None:
    """SIGKILL of a client; another life of it follows."""
    clients = [client for client in world.clients if client.process.is_alive]
    if clients:
        world.kill_client(random.choice(clients), random.choice([10_000, SECOND, 5 * SECOND]))


def second_broker(world: World, random: Random) -> None:
    """Somebody starts another broker on the same folder: it is turned away and changes nothing."""
    sidecar = None if world.broker is None else world.broker.sidecar
    if sidecar is None or not sidecar.is_serving:
        return
    journal = world.make_journal()
    try:
        journal.open(lambda record, position: None)
    except FolderLocked:
        world.coverage["folder_locked"] += 1
        return
    except (JournalError, OSError, PowerCut):
        return
    world.violated("4: two brokers have the same folder open")


def wall_jump(world: World, random: Random) -> None:
    """The wall clock is set, by seconds or years, forwards or back."""
    world.wall_offset_ms += random.choice([-1, 1]) * random.choice([1_000, 3_600_000, 5 * 365 * 86_400_000])


# -- the disk -------------------------------------------------------------------------------------------------------


def slow_disk(world: World, random: Random) -> None:
    """Each sync takes long for a while."""
    world.disk.slow_sync_us = random.choice([20_000, 500_000, 5 * SECOND])
    world.scheduler.after(random.randint(SECOND, 8 * SECOND), world.heal_sync)


def full_disk(world: World, random: Random) -> None:
    """No space for another segment, for a while."""
    world.disk.free_bytes = random.choice([0, world.segment_bytes])
    world.scheduler.after(random.randint(SECOND, 10 * SECOND), world.free_space)


def no_space(world: World, random: Random) -> None:
    """One call that makes or opens a file fails, with an error that passes."""
    call, code = random.choice(
        [("open", errno.EMFILE), ("open", errno.ENFILE), ("fallocate", errno.ENOSPC), ("fallocate", errno.EDQUOT)]
    )
    world.disk.fail(call, code, random.randint(1, 3))


def sync_error(world: World, random: Random) -> None:
    """EIO from a sync or a write: the journal's life is over, the pages are clean and the platter is old."""
    call = random.choice(["fdatasync", "fdatasync", "fsync", "pwritev", "pwrite"])
    world.disk.fail(call, random.choice([errno.EIO, errno.EIO, errno.ENOSPC]), random.randint(1, 4))


def lost_write(world: World, random: Random) -> None:
    """The drive acknowledges a sector and forgets it, or writes it to another place."""
    if random.random() < 0.5:
        world.disk.lose_next += 1
    else:
        world.disk.misdirect_next += 1


def rot(world: World, random: Random) -> None:
    """Bits flip at rest, a block is zeroed, or a sector cannot be read any more."""
    place = _any_place(world, random)
    if place is None:
        return
    path, at = place
    what = random.randrange(4)
    if what == 0:
        world.disk.zero_block(path, at // BLOCK_BYTES * BLOCK_BYTES, BLOCK_BYTES)
    elif what == 1:
        world.disk.make_bad(path, at // SECTOR_BYTES * SECTOR_BYTES)
    else:
        world.disk.rot(path, at, random.choice([1, 1, 8, 700]))


def missing_segment(world: World, random: Random) -> None:
    """A file of the journal is deleted, while no broker looks."""
    if world.broker is not None:
        return
    segments = _segments(world)
    if len(segments) > 3:
        world.disk.lose_file(random.choice(segments[:-2]))


def _segments(world: World) -> list[str]:
    return sorted(path for path in world.disk.live if parse_name(path.rpartition("/")[2]) is not None)


def _any_place(world: World, random: Random) -> tuple[str, int] | None:
    """A byte, more often where something was written."""
    segments = _segments(world)
    entries = world.truth.entries
    if entries and random.random() < 0.8:
        index = random.choice(list(entries))
        place = entries[index].position
        for path in segments:
            parsed = parse_name(path.rpartition("/")[2])
            if parsed == (place.segment, place.generation) and place.offset < len(world.disk.live[path].cache):
                return path, place.offset + random.randrange(place.size)
    if not segments:
        return None
    path = random.choice(segments)
    return path, random.randrange(max(1, len(world.disk.live[path].cache)))


# kind: (function, seconds between two of them on average, weight 0..1 of being admitted by a seed)
KINDS: Final[dict[str, tuple[Strike, float, float]]] = {
    "cut": (cut, 2.0, 0.5),
    "half_open": (half_open, 5.0, 0.4),
    "swap": (swap, 5.0, 0.4),
    "bad_weather": (bad_weather, 8.0, 0.4),
    "kill_broker": (kill_broker, 9.0, 0.5),
    "kill_broker_alone": (kill_broker_alone, 9.0, 0.4),
    "kill_sidecar": (kill_sidecar, 6.0, 0.5),
    "stall_sidecar": (stall_sidecar, 12.0, 0.4),
    "power_cut": (power_cut, 9.0, 0.5),
    "stop_broker": (stop_broker, 15.0, 0.4),
    "stall_broker": (stall_broker, 15.0, 0.4),
    "stall_client": (stall_client, 6.0, 0.4),
    "kill_client": (kill_client, 6.0, 0.4),
    "second_broker": (second_broker, 20.0, 0.2),
    "wall_jump": (wall_jump, 10.0, 0.3),
    "slow_disk": (slow_disk, 12.0, 0.3),
    "full_disk": (full_disk, 12.0, 0.35),
    "no_space": (no_space, 12.0, 0.3),
    "sync_error": (sync_error, 15.0, 0.3),
    "lost_write": (lost_write, 12.0, 0.15),
    "rot": (rot, 10.0, 0.15),
    "missing_segment": (missing_segment, 6.0, 0.1),
}


def plan(chances: Chances, duration_us: int, kinds: Sequence[str] | None = None) -> list[Fault]:
    """The faults of a seed, in order of time."""
    random = chances.of("plan")
    admitted = [kind for kind, (_, _, weight) in KINDS.items() if random.random() < weight]
    admitted = some(random, admitted, 0.9)
    if kinds is not None:
        admitted = [kind for kind in KINDS if kind in kinds]
    faults: list[Fault] = []
    for kind in admitted:
        own = chances.of(f"plan/{kind}")
        mean_us = KINDS[kind][1] * SECOND
        at = int(own.expovariate(1 / mean_us))
        while at < duration_us:
            faults.append(Fault(at, kind, own.randrange(1 << 30)))
            at += int(own.expovariate(1 / mean_us))
    return sorted(faults)
