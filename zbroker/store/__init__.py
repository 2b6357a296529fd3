"""The journal on disk. What a program may use of it: open_journal()."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zbroker.store.outbox import FileOutbox

__all__ = ["open_journal"]


def open_journal(
    folder: str | os.PathLike[str], *, bytes_max: int = 1 << 30, network_allowed: bool = False
) -> FileOutbox:
    """A journal for `Producer(.., journal=)`: what it sends is on this disk first, and is forwarded when the broker is there.

    Args:
        folder: of this journal alone, made if it is not there; one for each Producer. On a local disk.
        bytes_max: of what may wait, at least 1 MiB; each batch counts in blocks of 4 KiB. The folder takes some segments of 8 MiB more.
        network_allowed: take a network file system, where locks and syncs promise less.

    Returns:
        What the Producer takes over, and closes with itself; close() it if no Producer does.

    Raises:
        StorageFailed: another process has the folder, or it is no journal, or the disk refuses; see the text.
        StorageFull: no room for the first segment.
        BadArgument: bytes_max, or no name of a folder.
    """
    from patterns.wire.errors import BadArgument
    from zbroker.store.os_disk import OsDisk, leave_to_parent, wall_ms
    from zbroker.store.outbox import BYTES_MIN, FileOutbox

    if isinstance(bytes_max, bool) or not isinstance(bytes_max, int) or bytes_max < BYTES_MIN:
        raise BadArgument(f"bytes_max={bytes_max!r}: a number of bytes, {BYTES_MIN} or more")
    name = os.fspath(folder)
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadArgument(f"folder {name!r}: the path of a folder, as str or Path")
    disk = OsDisk()
    leave_to_parent(disk)
    return FileOutbox(
        disk,
        name,
        bytes_max=bytes_max,
        random_bytes=os.urandom,
        wall_ms=wall_ms,
        network_allowed=network_allowed,
    )
