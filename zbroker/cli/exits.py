"""Exit statuses of `zbroker` (the numbers of sysexits.h where it has one), and how a command ends with one."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

from patterns.wire import errors
from patterns.wire.errors import ZbrokerError
from zbroker.cli.words import say

FAILED: Final = 1
USAGE: Final = 2
UNHEALTHY: Final = 10
UNAVAILABLE: Final = 69
IO_FAILED: Final = 74  # of a standard stream: standard_streams.py, under all commands
TIMED_OUT: Final = 75
REFUSED: Final = 77
BAD_CONFIGURATION: Final = 78
HUNG_UP: Final = 129  # 128 + SIGHUP: the terminal went
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports a program that the signal ended
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE: what `head` leaves behind of `yes`
TERMINATED: Final = 143  # 128 + SIGTERM

# The first that an error is an instance of; what is not here FAILED. An unknown number of the wire counts as its class.
_STATUSES: Final[tuple[tuple[int, tuple[type[ZbrokerError], ...]], ...]] = (
    (TIMED_OUT, (errors.TimedOut,)),
    (USAGE, (errors.BadName, errors.BadAddress, errors.BadArgument)),
    (FAILED, (errors.CreditExceeded, errors.SlowSubscriber, errors.Damaged)),  # and no other try will help
    (
        UNAVAILABLE,
        (errors.Unavailable, errors.NoSession, errors.NoReplier, errors.LoadError, errors.StorageError),
    ),
    (
        REFUSED,
        (
            errors.Insecure, errors.Fenced, errors.NotPermitted, errors.NotInThisDeployment, errors.WrongRole, errors.AlreadyExists,
            errors.VersionUnsupported, errors.FeatureUnsupported,
        ),
    ),
)  # fmt: skip


def status_of(error: ZbrokerError) -> int:
    """The exit status that an error ends a command with."""
    for status, kinds in _STATUSES:
        if isinstance(error, kinds):
            return status
    return FAILED


def end(status: int, text: str) -> NoReturn:
    """Say why on standard error, and exit."""
    say(text)
    sys.exit(status)


def end_as_json(status: int, error: ZbrokerError, **facts: object) -> NoReturn:
    """Exit; whoever reads our JSON finds the error in the same form, on standard error.

    Args:
        facts: what else is known of it.
    """
    from zbroker.cli.bodies import line_of
    from zbroker.cli.output import error_fields

    fields = {"error": {**error_fields(error)["error"], **facts}}
    sys.stderr.write(line_of(fields).decode() + "\n")
    sys.exit(status)
