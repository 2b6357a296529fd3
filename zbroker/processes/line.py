"""One end of the socketpair between a broker and its sidecar: never blocks but where it is told to. End of file: the other died.

What the other end does not take is queued; whoever fills the queue bounds it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from itertools import islice
from typing import Final, Protocol

from zbroker.processes.dialogue import Inbox, Message

_READ_BYTES: Final = 1 << 18  # about what the kernel holds of a UNIX socket; one read takes all that is there
_BUFFER_BYTES: Final = 1 << 20  # asked of the kernel, which gives what net.core.wmem_max allows
_JOIN_BYTES: Final = 16 << 10  # below, a copy costs less than another part of a vector
_PARTS_MAX: Final = 1_000  # IOV_MAX is 1,024
_REAP_TRIES, _REAP_PAUSE_S = 20, 0.001  # a loop must not wait longer for a status that is for people


class Line(Protocol):
    """What both ends know of it.

    Attributes:
        pid: of the other process, if it is our child; else 0.
        is_broken: nothing can be sent any more.
        is_cut: nothing will be heard any more; all that the other end had said was.
        waiting_bytes: queued, for the other end does not take them.
    """

    pid: int
    is_broken: bool
    is_cut: bool
    waiting_bytes: int

    def fileno(self) -> int:
        """For polls; -1 once closed."""
        ...

    def put(self, head: bytes, body: bytes = b"") -> None:
        """Queue a message; the body is not copied if it is large."""
        ...

    def flush(self) -> None:
        """Send what the other end takes now."""
        ...

    def drain(self) -> None:
        """Send everything, however long that takes, unless the line is cut."""
        ...

    def hear(self) -> list[Message]:
        """What has arrived, at most one read of it."""
        ...

    def wait(self, timeout_us: int | None) -> bool:
        """Until something can be heard or sent; whether it can."""
        ...

    def close(self) -> str:
        """Hang up. Returns how the other process has ended, for people; empty when that is not known."""
        ...


class SocketLine:
    """A Line over a connected stream socket."""

    def __init__(self, end: socket.socket, pid: int = 0) -> None:
        self._socket = end
        self.pid = pid
        self.is_broken = False
        self.is_cut = False
        self.waiting_bytes = 0
        self._waiting: deque[bytes | memoryview] = deque()
        self._inbox = Inbox()
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._polls_out = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def put(self, head: bytes, body: bytes = b"") -> None:
        if self.is_broken:
            return
        if len(body) < _JOIN_BYTES:
            self._waiting.append(head + body)
        else:
            self._waiting.append(head)
            self._waiting.append(body)
        self.waiting_bytes += len(head) + len(body)

    def flush(self) -> None:
        waiting = self._waiting
        while waiting:
            try:
                sent = self._socket.sendmsg(list(islice(waiting, _PARTS_MAX)))
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self.is_broken = True
                waiting.clear()
                self.waiting_bytes = 0
                return
            self._sent(sent)

    def _sent(self, count: int) -> None:
        waiting = self._waiting
        self.waiting_bytes -= count
        while count:
            part = waiting.popleft()
            if count < len(part):
                waiting.appendleft(memoryview(part)[count:])
                return
            count -= len(part)

    def drain(self) -> None:
        self.flush()
        while self._waiting:
            select.select([], [self._socket], [])  # not wait(): what is to be heard would end that at once
            self.flush()

    def hear(self) -> list[Message]:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except ConnectionResetError:  # it died with something unread
            data = b""
        if not data:
            self.is_cut = True
            return []
        return self._inbox.feed(data)

    def wait(self, timeout_us: int | None) -> bool:
        wants_out = bool(self._waiting)
        if wants_out is not self._polls_out:
            self._polls_out = wants_out
            self._poll.modify(self._socket, select.POLLIN | select.POLLOUT if wants_out else select.POLLIN)
        timeout_ms = None if timeout_us is None else max(0, (timeout_us + 999) // 1_000)
        return bool(self._poll.poll(timeout_ms))

    def is_hung_up(self) -> bool:
        """Whether the other end is closed, though what it had said may be unheard."""
        return any(event & select.POLLHUP for _, event in self._poll.poll(0))

    def close(self) -> str:
        self._socket.close()
        pid, self.pid = self.pid, 0
        return _ending(pid) if pid else ""


_unreaped: Final[list[int]] = []  # children that had hung up and were not yet gone


def _ending(pid: int) -> str:
    """How a child has ended. A process lets go of its descriptors last, so that is known at once, or it is still alive."""
    for child in _unreaped:
        _reap(child)
    _unreaped.append(pid)
    for _ in range(_REAP_TRIES):
        if (status := _reap(pid)) is not None:
            return f"signal {-status}" if status < 0 else f"exit status {status}"
        if pid not in _unreaped:
            break
        time.sleep(_REAP_PAUSE_S)
    return ""


def _reap(pid: int) -> int | None:
    """The exit status of a child, negative for a signal; None while it lives, or when whoever began us lets nobody have it."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # SIGCHLD was ignored
        found, status = pid, None
    if found:
        _unreaped.remove(pid)
    return None if not found or status is None else os.waitstatus_to_exitcode(status)
