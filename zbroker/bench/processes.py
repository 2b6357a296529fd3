"""Processes of a measurement as its parent sees them: workers, and brokers as users run them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import IO, Any, Final, Self

_GOODBYE_S: Final = 10.0


class BenchFailed(Exception):
    """A process of a measurement died, or has nothing to say in time."""


class Process:
    """A child that says JSON objects, one a line."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name = name
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def said(self, timeout_s: float) -> dict[str, Any]:
        """The next object. Raises BenchFailed."""
        deadline = time.monotonic() + timeout_s
        out: IO[bytes] | None = self._process.stdout
        assert out is not None
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise BenchFailed(f"{self.name} has said nothing for {timeout_s:.0f} s")
            data = os.read(out.fileno(), 65_536)
            if not data:
                raise BenchFailed(f"{self.name} ended with status {self._process.wait()}; see its words above")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it, if it has not ended by itself; its own child only, by its handle."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        self._ask_to_end()
        try:
            process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _ask_to_end(self) -> None:
        """A worker ends when its standard input does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Worker(Process):
    """One end; see worker.py."""

    def __init__(self, role: str, **parameters: Any) -> None:
        super().__init__(role, ["zbroker.bench.worker", role, json.dumps(parameters)])


class Broker(Process):
    """`zbroker run` on a free port, with a journal in `folder` or without one."""

    def __init__(self, folder: str | None) -> None:
        where = ["--no-data"] if folder is None else ["--data", folder]
        super().__init__("zbroker run", ["zbroker", "run", "--bind", "tcp://127.0.0.1:0", "--json", *where])

    def address(self, timeout_s: float) -> str:
        """Where clients connect, once it is ready."""
        native: str = self.said(timeout_s)["addresses"]["native"]
        return native.replace("tcp://", "zb://", 1)

    def _ask_to_end(self) -> None:
        self._process.send_signal(signal.SIGTERM)


class Device(Process):
    """`zbroker device KIND` on free ports, with or without a capture."""

    def __init__(self, kind: str, *, has_capture: bool) -> None:
        anywhere = "tcp://127.0.0.1:0"
        where = ["--frontend", anywhere, "--backend", anywhere, *(["--capture", anywhere] if has_capture else [])]
        super().__init__("zbroker device", ["zbroker", "device", kind, "--json", *where])

    def _ask_to_end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
