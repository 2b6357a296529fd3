"""Ways to damage a journal's folder, each with what it may cost. No test lives here.

A kind of damage is a function of an Original's copy and a Random; it returns what to expect.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.crash.audit import Place, Told
from zbroker.store.listing import list_segments
from zbroker.store.os_disk import OsDisk
from zbroker.store.recovery import LogScan
from zbroker.store.segment import BLOCK_BYTES, segment_name, unpack_header

WHOLE, DAMAGED, UNAVAILABLE = 0, 10, 69  # exit statuses
APPEND: Final = 1  # FORMAT.md 3


@dataclass(frozen=True)
class Stored:
    """Where a record lies, and the messages in it, if it is a batch."""

    index: int
    segment: str
    first: int
    end: int
    places: frozenset[Place]


@dataclass
class Original:
    """A folder that a broker made, as it was before: never changed.

    Attributes:
        other: a folder of another journal.
        later: a copy of this one in which a broker went on.
        needs_checkpoints: segments were given back or compacted: without any checkpoint that is damage (FORMAT.md 7.3).
    """

    data: Path
    told: Told
    other: Path
    later: Path
    records: list[Stored] = field(default_factory=list)
    needs_checkpoints: bool = False
    recovered: dict[str, str] = field(default_factory=dict)  # streams by the names that they get when theirs is lost

    def __post_init__(self) -> None:
        found: list[tuple] = []
        disk = OsDisk(read_only=True)
        LogScan(disk, list_segments(disk, str(self.data)), lambda record, at: found.append((record, at))).run()
        names = self._names([record for record, _ in found if record.kind == APPEND])
        self.recovered = {f"recovered-{number}": name for number, name in names.items()}
        for record, at in found:
            name = names.get(record.stream_id, "")
            offsets = range(record.base_offset, record.base_offset + record.count) if record.kind == APPEND else ()
            places = frozenset((name, offset) for offset in offsets)
            file = segment_name(at.segment, getattr(at, "generation", 0))
            self.records.append(Stored(record.index, file, at.offset, at.offset + at.size, places))

        numbers = sorted(path.name for path in self.data.glob("*.seg"))
        self.needs_checkpoints = numbers != [segment_name(number) for number in range(1, len(numbers) + 1)]

    def _names(self, appends: list) -> dict[int, str]:
        """More was sent to `work` than to `beside`."""
        counts: dict[int, int] = {}
        for record in appends:
            counts[record.stream_id] = counts.get(record.stream_id, 0) + record.count
        return dict(zip(sorted(counts, key=counts.__getitem__), ("beside", "work"), strict=True))

    @property
    def last_index(self) -> int:
        return max(record.index for record in self.records)

    @property
    def places(self) -> set[Place]:
        return {place for record in self.records for place in record.places}

    def segments(self) -> list[str]:
        """Those with records, oldest first, as they were written: a compacted one has a format of its own."""
        return sorted({record.segment for record in self.records if record.segment.endswith("-0000.seg")})

    def within(self, segment: str, first: int = 0, end: int = 1 << 62) -> frozenset[int]:
        """Indexes of records that have a byte in that part."""
        return frozenset(
            one.index for one in self.records if one.segment == segment and one.first < end and first < one.end
        )


@dataclass(frozen=True)
class Cost:
    """What a kind of damage may do.

    Attributes:
        verify: exit status of `zbroker store verify` on the damaged folder.
        records: indexes that may be lost, no others; None: nobody can tell which.
        refusal: words of the refusal; empty: a broker starts.
        warns: status must have a warning.
        is_slow: records are known whose file never was; each is looked for half a minute, in case it was moved.
        is_silent: the end of the log went with all that knew of it: messages may be missing without a word (FORMAT.md 8).
    """

    verify: int
    records: frozenset[int] | None = frozenset()
    refusal: str = ""
    warns: bool = False
    is_silent: bool = False
    is_slow: bool = False


Kind = Callable[[Path, Original, Random], Cost]


def _flip(path: Path, at: int, dice: Random) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def _fill(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def _record(original: Original, dice: Random) -> Stored:
    """One whose loss is told: not of the last commit of the log."""
    return dice.choice([one for one in original.records[:-3] if one.segment.endswith("-0000.seg")])


def flipped_header(folder: Path, original: Original, dice: Random) -> Cost:
    """A bit in the header of a record."""
    one = _record(original, dice)
    _flip(folder / one.segment, one.first + dice.randrange(64), dice)
    return Cost(DAMAGED, frozenset([one.index]))


def flipped_body(folder: Path, original: Original, dice: Random) -> Cost:
    """A bit in the body of a record."""
    one = _record(original, dice)
    _flip(folder / one.segment, dice.randrange(one.first + 64, one.end), dice)
    return Cost(DAMAGED, frozenset([one.index]))


def zeroed_blocks(folder: Path, original: Original, dice: Random) -> Cost:
    """What a drive gives that has lost some blocks."""
    one = _record(original, dice)
    first = one.first // BLOCK_BYTES * BLOCK_BYTES
    length = BLOCK_BYTES * dice.choice([1, 1, 2, 16])
    length = min(length, (folder / one.segment).stat().st_size - BLOCK_BYTES - first)
    _fill(folder / one.segment, first, bytes(length))
    return Cost(DAMAGED, original.within(one.segment, first, first + length))


def garbage(folder: Path, original: Original, dice: Random) -> Cost:
    """Somebody else's blocks."""
    one = _record(original, dice)
    length = min(dice.randint(1, 20_000), (folder / one.segment).stat().st_size - BLOCK_BYTES - one.first)
    _fill(folder / one.segment, one.first, dice.randbytes(length))
    return Cost(DAMAGED, original.within(one.segment, one.first, one.first + length))


