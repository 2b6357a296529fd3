"""Sockets with the options of SPEC.md 2, and what their monitors say. Nothing is sent or received here.

Each option has its reason in SPEC.md 2 or beside it. Every maker leaves no socket behind when it fails.
"""

from __future__ import annotations

import errno
import itertools
import socket as unix_sockets
import struct
import time
from enum import IntEnum
from typing import Final, NamedTuple

import zmq

from patterns.wire.errors import BadAddress, Unavailable
from patterns.wire.limits import (
    BATCH_BYTES_MAX,
    EXPIRY_MS,
    HANDSHAKE_MS,
    HEARTBEAT_MS,
    KIB,
    PLAIN_PREFIX_BYTES_MAX,
    PLAIN_UNREAD_MESSAGES_MAX,
    PLAIN_WAITING_MESSAGES_MAX,
    RECONNECT_MS,
    RECONNECT_MS_MAX,
)

_BACKLOG: Final = (
    1_024  # a thousand clients come back at once after a restart; Linux's own default is 4,096, libzmq's 100
)
_MESSAGE_BYTES_MAX: Final = BATCH_BYTES_MAX + 64 * KIB  # room above the largest payload, so our own checks answer first
# libzmq ends a connection beyond it without a word to anybody: what is up to fourfold too large gets a number
_MESSAGE_BYTES_ANSWERED: Final = 4 * BATCH_BYTES_MAX
_LINGER_MS: Final = 0  # what must not be lost is confirmed by the protocol; who wants to flush says so at close()
_KEEPALIVE_IDLE_S: Final = 30
_KEEPALIVE_INTERVAL_S: Final = 10
_KEEPALIVE_COUNT: Final = 3
_PROBE_S: Final = 0.5  # a local connect answers at once
# libzmq's own thread closes a listener some time after close() has returned: who binds again at once, in this process or
# the next, meets it for up to 50 ms on a busy machine
_FREED_TRIES: Final = 25
_FREED_S: Final = 0.01
# pyzmq's own text ends in the address once more, and says nothing of what to do.
_ADVICE: Final = {
    errno.EADDRINUSE: "; another program listens there: stop it, or choose another port or path",
    errno.EADDRNOTAVAIL: "; it is not an address of this machine: 127.0.0.1 is, and 0.0.0.0 stands for all of them",
    errno.ENODEV: "; no network interface has that name: write one of this machine's IP addresses",
    errno.EINVAL: "; write tcp://HOST:PORT with a port from 1 to 65535, ipc://PATH or inproc://NAME",
}
_NOT_NOW: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
_monitor_names: Final = itertools.count(1)

PUBLISHER_HIGH_WATER_MARK: Final = 1_000  # batches per subscriber, direct publish-subscribe; libzmq's own default
SUBSCRIBER_HIGH_WATER_MARK: Final = 1_000


class Event(IntEnum):
    """What a monitor tells; the numbers are libzmq's."""

    CONNECTED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)  # not EVENT_CONNECTED: TCP alone is no ZMTP peer yet
    ACCEPTED = int(zmq.EVENT_ACCEPTED)
    CLOSED = int(zmq.EVENT_CLOSED)  # of a connect that came to nothing
    DISCONNECTED = int(zmq.EVENT_DISCONNECTED)
    HANDSHAKE_FAILED = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    HANDSHAKE_FAILED_PROTOCOL = int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    HANDSHAKE_FAILED_AUTH = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    CONNECT_RETRIED = int(zmq.EVENT_CONNECT_RETRIED)
    STOPPED = int(zmq.EVENT_MONITOR_STOPPED)


_EVENTS: Final = sum(event.value for event in Event)
FAILURES: Final = frozenset(
    (Event.HANDSHAKE_FAILED, Event.HANDSHAKE_FAILED_PROTOCOL, Event.HANDSHAKE_FAILED_AUTH, Event.DISCONNECTED)
)


class MonitorEvent(NamedTuple):
    """One event; `value` is the fd of the connection, an error number for a failed handshake, 0 for CONNECTED."""

    event: Event
    value: int


