"""What processes leave on a disk: bytes that they have caused to be written, and what a folder takes up."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_BLOCK_BYTES: Final = 512  # of st_blocks, whatever the file system's own are


def written_in(account: Path) -> int | None:
    """What /proc/PID/io says was written, of children too that have ended; None where the system does not tell.

    The kernel counts whole pages, each time a clean one gets dirty: so 4 KiB at least for what is synced by itself.
    """
    try:
        lines = account.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes")), None)


def allocated_in(folder: Path) -> int:
    """Bytes of disk that the folder's files take up, preallocated ones too."""
    return sum(path.stat().st_blocks * _BLOCK_BYTES for path in folder.rglob("*") if path.is_file())
