"""Commands whose standard streams are closed or lead to a full disk: a line where there is room for one, and a status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
INPUT, OUTPUT, ERROR = 0, 1, 2
ZBROKER = f"{sys.executable} -m zbroker"
NEEDS_FULL = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")


def ended(command: str, **environment: str) -> tuple[int, str, str]:
    """Run by a shell, which knows how to close a stream: status, output, words."""
    variables = {**os.environ, "ZBROKER_URL": "tcp://127.0.0.1:9", **environment}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, env=variables, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "run --help", "completion bash"])
@pytest.mark.parametrize("where", [">&-", pytest.param("> /dev/full", marks=NEEDS_FULL)])
def test_output_that_nobody_takes_is_a_line_and_a_status(where: str, command: str, unbuffered: str) -> None:
    status, _, words = ended(f"{ZBROKER} {command} {where}", PYTHONUNBUFFERED=unbuffered)
    assert status == 74
    assert words.startswith("zbroker: standard output takes no more (")
    assert words.count("\n") == 1


@pytest.mark.parametrize("where", ["2>&-", pytest.param("2> /dev/full", marks=NEEDS_FULL)])
def test_words_that_nobody_takes_change_no_status(where: str) -> None:
    assert ended(f"{ZBROKER} no-such-command {where}")[0] == 2
    status, output, _ = ended(f"{ZBROKER} --version {where}")
    assert (status, output.startswith("zbroker")) == (0, True)


def test_input_that_is_closed_is_a_line_and_a_status() -> None:
    status, _, words = ended(f"{ZBROKER} pub a.b - --wait-for-subscribers 0 <&-")
    assert (status, words) == (74, "zbroker: standard input cannot be read (Bad file descriptor)\n")


@NEEDS_FULL
def test_everything_closed_is_a_status() -> None:
    assert ended(f"{ZBROKER} --version <&- >&- 2>&-")[0] == 74
    assert ended(f"{ZBROKER} --version > /dev/full 2> /dev/full")[0] == 74


@pytest.mark.parametrize("number", [INPUT, OUTPUT, ERROR])
def test_a_stream_that_is_closed_gives_its_number_to_nobody(number: int) -> None:
    look = f"import os; os.close({number}); from zbroker.cli.standard_streams import set_up; set_up(); "
    look += "made = os.open(os.devnull, os.O_RDONLY); raise SystemExit(0 if made > 2 else 1)"
    assert subprocess.run([sys.executable, "-c", look], check=False, timeout=60).returncode == 0


def test_a_stream_that_is_well_keeps_its_encoding() -> None:
    look = "import sys; before = sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering; "
    look += "from zbroker.cli.standard_streams import set_up; set_up(); "
    look += "assert before == (sys.stdout.encoding, sys.stdout.errors, sys.stdout.line_buffering); print('\\u00e9')"
    done = subprocess.run(
        [sys.executable, "-c", look],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (done.returncode, done.stdout) == (0, b"\xe9\n")
