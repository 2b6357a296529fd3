"""What a monitor says, where no socket is needed."""

from __future__ import annotations

import pytest

from patterns.io.guard_monitor import port_of


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        (b"tcp://127.0.0.1:7700", 7700),
        (b"tcp://[::1]:7700", 7700),
        (b"ipc:///run/zbroker.sock", None),
        (b"tcp://", None),
        (b"", None),
    ],
)
def test_only_tcp_endpoints_have_a_port(endpoint: bytes, port: int | None) -> None:
    assert port_of(endpoint) == port
