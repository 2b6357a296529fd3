"""Broker processes and helper programs for tests: started, stopped in every way, and shown when they fail. No test lives here."""

from __future__ import annotations

import fcntl
import functools
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

READY_S: Final = 30.0  # bounded, whatever the machine does beside; interface.md asks for 0.5 s on an idle one
DEADLINE_S: Final = 30.0
LONG: Final = os.environ.get("ZBROKER_TEST_LONG") == "1"
PYTHON: Final = (sys.executable, "-u")
_ROOT: Final = Path(__file__).resolve().parent.parent

only_long = pytest.mark.skipif(not LONG, reason="takes long: set ZBROKER_TEST_LONG=1")


def until(done: Callable[[], bool], timeout_s: float = DEADLINE_S, what: str = "it") -> None:
    """Return as soon as done(); for what no event tells of, such as another program's state."""
    deadline = time.monotonic() + timeout_s
    nap = threading.Event()
    while not done():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        nap.wait(0.01)


def state_of(pid: int) -> str:
    """A letter, as in proc(5): T is stopped, Z a zombie; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(pid: int) -> bool:
    """Or a zombie, whose descriptors and locks are gone."""
    return state_of(pid) in ("", "Z")


def _without_settings() -> dict[str, str]:
    """The environment, but for what configures a broker or names one: a test says that itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ZBROKER_")}


class Ports:
    """Of brokers, which are to find theirs free when they come back: below those that systems give away for port 0.

    Each process that runs tests has a block of its own, so that two may run at once.
    """

    _BLOCKS: Final = range(12_000, 32_000, 500)

    def __init__(self) -> None:
        self._holder = next(filter(None, map(self._held, self._BLOCKS)))
        first = self._holder.getsockname()[1]
        self._ports = itertools.cycle(range(first + 1, first + self._BLOCKS.step))

    def next(self) -> int:
        """One that is free now."""
        found = next(filter(None, map(self._held, self._ports)))
        with found:
            port: int = found.getsockname()[1]
            return port

    @staticmethod
    def _held(port: int) -> socket.socket | None:
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", port))
        except OSError:
            holder.close()
            return None
        return holder


@functools.cache
def _ports() -> Ports:
    return Ports()


class Program:
    """A child process whose lines can be waited for.

    Args:
        arguments: of the interpreter.
        stderr: the file that its errors go to.
        interpreter: this Python, unless another is named.
    """

    def __init__(
        self,
        arguments: list[str],
        stderr: Path,
        environment: Mapping[str, str] | None = None,
        *,
        interpreter: tuple[str, ...] = PYTHON,
    ) -> None:
        self._stderr = stderr
        with stderr.open("ab") as sink:
            self.process = subprocess.Popen(
                [*interpreter, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=_ROOT,
                env={**_without_settings(), **(environment or {})},
            )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.decode().rstrip("\n"))
        self._lines.put(None)

    def line(self, timeout_s: float = DEADLINE_S) -> str:
        """The next line that it prints."""
        try:
            found = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            found = None
        assert found is not None, f"no line from {self.process.args!r}; its errors:\n{self.errors}"
        return found

    def lines(self) -> list[str]:
        """All further lines, until it ends."""
        return list(iter(self.line_or_end, None))

    def line_or_end(self) -> str | None:
        return self._lines.get(timeout=DEADLINE_S)

    @property
    def is_silent(self) -> bool:
        """Whether it has said nothing that nobody has taken; a line on its way out of the pipe is in neither place for a moment."""
        assert self.process.stdout is not None
        waiting = fcntl.ioctl(self.process.stdout, termios.FIONREAD, bytes(4))
        return waiting == bytes(4) and self._lines.empty()

    def tell(self, line: str) -> None:
        """A line into its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    @property
    def errors(self) -> str:
        return self._stderr.read_text(errors="replace")[-4_000:] if self._stderr.exists() else ""

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        self._tidy()

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Its exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.process.args!r} does not end; its errors:\n{self.errors}") from None

    def _tidy(self) -> None:
        self._reader.join(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass  # what was told last did not reach it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self.errors:
            print(f"errors of {self.process.args!r}:\n{self.errors}")
        self.kill()


def program(source: str, folder: Path, *arguments: str) -> Program:
    """A helper program from source text; `sys.argv[1:]` are the arguments."""
    number = sum(1 for _ in folder.glob("program-*.err"))
    return Program(["-c", source, *arguments], folder / f"program-{number}.err")


class Broker:
    """A broker process on one port and one data folder, over as many lives as a test wants.

    Args:
        folder: for the journal and the errors.
        durable: with a journal.
        arguments: further ones of `zbroker run`.
        environment: further variables.
        interpreter: as of Program.
        ready_s: so long a start may take.

    Attributes:
        addresses: of the ready line.
        data: the data folder; may be set before start().
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        durable: bool = True,
        environment: Mapping[str, str] | None = None,
        interpreter: tuple[str, ...] = PYTHON,
        ready_s: float = READY_S,
    ) -> None:
        self._arguments = arguments
        self._ready_s = ready_s
        self.environment = dict(environment or {})
        self._interpreter = interpreter
        self.addresses: dict[str, str] = {}
        self.data = folder / "data"
        self._folder = folder
        self._durable = durable
        self._program: Program | None = None
        self._address = f"tcp://127.0.0.1:{_ports().next()}"
        self._began = 0.0
        self.epochs: list[int] = []
        self.ready_s: list[float] = []

    @property
    def url(self) -> str:
        """What clients connect to."""
        return self._address.replace("tcp://", "zb://")

    def start(self) -> Self:
        """Start, on the port it had before, and return when it is ready."""
        self.spawn()
        try:
            said = self.process.line(self._ready_s)
        except AssertionError:
            if self.process.process.poll() is None:
                self.kill()  # it hangs, and whoever started it has nothing to close yet
            raise
        self.take_ready(said)
        return self

    def spawn(self) -> None:
        """Start and return at once; what it says is for take_ready()."""
        where = ["--data", str(self.data)] if self._durable else ["--no-data"]
        self._began = time.monotonic()
        self._program = Program(
            ["-m", "zbroker", "run", "--bind", self._address, "--json", *where, *self._arguments],
            self._folder / "broker.err",
            self.environment,
            interpreter=self._interpreter,
        )

    def take_ready(self, said: str) -> None:
        """Its ready line."""
        ready: dict[str, Any] = json.loads(said)
        self.ready_s.append(time.monotonic() - self._began)
        assert ready["ready"] is True
        self.addresses = ready["addresses"]
        self._address = self.addresses["native"]
        self.epochs.append(ready["epoch"])

    @property
    def process(self) -> Program:
        assert self._program is not None, "start() it first"
        return self._program

    def children(self) -> list[int]:
        """The pids of its child processes that live: the sidecar."""
        pid = self.process.process.pid
        try:
            found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return [int(child) for child in found if not is_gone(int(child))]

    def kill(self) -> None:
        """SIGKILL, and wait until its folder is free; restart() does not wait."""
        children = self.children()
        self.process.kill()
        until(lambda: all(map(is_gone, children)), what="the end of its sidecar")

    def restart(self) -> None:
        """SIGKILL, then start again."""
        self.process.kill()
        self.start()

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        self.process.signal(signal.SIGTERM)
        return self.process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._program is not None:
            self._program.__exit__(kind, error, traceback)
