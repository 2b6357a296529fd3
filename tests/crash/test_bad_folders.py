"""Folders that no journal can be read from, or not all of it: what each command and a broker say and exit with, and that no byte changes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from patterns.sync import Producer
from tests.crash.audit import READY_S, SMALL, status_of
from tests.processes import Broker, Program, until
from zbroker.cli.store import store
from zbroker.store.record import crc32c
from zbroker.store.segment import BLOCK_BYTES

WHOLE, DAMAGED, UNAVAILABLE = 0, 10, 69
Said = dict[str, tuple[int, str]]  # by command: exit status, and words
LINE = b'{"stream": "s", "body": 1}\n'


def _life(above: Path) -> None:
    """Messages until another checkpoint is there."""
    with Broker(above, environment=SMALL, ready_s=READY_S) as broker:
        before = set(broker.data.glob("checkpoint-*"))
        with Producer(broker.url, "s", codec="raw", timeout_s=30) as out:
            until(lambda: bool(out.send(bytes(40_000))) and bool(set(broker.data.glob("checkpoint-*")) - before))
        assert broker.terminate() == 0


@dataclass(frozen=True)
class Journals:
    """A broker's folder of several segments, the same one a life later, and one of another journal."""

    this: Path
    later: Path
    other: Path


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> Journals:
    above = tmp_path_factory.mktemp("journals")
    for name in ("this", "other"):
        (above / name).mkdir()
        _life(above / name)
    shutil.copytree(above / "this", above / "later")
    _life(above / "later")
    return Journals(*(above / name / "data" for name in ("this", "later", "other")))


def _segments(data: Path) -> list[Path]:
    """Those that were begun."""
    return [path for path in sorted(data.glob("*.seg")) if path.read_bytes()[:BLOCK_BYTES].strip(b"\0")]


# -- what is wrong with a folder ----------------------------------------------------------------------------------


def not_ours(data: Path, journals: Journals) -> None:
    shutil.rmtree(data)
    data.mkdir()
    (data / "thesis.txt").write_text("thesis")


def newer_format(data: Path, journals: Journals) -> None:
    path = _segments(data)[-1]
    block = bytearray(path.read_bytes()[:BLOCK_BYTES])
    struct.pack_into(">HH", block, 8, 99, 99)
    block[12:16] = bytes(4)
    block[12:16] = crc32c(bytes(block)).to_bytes(4, "big")
    with path.open("r+b") as file:
        file.write(block)
        file.seek(-BLOCK_BYTES, os.SEEK_END)
        file.write(block)


def segment_of_another(data: Path, journals: Journals) -> None:
    shutil.copy(_segments(journals.other)[0], _segments(data)[0])


def without_locks(data: Path, journals: Journals) -> None:
    """What is wrong is the file system: `_without_locks`, and a folder `switches` for a broker's processes."""


