"""The life of a session as two tables (SPEC.md 5), and credit (SPEC.md 6). Blind to the role; no message is made here."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from patterns.wire.errors import BadArgument, LocalProtocolError, RemoteProtocolError
from patterns.wire.limits import (
    EXPIRY_MS_MAX,
    HEARTBEAT_MS_MAX,
    HEARTBEAT_MS_MIN,
    PART_BYTES_AHEAD_MAX,
    PARTS_AHEAD_MAX,
    UNREAD_BYTES_MAX,
)
from patterns.wire.messages import Ready


class ClientState(Enum):
    DOWN = auto()
    CONNECTING = auto()
    GREETING = auto()
    READY = auto()
    CLOSED = auto()


class ClientEvent(Enum):
    OPEN = auto()
    CONNECTED = auto()
    READY = auto()
    REFUSED = auto()
    NO_SESSION = auto()
    DISCONNECTED = auto()
    GOODBYE = auto()
    TIMEOUT = auto()
    CLOSE = auto()


_C, _E = ClientState, ClientEvent
_STAYS_CLOSED: Final[dict[ClientEvent, ClientState]] = {
    event: _C.CLOSED for event in ClientEvent if event is not _E.OPEN
}
CLIENT: Final[dict[ClientState, dict[ClientEvent, ClientState]]] = {
    _C.DOWN: {_E.OPEN: _C.CONNECTING, _E.DISCONNECTED: _C.DOWN, _E.TIMEOUT: _C.DOWN, _E.CLOSE: _C.CLOSED},
    _C.CONNECTING: {
        _E.CONNECTED: _C.GREETING,
        _E.DISCONNECTED: _C.DOWN,
        _E.TIMEOUT: _C.DOWN,
        _E.CLOSE: _C.CLOSED,
    },
    _C.GREETING: {
        _E.CONNECTED: _C.GREETING,
        _E.READY: _C.READY,
        _E.REFUSED: _C.CLOSED,
        _E.NO_SESSION: _C.DOWN,
        _E.DISCONNECTED: _C.DOWN,
        _E.GOODBYE: _C.DOWN,
        _E.TIMEOUT: _C.DOWN,
        _E.CLOSE: _C.CLOSED,
    },
    _C.READY: {
        _E.CONNECTED: _C.READY,
        _E.READY: _C.READY,
        _E.NO_SESSION: _C.DOWN,
        _E.DISCONNECTED: _C.DOWN,
        _E.GOODBYE: _C.DOWN,
        _E.TIMEOUT: _C.DOWN,
        _E.CLOSE: _C.CLOSED,
    },
    _C.CLOSED: _STAYS_CLOSED,  # and is never opened again: that would be our own mistake
}


def pace_of(ready: Ready) -> tuple[int, int]:
    """After which silence C asks, and gives up, in us; what READY says, within what a program can wait for."""
    heartbeat_ms = min(max(ready.heartbeat_ms, HEARTBEAT_MS_MIN), HEARTBEAT_MS_MAX)
    expiry_ms = min(max(ready.expiry_ms, 2 * heartbeat_ms), EXPIRY_MS_MAX)
    return heartbeat_ms * 1_000, expiry_ms * 1_000


class ServerState(Enum):
    NEW = auto()
    READY = auto()
    DETACHED = auto()
    CLOSED = auto()


class ServerEvent(Enum):
    HELLO = auto()
    COMMAND = auto()
    GOODBYE = auto()
    DISCONNECTED = auto()
    EXPIRED = auto()


_B, _F = ServerState, ServerEvent
SERVER: Final[dict[ServerState, dict[ServerEvent, ServerState]]] = {
    _B.NEW: {_F.HELLO: _B.READY, _F.DISCONNECTED: _B.CLOSED, _F.EXPIRED: _B.CLOSED},
    _B.READY: {
        _F.HELLO: _B.READY,
        _F.COMMAND: _B.READY,
        _F.GOODBYE: _B.CLOSED,
        _F.DISCONNECTED: _B.DETACHED,
        _F.EXPIRED: _B.DETACHED,
    },
    _B.DETACHED: {_F.HELLO: _B.READY, _F.DISCONNECTED: _B.DETACHED, _F.EXPIRED: _B.CLOSED},
    _B.CLOSED: {_F.DISCONNECTED: _B.CLOSED, _F.EXPIRED: _B.CLOSED},
}


def client_next(state: ClientState, event: ClientEvent, *, ours: bool) -> ClientState:
    """The state after the event.

    Raises:
        LocalProtocolError: not in the table, and we caused it.
        RemoteProtocolError: not in the table, and the peer did.
    """
    following = CLIENT[state].get(event)
    if following is None:
        error = LocalProtocolError if ours else RemoteProtocolError
        raise error(f"{event.name} in session state {state.name}")
    return following


def server_next(state: ServerState, event: ServerEvent) -> ServerState:
    """The state after the event. Raises RemoteProtocolError when it is not in the table: events there are the peer's."""
    following = SERVER[state].get(event)
    if following is None:
        raise RemoteProtocolError(f"{event.name} in session state {state.name}")
    return following


