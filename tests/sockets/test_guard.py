"""The guard against real floods on 127.0.0.1, and beside them peers that must not notice."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
import zmq

from patterns.io.guard import Guard
from patterns.io.guard_account import KIB, SESSIONLESS_BYTES_MAX, CutReason, wire_allowance
from patterns.io.guard_kernel import Kernel, available
from tests.sockets.flood import (
    ENDLESS_MULTIPART,
    ENDLESS_TINY_FRAMES,
    MIB,
    WHOLE_MESSAGES,
    Flood,
    raw_peer,
)

pytestmark = pytest.mark.skipif(not available, reason="the guard needs TCP_INFO")

DEADLINE_S = 5


@dataclass
class Broker:
    """A ROUTER, its guard, and a loop that runs only when a test says so."""

    context: zmq.Context[zmq.Socket[bytes]]
    guard: Guard
    bodies: list[bytes] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)
    port: int = 0

    def bind(self) -> None:
        self.router = self.context.socket(zmq.ROUTER)
        self.router.rcvhwm = self.router.sndhwm = 0
        self.router.linger = 0
        self.router.maxmsgsize = 2 * MIB
        self.guard.watch(self.router)
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.guard.start()

    def dealer(self) -> zmq.Socket[bytes]:
        dealer = self.context.socket(zmq.DEALER)
        dealer.sndhwm = dealer.linger = 0
        dealer.connect(f"tcp://127.0.0.1:{self.port}")
        return dealer

    def turn(self) -> None:
        if not self.router.poll(10):
            return
        _, *frames = self.router.recv_multipart(copy=False)
        self.fds.append(int(frames[0].get(zmq.SRCFD)))
        self.guard.delivered(self.fds[-1], sum(map(len, frames)), len(frames))
        if len(frames[-1]) < MIB:
            self.bodies.append(frames[-1].bytes)

    def run(self, until: Callable[[], bool]) -> None:
        wait(until, self.turn)

    def cut_count(self, reason: CutReason = CutReason.BEFORE_HELLO) -> int:
        return self.guard.report().cuts[reason]


def stalled() -> None:
    time.sleep(0.01)  # a loop inside fdatasync: it lets go of the GIL, and of nothing else


def wait(until: Callable[[], bool], turn: Callable[[], None] = stalled) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not until():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        turn()


@pytest.fixture
def start() -> Iterator[Callable[..., Broker]]:
    with ExitStack() as stack:

        def start(memory_bytes_max: int = 0, connection_bytes_max: int = SESSIONLESS_BYTES_MAX) -> Broker:
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            broker = Broker(context, Guard(memory_bytes_max, connection_bytes_max))
            stack.callback(context.destroy, linger=0)
            stack.callback(broker.guard.close)
            broker.bind()
            return broker

        yield start


@pytest.mark.parametrize("chunk", [ENDLESS_MULTIPART, ENDLESS_TINY_FRAMES], ids=["large", "tiny"])
def test_a_multipart_message_that_never_ends_is_cut_and_others_lose_nothing(
    start: Callable[..., Broker], chunk: bytes
) -> None:
    broker = start()
    dealer = broker.dealer()
    with Flood(broker.port, chunk) as flood:
        for number in range(2000):
            dealer.send(b"%d" % number)
        broker.run(lambda: len(flood.cut_after_s) == 1 and len(broker.bodies) == 2000)
    assert broker.bodies == [b"%d" % number for number in range(2000)]
    assert broker.cut_count() == 1
    assert broker.guard.report().recent[0].undelivered_bytes > SESSIONLESS_BYTES_MAX


def test_a_hundred_peers_that_flood_a_stalled_loop_are_cut_and_an_innocent_is_not(
    start: Callable[..., Broker],
) -> None:
    broker = start()
    dealer = broker.dealer()
    dealer.send(b"before")
    broker.run(lambda: broker.bodies == [b"before"])
    with Flood(broker.port, WHOLE_MESSAGES, connection_count=100) as flood:
        wait(lambda: len(flood.cut_after_s) == 100)
    dealer.send(b"after")
    broker.run(lambda: broker.bodies == [b"before", b"after"])
    assert broker.cut_count() == 100


def test_memory_falls_back_after_a_flood(start: Callable[..., Broker]) -> None:
    kernel = Kernel()
    broker = start()
    before = kernel.rss_bytes()
    with Flood(broker.port, ENDLESS_TINY_FRAMES, connection_count=4) as flood:
        broker.run(lambda: len(flood.cut_after_s) == 4)
    broker.run(lambda: kernel.rss_bytes() < before + 16 * MIB)
    kernel.close()


def test_memory_falls_back_when_a_peer_goes_by_itself_in_the_midst_of_a_message(start: Callable[..., Broker]) -> None:
    kernel = Kernel()
    broker = start(connection_bytes_max=64 * MIB)
    kernel.trim()  # what earlier tests have freed would be used again, and nothing would grow
    before = kernel.rss_bytes()
    with raw_peer(broker.port) as peer:
        peer.sendall(ENDLESS_TINY_FRAMES * 64)  # 4 MiB; 128 in memory
        wait(lambda: kernel.rss_bytes() > before + 64 * MIB)
    broker.run(lambda: kernel.rss_bytes() < before + 16 * MIB)
    assert broker.cut_count() == 0
    kernel.close()


def test_a_peer_within_its_credit_survives_a_stalled_loop(start: Callable[..., Broker]) -> None:
    broker = start()
    honest = broker.dealer()
    honest.send(b"HELLO")
    broker.run(lambda: broker.bodies == [b"HELLO"])
    broker.guard.allow(broker.fds[0], wire_allowance(8 * MIB, 1000, MIB))
    for _ in range(8):
        honest.send(b"y" * (MIB - 1))
    with Flood(broker.port, ENDLESS_MULTIPART) as flood:
        wait(lambda: len(flood.cut_after_s) == 1)
    wait(lambda: broker.guard.report().undelivered_bytes_peak > 7 * MIB)
    broker.run(lambda: len(broker.bodies) == 9)
    assert broker.cut_count() == 1


def test_a_session_that_ends_takes_its_allowance_along(start: Callable[..., Broker]) -> None:
    broker = start()
    dealer = broker.dealer()
    dealer.send(b"HELLO")
    broker.run(lambda: broker.bodies == [b"HELLO"])
    broker.guard.allow(broker.fds[0], 64 * MIB)
    broker.guard.allow(broker.fds[0], 0)
    for _ in range(4):
        dealer.send(b"y" * MIB)
    wait(lambda: broker.cut_count() >= 1)  # a DEALER reconnects and sends what it had queued


def test_a_reused_fd_inherits_no_allowance(start: Callable[..., Broker]) -> None:
    broker = start()
    with open(os.devnull), raw_peer(broker.port) as first:  # the flood's selector will take that number
        first.sendall(b"\x00\x05HELLO")
        broker.run(lambda: broker.bodies == [b"HELLO"])
        fd = broker.fds[0]
        broker.guard.allow(fd, 1024 * MIB)
    wait(lambda: broker.guard.report().connections == 0)
    with Flood(broker.port, ENDLESS_MULTIPART):
        wait(lambda: broker.cut_count() == 1)
    assert {notice.fd for notice in broker.guard.notices()} == {fd}, "the number was not reused"
    assert broker.guard.report().recent[0].allowance_bytes == SESSIONLESS_BYTES_MAX


def test_the_loop_hears_of_connections_through_an_fd(start: Callable[..., Broker]) -> None:
    broker = start()
    with raw_peer(broker.port):
        assert select.select([broker.guard.fileno()], [], [], DEADLINE_S)[0]
        (up,) = broker.guard.notices()
    assert select.select([broker.guard.fileno()], [], [], DEADLINE_S)[0]
    (down,) = broker.guard.notices()
    assert (up.connected, down.connected, up.fd) == (True, False, down.fd)
    wait(lambda: broker.guard.report().connections == 0)


def test_a_connection_that_libzmq_closes_is_closed_for_its_peer(start: Callable[..., Broker]) -> None:
    broker = start()
    with raw_peer(broker.port) as peer:
        wait(lambda: broker.guard.report().connections == 1)
        peer.sendall(b"\x02" + struct.pack(">Q", 1024 * MIB))  # longer than MAXMSGSIZE
        assert peer.recv(1) == b""  # a duplicate of the fd kept by the guard would hold the FIN back


def test_memory_over_budget_cuts_strangers_and_spares_sessions(start: Callable[..., Broker]) -> None:
    kernel = Kernel()
    broker = start(kernel.rss_bytes() + 64 * MIB, connection_bytes_max=1024 * MIB)
    kernel.close()
    honest = broker.dealer()
    honest.send(b"HELLO")
    broker.run(lambda: broker.bodies == [b"HELLO"])
    broker.guard.allow(broker.fds[0], wire_allowance(8 * MIB, 1000, MIB))
    for _ in range(4):
        honest.send(b"y" * (MIB - 1))
    with Flood(broker.port, ENDLESS_MULTIPART, connection_count=4) as flood:
        wait(lambda: len(flood.cut_after_s) == 4)
    broker.run(lambda: len(broker.bodies) == 5)
    assert broker.cut_count(CutReason.BEFORE_HELLO) == 0


def test_a_publisher_held_back_by_a_high_water_mark_is_not_cut(start: Callable[..., Broker]) -> None:
    broker = start()
    xsub = broker.context.socket(zmq.XSUB)
    xsub.rcvhwm = 4
    broker.guard.watch(xsub, connection_bytes_max=64 * KIB)
    port = xsub.bind_to_random_port("tcp://127.0.0.1")
    publisher = broker.context.socket(zmq.XPUB)
    publisher.sndhwm = publisher.linger = 0
    publisher.connect(f"tcp://127.0.0.1:{port}")
    wait(lambda: publisher.poll(10) == 0 and broker.guard.report().connections == 1)
    xsub.send(b"\x01")
    assert publisher.poll(1000 * DEADLINE_S)
    for _ in range(400):
        publisher.send(b"p" * 8192)
    wait(lambda: broker.guard.report().undelivered_bytes_peak > 80 * KIB)
    for _ in range(400):
        assert xsub.poll(1000 * DEADLINE_S)
        broker.guard.delivered(int(xsub.recv(copy=False).get(zmq.SRCFD)), 8192, 1)
    assert broker.cut_count() == 0
