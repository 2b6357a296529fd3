"""Lines of standard input or a file, one message each: as they come, never all at once."""

from __future__ import annotations

import contextlib
import io
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, NoReturn

from patterns.wire.errors import BadBody, TooLarge, ZbrokerError
from patterns.wire.limits import BODY_BYTES_MAX
from zbroker.cli.bodies import parse
from zbroker.cli.exits import end, end_as_json

_CHUNK_BYTES: Final = 64 * 1024


class Lines:
    """Numbers and reads lines; `number` is the one that came last, `bytes_taken` what they had, ends included.

    Args:
        line_bytes_max: of a longer one the rest is not even read.

    Not the stream's own readline(), because it must be known whether the next line would have to be waited for: then
    what has been confirmed is printed first.
    """

    def __init__(self, stream: BinaryIO, line_bytes_max: int = BODY_BYTES_MAX) -> None:
        self.number = self.bytes_taken = 0
        self._line_bytes_max = line_bytes_max
        self._stream = stream
        self._rest = bytearray()
        self._searched = 0
        self._ended = False
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, io.UnsupportedOperation):  # a stream that is only memory
            self._descriptor = stream.fileno()

    @property
    def is_idle(self) -> bool:
        """Whether reading the next line would wait."""
        if self._descriptor is None or self._ended or self._rest.find(b"\n", self._searched) >= 0:
            return False
        return not select.select([self._descriptor], [], [], 0)[0]

    def __iter__(self) -> Iterator[bytes]:
        """Lines without their end. Raises TooLarge: no message takes so many."""
        while (line := self._next()) is not None:
            self.number += 1
            yield line

    def _next(self) -> bytes | None:
        while (end := self._rest.find(b"\n", self._searched)) < 0:
            self._searched = len(self._rest)
            if self._searched > self._line_bytes_max:
                self.number += 1
                raise TooLarge(f"longer than {self._line_bytes_max} bytes; one line is one message")
            chunk = b"" if self._ended else self._stream.read1(_CHUNK_BYTES)  # type: ignore[attr-defined]
            if not chunk:
                self._ended = True
                return self._take(len(self._rest), 0) if self._rest else None
            self._rest += chunk
        return self._take(end, 1)

    def _take(self, end: int, terminator: int) -> bytes:
        line = bytes(self._rest[:end])
        self.bytes_taken += end + terminator
        del self._rest[: end + terminator]
        self._searched = 0
        return line


def bodies_of(lines: Lines, *, raw: bool, before_waiting: Callable[[], None] | None = None) -> Iterator[Any]:
    """A body from each line; blank lines are no messages, except as bytes.

    Args:
        before_waiting: called when the next line is not there yet.

    Raises:
        BadBody, TooLarge: of the line that `lines.number` names.
    """
    iterator = iter(lines)
    while True:
        if before_waiting is not None and lines.is_idle:
            before_waiting()
        line = next(iterator, None)
        if line is None:
            return
        if raw:
            yield line
        elif text := line.strip():
            yield parse(text, raw=False)


def standard_input() -> Lines:
    """The lines of standard input."""
    return Lines(sys.stdin.buffer)


def at_line(lines: Lines, error: Exception, done: str) -> str:
    """What to say when a line stopped a command: which, why, and how far it came."""
    where = f"line {lines.number}: " if isinstance(error, BadBody | TooLarge) else ""
    return f"{where}{error}; {done}"


def stop_at_line(
    lines: Lines, error: ZbrokerError, status: int, done: int | None, words: str, *, as_json: bool
) -> NoReturn:
    """Exit, because a line stopped a command: which, why, and how far it came.

    Args:
        done: how many messages; None: nobody knows exactly.
        words: the same for people.
    """
    if not as_json:
        end(status, at_line(lines, error, words))
    facts: dict[str, object] = {} if done is None else {"done": done}
    if isinstance(error, BadBody | TooLarge):
        facts["line"] = lines.number
    end_as_json(status, error, **facts)
