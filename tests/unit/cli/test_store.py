"""`zbroker store`: what it says of folders, and with which exit status."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from patterns.wire.records import Position, Record, RecordKind
from zbroker.cli.store import store
from zbroker.store.journal import FileJournal
from zbroker.store.os_disk import OsDisk


def written(folder: Path, count: int = 3) -> list[Position]:
    journal = FileJournal(OsDisk(), str(folder), segment_bytes=64 << 10, random_bytes=os.urandom, wall_ms=lambda: 0)
    opened = journal.open(lambda record, position: None)
    places = [
        journal.append(Record(opened.next_index + n, RecordKind.APPEND, 1, 10 * n, 10, b"", b"x" * 5000))
        for n in range(count)
    ]
    journal.close()
    return places


def run(*arguments: object) -> Result:
    return CliRunner().invoke(store, [str(one) for one in arguments])


def rot(folder: Path, place: Position, at: int) -> None:
    name = next(path for path in folder.glob("*.seg") if int(path.name[:10]) == place.segment)
    with name.open("r+b") as file:
        file.seek(place.offset + at)
        byte = file.read(1)[0]
        file.seek(place.offset + at)
        file.write(bytes([byte ^ 1]))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_whole_folder_ends_with_0(tmp_path: Path) -> None:
    written(tmp_path)
    before = content(tmp_path)
    result = run("verify", tmp_path)
    assert result.exit_code == 0
    assert "0000000001-0000.seg  whole     records 1..3" in result.output
    assert "whole, 3 records" in result.output
    assert content(tmp_path) == before


def test_damage_is_told_with_its_offsets_and_ends_with_10(tmp_path: Path) -> None:
    places = written(tmp_path)
    rot(tmp_path, places[1], 100)
    before = content(tmp_path)
    result = run("verify", tmp_path)
    assert result.exit_code == 10
    assert "records 2..2 lost" in result.output
    assert "offsets 10..19 of stream 1" in result.output
    assert content(tmp_path) == before
    found = json.loads(run("verify", tmp_path, "--json").stdout.splitlines()[0])
    assert found["whole"] is False
    assert [(hole["first_index"], hole["last_index"]) for hole in found["damage"]] == [(2, 2)]


def test_a_segment_of_half_its_length_is_told(tmp_path: Path) -> None:
    written(tmp_path)
    segment = tmp_path / "0000000001-0000.seg"
    os.truncate(segment, 32 << 10)
    result = run("verify", tmp_path)
    assert result.exit_code == 10
    assert "a copy that broke off" in result.output


@pytest.mark.parametrize("what", ["absent", "empty", "a file", "foreign segment"])
def test_what_is_no_journal_ends_with_69_and_one_line(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    if what == "a file":
        folder.write_text("thesis")
    elif what != "absent":
        folder.mkdir()
    if what == "foreign segment":
        written(folder)
        written(tmp_path / "other")
        os.rename(tmp_path / "other" / "0000000001-0000.seg", folder / "0000000007-0000.seg")
    result = run("verify", folder)
    assert result.exit_code == 69
    assert result.stderr.count("\n") == 1
    assert str(folder) in result.stderr


def test_a_folder_that_somebody_writes_to_is_refused(tmp_path: Path) -> None:
    journal = FileJournal(OsDisk(), str(tmp_path), segment_bytes=64 << 10, random_bytes=os.urandom, wall_ms=lambda: 0)
    journal.open(lambda record, position: None)
    result = run("verify", tmp_path)
    assert result.exit_code == 69
    assert "locked by another process" in result.stderr
    journal.close()
    assert run("verify", tmp_path).exit_code == 0


def test_a_backup_is_a_folder_that_opens_and_a_target_that_exists_is_left_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "data", tmp_path / "backup"
    written(source)
    result = run("backup", source, target, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["next_index"] == 4
    assert run("verify", target).exit_code == 0
    again = run("backup", source, target)
    assert again.exit_code == 69
    assert "there already" in again.stderr


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    with lines.open("wb") as file:
        file.write(b'{"stream":"s","body":1}\n{"stream":"s","body":"')
        file.truncate(1 << 30)
    result = run("import", tmp_path / "data", lines)
    assert result.exit_code == 1
    assert "line 2: longer than 8388608 bytes" in result.output
    assert "1 message before it stored" in result.output


def test_an_import_that_fills_the_disk_says_how_many_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lines, body = tmp_path / "data", tmp_path / "lines", "x" * 1_000_000
    lines.write_text("".join(json.dumps({"stream": "s", "body": body}) + "\n" for _ in range(100)))
    allocate, made = OsDisk.fallocate, 0

    def one_only(self: OsDisk, handle: int, length: int) -> None:
        nonlocal made
        made += 1
        if made > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(self, handle, length)

    monkeypatch.setattr(OsDisk, "fallocate", one_only)
    result = run("import", folder, lines)
    monkeypatch.undo()
    assert result.exit_code == 69
    stored = len(run("export", folder).stdout.splitlines())
    assert 0 < stored < 100
    assert f"{stored} messages stored before: go on with the next one" in result.output
