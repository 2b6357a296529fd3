"""What the store asks of a disk. Everything else in this folder is pure over it.

os_disk.py implements it with os calls, zbroker/testing/disk.py with a page cache and a platter in memory.
Calls raise OSError as the system would; a handle is an int; an absent path raises FileNotFoundError.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class FileSystem(msgspec.Struct, frozen=True):
    """Where a folder lies: the kind by its own name, whether a network is between, what to warn of.

    Attributes:
        marks_unwritten: the first write into blocks that were only reserved goes through the file system's own journal.
    """

    kind: str
    is_network: bool
    warnings: list[str]
    marks_unwritten: bool = False


class Disk(Protocol):
    """Files by path and handle, with the difference between written and synced."""

    def make_folder(self, path: str) -> None:
        """Create it with its parents, durably; an existing one is fine."""
        ...

    def remove_folder(self, path: str) -> None:
        """One that is empty."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Names in it, in any order."""
        ...

    def open(self, path: str, create: bool = False) -> int:
        """For reading and writing; `create` makes an absent file and leaves a present one as it is."""
        ...

    def close(self, handle: int) -> None:
        """Let go, of locks as well."""
        ...

    def lock(self, handle: int) -> bool:
        """Take the file's exclusive lock without waiting; False when another holds it."""
        ...

    def size(self, handle: int) -> int:
        """Bytes."""
        ...

    def size_at(self, path: str, handle: int) -> int | None:
        """Bytes of the file that the path leads to; None when it leads to none, or to another one than that of the handle."""
        ...

    def pread(self, handle: int, length: int, offset: int) -> bytes:
        """Fewer than `length` bytes only at the end of the file."""
        ...

    def pwrite(self, handle: int, data: bytes, offset: int) -> int:
        """Bytes written, perhaps fewer than given."""
        ...

    def pwritev(self, handle: int, parts: Sequence[bytes], offset: int) -> int:
        """Bytes written, perhaps fewer than given."""
        ...

    def fdatasync(self, handle: int) -> int:
        """Data and size on the platter. Returns the microseconds it took: the store has no clock."""
        ...

    def fsync(self, handle: int) -> None:
        """Data and all metadata of the file on the platter; not its name."""
        ...

    def fsync_dir(self, path: str) -> None:
        """The names in a folder on the platter."""
        ...

    def fallocate(self, handle: int, length: int) -> None:
        """Reserve blocks up to `length`, which becomes the size if that was less; they read as zeros."""
        ...

    def drop_cache(self, handle: int) -> None:
        """Forget clean pages, so that the next read sees the platter."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Atomic for readers; durable by fsync_dir."""
        ...

    def link(self, old: str, new: str) -> None:
        """A second name; durable by fsync_dir."""
        ...

    def unlink(self, path: str) -> None:
        """Take a name away; durable by fsync_dir."""
        ...

    def file_system(self, path: str) -> FileSystem:
        """What lies under an existing path."""
        ...
