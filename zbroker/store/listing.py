"""The segments of a folder as found: names, sizes, header blocks. FORMAT.md 1."""

import msgspec

from zbroker.store.compacted import is_whole
from zbroker.store.disk import Disk
from zbroker.store.faults import NewerFormat, NotOurs
from zbroker.store.segment import (
    BLOCK_BYTES,
    FORMAT,
    NUMBER_MAX,
    STRAY_ABOVE,
    SegmentHeader,
    data_end,
    parse_name,
    unpack_header,
)
from zbroker.store.window import Window


class SegmentFile(msgspec.Struct):
    """A segment as found: `header` is None when neither copy is whole and its own; `is_blank` when all bytes are 0."""

    number: int
    generation: int
    path: str
    size: int
    header: SegmentHeader | None = None
    is_blank: bool = False
    uuid: bytes | None = None  # of the folder it was made for, even if it bears another number than its name
    bears: int | None = None  # that other number
    superseded: list[str] = []  # paths of other generations of it


def list_segments(disk: Disk, folder: str) -> list[SegmentFile]:
    """The folder's segments by number, headers read.

    Raises:
        NotOurs: a segment of another folder lies among them, or a copy of one under a number far above all others.
        NewerFormat: one demands a newer reader.
    """
    generations: dict[int, list[SegmentFile]] = {}
    for name in sorted(disk.listdir(folder)):
        parsed = parse_name(name)
        if parsed is None:
            continue
        if parsed[0] > NUMBER_MAX:
            raise NotOurs(folder, f"holds {name}, of a number that no journal reaches")
        file = SegmentFile(parsed[0], parsed[1], f"{folder}/{name}", 0, superseded=[])
        try:
            _read_header(disk, folder, file)
        except FileNotFoundError:
            continue  # a broker runs on it, and has just removed it
        generations.setdefault(file.number, []).append(file)
    files = [_one_of(disk, found) for found in generations.values()]
    ours = next((file.uuid for file in files if file.header), None)
    for file in files:
        if file.uuid is not None and file.uuid != (ours or file.uuid):
            raise NotOurs(folder, f"holds {file.path}, which belongs to another journal")
    _refuse_strays(folder, files)
    _ignore_headers_out_of_order(files)
    return files


def _refuse_strays(folder: str, files: list[SegmentFile]) -> None:
    """A copy under the next number is damage like any other. One under a date, say, would spend all epochs at once."""
    newest = max((file.number for file in files if file.header is not None), default=None)
    for file in files:
        if newest is not None and file.bears not in (None, file.number) and file.number > newest + STRAY_ABOVE:
            name = file.path.rpartition("/")[2]
            raise NotOurs(folder, f"holds {name}, a copy of segment {file.bears} under a wrong name")


def _one_of(disk: Disk, generations: list[SegmentFile]) -> SegmentFile:
    """The highest generation that is whole, for a compaction may have been interrupted before the old file went, and rot
    may have met the new one. Else the lowest: it holds everything that others hold.
    """
    chosen = generations[0]
    if len(generations) > 1:
        for file in reversed(generations[1:]):
            if file.header is not None and is_whole(disk, file.path, file.size, file.header):
                chosen = file
                break
        chosen.superseded = [file.path for file in generations if file is not chosen]
    return chosen


def _ignore_headers_out_of_order(files: list[SegmentFile]) -> None:
    """An old copy put back under a new number would otherwise rewrite history."""
    highest = 0
    for file in files:
        if file.header is not None and file.header.first_index < highest:
            file.header = None
        elif file.header is not None:
            highest = file.header.first_index


def cut_short(files: list[SegmentFile]) -> list[str]:
    """What to say of segments shorter than they were made: only a copy that broke off leaves them so."""
    return [
        f"{file.path} has {file.size} of its {file.header.segment_bytes} bytes: a copy that broke off; messages at the "
        "end of it may be missing, and nobody can tell how many"
        for file in files
        if file.header and file.size < file.header.segment_bytes
    ]


def _read_header(disk: Disk, folder: str, file: SegmentFile) -> None:
    handle = disk.open(file.path)
    file.size = disk.size(handle)
    disk.close(handle)
    window = Window(disk, file.path, file.size, BLOCK_BYTES)
    try:
        for offset in (0, data_end(file.size)):
            at = window.load(max(0, offset), BLOCK_BYTES)
            header = unpack_header(window.data[at : at + BLOCK_BYTES])
            if header is not None and header.reader_min > FORMAT:
                raise NewerFormat(folder, file.path, header.reader_min, FORMAT)
            if header is not None:
                file.uuid, file.bears = header.folder_uuid, header.number
            if header is not None and (header.number, header.generation) == (file.number, file.generation):
                file.header = header
                return
        file.is_blank = window.nonzero_end(0, file.size) == 0
    finally:
        window.close()
