"""The library's warnings in a command: with our name before them, at once, and not again at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from patterns.wire.errors import Unavailable
from zbroker.cli.command import ClientCommand
from zbroker.cli.exits import UNAVAILABLE

NOBODY = "no broker answers at zb://a:7700: nobody listens at zb://a:7700; is it running?"


def run(callback: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as ended:
        ClientCommand("c", callback=callback).main([], standalone_mode=False)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def failing(warning: str, error: str) -> Callable[[], None]:
    def callback() -> None:
        logging.getLogger("zbroker").warning("%s", warning)
        raise Unavailable(error)

    return callback


def test_what_was_said_early_is_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(failing(NOBODY, NOBODY)) == UNAVAILABLE
    assert capsys.readouterr().err == f"zbroker: {NOBODY}\n"


def test_an_end_for_another_reason_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(failing(NOBODY, "the broker hangs up")) == UNAVAILABLE
    assert capsys.readouterr().err == f"zbroker: {NOBODY}\nzbroker: the broker hangs up\n"


def test_a_reason_that_was_said_is_left_off_the_end_of_what_follows_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    def callback() -> None:
        logging.getLogger("zbroker.keeper").warning("%s", NOBODY)
        logging.getLogger("zbroker.publisher").warning("one message is lost: %s", NOBODY)
        raise Unavailable(NOBODY)

    assert run(callback) == UNAVAILABLE
    assert capsys.readouterr().err == f"zbroker: {NOBODY}\nzbroker: one message is lost\n"


def test_an_error_that_was_said_as_a_reason_is_not_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(failing(f"one message is lost: {NOBODY}", NOBODY)) == UNAVAILABLE
    assert capsys.readouterr().err == f"zbroker: one message is lost: {NOBODY}\n"


def test_a_warning_of_a_part_of_the_library_is_one_clean_line(capsys: pytest.CaptureFixture[str]) -> None:
    def callback() -> None:
        logging.getLogger("zbroker.producer").warning("left out; the first: %s", "\x1b[2J\nforged")

    ClientCommand("c", callback=callback).main([], standalone_mode=False)
    assert capsys.readouterr().err == "zbroker: left out; the first: \\x1b[2J\\nforged\n"


def test_after_the_command_the_log_is_as_it_was() -> None:
    handlers = list(logging.getLogger("zbroker").handlers)
    run(failing(NOBODY, NOBODY))
    assert logging.getLogger("zbroker").handlers == handlers
