"""Each error of the tree ends a command with one status."""

import re
from pathlib import Path

import pytest

from patterns.wire import errors
from patterns.wire.errors import BY_NUMBER, ZbrokerError, from_wire
from zbroker.cli import exits
from zbroker.cli.exits import FAILED, REFUSED, TIMED_OUT, UNAVAILABLE, USAGE, end, status_of
from zbroker.cli.main import main

EXPECTED = {
    TIMED_OUT: {"TIMED_OUT"},
    USAGE: {"BAD_NAME", "BAD_ADDRESS", "BAD_ARGUMENT"},
    UNAVAILABLE: {
        "UNAVAILABLE", "NO_SESSION", "NO_REPLIER", "OVERLOADED", "BUFFER_FULL", "SHUTTING_DOWN",
        "STORAGE_FAILED", "STORAGE_FULL", "STREAM_FULL",
    },
    REFUSED: {
        "INSECURE", "FENCED", "NOT_PERMITTED", "NOT_IN_THIS_DEPLOYMENT", "WRONG_ROLE", "VERSION_UNSUPPORTED",
        "FEATURE_UNSUPPORTED", "ALREADY_EXISTS",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", BY_NUMBER.values(), ids=lambda kind: kind.__name__)
def test_each_error_has_its_status(kind: type[ZbrokerError]) -> None:
    expected = next((status for status, names in EXPECTED.items() if kind.name in names), FAILED)
    if kind in (errors.LoadError, errors.StorageError):  # the classes themselves, for numbers yet unknown
        expected = UNAVAILABLE
    assert status_of(kind("x")) == expected


def test_an_unknown_number_counts_as_its_class() -> None:
    assert status_of(from_wire(467, "new")) == UNAVAILABLE
    assert status_of(from_wire(367, "new")) == FAILED


def test_end_speaks_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        end(REFUSED, "no")
    assert left.value.code == REFUSED
    assert capsys.readouterr() == ("", "zbroker: no\n")


def test_help_and_readme_list_every_status() -> None:
    ours = {0, *(value for value in vars(exits).values() if type(value) is int)}
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    told = readme[readme.index("Exit status: ") :].split("\n\n")[0]
    for text in (main.epilog or "", told):
        assert {int(number) for number in re.findall(r"\b\d+\b", text)} == ours
