"""Whatever is done to a folder, verify tells of the holes that the next open tells of, and of no other that this open looks at."""

import copy
import os
from collections.abc import Iterable
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.wire.records import Damage, Opened, Record
from tests.property.test_compaction import FOLDER, SEGMENT_BYTES, World, slicer
from tests.unit.store.trusting import Trusting
from zbroker.store import checkpoint, compaction, compactor
from zbroker.store.faults import JournalError
from zbroker.store.journal import FileJournal
from zbroker.store.segment import BLOCK_BYTES, parse_name
from zbroker.store.verify import FolderReport, verify_folder
from zbroker.testing.disk import VirtualDisk

LOGS = 16
EXAMPLES = 4000 if os.environ.get("ZBROKER_TEST_LONG") else 100
LENGTHS = (1, 64, 512, 4096, 3 * 4096, SEGMENT_BYTES)


@cache
def log(seed: int) -> VirtualDisk:
    """A folder of several lives with checkpoints, given back and compacted segments, as a power cut or a clean stop left it."""
    world, random = World(seed), Random(seed)
    actions = random.choices(
        ["append", "settle", "checkpoint", "tidy", "cut"], [6, seed % 5, 4, 8 * (seed % 2), 0.2], k=80
    )
    world.run([*actions, "restart", *random.choices(["append", "checkpoint"], [6, seed % 3], k=seed)])
    if seed % 4 == 3:
        world.journal.close()
    return world.image()


def opened(disk: VirtualDisk) -> tuple[Opened, int, int]:
    """What an open says; the first index that it read, and the end of what it found, behind which it tells of losses."""
    shown: list[Record] = []
    journal = FileJournal(
        disk, FOLDER, segment_bytes=SEGMENT_BYTES, random_bytes=Random(1).randbytes, wall_ms=lambda: 0, slicer=slicer
    )
    found = journal.open(lambda record, position: shown.append(record), Trusting())
    newest, begun = journal._checkpoints.newest, journal._headers[max(journal._headers)]
    journal.close()
    return found, newest.first_index if newest is not None else 1, begun.first_index


# -- damage -------------------------------------------------------------------------------------------------------


class Vandal:
    """Does to a disk what a drawn list says: each entry a verb, which file by age from both ends, where, how much."""

    def __init__(self, disk: VirtualDisk) -> None:
        self.disk = disk

    def _named(self, which: int, is_segment: bool = True) -> str | None:
        names = sorted(name for name in self.disk.live if bool(parse_name(name[len(FOLDER) + 1 :])) == is_segment)
        if not is_segment:
            names = [name for name in names if "checkpoint-" in name]
        return names[which] if -len(names) <= which < len(names) else None

    def headers(self, path: str, at: int, length: int) -> None:
        self.header(path, 0, length)
        self.header(path, 1, length)

    def header(self, path: str, at: int, length: int) -> None:
        end = max(0, len(self.disk.content(path)) - BLOCK_BYTES)
        self.disk.zero(path, end if at % 2 else 0, BLOCK_BYTES)

    def bits(self, path: str, at: int, length: int) -> None:
        size = len(self.disk.content(path))
        if size:
            self.disk.flip_bit(path, at % size, at % 8)

    def zeros(self, path: str, at: int, length: int) -> None:
        """Of what was written, more often than not."""
        size = len(self.disk.content(path).rstrip(b"\0"))
        first = at % max(1, size)
        self.disk.zero(path, first, min(length, len(self.disk.content(path)) - first))

    def tail(self, path: str, at: int, length: int) -> None:
        content = self.disk.content(path)
        end = len(content) - BLOCK_BYTES
        used = len(content[: max(0, end)].rstrip(b"\0"))
        first = max(BLOCK_BYTES, used - length)
        if first < end:
            self.disk.zero(path, first, end - first)

    def garbage(self, path: str, at: int, length: int) -> None:
        inode = self.disk.live[path]
        first = at % max(1, len(inode.cache))
        noise = Random(at).randbytes(min(length, len(inode.cache) - first))
        inode.cache[first : first + len(noise)] = noise
        inode.platter[first : first + len(noise)] = noise

    def shorter(self, path: str, at: int, length: int) -> None:
        self.disk.cut(path, at % (len(self.disk.content(path)) + 1))

    def gone(self, path: str, at: int, length: int) -> None:
        self.disk.remove(path)

    def do(self, verb: str, which: int, at: int, length: int) -> None:
        if verb == "note":
            self.disk.cut(f"{FOLDER}/LOCK", 0)
            return
        verb, _, what = verb.partition(" ")
        path = self._named(which, is_segment=what != "checkpoint")
        if path is not None:
            getattr(self, verb)(path, at, length)


VERBS = st.sampled_from(
    ["headers"] * 4
    + ["bits", "zeros", "tail", "garbage", "shorter", "gone"] * 2
    + ["header", "note", "gone checkpoint", "bits checkpoint"]
)
DAMAGE = st.lists(
    st.tuples(VERBS, st.integers(-4, 3), st.integers(0, 1 << 20), st.sampled_from(LENGTHS)), min_size=1, max_size=6
)


# -- the claim ----------------------------------------------------------------------------------------------------


def indexes(holes: Iterable[Damage]) -> list[tuple[int, int]]:
    """What they cover, joined where they touch."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted((hole.first_index, hole.last_index) for hole in holes):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def above(ranges: list[tuple[int, int]], first_index: int) -> list[tuple[int, int]]:
    return [(max(first, first_index), last) for first, last in ranges if last >= first_index]


def told(report: FolderReport) -> list[tuple[int, int]]:
    return indexes(report.damage + report.known)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 25)
    monkeypatch.setattr(compactor, "STEP_BYTES", 20 << 10)
    monkeypatch.setattr(compactor, "MOVES_A_STEP", 5)
    monkeypatch.setattr(compaction, "FLUSH_BYTES", 2 << 10)
    monkeypatch.setattr(compaction, "SYNC_BYTES", 6 << 10)


@pytest.mark.timeout(1800 if EXAMPLES > 1000 else 120)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, LOGS - 1), damage=DAMAGE)
def test_verify_and_an_open_tell_of_the_same_holes(seed: int, damage: list[tuple[str, int, int, int]]) -> None:
    disk = copy.deepcopy(log(seed))
    vandal = Vandal(disk)
    for one in damage:
        vandal.do(*one)
    try:
        report = verify_folder(disk, FOLDER)
    except JournalError as refusal:
        with pytest.raises(type(refusal)):
            opened(disk)
        return
    found, first_index, end_index = opened(disk)
    holes = indexes(found.damage)
    assert above(holes, first_index) == above(told(report), first_index)
    assert indexes([*found.damage, *report.damage, *report.known]) == told(report), "an open tells of more"
    assert report.next_index == end_index
    again = verify_folder(disk, FOLDER)
    assert told(again) == told(report), "what is lost is as much after an open"
    assert indexes(opened(disk)[0].damage) == holes
