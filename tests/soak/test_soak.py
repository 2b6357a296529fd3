"""Mixed load for an hour: memory, descriptors, threads and disk stay where they were, nothing durable is missing."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

import pytest

from patterns.sync import Admin
from tests.processes import LONG, Broker
from tests.soak.load import Load
from tests.soak.usage import Usage, typical, usage

SOAK_S: Final = float(os.environ.get("ZBROKER_SOAK_S", 3_600 if LONG else 6))
SAMPLE_S: Final = max(0.2, SOAK_S / 600)
WARM_S: Final = 300.0  # by then checkpoints come and segments are given back; a shorter run says nothing about growth
MIB: Final = 1 << 20
SEGMENT: Final = 64 * MIB
# A quarter of the run may be above the second one by so much.
MEMORY_SLACK, DESCRIPTORS_SLACK, THREADS_SLACK, DISK_SLACK = 16 * MIB, 8, 4, 2 * SEGMENT


def _grown(before: Usage, after: Usage) -> list[str]:
    limits = {
        "memory": before.memory * 1.05 + MEMORY_SLACK,
        "descriptors": before.descriptors + DESCRIPTORS_SLACK,
        "threads": before.threads + THREADS_SLACK,
        "disk": before.disk + DISK_SLACK,
    }
    return [
        f"{name}: {getattr(before, name):,} then {getattr(after, name):,}"
        for name, limit in limits.items()
        if getattr(after, name) > limit
    ]


def _watch(broker: Broker, load: Load) -> tuple[list[Usage], list[Usage]]:
    """Samples of the broker, its children and folder, and of this process, until the time is over or a thread has failed."""
    brokers, clients = [], []
    end = time.monotonic() + SOAK_S
    nap = threading.Event()
    while time.monotonic() < end and not load.errors:
        brokers.append(usage(broker.process.process.pid, broker.data))
        clients.append(usage(os.getpid()))
        nap.wait(SAMPLE_S)
    return brokers, clients


@pytest.mark.timeout(SOAK_S + 300)
def test_a_long_mixed_load_leaves_memory_descriptors_and_disk_flat(tmp_path: Path):
    with Broker(tmp_path, "--stream-bytes", "32M") as broker:
        load = Load(broker.url)
        brokers, clients = _watch(broker, load)
        with Admin(broker.url, timeout_s=30) as admin:
            status = admin.status()
        lost = load.lost
        missing = load.stop()
        assert load.errors == []
        assert not missing, f"{len(missing)} messages were confirmed and never came, such as {sorted(missing)[:3]}"
        assert lost == 0
        assert {kind for kind, number in load.done.items() if number} == {
            "sent", "consumed", "published", "heard", "asked", "guests",
        }  # fmt: skip
        assert status["warnings"] == []
        assert broker.terminate() == 0
    for who, samples in (("broker", brokers), ("clients", clients)):
        quarter = len(samples) // 4
        before, after = typical(samples[quarter : 2 * quarter]), typical(samples[-quarter:])
        print(f"{who}: {before} then {after}; {dict(load.done)}")
        if SOAK_S >= WARM_S:
            assert _grown(before, after) == [], f"the {who} grew"
        else:  # as far as a short run tells: what comes and goes must not stay
            assert after.descriptors <= before.descriptors + 4 * DESCRIPTORS_SLACK


def test_growth_is_seen():
    before = Usage(100 * MIB, 50, 5, 3 * SEGMENT)
    assert _grown(before, before) == []
    grown = Usage(130 * MIB, 60, 10, 6 * SEGMENT)
    assert [line.split(":")[0] for line in _grown(before, grown)] == ["memory", "descriptors", "threads", "disk"]
