"""The guard's bookkeeping where no socket is needed; with real floods: tests/sockets/test_guard.py."""

from __future__ import annotations

import pytest

from patterns.io import guard as guard_module
from patterns.io.guard import Guard
from patterns.io.guard_account import CURVE_OVERHEAD_BYTES, CutReason, HandshakeFailure


@pytest.mark.parametrize(
    ("byte_count", "frame_count", "security_bytes", "wire_bytes"),
    [
        (0, 1, 0, 2),
        (255, 3, 0, 255 + 3 * 2),  # no frame can be a long one
        (256, 3, 0, 256 + 3 * 9),
        (256, 3, CURVE_OVERHEAD_BYTES, 256 + 3 * 42),
    ],
)
def test_framing_is_counted_as_delivered(
    byte_count: int, frame_count: int, security_bytes: int, wire_bytes: int
) -> None:
    guard = Guard(0, security_bytes=security_bytes)
    guard.delivered(9, byte_count, frame_count)
    guard.delivered(9, byte_count, frame_count)
    assert guard._delivered == {9: 2 * wire_bytes}
    guard.close()


def test_a_guard_without_sockets_reports_zeros_and_closes_twice() -> None:
    guard = Guard(0)
    guard.start()
    report = guard.report()
    guard.close()
    guard.close()
    assert (report.connections, report.recent) == (0, ())
    assert report.is_running == guard_module.available
    assert not guard.report().is_running
    assert report.cuts == dict.fromkeys(CutReason, 0)
    assert report.handshakes_failed == dict.fromkeys(HandshakeFailure, 0)


def test_an_unknown_fd_gets_no_allowance_and_no_error() -> None:
    guard = Guard(0)
    guard.allow(1_000_000, 1)
    assert guard.report().connections == 0
    guard.close()


def test_elsewhere_than_on_linux_the_guard_is_there_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "available", False)
    guard = Guard(0)
    guard.start()
    guard.delivered(1, 1, 1)
    guard.allow(1, 1)
    assert guard.fileno() == -1
    assert guard.notices() == []
    assert not guard.report().available
    guard.close()
