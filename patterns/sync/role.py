"""What the roles of the sync shell share: they are context managers, and close() blocks."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from patterns.io.driver import Driver
from patterns.io.waiting import Steps
from patterns.roles.role import CLOSE_TIMEOUT_S, Role, check_limit

_T = TypeVar("_T")


class SyncRole(Role[Driver]):
    """A context manager around a driver; see the roles."""

    _kept: Any = None  # what a call had taken when a signal's handler raised at its end; the next call returns it

    def _taken(self, make: Callable[[], Steps[_T]]) -> _T:
        """Run steps that take something from the engine, which no exception of a signal's handler may take along."""
        kept: _T | None
        kept, self._kept = self._kept, None
        return self._driver.drive(make(), self._keep) if kept is None else kept

    def _keep(self, found: object) -> None:
        self._kept = found

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
