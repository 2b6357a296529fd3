"""What the guard asks libzmq's monitors for, and what it keeps of each watched socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import zmq

from patterns.io.guard_account import HandshakeFailure
from patterns.io.guard_gate import Gate

CONNECTIONS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
"""Events that carry an fd; those of handshakes carry an errno or a number of libzmq's, and are only counted."""

HANDSHAKE_FAILURES: Final = {
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): HandshakeFailure.PROTOCOL,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): HandshakeFailure.BROKEN_OFF,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): HandshakeFailure.AUTH,
}
MONITORED: Final = CONNECTIONS | zmq.EVENT_LISTENING | zmq.EVENT_HANDSHAKE_SUCCEEDED | sum(HANDSHAKE_FAILURES)


@dataclass(frozen=True, slots=True)
class Monitor:
    """A watched socket, the other end of its monitor, and what its connections may have undelivered."""

    bound: zmq.Socket[bytes]
    pair: zmq.Socket[bytes]
    connection_bytes_max: int
    has_backpressure: bool
    has_readers: bool  # who may not read, while what waits for them is bounded by nothing that we count
    gate: Gate | None  # closed while the socket's owner is behind


@dataclass(frozen=True, slots=True)
class Notice:
    """What libzmq's monitor said of a connection: a hint, as the fd may be another one's by now."""

    fd: int
    connected: bool
    bound: zmq.Socket[bytes]  # whose connection it is


def port_of(endpoint: bytes) -> int | None:
    """Return the port of a monitor's endpoint; None for ipc and the like."""
    scheme, _, address = endpoint.partition(b"://")
    port = address.rpartition(b":")[2]
    return int(port) if scheme == b"tcp" and port.isdigit() else None
