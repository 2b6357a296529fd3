"""What the library logs while a command runs, as words of the command."""

from __future__ import annotations

import contextlib
import logging
from types import TracebackType
from typing import Self

from zbroker.cli.words import say


class ClientLog(logging.Handler):
    """Says warnings of the library, such as that nobody answers, at once: a command may wait without a limit.

    Without a handler Python would print them bare, beside our own lines.

    Attributes:
        last: what was said last; an error that says the same at the end need not be told again.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Any thread of a role may call."""
        self.last = record.getMessage()
        with contextlib.suppress(OSError, ValueError):  # standard error is gone or closed: nobody reads it
            say(self.last)

    def __enter__(self) -> Self:
        logging.getLogger("zbroker").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("zbroker").removeHandler(self)
