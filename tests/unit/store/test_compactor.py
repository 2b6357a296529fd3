"""When compaction happens, and how it gives way: to checkpoints, to a full disk, to a failing one."""

import errno

import pytest

from tests.unit.store.halved import COMPACTED, FIRST, FOLDER, Halved
from zbroker.store import checkpoint
from zbroker.store.compaction import DRAFT
from zbroker.store.compactor import RETRY_US
from zbroker.store.faults import JournalFailed


def halved(monkeypatch: pytest.MonkeyPatch) -> Halved:
    world = Halved(monkeypatch)
    world.fill()
    world.forget()
    return world


def until_writing(world: Halved) -> None:
    while f"{FOLDER}/{DRAFT}" not in world.disk.live:
        world.tidy(1)


def test_nothing_is_done_before_there_are_two_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Halved(monkeypatch)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 1_000_000)
    world.fill()
    world.forget()
    world.tidy()
    world.checkpoint()
    world.tidy()
    assert {generation for _, generation in world.segments} == {0}
    world.fill(10)
    world.checkpoint()
    world.tidy()
    assert (1, 1) in world.segments


def test_the_old_file_stays_until_the_engine_knows_of_every_move(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    while COMPACTED not in world.disk.live:
        world.tidy(1)
    while world.places[7, 0].generation == 0:
        assert FIRST in world.disk.live
        assert not world.journal.checkpoint_due, "its indexes would mix places of two files"
        world.tidy(1)
        world.check()
    world.tidy(20)
    assert FIRST not in world.disk.live


def test_while_a_checkpoint_is_written_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    until_writing(world)
    world.journal.begin_checkpoint()
    assert world.journal.tidy_at is None
    world.journal.end_checkpoint(world.next - 1)
    for _ in range(2):
        world.journal.handle_timeout(world.now)
    world.tidy()
    world.check()
    assert (1, 1) in world.segments


@pytest.mark.parametrize("call", ["open", "pwritev", "fsync", "fdatasync", "rename", "fsync_dir"])
def test_without_space_it_is_given_up_and_tried_again(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    monkeypatch.setattr("zbroker.store.compaction.FLUSH_BYTES", 1 << 10)
    monkeypatch.setattr("zbroker.store.compaction.SYNC_BYTES", 4 << 10)
    if call == "open":
        world.tidy(1)
    else:
        until_writing(world)
    world.disk.fail(call, errno.ENOSPC)
    while world.disk.faults:
        assert world.tidy(1)
    assert f"{FOLDER}/{DRAFT}" not in world.disk.live
    assert world.journal.tidy_at == world.now + RETRY_US
    world.tidy()
    world.check()
    assert (1, 1) in world.segments


@pytest.mark.parametrize("call", ["pwritev", "fsync", "rename", "fsync_dir"])
def test_a_disk_that_fails_has_failed_for_the_log_too(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    until_writing(world)
    world.disk.fail(call, errno.EIO)
    with pytest.raises(JournalFailed):
        world.tidy()
    with pytest.raises(JournalFailed):
        world.journal.commit(0)
    assert world.journal.tidy_at is None
    world.disk.crash()
    world.open()
    world.check()


def test_what_is_half_made_gives_way_to_the_next_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    until_writing(world)
    world.disk.fail("fallocate", errno.ENOSPC)
    while world.disk.faults:
        world.append(7, 10_000 + world.next, bytes(1_000))
        world.journal.commit(world.now)
        world.bodies.clear()
    assert not world.journal.full
    assert world.journal.status()["compactions_abandoned"] == 1
    assert f"{FOLDER}/ballast" in world.disk.live


def test_status_tells_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    assert world.journal.status()["compaction"] is None
    until_writing(world)
    now = world.journal.status()["compaction"]
    assert isinstance(now, dict)
    assert now["segment"] == 1
    assert now["live_bytes"] > 0


def test_a_segment_that_ends_a_life_shrinks_to_nothing_and_still_says_where_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the life before something is wanted, of the one that followed nothing."""
    world = Halved(monkeypatch)
    world.fill(3)
    world.journal.close()
    world.open()
    second = world.journal._writer.number
    for at in range(60):
        world.append(9, 10_000 + at, bytes(900))
        world.journal.commit(world.now)
    world.fill()
    world.forget()
    world.journal.forget([(7, 3, 1_000), (8, 300, 100_000), (9, 0, 100_000)])
    world.checkpoint()
    world.fill(10)
    world.checkpoint()
    world.journal.forget([(7, 0, 1_000), (8, 300, 100_000), (9, 0, 100_000)])
    world.tidy()
    numbers = dict(world.segments)
    assert numbers[second - 1] == 1 or numbers.get(second) == 1


def test_a_segment_of_which_more_than_half_is_wanted_is_not_even_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = Halved(monkeypatch)
    for base in range(500):
        world.append(7, base, world.random.randbytes(1_000))
        if base % 12 == 0:  # a commit fills 4 KiB blocks, so small ones would be half empty
            world.journal.commit(world.now)
            if world.journal.checkpoint_due:
                world.checkpoint()
    world.journal.commit(world.now)
    world.journal.forget((7, base, base) for base in range(0, 500, 5))
    before = dict(world.disk.calls)
    world.tidy()
    assert world.disk.calls == before
    world.journal.forget((7, base, base) for base in range(500) if base % 5 != 4)
    world.tidy()
    assert (1, 1) in world.segments


def test_the_segment_in_which_the_older_checkpoint_begins_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    compactor = world.journal._compactor
    first_of = {number: header.first_index for number, header in compactor._headers.items()}
    for older, below in ((first_of[3] - 1, [1]), (first_of[3], [1]), (first_of[3] + 1, [1, 2])):
        compactor._checkpoints.older_index = older
        assert compactor._below_older() == below


def test_a_segment_with_a_hole_that_is_known_stays_as_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    world = halved(monkeypatch)
    world.journal.close()
    world.disk.flip_bit(FIRST, world.places[9, 0].offset + 100)  # of what nobody wants, so no copy would look at it
    for name in [name for name in world.disk.listdir(FOLDER) if name.startswith("checkpoint")]:
        world.disk.unlink(f"{FOLDER}/{name}")
    world.open()  # reads the whole log, and finds it
    world.fill()
    world.forget()
    world.tidy()
    assert (1, 0) in world.segments
    assert (2, 1) in world.segments
