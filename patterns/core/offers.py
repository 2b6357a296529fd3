"""What a replier offers to a broker: no further ahead of the broker's answers than a few. Frames are the engine's matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

_AHEAD: Final = 64  # a broker withholds answers from who has hundreds unread


class Offers:
    """Services by number, from 1, and which of them the broker has registered.

    Attributes:
        services: each once.
        registered: of these, since begin() or lost().
    """

    def __init__(self, services: Sequence[str]) -> None:
        self.services = tuple(dict.fromkeys(services))
        self.registered: set[str] = set()
        self._next = 0
        self._unanswered = 0

    @property
    def is_complete(self) -> bool:
        return len(self.registered) == len(self.services)

    def begin(self) -> None:
        """Offer all, from the first on; answers may still come from before."""
        self.registered.clear()
        self._next = 0

    def due(self) -> Iterator[tuple[int, str]]:
        """Number and name of what may be offered now; each counts as offered."""
        while self._next < len(self.services) and self._unanswered < _AHEAD:
            self._next += 1
            self._unanswered += 1
            yield self._next, self.services[self._next - 1]

    def answered(self, number: int) -> str | None:
        """The service that the broker has registered; None for a number that was not offered."""
        self._unanswered = max(0, self._unanswered - 1)
        if not 0 < number <= self._next:
            return None
        self.registered.add(self.services[number - 1])
        return self.services[number - 1]

    def stop(self) -> Sequence[str]:
        """Offer no more; what was offered, and is to be withdrawn."""
        offered, self._next = self._next, len(self.services)
        return self.services[:offered]

    def lost(self) -> None:
        """The session is gone, and with it every answer to come."""
        self.registered.clear()
        self._unanswered = 0
