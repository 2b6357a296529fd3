"""A terminal for tests: a command in a pseudo-terminal of so many columns, and what it drew. No test lives here."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from tests.processes import DEADLINE_S

CTRL_C: Final = b"\x03"


class Terminal:
    """`python -m zbroker` with a terminal as its standard streams.

    Attributes:
        drawn: all that it has written so far.
    """

    def __init__(
        self, *arguments: str, columns: int = 80, lines: int = 24, environment: Mapping[str, str] | None = None
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        bare = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zbroker", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**bare, "TERM": "xterm", **(environment or {})},
        )
        self.drawn = b""

    @property
    def is_whole(self) -> bool:
        """Whether the terminal's settings are what they were."""
        return termios.tcgetattr(self._theirs) == self.before

    def read_until(self, done: Callable[[bytes], bool]) -> None:
        """Read what is drawn until it is enough."""
        deadline = time.monotonic() + DEADLINE_S
        while not done(self.drawn):
            assert time.monotonic() < deadline, self.drawn
            if select.select([self._ours], [], [], 0.1)[0]:
                self.drawn += os.read(self._ours, 65_536)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        """Its exit status, all that it drew read."""
        self.read_until(lambda drawn: self.process.poll() is not None)
        while select.select([self._ours], [], [], 0)[0]:
            self.drawn += os.read(self._ours, 65_536)
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)
