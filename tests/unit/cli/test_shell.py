"""A command of the user's is bounded in time and size, and leaves nothing behind."""

import pytest

from patterns.wire.errors import ApplicationError, TooLarge
from zbroker.cli.shell import run


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
