"""Words for people: printable, on one line, cut."""

from __future__ import annotations

import pytest

from patterns.wire.errors import HandlerFailed, ZbrokerError
from zbroker.cli.command import ClientCommand
from zbroker.cli.words import cleaned, columns_of, fitted, say, size_of, time_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("one\r\ntwo\ttab", r"one\r\ntwo\ttab"),
        ("\x9b5m \x7f", r"\x9b5m \x7f"),
        ("\u202eabc\u200b\u2028\ufeff", r"\u202eabc\u200b\u2028\ufeff"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        ("ünï 漢字 …", "ünï 漢字 …"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_act_on_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert cleaned(text) == shown


def test_a_long_text_is_cut() -> None:
    assert cleaned("a" * 1_000) == "a" * 1_000
    assert cleaned("a" * 5_000_000) == "a" * 1_000 + "…"
    assert cleaned("\x00" * 1_000) == (r"\x00" * 250) + "…"


def test_a_fitted_text_is_cut_to_its_columns() -> None:
    assert fitted("a\x1b[2Jb\n", 20) == r"a\x1b[2Jb\n"
    assert fitted("漢字漢字", 5) == "漢字…"
    assert fitted("abc", 0) == ""
    assert columns_of("漢字e\u0301") == 5


def test_what_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nzbroker: forged\x1b[2J")
    assert capsys.readouterr().err == "zbroker: a\\nzbroker: forged\\x1b[2J\n"


@pytest.mark.parametrize("error", [HandlerFailed("\x1b]0;owned\x07\nforged", code="\x1b[7mcode\nzbroker: x")])
def test_an_error_that_a_peer_wrote_is_one_printable_line(
    error: ZbrokerError, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit):
        ClientCommand("fail", callback=fail).main([], standalone_mode=False)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert line.startswith(r"zbroker: \x1b[7mcode\nzbroker: x: \x1b]0;owned")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1_023, "1023 B"), (1_024, "1 KiB"), (1_536, "1.5 KiB"), (10_239, "10 KiB"), ((1 << 20) - 1, "1024 KiB"),
     (1 << 20, "1 MiB"), (64 << 20, "64 MiB"), (3 << 40, "3 TiB"), (1 << 62, "4194304 TiB")],
)  # fmt: skip
def test_bytes_are_shown_in_units(count: int, shown: str) -> None:
    assert size_of(count) == shown


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [(0, "0 us"), (850, "850 us"), (1_500, "1.5 ms"), (12_400, "12 ms"), (2_000_000, "2 s"), (59_900_000, "60 s"),
     (60_000_000, "1 min 0 s"), (93_784_000_000, "1 d 2 h 3 min 4 s")],
)  # fmt: skip
def test_durations_are_shown_in_units(microseconds: int, shown: str) -> None:
    assert time_of(microseconds) == shown
