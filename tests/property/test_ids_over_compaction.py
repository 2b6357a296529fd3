"""Message ids where the records that told of them are gone: settled, compacted or given back, before the broker is killed.

The broker's engine and carrier over the journal of a real one, on a disk in memory and with small segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from patterns.sync import Admin, Consumer, Producer, StreamConfig
from patterns.wire.records import Opened, Position, Record, Restorer
from tests.processes import LONG
from zbroker.core.slices import sliced
from zbroker.store import checkpoint, compactor
from zbroker.store.journal import FileJournal
from zbroker.store.reader import RecordReader
from zbroker.testing import memory
from zbroker.testing.disk import VirtualDisk
from zbroker.testing.memory import MemoryBroker

FOLDER = "/j"
SEGMENT_BYTES = 64 << 10
BODY = "x" * 700
BATCH = 20
ROUNDS = 60
SEEDS = 30 if LONG else 3
SOON_S = 30.0


class DiskJournal:
    """A FileJournal on a disk that outlives it."""

    def __init__(self) -> None:
        self.disk = VirtualDisk()
        self.compacted = self.given_back = 0
        self._journal: Any = None

    def open(self, visit: Callable[[Record, Position], None], restorer: Restorer | None = None) -> Opened:
        self._journal = FileJournal(
            self.disk,
            FOLDER,
            segment_bytes=SEGMENT_BYTES,
            random_bytes=Random(1).randbytes,
            wall_ms=lambda: 0,
            slicer=sliced,
        )
        self._reader = RecordReader(self.disk, FOLDER)
        opened: Opened = self._journal.open(visit, restorer)
        return opened

    def crash(self) -> None:
        """The process is gone; what it wrote stays."""
        if self._journal is not None:
            status = self._journal.status()
            self.compacted += status["segments_compacted"]
            self.given_back = self._journal.number - status["segments"]
        self.disk.crash()

    def read(self, positions: Sequence[Position]) -> list[Any]:
        return list(self._reader.read(positions))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_an_id_is_known_when_its_record_is_gone(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 25)
    monkeypatch.setattr(compactor, "LOOK_US", 1_000)
    monkeypatch.setattr(memory, "MemoryJournal", DiskJournal)
    dice = Random(seed)
    stored: dict[str, int] = {}  # by id, its offset
    with MemoryBroker() as broker:
        journal: Any = broker._journal
        with Admin(broker.url) as admin:
            admin.create_stream(StreamConfig("s", retention="work", dedup_s=36_000.0))
        with (
            Producer(broker.url, "s", timeout_s=SOON_S) as producer,
            Consumer(broker.url, "s", group="g", credit=1_000) as consumer,
        ):
            consumer.ready(SOON_S)
            for _ in range(ROUNDS):
                known = dice.sample(sorted(stored), min(len(stored), dice.randrange(4)))
                ids = [*known, *(str(len(stored) + place) for place in range(BATCH))]
                posted = [producer.post(BODY, message_id=one) for one in ids]
                for one, message in zip(ids, posted, strict=True):
                    receipt = message.result(SOON_S)
                    assert (receipt.duplicate, receipt.offset) == (one in stored, stored.get(one, receipt.offset)), one
                    stored[one] = receipt.offset
                for _ in range(BATCH):
                    delivery = consumer.receive(timeout_s=SOON_S)
                    if dice.random() < 0.98:
                        delivery.ack()
                broker.advance(0.5)
                if dice.random() < 0.1:
                    broker.restart()
                    consumer.ready(SOON_S)
        broker.kill()
        broker.check()
        assert journal.compacted > 0 < journal.given_back