class Credit:
    """One direction of a session: what may be sent in all, and what was. Absolute totals, so nothing is counted twice."""

    __slots__ = ("bytes_max", "bytes_used", "messages_max", "messages_used")

    def __init__(self, messages_max: int = 0, bytes_max: int = 0) -> None:
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        self.messages_used = 0
        self.bytes_used = 0

    @property
    def is_open(self) -> bool:
        """Whether one more batch may be sent; it may overrun the totals by less than itself (SPEC.md 6)."""
        return self.messages_used < self.messages_max and self.bytes_used < self.bytes_max

    @property
    def messages_left(self) -> int:
        """Messages until the total; negative after an overrun."""
        return self.messages_max - self.messages_used

    def take(self, messages: int, size: int) -> bool:
        """Count one batch more, if one may be sent; whether it may. What is_open and spend() do, in one call of a hot path."""
        if self.messages_used >= self.messages_max or self.bytes_used >= self.bytes_max:
            return False
        self.messages_used += messages
        self.bytes_used += size
        return True

    def spend(self, messages: int, size: int) -> None:
        """Count what was sent, or received."""
        self.messages_used += messages
        self.bytes_used += size

    def renew(self, messages: int, size: int) -> None:
        """Grant again what was used and is done with."""
        self.messages_max += messages
        self.bytes_max += size

    def raise_to(self, messages_max: int, bytes_max: int) -> None:
        """A CREDIT came; totals never fall."""
        self.messages_max = max(self.messages_max, messages_max)
        self.bytes_max = max(self.bytes_max, bytes_max)


def raise_for_parts(credit: Credit, messages_max: int, bytes_max: int) -> None:
    """A requester's totals for the parts of one reply. Raises BadArgument: further ahead than SPEC.md 7.1 allows."""
    ahead, bytes_ahead = messages_max - credit.messages_used, bytes_max - credit.bytes_used
    if ahead > PARTS_AHEAD_MAX or bytes_ahead > PART_BYTES_AHEAD_MAX:
        raise BadArgument(
            f"credit for {ahead} parts and {bytes_ahead} bytes at once, at most {PARTS_AHEAD_MAX} and "
            f"{PART_BYTES_AHEAD_MAX}; grant more as parts are taken"
        )
    credit.raise_to(messages_max, bytes_max)


_BATCH_OVERHEAD: Final = 512  # what a batch costs in queues besides its bytes: frames, header, pointers


class ProvenCredit(Credit):
    """Credit that a client gave us: however much that is, it counts only as far as the client has proven to read.

    Attributes:
        sent: bytes sent since READY, with what each batch costs besides.
        proven: how much of that it has read for certain; set by prove().
        asks_from: from so much on that was sent it is time to ask, so that the answer is there before anything has to wait.
        sent_max: where the proof is too far behind.
    """

    __slots__ = ("asks_from", "proven", "sent", "sent_max")

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        super().__init__(messages_max, bytes_max)
        self.sent = 0
        self.prove(0)

    def prove(self, read: int) -> None:
        """It has read so much of what was sent."""
        self.proven = read
        self.asks_from = read + UNREAD_BYTES_MAX // 2
        self.sent_max = read + UNREAD_BYTES_MAX

    @property
    def is_open(self) -> bool:
        """As Credit's, and the proof is not too far behind."""
        return self.messages_used < self.messages_max and self.bytes_used < self.bytes_max and self.sent < self.sent_max

    def take(self, messages: int, size: int) -> bool:
        if self.messages_used >= self.messages_max or self.bytes_used >= self.bytes_max or self.sent >= self.sent_max:
            return False
        self.messages_used += messages
        self.bytes_used += size
        self.sent += size + _BATCH_OVERHEAD
        return True

    def spend(self, messages: int, size: int) -> None:
        self.messages_used += messages
        self.bytes_used += size
        self.sent += size + _BATCH_OVERHEAD
