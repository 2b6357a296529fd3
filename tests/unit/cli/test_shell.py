"""A command of the user's is bounded in time and size, and leaves nothing behind."""

import pytest

from patterns.wire.errors import ApplicationError, TooLarge
from zbroker.cli.shell import run, run_lines


def test_standard_output_is_the_result() -> None:
    assert run("cat; echo ignored >&2", b'{"a":1}', 10) == b'{"a":1}'


def test_a_command_that_does_not_read_is_no_fault() -> None:
    assert run("echo 7", b"x" * 1_000_000, 10) == b"7\n"


def test_failure_carries_the_tail_of_standard_error() -> None:
    with pytest.raises(ApplicationError) as caught:
        run("yes no | head -n 40000 >&2; echo why >&2; exit 3", b"", 10)
    assert caught.value.code == "exit_3"
    assert caught.value.detail.endswith("no\nwhy")
    assert len(caught.value.detail) < 3_000


def test_a_signal_is_named() -> None:
    with pytest.raises(ApplicationError) as caught:
        run("kill -9 $$", b"", 10)
    assert caught.value.code == "signal_9"


def test_a_command_that_takes_too_long_is_killed_with_its_children() -> None:
    with pytest.raises(ApplicationError) as caught:
        run("sleep 1000 & sleep 1000", b"", 0.1)
    assert caught.value.code == "timed_out"


def test_endless_output_is_cut_off() -> None:
    with pytest.raises(TooLarge):
        run("yes", b"", 10)


def test_lines_come_one_by_one_and_the_last_needs_no_end() -> None:
    assert list(run_lines("cat; echo; printf 'b\\nc'", b"a", lambda: True)) == [b"a", b"b", b"c"]


def test_a_failure_comes_after_the_lines() -> None:
    lines = run_lines("echo 1; echo why >&2; exit 3", b"", lambda: True)
    assert next(lines) == b"1"
    with pytest.raises(ApplicationError, match="why") as caught:
        next(lines)
    assert caught.value.code == "exit_3"


def test_who_stops_asking_stops_the_command() -> None:
    lines = run_lines("yes", b"", lambda: True)
    assert next(lines) == b"y"
    lines.close()
    assert list(run_lines("sleep 1000", b"", lambda: False)) == []
    left = iter([True, True, False])
    assert list(run_lines("exec >&- 2>&-; sleep 1000", b"", lambda: next(left))) == []


def test_a_line_without_an_end_is_cut_off() -> None:
    with pytest.raises(TooLarge):
        list(run_lines("tr '\\0' x < /dev/zero", b"", lambda: True))
