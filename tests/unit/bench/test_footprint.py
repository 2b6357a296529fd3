"""What was written and what is taken up, from accounts and folders made by hand."""

from __future__ import annotations

from pathlib import Path

from zbroker.bench.footprint import allocated_in, written_in


def test_written_bytes_are_read_from_an_account(tmp_path: Path) -> None:
    (tmp_path / "io").write_text("wchar: 9\nread_bytes: 7\nwrite_bytes: 40960\ncancelled_write_bytes: 3\n")
    assert written_in(tmp_path / "io") == 40_960
    assert written_in(tmp_path / "none") is None


def test_a_folder_takes_up_what_its_files_have_of_the_disk(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "data").write_bytes(b"x" * 10_000)
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(100_000_000)
    assert 10_000 <= allocated_in(tmp_path) < 1_000_000
