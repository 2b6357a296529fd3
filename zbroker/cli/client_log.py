"""What the library logs while a command runs, as words of the command."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from types import TracebackType
from typing import Final, Self

from zbroker.cli.words import say

_REMEMBERED: Final = 8  # lines: a command that runs for days says the same now and then, and must not keep it all


class ClientLog(logging.Handler):
    """Says warnings of the library, such as that nobody answers, at once: a command may wait without a limit.

    Without a handler Python would print them bare, beside our own lines. A reason that was told already is left off the
    end of a later warning: an unreachable broker is one fact, whatever it keeps from being done.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: deque[str] = deque(maxlen=_REMEMBERED)

    def emit(self, record: logging.LogRecord) -> None:
        """Any thread of a role may call."""
        text = record.getMessage()
        for reason in self._said:
            text = text.removesuffix(f": {reason}")
        self._said.append(text)
        with contextlib.suppress(OSError, ValueError):  # standard error is gone or closed: nobody reads it
            say(text)

    def has_said(self, text: str) -> bool:
        """Whether it was told, alone or as the reason of something; an error of this text need not be told again."""
        return any(said == text or said.endswith(f": {text}") for said in self._said)

    def __enter__(self) -> Self:
        logging.getLogger("zbroker").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("zbroker").removeHandler(self)
