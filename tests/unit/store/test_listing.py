"""Which files are segments, and whose."""

from random import Random

import pytest

from zbroker.store.faults import NotOurs
from zbroker.store.journal import FileJournal
from zbroker.store.listing import cut_short, list_segments
from zbroker.store.segment import STRAY_ABOVE, segment_name
from zbroker.testing.disk import VirtualDisk


def journal_in(disk: VirtualDisk, folder: str, seed: int) -> None:
    journal = FileJournal(disk, folder, segment_bytes=64 << 10, random_bytes=Random(seed).randbytes, wall_ms=lambda: 0)
    journal.open(lambda record, position: None)
    journal.close()


def test_other_files_are_passed_over_and_a_prepared_segment_is_blank() -> None:
    disk = VirtualDisk()
    journal_in(disk, "/j", 1)
    disk.open("/j/notes.txt", create=True)
    handle = disk.open(f"/j/{segment_name(2)}", create=True)
    disk.fallocate(handle, 64 << 10)
    files = list_segments(disk, "/j")
    assert [(file.number, file.header is not None, file.is_blank) for file in files] == [
        (1, True, False),
        (2, False, True),
    ]


def test_a_segment_that_was_not_copied_to_its_end_is_told() -> None:
    disk = VirtualDisk()
    journal_in(disk, "/j", 1)
    files = list_segments(disk, "/j")
    assert cut_short(files) == []
    files[0].size -= 1
    assert "65535 of its 65536 bytes" in cut_short(files)[0]


def test_a_segment_of_another_journal_is_refused() -> None:
    disk = VirtualDisk()
    journal_in(disk, "/j", 1)
    journal_in(disk, "/k", 2)
    disk.fallocate(disk.open(f"/k/{segment_name(2)}", create=True), 64 << 10)
    journal_in(disk, "/k", 3)
    disk.link(f"/k/{segment_name(2)}", f"/j/{segment_name(2)}")
    with pytest.raises(NotOurs, match="another journal"):
        list_segments(disk, "/j")


def test_a_generation_that_is_not_whole_gives_way_to_the_one_before() -> None:
    disk = VirtualDisk()
    journal_in(disk, "/j", 1)
    disk.close(disk.open(f"/j/{segment_name(1, 1)}", create=True))
    file = list_segments(disk, "/j")[0]
    assert (file.generation, file.superseded) == (0, [f"/j/{segment_name(1, 1)}"])
    assert file.header is not None


@pytest.mark.parametrize(("number", "is_refused"), [(2, False), (1 + STRAY_ABOVE, False), (2 + STRAY_ABOVE, True)])
def test_a_copy_under_a_number_far_above_all_others_is_refused(number: int, is_refused: bool) -> None:
    disk = VirtualDisk()
    journal_in(disk, "/j", 1)
    disk.link(f"/j/{segment_name(1)}", f"/j/{segment_name(number)}")
    if is_refused:
        with pytest.raises(
            NotOurs, match=f"{segment_name(number)}, a copy of segment 1 under a wrong name; nothing was"
        ):
            list_segments(disk, "/j")
    else:
        assert [(file.number, file.header is None) for file in list_segments(disk, "/j")] == [
            (1, False),
            (number, True),
        ]


def test_a_segment_of_a_number_that_no_journal_reaches_is_refused() -> None:
    disk = VirtualDisk()
    journal_in(disk, "/j", 1)
    disk.close(disk.open(f"/j/{segment_name(9_999_999_999)}", create=True))
    with pytest.raises(NotOurs, match="of a number that no journal reaches"):
        list_segments(disk, "/j")
