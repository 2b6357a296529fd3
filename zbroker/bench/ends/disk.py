"""What the disk does by itself: the floor under every durable row."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from zbroker.bench.ends import starting
from zbroker.bench.figures import percentile

Say = Callable[[dict[str, Any]], None]
_LOOK_S: Final = 0.002  # a checkpoint takes tens of milliseconds
_FILE_BYTES: Final = 64 * 1024 * 1024  # as a segment of the journal


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        os.fsync(fd)
    else:
        os.fdatasync(fd)


def _written(path: Path) -> int:
    """A file of zeros that were written, open."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    zeros = bytes(1024 * 1024)
    for at in range(0, _FILE_BYTES, len(zeros)):
        os.pwrite(fd, zeros, at)
    _sync(fd)
    return fd


def _allocated(path: Path) -> int:
    """A new file for which the disk has set space aside, open; the one before is gone."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(fd, 0, _FILE_BYTES) if sys.platform != "darwin" else os.ftruncate(fd, _FILE_BYTES)
    os.fsync(fd)
    return fd


def watch_for(say: Say, *, folder: str, names: list[str]) -> None:
    """When a file of each name is in the folder: [first seen, last seen] on the machine's monotonic clock, ns; told on demand."""
    found: dict[str, list[list[int]]] = {name: [] for name in names}
    were_there: set[str] = set()
    say({"watching": names})
    while not starting.go.wait(_LOOK_S):
        are_there = {name for name in names if (Path(folder) / name).exists()}
        now = time.monotonic_ns()
        for name in are_there - were_there:
            found[name].append([now, now])
        for name in are_there:
            found[name][-1][1] = now
        were_there = are_there
    say({"times": found})


def write_and_sync(say: Say, *, folder: str, record_bytes: int, seconds: float, grows: bool = False) -> None:
    """pwrite of a record, then fdatasync, one after the other, into a preallocated file.

    Args:
        grows: into one new file after the other, as a log that keeps what it has, instead of over the same one.
    """
    path = Path(folder) / "disk.probe"
    make = _allocated if grows else _written
    fd = make(path)
    try:
        data = os.urandom(record_bytes)
        clock = time.perf_counter_ns
        until = clock() + int(seconds * 1e9)
        times: list[int] = []
        place = 0
        end = 0
        while end < until or not times:
            begin = clock()
            os.pwrite(fd, data, place)
            _sync(fd)
            end = clock()
            times.append(end - begin)
            place += record_bytes
            if place + record_bytes > _FILE_BYTES:
                place = 0
                if grows:
                    os.close(fd)
                    fd = make(path)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
    rate = len(times) * 1e9 / sum(times)
    say(
        {
            "received": len(times),
            "rate": rate,
            "bytes_rate": rate * record_bytes,
            "p50_us": percentile(times, 50) / 1_000,
            "p99_us": percentile(times, 99) / 1_000,
        }
    )
