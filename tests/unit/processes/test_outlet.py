"""The XPUB's thread, with a loop that is the test."""

from __future__ import annotations

import pytest
import zmq

from patterns.io.guard import Guard
from zbroker.processes.outlet import Outlet

MIB = 1 << 20


@pytest.fixture
def parts():
    context = zmq.Context()
    guard = Guard(0)
    outlet = Outlet(context, guard, "tcp://127.0.0.1:0")
    yield outlet, context
    assert outlet.stop()
    guard.close()
    outlet.close(0)
    context.destroy(linger=0)


def subscriber(context, outlet, prefix):
    socket = context.socket(zmq.SUB)
    socket.connect(outlet.endpoint)
    socket.subscribe(prefix)
    assert outlet.inside.poll(30_000)
    return socket


def test_reports_name_the_connection_and_its_end_names_nobody(parts):
    outlet, context = parts
    outlet.start()
    socket = subscriber(context, outlet, b"a")
    ((peer, frames),) = outlet.reports()
    assert int(peer) > 0
    assert frames == [b"\1a"]
    socket.close()
    assert outlet.inside.poll(30_000)
    assert outlet.reports() == [(b"", [b"\0a"])]


def test_what_is_offered_arrives_in_order(parts):
    outlet, context = parts
    outlet.start()
    socket = subscriber(context, outlet, b"a")
    assert outlet.offer([[b"a", b"1"], [b"b", b"2"], [b"a", b""]]) == 0
    assert [socket.recv_multipart() for _ in range(2)] == [[b"a", b"1"], [b"a", b""]]


def test_a_thread_that_is_behind_is_given_no_more_and_the_rest_is_said(parts):
    outlet, context = parts
    assert outlet.offer([[b"a", b"x" * MIB]] * 20) == 4
    assert outlet.offer([[b"a", b""]]) == 1
    outlet.start()
    subscriber(context, outlet, b"a")  # when it reports, it has taken what was there before
    while outlet.offer([[b"a", b""]]):
        pass


def test_stop_comes_behind_what_was_offered(parts):
    outlet, context = parts
    outlet.start()
    socket = subscriber(context, outlet, b"a")
    outlet.offer([[b"a", b"%d" % number] for number in range(1_000)])
    assert outlet.stop()
    assert [int(socket.recv_multipart()[1]) for _ in range(1_000)] == list(range(1_000))
