"""Keeps new connections out of a socket for a moment while its owner has not worked off those that came and went before. Limits of a
connection do not help there: a peer that comes, leaves work behind and goes has gone before anybody can judge it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from typing import Final

import zmq

from patterns.io.guard_kernel import available, borrow, cookie_of

BEHIND_MAX: Final = 64
"""Connections come and gone that wait to be worked off. A storm of 2,000 a second brings a hundred more between two looks."""

PAUSE_US: Final = 250_000
PAUSE_US_MAX: Final = 2_000_000
"""How long it stays closed at least. Doubled while it must close again and again, so that a storm leaves most of the time to others."""

CALM_US: Final = 5_000_000
"""After so long without a closing, the next one is short again."""

SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; the module socket has no names for them
SO_DETACH_FILTER: Final = 27
_NOTHING_PASSES: Final = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes
_FILTER: Final = struct.pack("@HP", 1, ctypes.addressof(_NOTHING_PASSES))


class Gate:
    """In front of one bound TCP socket. Linux only; elsewhere it is always open.

    The kernel drops what reaches the listening socket: a peer's connect(2) tries again by itself after 1, 3, 7 s, and connections
    that stand do not notice. Rejected: unbind(), which has to wait for the very thread that is behind; to close the listening fd
    or to shut it down, which libzmq does not survive.

    Attributes:
        stirred: connections that have come or gone, ever; read it before you look for their work.
        closings: how often it has closed.
        is_closed: now.
    """

    def __init__(self) -> None:
        self.stirred = 0
        self.closings = 0
        self.is_closed = False
        self._settled = 0
        self._listener: tuple[int, int] | None = None  # fd and cookie
        self._pause_us = PAUSE_US
        self._closed_at = -PAUSE_US - CALM_US
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if available else -1

    # --- the owner's side ---

    def fileno(self) -> int:
        """Readable when settle() is wanted, though nothing else may be; -1 where there is no gate."""
        return self._bell

    def hush(self) -> None:
        """Take note of the bell."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def settle(self, stirred: int) -> None:
        """All work of connections up to this count is done."""
        self._settled = stirred

    def close(self) -> None:
        """After the end of both threads."""
        if self._bell >= 0:
            os.close(self._bell)
            self._bell = -1

    # --- the guard's thread ---

    def hear(self, kind: int, fd: int) -> None:
        """An event of the socket's monitor."""
        if kind == zmq.EVENT_LISTENING:
            self._listener = _identity(fd)
        elif kind in (zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED):
            self.stirred += 1

    @property
    def is_behind(self) -> bool:
        """Whether to look() again soon."""
        return self.is_closed or self.stirred > self._settled

    def look(self, now: int) -> None:
        """Close or open, and ring; `now` in us."""
        behind = self.stirred - self._settled
        if behind and self._bell >= 0:
            os.eventfd_write(self._bell, 1)
        if self.is_closed:
            if not behind and now >= self._closed_at + self._pause_us:
                self.is_closed = not self._filter(SO_DETACH_FILTER)
        elif behind > BEHIND_MAX and self._filter(SO_ATTACH_FILTER):
            is_calm = now >= self._closed_at + self._pause_us + CALM_US
            self._pause_us = PAUSE_US if is_calm else min(PAUSE_US_MAX, self._pause_us * 2)
            self._closed_at = now
            self.is_closed = True
            self.closings += 1

    def _filter(self, option: int) -> bool:
        """Returns whether it has been done; not without a listener, which ipc has none of."""
        if self._listener is None:
            return False
        fd, cookie = self._listener
        sock = borrow(fd)
        if sock is None:
            return False
        with sock, contextlib.suppress(OSError):
            if cookie_of(sock) == cookie:
                sock.setsockopt(socket.SOL_SOCKET, option, _FILTER)
                return True
        return False


def _identity(fd: int) -> tuple[int, int] | None:
    sock = borrow(fd) if available else None
    if sock is None:
        return None
    with sock, contextlib.suppress(OSError):
        if sock.family != socket.AF_UNIX and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return fd, cookie_of(sock)
    return None
