"""What a thread of a role sleeps on: descriptors, with a pipe that ends it; or a bell, while another thread leads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class Wake:
    """Ends another thread's sleep; a pipe, since macOS has no eventfd."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self.rung = False

    def ring(self) -> None:
        self.rung = True  # before it: whom it wakes may run first, and would look again and again at a bell that it does not hush
        try:
            os.write(self._write_fd, b"!")
        except OSError:
            pass  # 64 KiB of bells are enough, and a closed driver needs none
        finally:  # a signal's handler may raise right after the write
            self.rung = True  # and after it: a hush() in between would leave a bell that nobody hushes any more

    def hush(self) -> None:
        self.rung = False
        try:
            os.read(self.fd, 4_096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Once, by whoever is last; a bell rung afterwards must not reach who has the descriptor's number then."""
        if self.fd >= 0:
            read_fd, write_fd = self.fd, self._write_fd
            self.fd = self._write_fd = -1
            os.close(read_fd)
            os.close(write_fd)


class Follower:
    """A thread that waits while another leads."""

    __slots__ = ("bell", "done")

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done
        self.bell = threading.Lock()
        self.bell.acquire()
