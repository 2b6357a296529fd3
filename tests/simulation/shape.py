"""What a seed makes of a world: sizes, speeds, who takes part and how each is configured."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tests.simulation.durable_actors import MemberActor, ProducerActor
from tests.simulation.faults import SECOND
from tests.simulation.live_actors import AdminActor, PublisherActor, ReplierActor, RequesterActor, SubscriberActor
from tests.simulation.rogue import RogueMember, RogueProducer
from tests.simulation.steward import Steward
from zbroker.store.disk import FileSystem

if TYPE_CHECKING:
    from tests.simulation.world import World


def shape(world: World, dice: Random) -> None:
    """The seed's own world: sizes, speeds, who takes part."""
    world.duration_us = dice.choice([10, 25, 60]) * SECOND
    world.segment_bytes = dice.choice([32, 64, 256]) << 10
    world.tail_bytes = dice.choice([100_000, 400_000, 1 << 22])
    world.messages_per_turn = dice.choice([2, 16, 64])  # few: as libzmq has it when its thread was stopped, too
    world.stream_bytes = world.chances.of("retention").choice([0, 0, 30_000, 1 << 40])
    world.checkpoint_records = dice.choice([10, 60, 1 << 40])
    world.latency_us = dice.choice([20, 200, 3_000])
    world.network.weather.latency_us = dice.choice([(20, 100), (100, 2_000), (5_000, 40_000)])
    world.unconfirmed_bytes = world.chances.of("unconfirmed").choice([3_000, 20_000, 1 << 40])  # more is refused
    world.disk.sync_us = dice.choice([50, 1_000, 8_000])
    world.line_bytes = world.chances.of("line").choice([3_000, 1 << 17])  # of the socketpair's buffer
    if world.chances.of("marks").random() < 0.5:
        world.disk.kind = FileSystem("virtual", False, [], marks_unwritten=True)
    if dice.random() < 0.4:
        world.disk.short_writes = world.chances.of("short")
    streams = ["orders", "events"][: dice.randint(1, 2)]
    for number in range(dice.randint(1, 3)):
        stable = dice.choice(["", f"till-{number}"])
        world.clients.append(ProducerActor(world, f"producer{number}", dice.choice(streams), stable))
    groups = ["billing", "audit"][: dice.randint(1, 2)]
    world.pairs = [(stream, group) for stream in streams for group in groups]
    own = world.chances.of("stewardship")
    if own.random() < 0.6:
        world.steward = Steward(world, own)
        world.clients.append(world.steward)
    for number in range(dice.randint(1, 4)):
        stream, group = dice.choice(world.pairs)
        world.clients.append(MemberActor(world, f"member{number}", stream, group))
    if dice.random() < 0.5:
        world.clients.append(MemberActor(world, "reader", dice.choice(streams), ""))
    if dice.random() < 0.4:
        _add_live(world, dice)
    elif world.steward is not None and world.steward.captures:
        _add_publisher(world, 0)
    if dice.random() < 0.3:
        world.clients.append(RogueProducer(world, "rogue-producer"))
    for number in range(dice.choice([0, 0, 1, 2])):
        world.clients.append(RogueMember(world, f"rogue{number}", *dice.choice(world.pairs)))


def _add_live(world: World, dice: Random) -> None:
    """Those who need no disk: they go on while it is full or has failed."""
    for number in range(dice.randint(1, 2)):
        world.clients.append(RequesterActor(world, f"requester{number}"))
        world.clients.append(ReplierActor(world, f"replier{number}"))
    for number in range(dice.randint(1, 2)):
        _add_publisher(world, number)
    world.clients.append(AdminActor(world, "admin"))


def _add_publisher(world: World, number: int) -> None:
    world.clients.append(PublisherActor(world, f"publisher{number}"))
    world.clients.append(SubscriberActor(world, f"subscriber{number}"))
