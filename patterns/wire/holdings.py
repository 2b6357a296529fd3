"""What each connection to an XPUB holds of subscriptions, and who holds too much of them. No I/O."""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, TypeVar

_K = TypeVar("_K")
_EACH_BYTES: Final = 16  # that a prefix costs besides its own, so that empty ones are not for nothing


class Holdings(Generic[_K]):
    """Prefixes by connection. One that is there twice is counted twice, and ends once.

    Args:
        bytes_max: that one connection may hold.
        bytes_max_of_all: that all of them may hold together.
    """

    def __init__(self, bytes_max: int, bytes_max_of_all: int) -> None:
        self._bytes_max = bytes_max
        self._bytes_max_of_all = bytes_max_of_all
        self._held: dict[_K, Counter[bytes]] = {}
        self._bytes: Counter[_K] = Counter()
        self._bytes_of_all = 0

    def __bool__(self) -> bool:
        """Whether anybody holds, or has held, anything."""
        return bool(self._held)

    def add(self, holder: _K, prefix: bytes) -> _K | None:
        """One more. Returns who holds too much now, and is forgotten; None if all is well."""
        self._held.setdefault(holder, Counter())[prefix] += 1
        self._bytes[holder] += len(prefix) + _EACH_BYTES
        self._bytes_of_all += len(prefix) + _EACH_BYTES
        offender: _K | None = None
        if self._bytes[holder] > self._bytes_max:
            offender = holder
        elif self._bytes_of_all > self._bytes_max_of_all:
            offender = max(self._bytes, key=self._bytes.__getitem__)
        if offender is not None:
            self.forget(offender)
        return offender

    def drop(self, holder: _K, prefix: bytes) -> bool:
        """One less. Returns False for what that connection does not hold, and changes nothing then."""
        held = self._held.get(holder)
        if held is None or not held[prefix]:
            return False
        held[prefix] -= 1
        if not held[prefix]:
            del held[prefix]
        self._bytes[holder] -= len(prefix) + _EACH_BYTES
        self._bytes_of_all -= len(prefix) + _EACH_BYTES
        return True

    def forget(self, holder: _K) -> None:
        """The connection has ended, or will."""
        self._bytes_of_all -= self._bytes.pop(holder, 0)
        self._held.pop(holder, None)
