"""A socketpair in memory, for a broker and a sidecar in one process: bounded, in order, and cut at once when an end dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from zbroker.processes.dialogue import Inbox, Message

ROOM_BYTES = 1 << 17


def _nothing() -> None:
    pass


class VirtualLine:
    """One end. What is sent is there at once; when its reader looks is the reader's affair.

    Attributes:
        stirred: called when something can be heard, or sent again.
        pump: called by wait(): has the other end act, since nobody else will.
    """

    def __init__(self, pid: int = 0, room_bytes: int = ROOM_BYTES) -> None:
        self.pid = pid
        self.is_broken = self.is_cut = False
        self.waiting_bytes = 0
        self.stirred: Callable[[], None] = _nothing
        self.pump: Callable[[], None] = _nothing
        self.ending = ""
        self._peer: VirtualLine = self
        self._room_bytes = room_bytes
        self._waiting: deque[bytes] = deque()
        self._arrived = bytearray()
        self._inbox = Inbox()
        self._is_closed = False

    def fileno(self) -> int:
        return -1 if self._is_closed else self.pid

    def put(self, head: bytes, body: bytes = b"") -> None:
        if not self.is_broken:
            self._waiting.append(head + body)
            self.waiting_bytes += len(head) + len(body)

    def flush(self) -> None:
        peer = self._peer
        while self._waiting and not self.is_broken:
            room = self._room_bytes - len(peer._arrived)
            part = self._waiting.popleft()
            if len(part) > room:
                self._waiting.appendleft(part[room:])
                part = part[:room]
            peer._arrived += part
            self.waiting_bytes -= len(part)
            if not room:
                return
            peer.stirred()

    def drain(self) -> None:
        self.flush()
        while self._waiting:
            self.pump()
            self.flush()

    def hear(self) -> list[Message]:
        data = bytes(self._arrived)
        self._arrived.clear()
        if not data:
            self.is_cut = self.is_cut or self.is_broken
            return []
        if self._peer._waiting:
            self._peer.stirred()
        return self._inbox.feed(data)

    @property
    def can_hear(self) -> bool:
        """Whether hear() would bring something, or the news that nothing will come."""
        return bool(self._arrived) or (self.is_broken and not self.is_cut)

    @property
    def can_send(self) -> bool:
        """Whether something waits, and there is room."""
        return bool(self._waiting) and len(self._peer._arrived) < self._room_bytes

    def wait(self, timeout_us: int | None) -> bool:
        if not self.can_hear and not self.can_send:
            self.pump()
        return self.can_hear or self.can_send

    def close(self) -> str:
        if not self._is_closed:
            self._is_closed = True
            self._arrived.clear()
            self._break()
            self._peer._break()
            self._peer.stirred()
        return self.ending

    def _break(self) -> None:
        self.is_broken = True
        self._waiting.clear()
        self.waiting_bytes = 0


def virtual_pair(pid: int = 0, room_bytes: int = ROOM_BYTES) -> tuple[VirtualLine, VirtualLine]:
    """The broker's end, which knows the other's pid, and the sidecar's."""
    ours, its = VirtualLine(pid, room_bytes), VirtualLine(0, room_bytes)
    ours._peer, its._peer = its, ours
    return ours, its
