"""What the sidecar's own module adds to its scribe: a disk that is read as long as somebody waits."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from patterns.wire.records import Record, RecordKind
from zbroker.processes import dialogue
from zbroker.processes.dialogue import Order
from zbroker.processes.line import SocketLine
from zbroker.processes.scribe import Scribe
from zbroker.processes.sidecar import AttendedDisk, make_journal
from zbroker.store.os_disk import OsDisk

COUNT = 300


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """Of a folder with some segments, opened again by a broker that knows all that is in it."""
    order = Order(str(tmp_path), segment_bytes=64 << 10)
    journal = make_journal(order, OsDisk())
    journal.open(lambda record, position: None)
    for index in range(1, COUNT + 1):
        journal.append(Record(index, RecordKind.APPEND, 1, index, 1, b"c", bytes(1_000)))
        journal.commit(0)
    journal.close()
    return Order(str(tmp_path), segment_bytes=64 << 10, durable_index=COUNT)


def reads_of_an_open(order: Order, hangs_up_at: int) -> tuple[int, Scribe]:
    """How often the disk is read if the broker dies at that read."""
    ours, its = socket.socketpair()
    broker, line = SocketLine(ours), SocketLine(its)
    reads = 0

    def is_forsaken() -> bool:
        nonlocal reads
        assert scribe.is_opening
        reads += 1
        if reads == hangs_up_at:
            broker.close()
        return line.is_hung_up()

    scribe = Scribe(line, lambda order: make_journal(order, AttendedDisk(is_forsaken)))
    broker.put(dialogue.said_value(dialogue.ORDER, order))
    broker.flush()
    scribe.turn(0)
    broker.close()
    line.close()
    return reads, scribe


def test_an_open_ends_between_two_reads_when_its_broker_has_died(order: Order) -> None:
    whole, scribe = reads_of_an_open(order, 1 << 30)
    assert not scribe.is_opening
    assert not scribe.is_over
    scribe._journal.close()
    assert whole > 3
    count, scribe = reads_of_an_open(order, 3)
    assert count == 3
    assert scribe.is_over


def test_what_the_broker_had_said_is_still_heard_on_a_line_that_is_hung_up() -> None:
    ours, its = socket.socketpair()
    broker, line = SocketLine(ours), SocketLine(its)
    assert not line.is_hung_up()
    broker.put(dialogue.said(dialogue.CLOSE))
    broker.flush()
    assert not line.is_hung_up()
    broker.close()
    assert line.is_hung_up()
    assert [message[0] for message in line.hear()] == [dialogue.CLOSE]
    line.close()
