"""One compaction: what is kept, what is left alone, and each call in turn as the last one before the lights go out."""

import errno
from random import Random

import pytest

from patterns.wire.records import RecordKind
from tests.unit.store.halved import COMPACTED, FIRST, FOLDER, Halved
from zbroker.store.compacted import look_through
from zbroker.store.compaction import DRAFT
from zbroker.store.listing import list_segments
from zbroker.store.reader import RecordReader
from zbroker.store.segment import parse_name
from zbroker.store.verify import verify_folder
from zbroker.testing.disk import PowerCut


def halved(monkeypatch: pytest.MonkeyPatch) -> Halved:
    world = Halved(monkeypatch)
    world.fill()
    world.forget()
    return world


def test_what_is_wanted_stays_and_the_file_shrinks_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    before = world.size
    world.tidy()
    world.check()
    assert {generation for _, generation in world.segments} == {0, 1}
    status = world.journal.status()
    assert status["segments_compacted"] == sum(generation for _, generation in world.segments)
    assert before - world.size == status["reclaimed_bytes"]


def test_records_are_batches_in_the_order_of_streams_and_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    world.tidy()
    file = list_segments(world.disk, FOLDER)[0]
    assert file.generation == 1
    assert file.header is not None
    seen: list[tuple[int, int, int, int]] = []
    content = look_through(
        world.disk,
        file.path,
        file.size,
        file.header,
        lambda record, position: seen.append((record.kind, record.stream_id, record.base_offset, record.count)),
    )
    assert content.is_whole
    assert seen == sorted(seen)
    assert {kind for kind, *_ in seen} == {RecordKind.APPEND}
    assert {count for _, stream, _, count in seen if stream == 8} == {100}, "of a sliced batch too"


def test_whatever_call_is_the_last_one_before_equals_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """tmp, fsync, rename, fsync of the folder, unlink: each of them, and each write."""
    cuts = 0
    for after in range(60):
        world = halved(monkeypatch)
        world.disk.cut_after = after
        try:
            world.tidy(40)
            world.disk.cut_after = None
            world.disk.power_cut(Random(after))
        except PowerCut:
            cuts += 1
            world.disk.power_cut(Random(after))
        world.open()
        assert not world.opened.damage
        world.check()
        numbers = [number for number, _ in world.segments]
        assert len(numbers) == len(set(numbers)), "one generation of each"
        assert f"{FOLDER}/{DRAFT}" not in world.disk.live
        world.journal.close()
        assert verify_folder(world.disk, FOLDER).is_whole
    assert cuts > 20


def test_the_checker_catches_an_old_file_that_goes_before_the_folder_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may take the new name then, and keep the removal of the old one."""

    def is_lost(seed: int) -> bool:
        world = halved(monkeypatch)
        with monkeypatch.context() as planted:
            planted.setattr(world.disk, "fsync_dir", lambda path: None)
            world.tidy()
        world.disk.power_cut(Random(seed))
        world.open()
        try:
            world.check()
        except (AssertionError, KeyError):
            return True
        return bool(world.opened.damage)

    assert any(is_lost(seed) for seed in range(10))


def test_a_segment_of_which_more_than_half_is_wanted_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Halved(monkeypatch)
    for at in range(140):
        world.append(7, at, bytes(2_900))
        world.append(9, at, bytes(700))
        world.journal.commit(world.now)
        if world.journal.checkpoint_due:
            world.checkpoint()
    world.journal.forget([(9, 0, 1_000), (7, 0, 8)])
    world.tidy()
    assert {generation for _, generation in world.segments} == {0}
    assert world.journal.tidy_at is None


@pytest.mark.parametrize("what", ["header", "body", "sector"])
def test_a_damaged_segment_is_left_alone(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    place = world.places[7, 0]
    if what == "sector":
        real = world.disk.pread

        def pread(handle: int, length: int, offset: int) -> bytes:
            if world.disk._inode(handle) is world.disk.live[FIRST] and offset <= place.offset < offset + length:
                raise OSError(errno.EIO, "a bad sector")
            return real(handle, length, offset)

        monkeypatch.setattr(world.disk, "pread", pread)
    else:
        world.disk.flip_bit(FIRST, place.offset + (20 if what == "header" else 200))
    world.tidy()
    assert (1, 0) in world.segments
    assert (2, 1) in world.segments
    assert f"{FOLDER}/{DRAFT}" not in world.disk.live
    assert world.journal.status()["failed"] is None


def test_who_has_the_old_file_open_goes_on_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    reader, old = RecordReader(world.disk, FOLDER), world.places[7, 0]
    before = reader.read([old])
    world.tidy()
    assert world.places[7, 0] != old
    assert reader.read([old]) == before
    assert reader.read([world.places[7, 0]]) == before


def test_it_is_compacted_again_when_more_of_it_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    world.tidy()
    size = len(world.disk.content(COMPACTED))
    world.journal.forget([(7, 0, 10_000)])
    world.bodies = {key: body for key, body in world.bodies.items() if key[0] != 7}
    world.tidy()
    world.check()
    first = next(path for path in sorted(world.disk.live) if parse_name(path.removeprefix(f"{FOLDER}/")))
    assert first.endswith("-0002.seg")
    assert len(world.disk.content(first)) < size
    world.journal.close()
    world.open()
    assert not world.opened.damage
    world.check()