def make_router(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """A bound ROUTER for sessions.

    Raises:
        BadAddress: libzmq does not understand the endpoint.
        Unavailable: the address is in use, or not this machine's.
    """
    socket = bare_router(context)
    bind(socket, endpoint)
    return socket


def bare_router(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The same, before bind(): whoever watches connections must watch from the first one on."""
    socket = _session_socket(context, zmq.ROUTER)
    socket.router_mandatory = True
    socket.maxmsgsize = _MESSAGE_BYTES_ANSWERED
    socket.router_handover = False  # a peer must not take over another's connection by its routing id
    socket.backlog = _BACKLOG
    return socket


def make_dealer(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """A connecting DEALER for one session, and its monitor. Close both with close().

    Raises:
        BadAddress: libzmq does not understand the endpoint.
    """
    socket = _session_socket(context, zmq.DEALER)
    socket.immediate = True  # else it queues for a broker that is not there, and gives it to the next one before HELLO
    pair = monitor(socket)
    try:
        connect(socket, endpoint)
    except BadAddress:
        close(socket, pair)
        raise
    return socket, pair


def make_xpub(context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *, binds: bool = True) -> zmq.Socket[bytes]:
    """An XPUB for direct publish-subscribe; it may connect to a forwarder. Raises as make_router()."""
    socket = direct_xpub(context, binds=binds)
    if binds:
        bind(socket, endpoint)
    else:
        connect(socket, endpoint)
    return socket


def direct_xpub(context: zmq.Context[zmq.Socket[bytes]], *, binds: bool) -> zmq.Socket[bytes]:
    """The same, before bind() or connect(): each subscription is visible."""
    socket = _plain_socket(context, zmq.XPUB)
    if binds:  # else it is the forwarder's part: it must not be cut for what one behind it subscribes to
        socket.maxmsgsize = PLAIN_PREFIX_BYTES_MAX
    socket.sndhwm = PUBLISHER_HIGH_WATER_MARK
    socket.rcvhwm = 0  # subscriptions: a finite mark loses them silently
    socket.backlog = _BACKLOG
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    return socket


def make_sub(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *, binds: bool = False
) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """A SUB without subscriptions, and its monitor; it may bind, for publishers that connect. Raises as make_router()."""
    socket = _plain_socket(context, zmq.SUB)
    socket.rcvhwm = SUBSCRIBER_HIGH_WATER_MARK
    socket.sndhwm = 0
    pair = monitor(socket)
    try:
        if binds:
            bind(socket, endpoint)
        else:
            connect(socket, endpoint)
    except (BadAddress, Unavailable):
        close(socket, pair)
        raise
    return socket, pair


def bare_xsub(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """An XSUB of a broker, for plain publishers, before bind(). It hears nothing until it is sent a subscription."""
    socket = _plain_socket(context, zmq.XSUB)
    socket.rcvhwm = PLAIN_WAITING_MESSAGES_MAX
    socket.sndhwm = 0
    socket.backlog = _BACKLOG
    return socket


def bare_xpub(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """An XPUB of a broker, for plain subscribers, before bind(). It tells each subscription and each end of one."""
    socket = _plain_socket(context, zmq.XPUB)
    socket.sndhwm = PLAIN_UNREAD_MESSAGES_MAX
    socket.rcvhwm = 0
    socket.maxmsgsize = PLAIN_PREFIX_BYTES_MAX
    socket.backlog = _BACKLOG
    socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # else somebody's false cancellation looks like everybody's true one
    return socket


def _made(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    try:
        socket: zmq.Socket[bytes] = context.socket(kind)
    except zmq.ZMQError as error:
        why = zmq.strerror(error.errno or 0)
        raise Unavailable(f"libzmq makes no more sockets: {why}; close roles, or raise `ulimit -n`") from error
    return socket


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = _made(context, kind)
    socket.linger = _LINGER_MS
    socket.maxmsgsize = _MESSAGE_BYTES_MAX
    socket.handshake_ivl = HANDSHAKE_MS
    socket.reconnect_ivl = RECONNECT_MS
    socket.reconnect_ivl_max = RECONNECT_MS_MAX
    return socket


def _session_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = _socket(context, kind)
    socket.rcvhwm = socket.sndhwm = 0  # credit bounds memory; a mark and heartbeats together cut healthy links
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = EXPIRY_MS
    socket.heartbeat_ttl = EXPIRY_MS
    return socket


def _plain_socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    socket = _socket(context, kind)
    socket.heartbeat_ivl = 0  # with a finite mark they cut a peer that is only slow
    keep_alive(socket)
    return socket


def keep_alive(socket: zmq.Socket[bytes]) -> None:
    """TCP's own way to notice a peer that is gone, within a minute: for sockets without heartbeats, before bind() or connect()."""
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = _KEEPALIVE_IDLE_S
    socket.tcp_keepalive_intvl = _KEEPALIVE_INTERVAL_S
    socket.tcp_keepalive_cnt = _KEEPALIVE_COUNT


def bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind, and return where: a port 0 or * is filled in. Closes the socket when it fails; raises as make_router()."""
    socket.ipv6, tries = _needs_ipv6(endpoint), _FREED_TRIES
    wanted = endpoint[:-2] + ":*" if endpoint.startswith("tcp://") and endpoint.endswith(":0") else endpoint
    try:
        while not _bound(socket, wanted, is_last=not (tries := tries - 1)):
            time.sleep(_FREED_S)
    except zmq.ZMQError as error:
        socket.close()
        told = _refusal("bind", endpoint, error)
        raise (Unavailable if error.errno in _NOT_NOW else BadAddress)(told) from error
    return last_endpoint(socket)


def _bound(socket: zmq.Socket[bytes], endpoint: str, *, is_last: bool) -> bool:
    """Bind; False when another listens there, which may be about to end. The last try raises that too."""
    try:
        if endpoint.startswith("ipc://") and _is_live(endpoint[len("ipc://") :]):
            raise zmq.ZMQError(errno.EADDRINUSE)
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if is_last or error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _refusal(what: str, endpoint: str, error: zmq.ZMQError) -> str:
    """Why libzmq refuses an endpoint, which its text names once, and what to do."""
    number = error.errno or 0
    return f"cannot {what} {endpoint}: {zmq.strerror(number)}{_ADVICE.get(number, '')}"


def _is_live(path: str) -> bool:
    """Whether somebody listens on a socket file. libzmq would unlink it and take over in silence; a stale one is fine."""
    address = "\0" + path[1:] if path.startswith("@") else path
    with unix_sockets.socket(unix_sockets.AF_UNIX, unix_sockets.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def last_endpoint(socket: zmq.Socket[bytes]) -> str:
    """What a socket is bound to."""
    bound: bytes = socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]
    return bound.rstrip(b"\0").decode()


def connect(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Connect; it succeeds or fails later, and the monitor tells. Raises BadAddress when libzmq does not understand it."""
    socket.ipv6 = _needs_ipv6(endpoint)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise BadAddress(_refusal("connect to", endpoint, error)) from error


def _needs_ipv6(endpoint: str) -> bool:
    """Only a literal address asks for it: with it on, libzmq resolves a name to IPv6 first and then stays there."""
    return endpoint.startswith("tcp://[")


def close(*sockets: zmq.Socket[bytes], linger_ms: int = 0) -> None:
    """Close sockets and stop their monitors; what is queued has `linger_ms` to leave."""
    for socket in sockets:
        if not socket.closed:
            socket.disable_monitor()  # first: a monitor nobody reads holds up libzmq's I/O thread
    for socket in sockets:
        socket.close(linger_ms)


def monitor(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """A PAIR that tells the socket's events, from before it connects; no high-water mark, a full one stalls libzmq."""
    address = f"inproc://zbroker-monitor-{next(_monitor_names)}"
    pair = _made(socket.context, zmq.PAIR)
    pair.linger = 0
    pair.rcvhwm = 0
    socket.monitor(address, _EVENTS)
    pair.connect(address)
    return pair


def read_event(pair: zmq.Socket[bytes]) -> MonitorEvent | None:
    """The next event; None when there is none."""
    try:
        number, value = struct.unpack("=HI", pair.recv_multipart(zmq.NOBLOCK)[0])
    except zmq.Again:
        return None
    return MonitorEvent(Event(number), value)
