"""`zbroker run` told something that cannot be: one sentence, and the exit status that says whose fault it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ZBROKER_")}
    return subprocess.run(
        [sys.executable, "-m", "zbroker", "run", "--bind", "tcp://127.0.0.1:0", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder, env={**clean, "HOME": str(folder), **environment},
    )  # fmt: skip


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What it said: a sentence, no traceback, nothing on standard output."""
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_file_where_a_folder_is_wanted_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("not ours")
    done = run("--data", f"{tmp_path}/file{below}", folder=tmp_path)
    assert done.returncode == 69
    assert f"{tmp_path}/file is not a folder" in told(done)
    assert (tmp_path / "file").read_text() == "not ours"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('bnd = "x"', "did you mean 'bind'"),
        ('log_level = "loud"', "none of debug, info, warning, error"),
        ("bind = ", "no TOML"),
    ],
)
def test_a_bad_configuration_file_is_78_and_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "zbroker.toml").write_text(text)
    done = run(folder=tmp_path)
    assert done.returncode == 78
    assert "zbroker.toml" in told(done)
    assert complaint in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_configuration_that_may_not_be_read_is_78(tmp_path: Path) -> None:
    (tmp_path / "zbroker.toml").write_text('data = "x"')
    (tmp_path / "zbroker.toml").chmod(0)
    done = run(folder=tmp_path)
    assert done.returncode == 78
    assert "Permission denied" in told(done)


def test_without_standard_error_it_serves_and_no_file_of_its_gets_that_number(tmp_path: Path) -> None:
    script = f"exec {sys.executable} -m zbroker run --bind tcp://127.0.0.1:0 --data {tmp_path}/data --json 2>&-"
    process = subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert b'"ready": true' in process.stdout.readline()
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
