"""The only calls that move frames between us and libzmq. No waiting, no protocol: what is there is taken, what fits leaves.

pyzmq's own multipart calls cost five to seven times as much (patterns/io/DECISIONS.md), so the backend's methods are called
with plain integers. A socket given here is a blocking `zmq.Socket`, never one of `zmq.asyncio`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import zmq
from zmq.backend import Socket as _Backend
from zmq.backend import zmq_poll

# IntFlag arithmetic costs 0.9 us a frame; integers cost nothing.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.SNDMORE) | int(zmq.NOBLOCK)
_POLLIN: Final = int(zmq.POLLIN)
_SRCFD: Final = int(zmq.SRCFD)

_recv: Final[Any] = _Backend.recv
_send: Final[Any] = _Backend.send

_LENT_BYTES_MIN: Final = 4_096  # below, a copy costs less than a view
_BEFORE_PAYLOAD: Final = 3  # frames; what comes before is looked at in any case
_CAREFUL: Final = 3  # so many messages of a burst are looked for before they are taken; see receive_many()
FD_UNKNOWN: Final = -1


Routed = tuple[bytes, list[Any], int]
"""A message from a ROUTER: the routing id of the connection that it came through, its frames, and that connection's fd as
the socket's monitor names it, FD_UNKNOWN for inproc. The fourth frame may be a view of libzmq's own memory, see
receive_routed_many(). No NamedTuple: each costs another call."""


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message is there. Costs 1.1 us; reading EVENTS costs 1.8, a receive that raises Again 2.8."""
    return bool(zmq_poll([(socket, _POLLIN)], 0))


def receive(socket: zmq.Socket[bytes], known_readable: bool = False) -> list[bytes] | None:
    """One message; None when nothing is there.

    Args:
        socket: any but a ROUTER.
        known_readable: its descriptor has just said so; spares a poll, and costs an exception when it meant something else.
    """
    if not known_readable and not zmq_poll([(socket, _POLLIN)], 0):
        return None
    return take(socket)


def receive_many(socket: zmq.Socket[bytes], limit: int) -> list[list[bytes]]:
    """Up to `limit` messages, oldest first; an empty list when nothing is there.

    The first few are looked for with a poll, which is the cheapest way to learn that there is none. Behind them it is a
    burst, and one exception at its end costs less than a poll before each.
    """
    messages: list[list[bytes]] = []
    while len(messages) < limit:
        if len(messages) < _CAREFUL and not zmq_poll([(socket, _POLLIN)], 0):
            break
        message = take(socket)
        if message is None:
            break
        messages.append(message)
    return messages


