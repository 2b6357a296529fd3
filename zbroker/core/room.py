"""Whether a stream has room: what a producer is told that must wait, and for how long. No stream here."""

from __future__ import annotations

from typing import Final, NamedTuple

from patterns.wire.errors import StreamFull

RETRY_MS_MIN: Final = 100
RETRY_MS_MAX: Final = 5_000

_ADVICE: Final = {
    "quota_bytes": "let its groups settle what they hold, purge it, or raise the quota",
    "folder_quota_bytes": "purge or delete a stream, or raise folder_quota_bytes",
    "bytes_max": "it has retention 'work': there is room when its groups have settled some, which takes more consumers or time",
    "messages_max": "it has retention 'work': there is room when its groups have settled some, which takes more consumers or time",
}


class Limit(NamedTuple):
    """What is reached: the name of the limit, what it is, and what is kept."""

    name: str
    most: int
    used: int


class Pace:
    """How fast room is made, seen from one refusal to the next."""

    __slots__ = ("_at", "_drained", "_wait_ms")

    def __init__(self) -> None:
        self._at: int | None = None
        self._drained = 0
        self._wait_ms = RETRY_MS_MIN

    def retry_after_ms(self, now: int, drained: int, wanted: int) -> int:
        """How long to wait, 100 ms to 5 s.

        Args:
            now: microseconds.
            drained: how much room was made since ever.
            wanted: how much must be made.
        """
        passed = None if self._at is None else now - self._at
        if passed is not None and passed < self._wait_ms * 1_000:
            return self._wait_ms  # others were told just now
        freed = drained - self._drained
        if passed is None or passed > 4 * RETRY_MS_MAX * 1_000:
            wait_ms = RETRY_MS_MIN  # nobody has waited for it
        elif freed > 0:
            wait_ms = passed * max(wanted, 1) // freed // 1_000
        else:
            wait_ms = 2 * self._wait_ms
        self._at, self._drained = now, drained
        self._wait_ms = min(max(wait_ms, RETRY_MS_MIN), RETRY_MS_MAX)
        return self._wait_ms


def full(stream: str, limit: Limit, retry_after_ms: int) -> StreamFull:
    """What to raise."""
    unit = "messages" if limit.name == "messages_max" else "bytes"
    whole = limit.name == "folder_quota_bytes"
    said = f"{'all streams together keep' if whole else f'stream {stream!r} keeps'} {limit.used:,} {unit}"
    text = f"{said}, {limit.name} is {limit.most:,}: {_ADVICE[limit.name]}"
    return StreamFull(text, retry_after_ms=retry_after_ms)