def one_segment_header(folder: Path, original: Original, dice: Random) -> Cost:
    """Of the two copies one suffices."""
    path = folder / dice.choice(original.segments())
    _flip(path, dice.choice([0, path.stat().st_size - BLOCK_BYTES]) + dice.randrange(BLOCK_BYTES), dice)
    return Cost(WHOLE)


def both_segment_headers(folder: Path, original: Original, dice: Random) -> Cost:
    path = folder / dice.choice(original.segments()[:-1])
    for block in (0, path.stat().st_size - BLOCK_BYTES):
        _flip(path, block + dice.randrange(BLOCK_BYTES), dice)
    return Cost(DAMAGED, original.within(path.name))


def newest_segment_headers(folder: Path, original: Original, dice: Random) -> Cost:
    path = folder / original.segments()[-1]
    for block in (0, path.stat().st_size - BLOCK_BYTES):
        _flip(path, block + dice.randrange(BLOCK_BYTES), dice)
    return Cost(DAMAGED, original.within(path.name))


def truncated_segment(folder: Path, original: Original, dice: Random) -> Cost:
    path = folder / dice.choice(original.segments()[:-1])
    length = dice.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(length)
    return Cost(DAMAGED, original.within(path.name, length if length >= BLOCK_BYTES else 0))


def truncated_newest_segment(folder: Path, original: Original, dice: Random) -> Cost:
    """That a copy broke off is seen by its length; what was in the rest nobody knows."""
    path = folder / original.segments()[-1]
    with path.open("r+b") as file:
        file.truncate(dice.randrange(BLOCK_BYTES, path.stat().st_size))
    return Cost(DAMAGED, None, warns=True, is_silent=True)


def missing_segment(folder: Path, original: Original, dice: Random) -> Cost:
    path = folder / dice.choice(original.segments()[:-1])
    path.unlink()
    return Cost(DAMAGED, original.within(path.name))


def missing_first_segment(folder: Path, original: Original, dice: Random) -> Cost:
    path = folder / original.segments()[0]
    path.unlink()
    return Cost(DAMAGED, original.within(path.name))


def duplicated_segment(folder: Path, original: Original, dice: Random) -> Cost:
    """A copy put behind the newest: a header of another number is none."""
    names = sorted(path.name for path in folder.glob("*.seg"))
    number = int(names[-1][:10]) + 1
    (folder / f"{number:010d}-0000.seg").write_bytes((folder / dice.choice(original.segments())).read_bytes())
    return Cost(DAMAGED)


def segment_in_place_of_another(folder: Path, original: Original, dice: Random) -> Cost:
    one, other = dice.sample(original.segments()[:-1], 2)
    (folder / one).write_bytes((folder / other).read_bytes())
    return Cost(DAMAGED, original.within(one))


def swapped_segments(folder: Path, original: Original, dice: Random) -> Cost:
    one, other = dice.sample(original.segments()[:-1], 2)
    first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
    (folder / one).write_bytes(second)
    (folder / other).write_bytes(first)
    return Cost(DAMAGED, original.within(one) | original.within(other))


def segment_of_another_journal(folder: Path, original: Original, dice: Random) -> Cost:
    """One that was begun: a prepared one has no header, and belongs to nobody."""
    begun = [path for path in sorted(original.other.glob("*.seg")) if unpack_header(path.read_bytes()[:BLOCK_BYTES])]
    (folder / dice.choice(original.segments())).write_bytes(dice.choice(begun).read_bytes())
    return Cost(UNAVAILABLE, refusal="belongs to another journal")


def newer_format(folder: Path, original: Original, dice: Random) -> Cost:
    """As a version would write it that says older ones must not read it."""
    path = folder / dice.choice(original.segments())
    block = bytearray(path.read_bytes()[:BLOCK_BYTES])
    header = unpack_header(bytes(block))
    assert header is not None
    struct.pack_into(">HH", block, 8, 99, 99)
    block = bytearray(_sealed(block))
    _fill(path, 0, block)
    _fill(path, path.stat().st_size - BLOCK_BYTES, block)
    return Cost(UNAVAILABLE, refusal="needs a reader of format 99")


def _sealed(block: bytearray) -> bytes:
    """With the CRC that its writer would have given it."""
    from zbroker.store.record import crc32c

    block[12:16] = bytes(4)
    block[12:16] = crc32c(bytes(block)).to_bytes(4, "big")
    return bytes(block)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


