"""What a process and its children hold: memory, descriptors, threads; and what a folder takes. Linux. No test lives here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_BLOCK: Final = 512  # of st_blocks, whatever the file system's own


@dataclass(frozen=True)
class Usage:
    """Bytes and counts at one instant, or the medians of many."""

    memory: int
    descriptors: int
    threads: int
    disk: int


def usage(pid: int, folder: Path | None = None) -> Usage:
    """Of a process and all that descend from it."""
    memory = descriptors = threads = 0
    for each in _tree(pid):
        here = Path(f"/proc/{each}")
        try:
            memory += int((here / "statm").read_text().split()[1]) * _PAGE
            descriptors += len(os.listdir(here / "fd"))
            threads += len(os.listdir(here / "task"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # a child that has just ended
    return Usage(memory, descriptors, threads, _disk(folder) if folder is not None else 0)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield from _tree(int(child))


def _disk(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_blocks * _BLOCK
        except FileNotFoundError:
            continue  # given back meanwhile
    return total


def typical(samples: list[Usage]) -> Usage:
    """The median of each figure, but of the disk the highest: it breathes by whole segments."""
    return Usage(
        int(median(one.memory for one in samples)),
        int(median(one.descriptors for one in samples)),
        int(median(one.threads for one in samples)),
        max(one.disk for one in samples),
    )
