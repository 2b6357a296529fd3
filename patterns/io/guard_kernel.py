"""The system calls of the guard, by the number of an fd that libzmq owns and may close at any instant.

Linux only. No policy lives here: whom to cut and when is decided elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from typing import Final

TCP_INFO_BYTES: Final = 136
TCPI_BYTES_ACKED: Final = 120
TCPI_BYTES_RECEIVED: Final = 128  # offset in struct tcp_info, linux/tcp.h; since Linux 4.1

SO_COOKIE: Final = 57
"""A number per socket that the kernel never gives twice; an inode's or an fd's number it does. Linux 4.12."""

ADDRESS_BYTES: Final = 16
"""A sockaddr of zeros, family AF_UNSPEC: to connect there is to disconnect."""

available: Final = sys.platform == "linux" and hasattr(socket, "TCP_INFO")
"""False elsewhere: connections are announced all the same, but nothing is measured and nobody is cut."""


class Kernel:
    """Measures without letting go of the GIL, so that no loop runs between two readings that are compared.

    ctypes.PyDLL and not `socket.getsockopt`: a socket object owns its fd, and must not own libzmq's. Nor
    CDLL: it releases the GIL, and under a busy loop each call then waits up to 5 ms to get it back.
    """

    def __init__(self) -> None:
        libc = ctypes.PyDLL(None)
        self._getsockopt = libc.getsockopt
        self._getsockopt.argtypes = [ctypes.c_int] * 3 + [ctypes.c_void_p] * 2
        self._connect = libc.connect
        self._info = ctypes.create_string_buffer(TCP_INFO_BYTES)
        self._length = ctypes.c_uint32()
        self._info_at = ctypes.addressof(self._info)
        self._length_at = ctypes.addressof(self._length)
        self._received = ctypes.c_uint64.from_address(self._info_at + TCPI_BYTES_RECEIVED)
        self._acknowledged = ctypes.c_uint64.from_address(self._info_at + TCPI_BYTES_ACKED)
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc; musl has none
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._page_bytes = os.sysconf("SC_PAGESIZE")

    def received_bytes(self, fd: int) -> int:
        """Return what TCP has received on `fd` since it was opened; -1 when it's no TCP socket any more."""
        self._length.value = TCP_INFO_BYTES
        if self._getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_INFO, self._info_at, self._length_at):
            return -1
        return self._received.value if self._length.value == TCP_INFO_BYTES else -1

    def acknowledged_bytes(self, fd: int) -> int:
        """Return how much of what was sent on `fd` its peer has received; -1 when it's no TCP socket any more."""
        return self._acknowledged.value if self.received_bytes(fd) >= 0 else -1

    def unsent_bytes(self, fd: int) -> int:
        """Return what the kernel holds for the peer, sent or not, and has no word of: SIOCOUTQ; 0 when it's no socket."""
        try:
            return int(struct.unpack("=i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4))[0])
        except (OSError, ValueError):  # a file's, or none
            return 0

    def disconnect(self, sock: socket.socket) -> None:
        """Reset a connection and drop what its receive queue holds.

        After shutdown(2), libzmq first reads that queue to its end: 4 MB more for each of 100 flooders.

        Raises:
            OSError: it isn't connected any more.
        """
        sock.getpeername()
        if self._connect(sock.fileno(), b"\0" * ADDRESS_BYTES, ADDRESS_BYTES):
            sock.shutdown(socket.SHUT_RDWR)  # a kernel or a sandbox that can't disconnect

    def rss_bytes(self) -> int:
        return int(os.pread(self._statm, 128, 0).split()[1]) * self._page_bytes

    def trim(self) -> None:
        """Give freed memory back: glibc keeps what lies below a live block of an arena. Releases the GIL."""
        if self._trim is not None:
            self._trim(0)

    def close(self) -> None:
        os.close(self._statm)


def borrow(fd: int) -> socket.socket | None:
    """Return a socket over a duplicate of `fd`, to be closed at once; None when it's not an open socket.

    The duplicate pins the connection: what is checked on it is true of what is cut through it. Not kept for
    longer, as libzmq's close would then send no FIN.
    """
    try:
        copy = os.dup(fd)
    except OSError as error:
        # no handle is left for a duplicate, which is when somebody may be flooding us: nothing is pinned then
        return _looked_at(fd) if error.errno in (errno.EMFILE, errno.ENFILE) else None
    try:
        return socket.socket(fileno=copy)
    except OSError:  # the number is a file's by now
        os.close(copy)
        return None


class _LookedAt(socket.socket):
    """A socket over libzmq's own fd, which is not ours to close."""

    def __exit__(self, *_: object) -> None:
        self.detach()


def _looked_at(fd: int) -> socket.socket | None:
    try:
        return _LookedAt(fileno=fd)
    except OSError:
        return None


def cookie_of(sock: socket.socket) -> int:
    """Return the kernel's identity of a socket."""
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0])


def queued_bytes(sock: socket.socket) -> int:
    """Return what the kernel has received and nobody has read: SIOCINQ."""
    return int(struct.unpack("=i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))[0])
