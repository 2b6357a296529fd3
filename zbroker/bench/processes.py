"""Processes of a measurement as its parent sees them: workers, and brokers as users run them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import msgspec

from zbroker.bench.footprint import written_in

READY_S: Final = 60.0  # nine processes start on two cores, which others use too
_GOODBYE_S: Final = 10.0


class BenchFailed(Exception):
    """A process of a measurement died, or has nothing to say in time."""


class Usage(msgspec.Struct, frozen=True):
    """What a process has used up, and holds.

    Attributes:
        cpu_s: of all its threads, user and system.
        resident_bytes: memory.
        written_bytes: that it has caused to be written to disks; None where the system does not tell.
    """

    cpu_s: float
    resident_bytes: int
    written_bytes: int | None = None

    def __add__(self, other: Usage) -> Usage:
        pair = self.written_bytes, other.written_bytes
        written = None if None in pair else sum(one or 0 for one in pair)
        return Usage(self.cpu_s + other.cpu_s, self.resident_bytes + other.resident_bytes, written)


class Process:
    """A child that says JSON objects, one a line; it ends when its standard input does, so also with its parent.

    Args:
        name: for errors.
        arguments: of the worker; see ends/worker.py.
    """

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name = name
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "zbroker.bench.ends.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("ZBROKER_")},
            process_group=0,  # Ctrl-C is the parent's alone: it ends its children in order
        )

    def said(self, timeout_s: float = READY_S) -> dict[str, Any]:
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

    def usage(self) -> Usage:
        """What it and its children have used so far. Raises BenchFailed."""
        try:
            own = _usage_of(self._process.pid)
            return sum((_usage_of(pid) for pid in descendants(self._process.pid)), own)
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
            raise BenchFailed(f"nothing tells what {self.name} uses: {error}") from error

    def go(self) -> None:
        """Tell it to begin, if it waits for that."""
        if self._process.stdin is not None:
            self._process.stdin.write(b"!")
            self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, if it has not ended by itself; its own child only, by its handle."""
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs; none where the system does not tell."""
    try:
        told = [place.read_text() for place in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(one) for line in told for one in line.split()]
    return children + [below for child in children for below in descendants(child)]


def _usage_of(pid: int) -> Usage:
    place = Path(f"/proc/{pid}")
    ran = [int(one.read_text().split()[0]) for one in place.glob("task/*/schedstat")]  # ns; `stat` counts in 10 ms
    if ran:
        resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return Usage(sum(ran) / 1e9, resident, written_in(place / "io"))
    told = subprocess.run(["ps", "-o", "time=,rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    cpu, kib = told.stdout.split()
    return Usage(seconds_of(cpu), int(kib) * 1_024)


def seconds_of(time_of_ps: str) -> float:
    """[[days-]hours:]minutes:seconds[.hundredths], as `ps` writes CPU time."""
    days, _, clock = time_of_ps.rpartition("-")
    seconds = 0.0
    for part in clock.split(":"):
        seconds = seconds * 60 + float(part)
    return int(days or 0) * 86_400 + seconds


class Worker(Process):
    """One end; see ends/worker.py."""

    def __init__(self, role: str, **parameters: Any) -> None:
        super().__init__(role, [role, json.dumps(parameters)])


class Broker(Process):
    """`zbroker run`, with a journal in `folder` or without one.

    Args:
        bind: an endpoint; port 0 picks a free one.
        flags: more of `zbroker run`.

    Attributes:
        bound: where it is.
        folder: of its journal.
    """

    def __init__(self, bind: str, folder: str | None, *flags: str) -> None:
        where = ["--no-data"] if folder is None else ["--data", folder]
        super().__init__(
            "zbroker run",
            [
                "zbroker",
                "run",
                "--config",
                os.devnull,
                "--bind",
                bind,
                "--json",
                "--log-level",
                "warning",
                *where,
                *flags,
            ],
        )
        self.bound = bind
        self.folder = folder

    def address(self) -> str:
        """Where clients connect, once it is ready."""
        self.bound = self.said()["addresses"]["native"]
        return self.connects_to

    @property
    def connects_to(self) -> str:
        """The same, once it has been asked for."""
        scheme, _, rest = self.bound.partition("://")
        return f"zb://{rest}" if scheme == "tcp" else f"zb+{scheme}://{rest}"


class Device(Process):
    """`zbroker device KIND`, with or without a capture."""

    def __init__(self, kind: str, frontend: str, backend: str, capture: str | None) -> None:
        where = ["--frontend", frontend, "--backend", backend, *(["--capture", capture] if capture else [])]
        super().__init__("zbroker device", ["zbroker", "device", kind, "--json", *where])