def half_of_each_file(data: Path, journals: Journals) -> None:
    for path in data.iterdir():
        os.truncate(path, path.stat().st_size // 2)


def half_of_the_files(data: Path, journals: Journals) -> None:
    """As a copy leaves it that broke off, in the order of names."""
    for path in [*_segments(data)[1:], data / "LOCK", *data.glob("checkpoint-*")]:
        path.unlink()


def without_an_old_segment(data: Path, journals: Journals) -> None:
    _segments(data)[0].unlink()


def checkpoint_from_the_future(data: Path, journals: Journals) -> None:
    newest = max(journals.later.glob("checkpoint-*"))
    assert newest.name not in os.listdir(data)
    shutil.copy(newest, data)


@dataclass(frozen=True)
class Case:
    """What every command says, but for those in `other`. `starts`: a broker does, and warns with `words`."""

    do: Callable[[Path, Journals], None]
    status: int
    words: str
    other: Said = field(default_factory=dict)
    starts: bool = False


NO_JOURNAL = (UNAVAILABLE, "has no journal in it; nothing was changed. Check its path")
REFUSED = [
    Case(
        not_ours,
        *NO_JOURNAL,
        {"import": (UNAVAILABLE, "other files such as thesis.txt; nothing was changed. Name an empty")},
    ),
    Case(
        newer_format,
        UNAVAILABLE,
        "needs a reader of format 99, this one reads 3; nothing was changed. Run the newer zbroker",
    ),
    Case(
        segment_of_another,
        UNAVAILABLE,
        "belongs to another journal; nothing was changed. Name an empty folder, or move",
    ),
    Case(without_locks, UNAVAILABLE, "without file locks", {"backup": (WHOLE, "")}),
]
TAKEN = [
    Case(half_of_each_file, DAMAGED, "damaged", {"backup": (WHOLE, ""), "import": (WHOLE, "broke off")}, starts=True),
    Case(
        without_an_old_segment,
        DAMAGED,
        "damaged",
        {"backup": (WHOLE, ""), "import": (WHOLE, "was damaged before: 1 place")},
        starts=True,
    ),
    Case(
        checkpoint_from_the_future,
        DAMAGED,
        "damaged",
        {"backup": (WHOLE, ""), "import": (WHOLE, "was damaged before")},
        starts=True,
    ),
]


def _content(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data.iterdir()}


def _store(command: str, data: Path, tmp_path: Path) -> tuple[int, str]:
    """Exit status and what is said to people."""
    arguments = [command, str(data), *([str(tmp_path / "backup")] if command == "backup" else [])]
    result = CliRunner().invoke(store, arguments, input=LINE, catch_exceptions=False)
    return result.exit_code, result.output


def _is_said(case: Case, data: Path, tmp_path: Path, commands: tuple[str, ...]) -> None:
    before = _content(data)
    for command in commands:
        status, words = case.other.get(command, (case.status, case.words))
        found, said = _store(command, data, tmp_path)
        assert (found, words in said) == (status, True), f"{command}: {found}, {said}"
        assert _content(data) == before, command


def _switches(folder: Path, code: int) -> dict[str, str]:
    """An environment in whose processes the lowest call of a lock fails."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import fcntl, os\n_call = fcntl.fcntl\n"
        "def _fcntl(handle, command, *more):\n"
        f"    if command == fcntl.F_OFD_SETLK: raise OSError({code}, os.strerror({code}))\n"
        "    return _call(handle, command, *more)\n"
        "fcntl.fcntl = _fcntl\n"
    )
    return {"PYTHONPATH": f"{folder}:{SMALL['PYTHONPATH'].rpartition(':')[2]}"}


def _refuses(code: int) -> Callable[..., Any]:
    call = fcntl.fcntl

    def refusing(handle: int, command: int, *more: Any) -> Any:
        if command == fcntl.F_OFD_SETLK:
            raise OSError(code, os.strerror(code))
        return call(handle, command, *more)

    return refusing


def _broker_is_refused(data: Path, tmp_path: Path, words: str, environment: dict[str, str]) -> None:
    before = _content(data)
    run = ["-m", "zbroker", "run", "--bind", "tcp://127.0.0.1:0", "--data", str(data)]
    with Program(run, tmp_path / "refused.err", environment) as program:
        assert program.wait() == UNAVAILABLE
        assert words in program.errors
        assert "Traceback" not in program.errors
    assert _content(data) == before


COMMANDS = ("verify", "export", "backup", "import")


@pytest.mark.parametrize("has_lock", [True, False])
@pytest.mark.parametrize("case", REFUSED[:-1], ids=lambda case: case.do.__name__)
def test_what_is_refused_is_refused_by_all_with_what_to_do_and_not_a_byte_changes(
    journals: Journals, tmp_path: Path, case: Case, has_lock: bool
) -> None:
    data = shutil.copytree(journals.this, tmp_path / "data")
    case.do(data, journals)
    if not has_lock:
        (data / "LOCK").unlink(missing_ok=True)  # as in a backup
    _is_said(case, data, tmp_path, COMMANDS)
    if has_lock:
        _broker_is_refused(data, tmp_path, case.other.get("import", (0, case.words))[1], SMALL)
    assert not (tmp_path / "backup").exists()
    assert not (tmp_path / "backup.unfinished").exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
@pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="locks here are not fcntl's")
def test_a_file_system_without_locks_is_refused_with_what_to_do_and_can_be_backed_up(
    journals: Journals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    data = shutil.copytree(journals.this, tmp_path / "data")
    bare = shutil.copytree(journals.this, tmp_path / "bare")
    (bare / "LOCK").unlink()
    _broker_is_refused(data, tmp_path, "Use a local file system", _switches(tmp_path / "switches", code))
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", _refuses(code))
        _is_said(REFUSED[-1], data, tmp_path, COMMANDS)
        _is_said(REFUSED[-1], bare, tmp_path, ("verify", "export", "import"))
    assert _store("verify", tmp_path / "backup", tmp_path)[0] == WHOLE


@pytest.fixture
def read_only(journals: Journals, tmp_path: Path) -> Iterator[Path]:
    """A copy on a file system that is mounted for reading."""
    place = tmp_path / "mounted"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        shutil.copytree(journals.this, place / "data")
        if subprocess.run(["mount", "-o", "remount,ro", str(place)], capture_output=True, check=False).returncode:
            pytest.skip("remounting is not permitted here")
        yield place / "data"
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_folder_that_is_read_only_is_looked_at_exported_and_backed_up_and_nothing_is_stored_in_it(
    read_only: Path, tmp_path: Path
) -> None:
    refused = (
        UNAVAILABLE,
        "cannot be written to (Read-only file system); nothing was changed. Check its path, owner and",
    )
    _is_said(Case(not_ours, WHOLE, "", {"import": refused}), read_only, tmp_path, COMMANDS)
    _broker_is_refused(read_only, tmp_path, refused[1], SMALL)
    assert _store("verify", tmp_path / "backup", tmp_path)[0] == WHOLE


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: case.do.__name__)
def test_what_is_not_all_there_is_told_by_all_and_read_without_a_change(
    journals: Journals, tmp_path: Path, case: Case
) -> None:
    data = shutil.copytree(journals.this, tmp_path / "data")
    case.do(data, journals)
    _is_said(case, data, tmp_path, ("verify", "export", "backup"))
    assert _store("verify", tmp_path / "backup", tmp_path)[0] == DAMAGED, "what is missing is missing in a backup too"
    copy = shutil.copytree(data, tmp_path / "copy")
    status, said = _store("import", copy, tmp_path)
    assert (status, case.other["import"][1] in said) == (WHOLE, True), said
    with Broker(tmp_path, environment=SMALL, ready_s=READY_S) as broker:
        assert status_of(broker.url)["warnings"], "a broker starts, and warns"


def test_half_of_the_files_is_a_folder_that_nobody_can_tell_from_an_older_one(
    journals: Journals, tmp_path: Path
) -> None:
    """FORMAT.md 8.3."""
    data = shutil.copytree(journals.this, tmp_path / "data")
    half_of_the_files(data, journals)
    _is_said(Case(half_of_the_files, WHOLE, ""), data, tmp_path, ("verify", "export", "backup"))


@pytest.mark.parametrize("since_1970_s", [5, 4_102_444_805], ids=["1970", "2100"])
def test_whatever_the_clock_says_what_is_imported_is_exported_and_whole(
    journals: Journals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since_1970_s: int
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: since_1970_s * 10**9)
    data = shutil.copytree(journals.this, tmp_path / "data")
    assert _store("import", data, tmp_path)[0] == WHOLE
    before = _content(data)
    status, said = _store("export", data, tmp_path)
    assert (status, '"body":1' in said.splitlines()[-1]) == (WHOLE, True), said.splitlines()[-1][-200:]
    assert [_store(command, data, tmp_path)[0] for command in ("verify", "backup")] == [WHOLE, WHOLE]
    assert _content(data) == before
