"""Runs a command of the user's for one request, bounded in time and in what it may say."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
from typing import IO, Final

from patterns.io.clock import clock
from patterns.wire.errors import ApplicationError, TooLarge
from patterns.wire.limits import BODY_BYTES_MAX

_CHUNK_BYTES: Final = 64 * 1024
_TAIL_BYTES: Final = 2_048  # of standard error; the last lines tell what went wrong


def run(command: str, body: bytes, timeout_s: float) -> bytes:
    """What the command wrote to standard output, given the body on standard input.

    Raises:
        ApplicationError: it failed (code exit_N), a signal ended it (signal_N), or it took too long (timed_out).
        TooLarge: no reply may hold what it wrote.
    """
    with tempfile.TemporaryFile() as source:  # not a pipe: a command need not read before it writes
        source.write(body)
        source.seek(0)
        process = subprocess.Popen(
            command, shell=True, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )  # fmt: skip
        try:
            with process:
                return _result(process, clock() + int(timeout_s * 1e6))
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
    if status != 0:
        code = f"exit_{status}" if status > 0 else f"signal_{-status}"
        raise ApplicationError(tail.decode(errors="replace").strip() or f"the command ended with {code}", code=code)
    return written


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
    return max(0.0, (deadline - clock()) / 1e6)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command, and what it has started and left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS answers a group of zombies with EPERM
        pass
