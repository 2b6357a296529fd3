"""Confirms do not wait for reads: the engine, the carrier, the journal and the reading thread, over a disk that holds reads back.

No time is measured: what is counted is what was confirmed while the one read was under way.
"""

from __future__ import annotations

import threading
from random import Random

import pytest

from patterns.wire.frames import pack, parse
from patterns.wire.messages import Append, Codec, Confirm, Deliver, Hello, Join, Ready, Role
from tests.processes import until
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import SESSIONS
from zbroker.core.streams import Streams
from zbroker.processes.carrier import Carrier
from zbroker.processes.reading import ReadingThread
from zbroker.store.journal import FileJournal
from zbroker.store.reader import RecordReader
from zbroker.testing.disk import VirtualDisk

BATCH = b"x" * 20_000
OLD = 100  # batches; the cache holds half of them


class SlowDisk(VirtualDisk):
    """A read takes as long as we want."""

    def __init__(self):
        super().__init__()
        self.allowed = threading.Semaphore(0)
        self.is_held = False  # set by the thread that reads, cleared by the test before it lets it go on
        self.reader = None

    def pread(self, handle, length, offset):
        if threading.current_thread() is self.reader:
            self.is_held = True
            self.allowed.acquire()
        return super().pread(handle, length, offset)


class House:
    """A broker's turn without sockets; clients are routing ids."""

    def __init__(self, disk):
        self.journal = FileJournal(disk, "/j", random_bytes=Random(1).randbytes, wall_ms=lambda: 0)
        self.engine = BrokerEngine("", 0, make_streams=self._make_streams, nonce=bytes(16))
        opened = self.journal.open(self.engine.recover, self.engine)
        self.engine.opened(opened, "cluster", 0)
        self.reads = ReadingThread(RecordReader(disk, "/j"), "/j", lambda: 0)
        disk.reader = self.reads._thread
        self.reads.start()
        self.said = []
        self.carrier = Carrier(self.engine, self.journal, self._send, lambda effect: None, reads=self.reads)

    def _make_streams(self, sessions, effects):
        return Streams(sessions, effects, lambda now: 0, tail_bytes=1_200_000)

    def _send(self, peer, frames):
        self.said.append((peer, parse([bytes(frame) for frame in frames]).header))

    def say(self, peer, header, payload=b""):
        self.engine.receive(SESSIONS, peer, pack(header, payload=payload), 0)
        self.carrier.carry_out(0)

    def heard(self, peer, kind):
        return [header for to, header in self.said if to == peer and isinstance(header, kind)]

    def send_batch(self, sequence):
        identity = self.heard(b"p", Ready)[0].producer
        header = Append(
            stream="s",
            producer=identity.id,
            producer_epoch=identity.epoch,
            sequence=sequence,
            previous=sequence - 1,
            count=1,
            codec=Codec.MSGPACK,
        )
        self.say(b"p", header, b"\x91\xc5" + len(BATCH).to_bytes(2, "big") + BATCH)


@pytest.fixture
def disk():
    return SlowDisk()


@pytest.fixture
def house(disk):
    house = House(disk)
    yield house
    disk.allowed.release(1_000)
    assert house.reads.close()
    house.journal.close()


def test_confirms_keep_coming_while_an_old_message_is_read(house, disk):
    house.say(b"p", Hello(role=Role.PRODUCER, nonce=b"p" * 16))
    for sequence in range(1, OLD + 1):
        house.send_batch(sequence)
    house.say(b"c", Hello(role=Role.CONSUMER, nonce=b"c" * 16, credit_messages=1_000, credit_bytes=1 << 30))
    house.say(b"c", Join(id=1, stream="s", group="", start="first", mode="batches"))
    sequence, held = OLD, 0
    while len(house.heard(b"c", Deliver)) < OLD:
        until(lambda: disk.is_held or house.reads.is_answered)
        if disk.is_held:
            held += 1
            for _ in range(3):
                sequence += 1
                house.send_batch(sequence)
                assert house.heard(b"p", Confirm)[-1].sequence == sequence, "in the turn that brought it"
            disk.is_held = False
            disk.allowed.release()
        house.carrier.carry_out(0)
    assert held > 3
    assert [delivery.offset for delivery in house.heard(b"c", Deliver)][:OLD] == list(range(OLD))
