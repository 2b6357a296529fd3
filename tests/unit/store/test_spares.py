"""Segment files ahead of need, and the ballast: first to go, first to be asked back."""

import errno

import pytest

from zbroker.store.segment import segment_name
from zbroker.store.spares import FULL_RETRY_US, Spares
from zbroker.testing.disk import VirtualDisk

BYTES = 64 << 10


def names(disk: VirtualDisk) -> set[str]:
    return {path.rpartition("/")[2] for path in disk.live}


def made(free_segments: int | None) -> tuple[VirtualDisk, Spares]:
    disk = VirtualDisk()
    disk.free_bytes = None if free_segments is None else free_segments * BYTES
    return disk, Spares(disk, "/j", BYTES)


def test_the_next_file_and_the_ballast_are_made_once() -> None:
    disk, spares = made(None)
    for _ in range(3):
        spares.prepare(2, 0)
    assert names(disk) == {segment_name(2), "ballast"}
    assert disk.calls["fallocate"] == 2
    assert (spares.full, spares.retry_at, spares.bytes) == (None, None, 2 * BYTES)


def test_without_room_for_ballast_there_is_less_in_reserve_and_that_is_all() -> None:
    disk, spares = made(1)
    spares.prepare(2, 0)
    assert spares.full is None
    assert names(disk) == {segment_name(2)}


def test_the_ballast_is_given_up_for_operations_and_producers_are_refused() -> None:
    disk, spares = made(2)
    spares.prepare(2, 0)
    assert spares.take() is not None
    disk.free_bytes = 0
    disk.unlink = _freeing(disk)  # type: ignore[method-assign]
    spares.prepare(3, 0)
    assert spares.prepared is not None
    assert "ballast was given up" in str(spares.full)
    assert "ballast" not in names(disk)
    assert spares.retry_at == FULL_RETRY_US
    disk.free_bytes = BYTES
    spares.prepare(3, FULL_RETRY_US - 1)
    assert spares.full is not None, "not yet"
    spares.prepare(3, FULL_RETRY_US)
    assert (spares.full, spares.retry_at) == (None, None)
    assert "ballast" in names(disk)


@pytest.mark.parametrize(("code", "advice"), [(errno.EFBIG, "ulimit -f"), (errno.EMFILE, "ulimit -n")])
def test_a_limit_in_the_way_is_a_want_of_space_and_says_which(code: int, advice: str) -> None:
    disk, spares = made(None)
    disk.fail("fallocate", code)
    spares.prepare(2, 0)
    assert advice in str(spares.full)
    spares.prepare(2, FULL_RETRY_US)
    assert spares.full is None


def _freeing(disk: VirtualDisk):  # type: ignore[no-untyped-def]
    def unlink(path: str) -> None:
        VirtualDisk.unlink(disk, path)
        disk.free_bytes = (disk.free_bytes or 0) + BYTES

    return unlink


def test_no_room_at_all_is_told_and_tried_again() -> None:
    disk, spares = made(0)
    spares.prepare(2, 0)
    assert spares.prepared is None
    assert "cannot be made" in str(spares.full)
    assert names(disk) == set()
    disk.free_bytes = 2 * BYTES
    spares.prepare(2, FULL_RETRY_US)
    assert spares.full is None


def test_ballast_of_an_earlier_life_counts() -> None:
    disk, spares = made(None)
    spares.prepare(2, 0)
    later = Spares(disk, "/j", BYTES)
    later.find_ballast()
    assert later.bytes == BYTES
    del disk.live["/j/ballast"].cache[100:]
    torn = Spares(disk, "/j", BYTES)
    torn.find_ballast()
    assert torn.bytes == 0
    assert "ballast" not in names(disk)


def test_what_is_no_want_of_space_is_raised_and_leaves_no_file() -> None:
    disk, spares = made(None)
    disk.fail("fallocate", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        spares.prepare(2, 0)
    assert names(disk) == set()