def take(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    """One message that should be there; to learn that it is not costs an exception. Frames arrive together: only the first can fail."""
    try:
        frame = _recv(socket, _NOBLOCK, False)
    except zmq.Again:
        return None
    frames = [frame.bytes]
    while frame.more:
        frame = _recv(socket, _NOBLOCK, False)
        frames.append(frame.bytes)
    return frames


def receive_routed(socket: zmq.Socket[bytes], known_readable: bool = False, lent: bytes | None = None) -> Routed | None:
    """One message of a ROUTER; None when nothing is there. See receive() and receive_routed_many()."""
    if not known_readable and not zmq_poll([(socket, _POLLIN)], 0):
        return None
    return take_routed(socket, lent)


def receive_routed_many(socket: zmq.Socket[bytes], limit: int, lent: bytes | None = None) -> list[Routed]:
    """Up to `limit` messages of a ROUTER, oldest first; see receive_many().

    Args:
        socket: a ROUTER.
        limit: how many at most.
        lent: how the first frame of a message begins whose fourth frame, when it is large, is wanted as a memoryview of
            libzmq's memory; sent on whole, it is not copied at all.
    """
    messages: list[Routed] = []
    while len(messages) < limit:
        if len(messages) < _CAREFUL and not zmq_poll([(socket, _POLLIN)], 0):
            break
        message = take_routed(socket, lent)
        if message is None:
            break
        messages.append(message)
    return messages


def take_routed(socket: zmq.Socket[bytes], lent: bytes | None) -> Routed | None:
    """One message of a ROUTER that should be there; see take() and receive_routed_many()."""
    try:
        frame = _recv(socket, _NOBLOCK, False)
    except zmq.Again:
        return None
    routing_id = frame.bytes
    try:
        fd = frame.get(_SRCFD)
    except zmq.ZMQError:  # inproc has no fd
        fd = FD_UNKNOWN
    frames: list[Any] = []
    while frame.more:
        frame = _recv(socket, _NOBLOCK, False)
        if (
            lent is not None
            and len(frames) == _BEFORE_PAYLOAD
            and len(frame) >= _LENT_BYTES_MIN
            and frames[0].startswith(lent)
        ):
            frames.append(frame.buffer)
        else:
            frames.append(frame.bytes)
    return routing_id, frames, fd


def receive_from(socket: zmq.Socket[bytes], known_readable: bool = False) -> Routed | None:
    """One message of an XPUB with the fd of its connection, and no routing id; None when nothing is there. See receive()."""
    if known_readable:
        try:
            return _take_from(socket)
        except zmq.Again:
            return None
    if not zmq_poll([(socket, _POLLIN)], 0):
        return None
    return _take_from(socket)


def receive_from_many(socket: zmq.Socket[bytes], limit: int) -> list[Routed]:
    """Up to `limit` messages of an XSUB or XPUB, oldest first, each with the fd of its connection and no routing id."""
    messages: list[Routed] = []
    try:
        for _ in range(limit):
            messages.append(_take_from(socket))  # noqa: PERF401  as above
    except zmq.Again:
        pass
    return messages


def _take_from(socket: zmq.Socket[bytes]) -> Routed:
    frame = _recv(socket, _NOBLOCK, False)
    try:
        fd = frame.get(_SRCFD)
    except zmq.ZMQError:  # inproc, or an XPUB's news of subscriptions that ended with their connection
        fd = FD_UNKNOWN
    frames = [frame.bytes]
    while frame.more:
        frame = _recv(socket, _NOBLOCK, False)
        frames.append(frame.bytes)
    return b"", frames, fd


def send(socket: zmq.Socket[bytes], frames: Sequence[bytes]) -> bool:
    """Send one message; False when the socket takes none now: no connection (IMMEDIATE) or its high-water mark reached."""
    last = len(frames) - 1
    try:
        for frame in frames[:last]:
            _send(socket, frame, _MORE)
        _send(socket, frames[last], _NOBLOCK)
    except zmq.Again:
        return False
    return True


def send_routed(socket: zmq.Socket[bytes], routing_id: bytes, frames: Sequence[bytes]) -> int | None:
    """Send one message through a ROUTER with ROUTER_MANDATORY.

    Returns:
        None when libzmq took it; zmq.EHOSTUNREACH when that connection is gone; zmq.EAGAIN at a high-water mark.
    """
    last = len(frames) - 1
    try:
        _send(socket, routing_id, _MORE)
        for frame in frames[:last]:
            _send(socket, frame, _MORE)
        payload: Any = frames[last]
        if type(payload) is memoryview:
            payload = _own_frame(payload)
        _send(socket, payload, _NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            return error.errno
        raise
    return None


def share(messages: Iterable[list[Any]]) -> None:
    """Put a large payload of a message that is to be sent several times into libzmq's memory: sent on, it is not copied.

    Args:
        messages: the frames of each; who is sent the same is given the same list, whose last frame becomes a memoryview.
    """
    seen: set[int] = set()
    for frames in messages:
        payload = frames[-1]
        if type(payload) is not bytes or len(payload) < _LENT_BYTES_MIN:
            continue
        if id(frames) in seen:
            frames[-1] = zmq.Frame(payload, copy=True).buffer
        else:
            seen.add(id(frames))


def _own_frame(view: memoryview) -> Any:
    """The libzmq message behind a view that was lent, which leaves without a copy; any other view as it is."""
    owner = view.obj
    return owner if isinstance(owner, zmq.Frame) and len(owner) == len(view) else view
