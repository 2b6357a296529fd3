"""What a power cut may leave of a folder, rebuilt from the calls that were made on it. No test lives here.

The page cache and the platter are those of zbroker/testing/disk.py: of what was not synced when the power went, each sector,
name and size is kept or lost by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final

from tests.crash.strace import Call
from zbroker.store.segment import MAGIC as HEADER_MAGIC
from zbroker.testing.disk import VirtualDisk

SYNCS: Final = frozenset(["sync", "sync_dir"])


def settled(calls: Iterable[Call], left: Path) -> list[Call]:
    """The calls, without those writes in which the process died and that never happened: `left` is the folder as it is now.

    What was begun in a life is not written again in a later one, so the bytes of then still stand there, or the file is gone.
    """

    def happened(call: Call) -> bool:
        path = left / Path(call.path).name
        if call.is_known or call.name != "write" or not path.exists():
            return True
        return path.read_bytes()[call.number : call.number + len(call.data)] == call.data

    return [call for call in calls if happened(call)]


def without_syncs(calls: Iterable[Call]) -> list[Call]:
    """As if a broker had made none of them, or a drive had only pretended to."""
    return [call for call in calls if call.name not in SYNCS]


def without_name_syncs(calls: Iterable[Call]) -> list[Call]:
    """As if a broker synced files and never their folder."""
    return [call for call in calls if call.name != "sync_dir"]


def without_commit_syncs(calls: Iterable[Call]) -> list[Call]:
    """As if a broker confirmed what it had only written: headers, checkpoints and names are synced, commits are not."""
    kept, last = [], {}
    for call in calls:
        if call.name == "write":
            last[call.path] = call
        written = last.get(call.path)
        is_header = written is not None and written.data.startswith(HEADER_MAGIC)
        if call.name != "sync" or written is None or is_header or not call.path.endswith(".seg"):
            kept.append(call)
    return kept


class Machine:
    """A folder on a disk that had these calls made on it.

    Args:
        calls: in the order in which they began.
        folder: the folder as the calls name it.
    """

    def __init__(self, calls: list[Call], folder: str) -> None:
        self._calls = [call for call in calls if call.name != "mark"]
        self._folder = folder

    def at(self, place: int) -> VirtualDisk:
        """The disk when the account had come so far.

        A sync that had not returned did nothing; one that had is sure of what was written before it began, no more.
        """
        disk = VirtualDisk()
        for call in self._calls:
            if call.begun < place and not (call.name in SYNCS and (call.done >= place or not call.is_known)):
                self._make(disk, call)
        return disk

    def cut(self, place: int, dice: Random, into: Path) -> None:
        """Write what is left when the power goes there, if the folder is left at all."""
        disk = self.at(place)
        has_folder = self._is_folder_synced(place) or dice.random() < 0.5
        disk.power_cut(dice)
        if has_folder:
            write_out(disk, into)

    def _is_folder_synced(self, place: int) -> bool:
        made = [call.done for call in self._calls if call.name == "mkdir" and call.path == self._folder]
        above = [
            call.begun
            for call in self._calls
            if call.name == "sync_dir" and call.path == str(Path(self._folder).parent) and call.done < place
        ]
        return any(one < other for one in made for other in above)

    def _make(self, disk: VirtualDisk, call: Call) -> None:
        if call.name == "rename":
            disk.rename(call.path, call.target)
        elif call.name == "link":
            disk.link(call.path, call.target)
        elif call.name == "unlink":
            if call.path in disk.live:
                disk.unlink(call.path)
        elif call.name == "sync_dir":
            disk.fsync_dir(call.path)
        elif call.name != "mkdir":
            self._on_file(disk, call)

    def _on_file(self, disk: VirtualDisk, call: Call) -> None:
        handle = disk.open(call.path, create=call.name == "create")
        if call.name == "write":
            disk.pwrite(handle, call.data, call.number)
        elif call.name == "allocate":
            disk.fallocate(handle, call.number)
        elif call.name == "sync":
            disk.fsync(handle)
        disk.close(handle)


def write_out(disk: VirtualDisk, into: Path) -> None:
    """The files that the disk holds, as real ones."""
    into.mkdir()
    for path in disk.live:
        (into / Path(path).name).write_bytes(disk.content(path))


def marks_before(calls: Iterable[Call], place: int) -> list[list[str]]:
    """The words of each mark that was whole by then."""
    return [call.data.decode().split() for call in calls if call.name == "mark" and call.done < place]
