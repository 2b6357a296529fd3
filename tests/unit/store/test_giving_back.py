"""Space of what died goes back to a disk on which nobody writes any more, be it because it is full."""

import errno

import pytest

from patterns.wire.records import Record, RecordKind
from tests.unit.store.halved import FOLDER, Halved
from zbroker.store import checkpoint
from zbroker.store.checkpoint import parse_checkpoint_name
from zbroker.store.journal import GIVE_BACK_US

S = 1_000_000


def filled(monkeypatch: pytest.MonkeyPatch) -> Halved:
    """Segments without any checkpoint, and none that is due for their length."""
    world = Halved(monkeypatch)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 1_000_000)
    world.fill(600)
    assert len(world.segments) > 4
    return world


def idle(world: Halved, seconds: int, *, engine_marks: bool = True) -> int:
    """So long nobody writes, but for what an engine says behind a checkpoint; returns how many of these were made."""
    made = 0
    for _ in range(seconds):
        world.now += S
        world.journal.handle_timeout(world.now)
        world.tidy()
        if world.journal.checkpoint_due:
            made += 1
            world.checkpoint()
            if engine_marks:
                world.journal.append(Record(world.next, RecordKind.OPS, payload=b"none"))
                world.next += 1
                world.journal.commit(world.now)
    return made


def everything(world: Halved) -> list[tuple[int, int, int]]:
    upto = max(base for stream, base in world.bodies if stream == 7)
    return [(7, 0, upto), (8, 0, upto * 100 + 99), (9, 0, upto)]


def checkpoints(world: Halved) -> list[int]:
    return [index for name in world.disk.listdir(FOLDER) if (index := parse_checkpoint_name(name))]


def test_dead_segments_go_though_nobody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(monkeypatch)
    world.journal.forget(everything(world))
    assert 2 <= idle(world, 10 * GIVE_BACK_US // S) <= 3
    assert [number for number, _ in world.segments] == [world.journal.number]
    assert len(checkpoints(world)) == 2


def test_half_dead_segments_are_compacted_though_nobody_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(monkeypatch)
    world.forget()
    before = world.size
    made = idle(world, 10 * GIVE_BACK_US // S)
    assert 2 <= made <= 3
    assert world.size < before * 3 // 4
    assert idle(world, 10 * GIVE_BACK_US // S) == 0
    world.check()


def test_a_full_disk_is_healed_within_seconds_by_what_died(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(monkeypatch)

    def refuse(handle: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(world.disk, "fallocate", refuse)
        while not world.journal.full:
            world.fill(1)
        world.journal.forget(everything(world))
        idle(world, 4)
        assert len(world.segments) <= 2
    idle(world, 2)
    assert not world.journal.full


def test_a_disk_without_space_for_a_checkpoint_is_not_asked_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(monkeypatch)
    world.journal.forget(everything(world))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(world.journal._checkpoints, "begin", refuse)
        patch.setattr(type(world.journal), "full", True)
        assert 2 <= idle(world, 4 * GIVE_BACK_US // S) <= 5
    idle(world, 4 * GIVE_BACK_US // S)
    assert world.segments[0][0] == world.journal.number


def test_two_checkpoints_are_kept_where_no_record_comes_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(monkeypatch)
    world.checkpoint()
    world.fill(1)
    world.journal.forget(everything(world))
    assert idle(world, 10 * GIVE_BACK_US // S, engine_marks=False) == 1
    assert len(checkpoints(world)) == 2


def test_none_is_begun_before_all_of_the_one_that_was_given_up_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(monkeypatch)
    world.journal.forget(everything(world))

    def refuse(path: str, *, create: bool = False) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(world.disk, "open", refuse)
        full, _ = world.journal.begin_checkpoint()  # it is given up at once, and whoever cuts it hears nothing of that
    for _ in range(2 * GIVE_BACK_US // S):
        world.now += S
        world.journal.handle_timeout(world.now)
        world.tidy()
        assert not world.journal.checkpoint_due
    for segment in [*full, 0]:
        world.journal.put_checkpoint(b"of the one that was given up", segment)
    world.journal.end_checkpoint(world.next - 1)
    assert idle(world, 10 * GIVE_BACK_US // S) >= 2


def test_right_after_an_open_none_is_due_for_the_length_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(monkeypatch)
    world.journal.close()
    monkeypatch.setattr(checkpoint, "CHECKPOINT_RECORDS", 30)
    world.open()
    assert not world.journal.checkpoint_due
    world.append(7, 10_000, b"x")
    world.journal.commit(world.now)
    assert world.journal.checkpoint_due
