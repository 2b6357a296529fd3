"""A second folder that a broker could have left behind at this instant, from one that may be running. FORMAT.md 9.

What is full is linked, since nobody writes to it any more, or held open until it is copied; the segment that is written to
is copied as far as it is whole at this moment. Nothing of it asks the broker, and nothing holds it up.
"""

import contextlib
import errno
from collections.abc import Callable
from typing import Final

import msgspec

from zbroker.store.checkpoint import INDEX_SUFFIX, parse_checkpoint_name
from zbroker.store.chunks import NotWhole
from zbroker.store.disk import Disk
from zbroker.store.faults import BackupFailed, FolderUnusable
from zbroker.store.listing import SegmentFile, list_segments
from zbroker.store.record import WITHOUT_INDEX
from zbroker.store.recovery import UNBOUNDED, durable_in
from zbroker.store.restore import missing_segments, read_meta
from zbroker.store.run import CHAIN_UNKNOWN, Run, read_run
from zbroker.store.segment import BLOCK_BYTES, SegmentHeader, data_end, parse_name, segment_name, write_whole
from zbroker.store.window import Window, find_header

COPY_BYTES: Final = 4 << 20
LOOKS_MAX: Final = 3
TRIES_MAX: Final = 5
UNFINISHED: Final = ".unfinished"  # of a backup that is being made, or was killed; never taken for one
WITHOUT_LINKS: Final = frozenset([errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
_HELD_MAX: Final = 900  # the usual limit is 1,024 open files, and others are opened beside
_WITHOUT_HANDLES: Final = frozenset([errno.EMFILE, errno.ENFILE])
Moved = Callable[[int], None]


class Backup(msgspec.Struct):
    """What a backup consists of: files linked and copied, bytes copied, the first index after its log."""

    linked: int = 0
    copied: int = 0
    bytes_copied: int = 0
    next_index: int = 0


def back_up(
    disk: Disk, folder: str, target: str, moved: Moved = lambda size: None, source: Disk | None = None
) -> Backup:
    """Make `target`, which must not exist, a consistent copy of a folder. It has its name only when it is whole.

    Args:
        moved: hears the bytes of each file that is linked or copied.
        source: reads the folder, whose file system may be read-only; None: `disk` does.

    Raises:
        BackupFailed: the target is there already, the folder changed faster than it could be linked, or the disk's error.
        FolderUnusable, NotOurs, NewerFormat: there is no journal in the folder.
    """
    source = source or disk
    _require_journal(source, folder)  # before anything is made
    try:
        return _back_up(disk, source, folder, target.rstrip("/") or target, moved)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise BackupFailed(target, f"{error.strerror or error}{where}") from error


def _back_up(disk: Disk, source: Disk, folder: str, target: str, moved: Moved) -> Backup:
    if _exists(disk, target):
        raise BackupFailed(target, "it is there already; name a folder that is not")
    draft = target + UNFINISHED
    if _exists(disk, draft):
        raise BackupFailed(
            target, f"{draft} is there, of a backup that is being made, or was killed; then remove it first"
        )
    try:
        result = _copy(disk, source, folder, draft, moved)
        if result is None:
            raise BackupFailed(
                target,
                f"segments were given back while they were taken, {TRIES_MAX} times; try again when less is going on",
            )
        disk.fsync_dir(draft)
        disk.rename(draft, target)
    except FileExistsError:
        raise  # of another backup that began in this moment
    except BaseException:
        _remove(disk, draft)  # else it pins the disk's blocks, and the same command fails when it is tried again
        raise
    parent = target.rpartition("/")[0]
    disk.fsync_dir(parent or ("/" if target.startswith("/") else "."))
    return result


def _copy(disk: Disk, source: Disk, folder: str, draft: str, moved: Moved) -> Backup | None:
    """Everything into a new folder; None when the broker was faster, again and again."""
    for _ in range(TRIES_MAX):
        disk.make_folder(draft)
        with contextlib.closing(_Copying(disk, source, folder, draft, moved)) as copying:
            result = copying.run()
            if copying.has_all:
                return result
        _remove(disk, draft)
    return None


def _remove(disk: Disk, draft: str) -> None:
    """As far as that goes: what broke off is the error to tell."""
    with contextlib.suppress(OSError):
        for name in disk.listdir(draft):
            disk.unlink(f"{draft}/{name}")
        disk.remove_folder(draft)


def _require_journal(disk: Disk, folder: str) -> None:
    try:
        if not any(parse_name(name) for name in disk.listdir(folder)):
            raise FolderUnusable(folder, "has no journal in it")
    except OSError as error:
        raise FolderUnusable(folder, f"cannot be read ({error.strerror})") from error


def _exists(disk: Disk, path: str) -> bool:
    try:
        return bool(disk.listdir(path)) or True
    except NotADirectoryError:
        return True
    except FileNotFoundError:
        return False


class _Copying:
    """One backup. Checkpoints and indexes go first: what they tell of is then in the segments for certain.

    Where there are no links, files are opened first and copied afterwards: a copy takes minutes, in which a busy broker
    gives back segments, and what it has removed lives as long as somebody holds it.
    """

    def __init__(self, disk: Disk, source: Disk, folder: str, target: str, moved: Moved) -> None:
        self._disk = disk
        self._source = source
        self._folder = folder
        self._target = target
        self._moved = moved
        self._held: list[tuple[int, str]] = []  # open files of the folder, and their names
        self._result = Backup()
        self.has_all = False  # what the checkpoints that it took list

    def run(self) -> Backup:
        names = sorted(self._source.listdir(self._folder))
        checkpoints = [name for name in names if parse_checkpoint_name(name) is not None]
        for name in [*checkpoints, *(name for name in names if name.endswith(INDEX_SUFFIX))]:
            self._take(name)
        files = self._list()
        begun = [file for file in files if not file.is_blank]
        for file in begun[:-1]:
            self._take_segment(file)
        for file in begun[-1:]:
            self._copy_growing(file)
        self._copy_held()
        self.has_all = self._took_all(checkpoints)
        return self._result

    def close(self) -> None:
        """Let go of what is held."""
        held, self._held = self._held, []
        for reading, _ in held:
            self._source.close(reading)

    def _list(self) -> list[SegmentFile]:
        """The segments; a header that is being written is waited for, as far as looking again is waiting."""
        for _ in range(LOOKS_MAX):
            files = list_segments(self._source, self._folder)
            begun = [file for file in files if not file.is_blank]
            if begun and begun[-1].header is not None:
                break
        return files

    def _take_segment(self, file: SegmentFile) -> None:
        """It may be compacted in this moment; then the next generation is there."""
        for _ in range(LOOKS_MAX):
            if self._take(segment_name(file.number, file.generation), file.size):
                return
            found = [one for one in list_segments(self._source, self._folder) if one.number == file.number]
            if not found:
                return  # given back; _took_all() knows whether it was needed
            file = found[0]

    def _take(self, name: str, size: int = 0) -> bool:
        """Link a file that is not written to any more; hold it where there are no links. False when it is gone."""
        try:
            self._disk.link(f"{self._folder}/{name}", f"{self._target}/{name}")
            self._result.linked += 1
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in WITHOUT_LINKS:
                raise
            return self._hold(name)
        self._moved(size)
        return True

    def _hold(self, name: str) -> bool:
        """Open it, to be copied when everything is held; False when it is gone."""
        if len(self._held) == _HELD_MAX:
            self._copy_held()
        try:
            reading = self._source.open(f"{self._folder}/{name}")
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _WITHOUT_HANDLES or not self._held:
                raise
            self._copy_held()  # of what there is now, as many as the system lets us hold
            return self._hold(name)
        self._held.append((reading, name))
        return True

    def _copy_held(self) -> None:
        while self._held:
            reading, name = self._held[0]
            size = self._source.size(reading)
            self._copy(reading, name, size)
            self._moved(size if parse_name(name) else 0)
            del self._held[0]
            self._source.close(reading)

    def _copy(self, reading: int, name: str, size: int) -> None:
        writing = self._disk.open(f"{self._target}/{name}", create=True)
        try:
            self._copy_range(reading, writing, size)
            self._disk.fsync(writing)
        finally:
            self._disk.close(writing)
        self._result.copied += 1

    def _copy_range(self, reading: int, writing: int, end: int) -> None:
        for offset in range(0, end, COPY_BYTES):
            data = self._source.pread(reading, min(COPY_BYTES, end - offset), offset)
            write_whole(self._disk, writing, [data], offset)
            self._result.bytes_copied += len(data)

    def _copy_growing(self, file: SegmentFile) -> None:
        """The newest segment, to the end of its last whole record now: bytes before that never change again."""
        name = segment_name(file.number, file.generation)
        header = file.header
        if header is None:
            self._hold(name)  # damaged: as it is
            return
        end = self._whole_end(file, header)
        reading = self._source.open(file.path)
        writing = self._disk.open(f"{self._target}/{name}", create=True)
        try:
            self._disk.fallocate(writing, header.segment_bytes)
            self._copy_range(reading, writing, end)
            block = self._source.pread(reading, BLOCK_BYTES, 0)
            write_whole(self._disk, writing, [block], data_end(header.segment_bytes))
            self._disk.fsync(writing)
        finally:
            self._source.close(reading)
            self._disk.close(writing)
        self._result.copied += 1
        self._moved(file.size)

    def _whole_end(self, file: SegmentFile, header: SegmentHeader) -> int:
        """Where the last whole record ends. A commit that is being written looks torn, and damage is stepped over: it is
        damage if what follows knows that the place had been synced, and a second look finds it no better.
        """
        run = Run(BLOCK_BYTES, header.crc, header.first_index, 0, 0, None)
        while True:
            window = Window(self._source, file.path, file.size)  # a new one: its bytes are of now
            try:
                before, run = run.offset, read_run(window, header, run, UNBOUNDED, lambda record, position: None)
                after = run.offset + (run.rotten is not None)
                found = find_header(window, after, header, run.expected, UNBOUNDED)
                synced = durable_in(window, header, after) if found is not None and run.offset == before else 0
            finally:
                window.close()
            if found is None or (run.offset == before and synced < run.expected):
                self._result.next_index = run.expected
                return run.offset
            if run.offset == before:
                takes_none = found[1].kind in WITHOUT_INDEX
                run = Run(found[0], CHAIN_UNKNOWN, found[1].record_index + takes_none, 0, 0, None)

    def _took_all(self, checkpoints: list[str]) -> bool:
        """Whether what a checkpoint lists was taken, even if it was there when we looked; else it would look like damage. As long as
        a checkpoint has its name nothing that it lists is given back: what is missing then is damage, and carried over.
        """
        files = list_segments(self._disk, self._target)
        for name in checkpoints:
            try:
                missing = missing_segments(read_meta(self._disk, f"{self._target}/{name}"), files)
            except NotWhole:
                continue  # pruned, or rotten: it is not believed there either
            if missing and name not in self._source.listdir(self._folder):
                return False
        return True
