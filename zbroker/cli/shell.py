"""Runs a command of the user's for one request, bounded in time and in what it may say, or line by line."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Final

from patterns.io.clock import clock
from patterns.wire.errors import ApplicationError, TooLarge
from patterns.wire.limits import BODY_BYTES_MAX

_CHUNK_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 2_048  # of standard error; the last lines tell what went wrong
_LOOK_S: Final = 0.2  # how often a silent command's requester is looked for
_FOREVER_S: Final = 2_000_000.0  # 23 days; select() takes no more


def run(command: str, body: bytes, timeout_s: float) -> bytes:
    """What the command wrote to standard output, given the body on standard input.

    Raises:
        ApplicationError: it failed (code exit_N), a signal ended it (signal_N), or it took too long (timed_out).
        TooLarge: no reply may hold what it wrote.
    """
    with _started(command, body) as process:
        return _result(process, clock() + int(timeout_s * 1e6))


def run_lines(command: str, body: bytes, is_wanted: Callable[[], bool]) -> Iterator[bytes]:
    """Each line of standard output as it comes, without its end. Whoever stops asking stops the command.

    Raises:
        ApplicationError: as run(), after the lines.
        TooLarge: no part may hold a line.
    """
    with _started(command, body) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        tail = bytearray()
        try:
            yield from _lines(process.stdout, process.stderr, tail, is_wanted)
            while is_wanted():
                try:
                    _check(process.wait(_LOOK_S), bytes(tail))
                    return
                except subprocess.TimeoutExpired:
                    pass  # it has closed its output and goes on
        finally:
            _kill(process)


def _lines(output: IO[bytes], errors: IO[bytes], tail: bytearray, is_wanted: Callable[[], bool]) -> Iterator[bytes]:
    held = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        selector.register(errors, selectors.EVENT_READ)
        while selector.get_map() and is_wanted():
            for key, _ in selector.select(_LOOK_S):
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is errors:
                    tail += chunk
                    del tail[:-_TAIL_BYTES]
                else:
                    *lines, rest = (held + chunk).split(b"\n")
                    held = bytearray(rest)
                    yield from map(bytes, lines)
            if len(held) > BODY_BYTES_MAX:
                raise TooLarge(f"a line of more than {BODY_BYTES_MAX} bytes, and no part may hold that")
    if held:
        yield bytes(held)


@contextmanager
def _started(command: str, body: bytes) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as source:  # not a pipe: a command need not read before it writes
        source.write(body)
        source.seek(0)
        process = subprocess.Popen(
            command, shell=True, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )  # fmt: skip
        try:
            with process:
                yield process
        except BaseException:
            _kill(process)
            raise


def _result(process: subprocess.Popen[bytes], deadline: int) -> bytes:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        written, tail = _read(process.stdout, process.stderr, deadline)
        status = process.wait(_left_s(deadline))
    except subprocess.TimeoutExpired as error:
        raise ApplicationError("the command took longer than the requester waits", code="timed_out") from error
    finally:
        _kill(process)
    _check(status, tail)
    return written


def _check(status: int, tail: bytes) -> None:
    """Raises ApplicationError when a command has failed."""
    if status != 0:
        code = f"exit_{status}" if status > 0 else f"signal_{-status}"
        raise ApplicationError(tail.decode(errors="replace").strip() or f"the command ended with {code}", code=code)


def _read(output: IO[bytes], errors: IO[bytes], deadline: int) -> tuple[bytes, bytes]:
    """All of standard output and the tail of standard error."""
    written, tail = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        selector.register(errors, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(_left_s(deadline))
            if not ready:
                raise subprocess.TimeoutExpired("", 0)
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is output:
                    written += chunk
                else:
                    tail = (tail + chunk)[-_TAIL_BYTES:]
            if len(written) > BODY_BYTES_MAX:
                raise TooLarge(f"the command wrote more than {BODY_BYTES_MAX} bytes, and no reply may hold that")
    return bytes(written), bytes(tail)


def _left_s(deadline: int) -> float:
    return min(_FOREVER_S, max(0.0, (deadline - clock()) / 1e6))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command, and what it has started and left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS answers a group of zombies with EPERM
        pass
