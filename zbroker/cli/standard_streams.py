"""Standard input, output and error that may be closed, or lead to a full disk: the one place where commands meet that.

Python has None for a stream that is closed, and gives its number to the next file; an error of one is a traceback, and once
more when the process ends. Imported by every command, so it imports nothing else of ours.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Final, TextIO

IO_FAILED: Final = 74  # as zbroker.cli.exits says, which imports more than may go before this
_INPUT: Final = 0
_OUTPUT: Final = 1
_ERROR: Final = 2
_CLOSED_AS: Final = {_INPUT: os.O_WRONLY, _OUTPUT: os.O_RDONLY, _ERROR: os.O_WRONLY}  # of /dev/null: use is an error


class StandardStreamFailed(OSError):
    """Standard input cannot be read, or standard output not be written to. Not for a broken pipe, which is no fault."""


def set_up() -> None:
    """Let nobody else have their numbers, and their errors be told from others. Once, before anything is opened."""
    for number, flags in _CLOSED_AS.items():
        try:
            os.fstat(number)
        except OSError:
            made = os.open(os.devnull, flags)  # the lowest number that is free: this one
            assert made == number
            os.set_inheritable(made, True)
    sys.stdin = _text(sys.stdin, io.BufferedReader(_Input(_INPUT, "rb", closefd=False)), "strict")
    sys.stdout = _text(sys.stdout, _written(sys.stdout, _Output(_OUTPUT, "wb", closefd=False)), "strict")
    sys.stderr = _text(
        sys.stderr,
        _written(sys.stderr, _Error(_ERROR, "wb", closefd=False)),
        "backslashreplace",
        line_buffering=True,
    )


def complain(error: StandardStreamFailed) -> None:
    """A line on standard error."""
    print(f"zbroker: {error.strerror}", file=sys.stderr)


def print_ready(line: str) -> None:
    """What serves goes on serving: who closed standard output waits for no line."""
    try:
        print(line, flush=True)
    except StandardStreamFailed as error:
        complain(error)


def _text(
    before: TextIO | None, buffer: io.BufferedIOBase | io.RawIOBase, errors: str, **more: bool
) -> io.TextIOWrapper:
    """As Python has made it, if it has."""
    if not isinstance(before, io.TextIOWrapper):
        return io.TextIOWrapper(buffer, "utf-8", errors, **more)  # type: ignore[arg-type]
    write_through, line_buffering = before.write_through, before.line_buffering
    return io.TextIOWrapper(
        buffer,  # type: ignore[arg-type]
        before.encoding,
        before.errors,
        line_buffering=line_buffering,
        write_through=write_through,
    )


def _written(before: TextIO | None, raw: io.RawIOBase) -> io.BufferedIOBase | io.RawIOBase:
    is_unbuffered = isinstance(before, io.TextIOWrapper) and before.write_through  # python -u
    return raw if is_unbuffered else io.BufferedWriter(raw)


class _Input(io.FileIO):
    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise StandardStreamFailed(error.errno, f"standard input cannot be read ({error.strerror})") from error


class _Output(io.FileIO):
    """Fails once: what is left in the buffer then is nobody's, and must not fail again at the very end."""

    _has_failed = False

    def write(self, data: memoryview) -> int | None:  # type: ignore[override]
        if self._has_failed or not data:  # click tries with nothing whether it may write bytes
            return len(data)
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._has_failed = True
            text = f"standard output takes no more ({error.strerror}); what was done before is done"
            raise StandardStreamFailed(error.errno, text) from error


class _Error(io.FileIO):
    """Words that cannot be said are not said: there is nobody to be told of it."""

    def write(self, data: memoryview) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)
