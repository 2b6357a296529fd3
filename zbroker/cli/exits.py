"""Exit statuses of `zbroker` (the numbers of sysexits.h where it has one), and how a command ends with one."""

from __future__ import annotations

import sys
from typing import Final, NoReturn

FAILED: Final = 1
USAGE: Final = 2
UNHEALTHY: Final = 10
UNAVAILABLE: Final = 69
TIMED_OUT: Final = 75
REFUSED: Final = 77
BAD_CONFIGURATION: Final = 78


def end(status: int, text: str) -> NoReturn:
    """Say why on standard error, and exit."""
    print(f"zbroker: {text}", file=sys.stderr)
    sys.exit(status)
