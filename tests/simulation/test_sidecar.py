"""The two processes of a broker on one virtual clock."""

from __future__ import annotations

from tests.simulation.world import World


def test_a_sidecar_that_dies_between_turns_is_heard_of_at_once() -> None:
    world = World(1, kinds=[])
    world.disk.slow_sync_us = 5_000_000
    world.start_broker()
    broker = world.broker
    assert broker is not None
    assert broker.sidecar is not None
    world._doom = "sidecar"
    world.sidecar_cut(broker.sidecar)
    assert broker._news_at == world.scheduler.now
