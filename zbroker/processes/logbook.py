"""The broker's log on standard error: one record a line, as text for people or as JSON. Nobody who writes here ever waits:
a thread of its own does, and what it cannot get rid of, or what comes too often, is counted instead.
"""

from __future__ import annotations

import json
import os
import queue
import re
import select
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from zbroker.config import LogFormat, LogLevel

QUEUE_LINES_MAX: Final = 1_024
"""Lines that wait for whoever reads standard error: some 200 KB. More would only be older."""

BURST: Final[dict[LogLevel, int]] = {"debug": 500, "info": 20, "warning": 20, "error": 20}
"""Records of one event at once. Peers cause most of them, and must not be able to fill the disk."""

RATE_S: Final[dict[LogLevel, int]] = {"debug": 50, "info": 1, "warning": 1, "error": 1}
"""And a second from then on: 1 is 15 MB a day at most for an event, whatever a peer does. Who asks for debug wants more."""

TELL_US: Final = 10_000_000
"""So often it is said how much of an event was left out."""

CLOSE_S: Final = 0.5
"""For the last lines; a reader that has stopped must not hold up the end."""

_RANK: Final[dict[LogLevel, int]] = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_PLAIN: Final = re.compile(r"[\w./:@+<>\[\]-]+", re.ASCII)
_US: Final = 1_000_000


class _Rate:
    """What one event may still write, and what was left out."""

    __slots__ = ("at", "left", "told_at", "total", "untold")

    def __init__(self, burst: int, now: int) -> None:
        self.left = float(burst)
        self.at = now
        self.told_at = now - TELL_US
        self.untold = self.total = 0


class Limiter:
    """Bounds how often each event is written, by a bucket of tokens for each. Pure; `now` in microseconds."""

    def __init__(self) -> None:
        self._rates: dict[str, _Rate] = {}  # by event; those are names of ours, a dozen

    def admits(self, level: LogLevel, event: str, now: int) -> bool:
        """Whether a record may be written now; it is counted either way."""
        rate = self._rates.get(event)
        if rate is None:
            rate = self._rates[event] = _Rate(BURST[level], now)
        rate.left = min(BURST[level], rate.left + (now - rate.at) * RATE_S[level] / _US)
        rate.at = now
        if rate.left >= 1:
            rate.left -= 1
            return True
        rate.untold += 1
        rate.total += 1
        return False

    def untold(self, now: int, *, all_of_it: bool = False) -> Iterator[tuple[str, int]]:
        """Events with records left out that nobody was told of, and how many; each at most every TELL_US."""
        for event, rate in self._rates.items():
            if rate.untold and (all_of_it or now - rate.told_at >= TELL_US):
                count, rate.untold, rate.told_at = rate.untold, 0, now
                yield event, count

    def totals(self) -> dict[str, int]:
        """Records left out so far, by event."""
        return {event: rate.total for event, rate in self._rates.items() if rate.total}


class Logbook:
    """Writes records from any thread, oldest first; never blocks, never raises.

    Args:
        form: text or json.
        level: what is less is not written.
        descriptor: where to; None: nowhere. It is duplicated, so that nobody else can get its number.
        clock: monotonic microseconds.
        wall_ms: milliseconds since 1970, for the time in the record.
    """

    def __init__(
        self,
        form: LogFormat,
        level: LogLevel,
        descriptor: int | None,
        clock: Callable[[], int],
        wall_ms: Callable[[], int],
    ) -> None:
        self._line = json_line if form == "json" else text_line
        self._level: LogLevel = level
        self._clock = clock
        self._wall_ms = wall_ms
        self._limiter = Limiter()
        self._lock = threading.Lock()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._written = self._dropped = 0
        self._fd = -1 if descriptor is None else os.dup(descriptor)
        self._thread = threading.Thread(target=self._run, name="zbroker-log", daemon=True)
        self._thread.start()

    def write(self, level: LogLevel, event: str, **fields: Any) -> None:
        """A record: an event of ours by name, and fields that JSON can express."""
        if _RANK[level] < _RANK[self._level]:
            return
        with self._lock:
            if self._limiter.admits(level, event, self._clock()):
                self._put(level, event, fields)

    def tell_suppressed(self, *, all_of_it: bool = False) -> None:
        """Say how much was left out; called about once a second."""
        with self._lock:
            for event, count in self._limiter.untold(self._clock(), all_of_it=all_of_it):
                self._put("warning", "suppressed", {"of": event, "records": count})

    def _put(self, level: LogLevel, event: str, fields: dict[str, Any]) -> None:
        if self._lines.qsize() >= QUEUE_LINES_MAX:
            self._dropped += 1
        else:
            self._lines.put(self._line(self._wall_ms(), level, event, fields))

    @property
    def is_stuck(self) -> bool:
        """Whether lines are dropped because nobody takes them."""
        return self._lines.qsize() >= QUEUE_LINES_MAX

    def status(self) -> dict[str, object]:
        """For `zbroker status`: lines written, lines that nobody took, and records left out by event."""
        with self._lock:
            return {
                "level": self._level,
                "written": self._written,
                "dropped": self._dropped,
                "suppressed": self._limiter.totals(),
            }

    def close(self) -> None:
        """Write what waits, if somebody takes it within CLOSE_S."""
        self.tell_suppressed(all_of_it=True)
        self._lines.put(None)
        self._thread.join(CLOSE_S)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._write_out(line)
                self._written += 1
            except OSError:  # the reader has gone, or the disk is full: there is nowhere left to say so
                with self._lock:
                    self._dropped += 1
        if self._fd >= 0:
            os.close(self._fd)

    def _write_out(self, line: bytes) -> None:
        """Raises OSError."""
        if self._fd < 0:
            raise OSError("no standard error")
        while line:
            try:
                line = line[os.write(self._fd, line) :]
            except BlockingIOError:  # whoever started us has made it non-blocking
                select.select([], [self._fd], [])


def json_line(wall_ms: int, level: str, event: str, fields: dict[str, Any]) -> bytes:
    """A record as one JSON object: time, level, event, then its fields."""
    return msgspec.json.encode({"time": rfc3339(wall_ms), "level": level, "event": event, **fields}) + b"\n"


def text_line(wall_ms: int, level: str, event: str, fields: dict[str, Any]) -> bytes:
    """A record as words: time, level, event, then key=value; what is not plain is quoted as in JSON."""
    pairs = "".join(f" {key}={_shown(value)}" for key, value in fields.items())
    return f"{rfc3339(wall_ms)} {level} {event}{pairs}\n".encode()


def _shown(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value)  # ASCII, escaped: no line and no terminal is broken by what a peer has named itself


def rfc3339(wall_ms: int) -> str:
    """An instant as 2026-01-31T12:00:00.000Z."""
    return datetime.fromtimestamp(wall_ms // 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{wall_ms % 1_000:03d}Z"
