"""Commands that print what comes, for as long as somebody reads it."""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from zbroker.cli.until import Until
from zbroker.cli.words import say

_LOOK_S: Final = 0.5  # how long `| head -n 1` holds up its shell when no further line comes
_T = TypeVar("_T")


def announce(what: str) -> None:
    """Tell a person that nothing is wrong when nothing is printed; in a pipe or a file it would only be in the way."""
    if sys.stderr.isatty():
        say(f"{what}; Ctrl-C ends it, --count N or --timeout S too")


def take(receive: Callable[[float | None], _T | None], until: Until) -> _T | None:
    """What comes next; None when the time is up.

    Args:
        receive: waits for it, so many seconds at most.

    Raises:
        BrokenPipeError: nobody reads standard output any more. A write would tell, but only when there is one.
    """
    while True:
        found = receive(until.at_most(_LOOK_S))
        if found is not None or until.remaining_s == 0:
            return found
        if _is_unread():
            raise BrokenPipeError


def _is_unread() -> bool:
    looked = select.poll()
    with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor, or a closed one
        looked.register(sys.stdout.fileno(), 0)
    return bool(looked.poll(0))
