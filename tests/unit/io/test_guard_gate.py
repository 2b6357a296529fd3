"""The gate in front of a listening socket of the test's own."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest
import zmq

from patterns.io.guard_gate import BEHIND_MAX, CALM_US, PAUSE_US, PAUSE_US_MAX, Gate
from patterns.io.guard_kernel import available

pytestmark = pytest.mark.skipif(not available, reason="socket filters are Linux's")
ACCEPTED, LISTENING = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_LISTENING)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest.fixture
def gate(server: socket.socket) -> Iterator[Gate]:
    found = Gate()
    found.hear(LISTENING, server.fileno())
    yield found
    found.close()


def stir(gate: Gate, count: int = BEHIND_MAX + 1) -> None:
    for _ in range(count):
        gate.hear(ACCEPTED, 0)


def test_as_many_as_may_wait_leave_it_open(gate):
    stir(gate, BEHIND_MAX)
    gate.look(0)
    assert (gate.is_closed, gate.closings, gate.is_behind) == (False, 0, True)


def test_closed_it_lets_nobody_in_and_opened_it_does_and_who_is_in_does_not_notice(gate, server):
    with socket.create_connection(server.getsockname()) as before, server.accept()[0] as theirs:
        stir(gate)
        gate.look(0)
        with socket.socket() as coming:
            coming.setblocking(False)
            coming.connect_ex(server.getsockname())
            before.sendall(b"x")
            assert theirs.recv(1) == b"x"
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
            gate.settle(gate.stirred)
            gate.look(PAUSE_US)
            assert not gate.is_closed
            server.settimeout(30)
            server.accept()[0].close()  # the kernel's second try


def test_it_opens_when_all_is_worked_off_and_the_pause_is_over(gate):
    stir(gate)
    gate.look(0)
    gate.look(PAUSE_US)
    assert gate.is_closed
    gate.settle(gate.stirred - 1)
    gate.look(PAUSE_US)
    assert gate.is_closed
    gate.settle(gate.stirred)
    gate.look(PAUSE_US - 1)
    assert gate.is_closed
    gate.look(PAUSE_US)
    assert not gate.is_closed


def test_its_pauses_double_and_are_short_again_after_a_calm(gate):
    def pause(now: int) -> int:
        stir(gate)
        gate.look(now)
        gate.settle(gate.stirred)
        for pause_us in (PAUSE_US << doubling for doubling in range(10)):
            gate.look(now + pause_us)
            if not gate.is_closed:
                return pause_us
        raise AssertionError

    now, found = 0, []
    for _ in range(5):
        found.append(pause(now))
        now += found[-1]
    assert found == [PAUSE_US, PAUSE_US * 2, PAUSE_US * 4, PAUSE_US_MAX, PAUSE_US_MAX]
    assert pause(now + CALM_US) == PAUSE_US


def test_it_rings_until_it_is_told(gate):
    with zmq.Context() as context, context.socket(zmq.PAIR):
        poller = zmq.Poller()
        poller.register(gate.fileno(), zmq.POLLIN)
        stir(gate, 1)
        gate.look(0)
        assert poller.poll(0)
        gate.hush()
        gate.hush()
        assert not poller.poll(0)
        gate.look(0)
        assert poller.poll(0)
        gate.hush()
        gate.settle(1)
        gate.look(0)
        assert not poller.poll(0)


def test_without_a_listener_it_stays_open():
    gate = Gate()
    stir(gate)
    gate.look(time.monotonic_ns() // 1_000)
    assert not gate.is_closed
    ours, theirs = socket.socketpair()
    with ours, theirs:
        gate.hear(LISTENING, ours.fileno())
        gate.look(0)
        assert not gate.is_closed
    gate.close()


def test_a_number_that_is_anothers_by_now_is_left_alone(gate, server):
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = server.fileno()
        os.dup2(other.fileno(), number)
        stir(gate)
        gate.look(0)
        assert not gate.is_closed
        with socket.create_connection(other.getsockname()):
            pass