def flipped_checkpoint(folder: Path, original: Original, dice: Random) -> Cost:
    path = dice.choice(_checkpoints(folder))
    _flip(path, dice.randrange(path.stat().st_size), dice)
    return Cost(DAMAGED)


def truncated_checkpoints(folder: Path, original: Original, dice: Random) -> Cost:
    for path in _checkpoints(folder)[1 if original.needs_checkpoints else 0 :]:
        path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])
    return Cost(DAMAGED, warns=True)


def missing_checkpoints(folder: Path, original: Original, dice: Random) -> Cost:
    for path in _checkpoints(folder)[1 if original.needs_checkpoints else dice.randrange(2) :]:
        path.unlink()
    return Cost(WHOLE)


def checkpoint_from_the_future(folder: Path, original: Original, dice: Random) -> Cost:
    """Of a broker that went on with a copy of the folder."""
    newest = _checkpoints(original.later)[-1]
    assert newest.name not in {path.name for path in _checkpoints(folder)}
    (folder / newest.name).write_bytes(newest.read_bytes())
    return Cost(DAMAGED, None, warns=True, is_slow=True)


def checkpoint_under_another_name(folder: Path, original: Original, dice: Random) -> Cost:
    """An old one that pretends to be the newest."""
    older, newest = _checkpoints(folder)[-2:]
    newest.write_bytes(older.read_bytes())
    return Cost(WHOLE)


def checkpoint_of_another_journal(folder: Path, original: Original, dice: Random) -> Cost:
    newest = _checkpoints(folder)[-1]
    newest.write_bytes(_checkpoints(original.other)[-1].read_bytes())
    return Cost(DAMAGED)


def _indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.idx"))


def flipped_indexes(folder: Path, original: Original, dice: Random) -> Cost:
    for path in _indexes(folder):
        _flip(path, dice.randrange(path.stat().st_size), dice)
    return Cost(WHOLE)


def truncated_and_missing_indexes(folder: Path, original: Original, dice: Random) -> Cost:
    for path in _indexes(folder):
        if dice.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: dice.randrange(path.stat().st_size)])
    return Cost(WHOLE)


def indexes_of_others(folder: Path, original: Original, dice: Random) -> Cost:
    """Each takes the next one's place."""
    paths = _indexes(folder)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    return Cost(WHOLE)


def half_of_each_file(folder: Path, original: Original, dice: Random) -> Cost:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return Cost(DAMAGED, None, warns=True, is_silent=True)


def half_of_the_files(folder: Path, original: Original, dice: Random) -> Cost:
    """As a copy in the order of names leaves it that broke off: the newest segments and all checkpoints are not there."""
    names = original.segments()
    for path in [*map(folder.joinpath, names[len(names) // 2 :]), folder / "LOCK", *_checkpoints(folder)]:
        path.unlink(missing_ok=True)
    for path in folder.glob("*.seg"):
        if path.name not in names:
            path.unlink()  # prepared
    return Cost(DAMAGED if original.needs_checkpoints else WHOLE, None, is_silent=True)


def without_lock_and_ballast(folder: Path, original: Original, dice: Random) -> Cost:
    (folder / "LOCK").unlink()
    (folder / "ballast").unlink(missing_ok=True)
    (folder / "checkpoint.tmp").write_bytes(dice.randbytes(10_000))
    return Cost(WHOLE)


def everything_a_little(folder: Path, original: Original, dice: Random) -> Cost:
    """Bits, all over: there is nothing that it may not cost, but each loss is told of."""
    for path in _files(folder):
        for _ in range(dice.randint(0, 4)):
            _flip(path, dice.randrange(path.stat().st_size), dice)
    return Cost(DAMAGED, None, is_silent=True)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.stat().st_size and path.name != "ballast":
            yield path


SINGLE: Final[list[Kind]] = [
    flipped_header,
    flipped_body,
    zeroed_blocks,
    garbage,
    one_segment_header,
    both_segment_headers,
    newest_segment_headers,
    truncated_segment,
    truncated_newest_segment,
    missing_segment,
    missing_first_segment,
    duplicated_segment,
    segment_in_place_of_another,
    swapped_segments,
    segment_of_another_journal,
    newer_format,
    flipped_checkpoint,
    truncated_checkpoints,
    missing_checkpoints,
    checkpoint_from_the_future,
    checkpoint_under_another_name,
    checkpoint_of_another_journal,
    flipped_indexes,
    truncated_and_missing_indexes,
    indexes_of_others,
    half_of_each_file,
    half_of_the_files,
    without_lock_and_ballast,
    everything_a_little,
]

# Where a whole file is gone a broker looks half a minute for each of its records, in case it was compacted meanwhile.
SLOW: Final[list[Kind]] = [
    missing_segment,
    missing_first_segment,
    segment_in_place_of_another,
    swapped_segments,
    checkpoint_from_the_future,
    half_of_the_files,
    everything_a_little,
]
