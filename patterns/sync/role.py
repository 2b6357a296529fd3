"""What the roles of the sync shell share: they are context managers, and close() blocks."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from patterns.io.driver import Driver
from patterns.roles.role import CLOSE_TIMEOUT_S, Role, check_limit


class SyncRole(Role[Driver]):
    """A context manager around a driver; see the roles."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):  # not Ctrl-C, or the end of the program: they are no fault of a message
            self._failed()
        self.close()

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what was posted, say goodbye and let go of the sockets. Any thread may call it, more than once."""
        check_limit(timeout_s)
        driver = self._driver
        if not driver.is_closed and not driver.forked:
            driver.drive(self._last(timeout_s))
        driver.close(timeout_s)
