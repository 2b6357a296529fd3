"""System calls on fds that are no sockets; on sockets: tests/sockets/test_guard.py."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys

import pytest

from patterns.io.guard_kernel import Kernel, available, borrow

pytestmark = pytest.mark.skipif(not available, reason="TCP_INFO is Linux's")


def test_it_is_available_on_linux() -> None:
    assert available == (sys.platform == "linux")


def test_without_a_free_handle_the_fd_itself_is_looked_at_and_left_open():
    ours, theirs = socket.socketpair()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (ours.fileno() if ours.fileno() > 2 else 3, before[1]))
    try:
        borrowed = borrow(theirs.fileno())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert borrowed is not None
    with borrowed:
        assert borrowed.fileno() == theirs.fileno()
    assert theirs.send(b"open") == 4
    ours.close()
    theirs.close()


def test_a_closed_fd_and_a_file_cannot_be_borrowed(tmp_path: os.PathLike[str]) -> None:
    fd = os.open(os.path.join(tmp_path, "file"), os.O_CREAT | os.O_RDWR)
    fds_before = os.listdir("/proc/self/fd")
    assert borrow(fd) is None
    assert os.listdir("/proc/self/fd") == fds_before
    os.close(fd)
    assert borrow(fd) is None


def test_what_is_no_tcp_socket_has_received_less_than_nothing() -> None:
    kernel = Kernel()
    assert kernel.received_bytes(-1) == -1
    assert kernel.received_bytes(0) == -1
    kernel.close()


def test_what_a_peer_does_not_read_is_unsent_and_what_it_has_received_is_acknowledged() -> None:
    kernel = Kernel()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            ours.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += ours.send(b"x" * 65_536)
            assert 0 < kernel.unsent_bytes(ours.fileno()) < sent
            assert 0 <= kernel.acknowledged_bytes(ours.fileno()) < sent
            assert kernel.unsent_bytes(theirs.fileno()) == 0
    assert (kernel.unsent_bytes(-1), kernel.acknowledged_bytes(-1)) == (0, -1)
    kernel.close()


def test_resident_memory_counts_pages_that_are_touched() -> None:
    kernel = Kernel()
    kernel.trim()  # else the block may come from pages that an earlier test has touched and freed
    before = kernel.rss_bytes()
    block = bytearray(b"x") * (64 << 20)
    assert kernel.rss_bytes() - before > 32 << 20
    del block
    kernel.trim()
    kernel.close()
