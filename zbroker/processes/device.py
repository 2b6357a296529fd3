"""The supervisor of a device: starts its working process (proxy.py), starts it again when it dies, and adds up what it counted.

It holds no socket: a fault in libzmq, or a message that eats all memory, ends the child and not the device.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, Protocol

import msgspec

from patterns.core.backoff import Backoff
from patterns.wire.errors import BadAddress, Unavailable
from zbroker.processes.proxy import COUNT, STOP, Counts, Device, Failed, Ready, Said

_BACKOFF_US: Final = 50_000
_BACKOFF_US_MAX: Final = 5_000_000
_HEALTHY_S: Final = 10.0  # who lived so long did not die of how it was started: the next wait is the shortest again
_GOODBYE_S: Final = 5.0  # draining, the capture and lingering take at most 4
_READ_BYTES: Final = 65_536
_DECODER: Final[msgspec.json.Decoder[Said]] = msgspec.json.Decoder(Said)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a device has done so far.

    Attributes:
        restarts: how often the working process died; what each counted in its last half second is not in `counts`.
        is_final: the device has ended.
    """

    counts: Counts
    restarts: int
    is_final: bool


class Listener(Protocol):
    """Who tells the world."""

    def ready(self, where: Ready) -> None: ...
    def report(self, report: Report) -> None: ...
    def warn(self, text: str) -> None: ...


class Supervisor:
    """Runs a device until a signal.

    Args:
        device: what to run.
        listener: hears of it, in the thread that calls run().
    """

    def __init__(
        self, device: Device, listener: Listener, spawn: Callable[[Device], subprocess.Popen[bytes]] | None = None
    ) -> None:
        self._device = device
        self._listener = listener
        self._spawn = spawn or _spawn
        self._backoff = Backoff(_BACKOFF_US, _BACKOFF_US_MAX, random.random)
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at: float | None = None
        self._unread = b""
        self._is_ready = False  # has been, once
        self._failure = ""
        self._before = Counts()  # of processes that died
        self._latest = Counts()
        self._restarts = 0
        self._is_asked = False
        self._stop_at: float | None = None
        self._signals: list[int] = []
        self._ends = 0
        self._bell, self._button = os.pipe()
        for end in (self._bell, self._button):
            os.set_blocking(end, False)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGUSR1 asks for a report. A second signal ends both processes at once.

        Raises:
            Unavailable: the first start failed: an address is in use.
            BadAddress: the same: libzmq does not understand one.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before = {number: signal.signal(number, self._signalled) for number in numbers}
        wakeup = signal.set_wakeup_fd(self._button, warn_on_full_buffer=False)
        try:
            self._start()
            while self._child is not None or (self._stop_at is None and self._start_at is not None):
                self._turn()
        finally:
            self._end_child()
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._bell)
            os.close(self._button)
        self._listener.report(self._report(is_final=True))

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
        self._ends += number != signal.SIGUSR1
        if self._ends > 1:
            if self._child is not None:
                self._child.kill()
            os._exit(128 + number)  # whoever asks twice does not want to wait for anything

    # -- a turn --------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        heard = [self._bell]
        out = self._child.stdout if self._child is not None else None
        if out is not None:
            heard.append(out.fileno())
        ready, _, _ = select.select(heard, [], [], self._patience_s())
        if self._bell in ready:
            os.read(self._bell, 4_096)
            self._obey()
        if out is not None and out.fileno() in ready:
            self._hear(os.read(out.fileno(), _READ_BYTES))
        now = time.monotonic()
        if self._child is None and self._stop_at is None and self._start_at is not None and now >= self._start_at:
            self._start()
        if self._child is not None and self._stop_at is not None and now >= self._stop_at:
            self._listener.warn(
                f"the proxy has not ended within {_GOODBYE_S:.0f} s, and is killed; what it held is lost"
            )
            self._child.kill()
            self._stop_at = now + _GOODBYE_S

    def _patience_s(self) -> float | None:
        due = self._stop_at if self._child is not None else self._start_at
        return None if due is None else max(0.0, due - time.monotonic())

    def _obey(self) -> None:
        while self._signals:
            if self._signals.pop(0) == signal.SIGUSR1:
                self._is_asked = self._child is not None
                if self._is_asked:
                    self._tell(COUNT)
                else:
                    self._listener.report(self._report())
            elif self._stop_at is None:
                self._stop_at = time.monotonic() + _GOODBYE_S
                self._tell(STOP)

    def _tell(self, word: bytes) -> None:
        if self._child is not None and self._child.stdin is not None:
            try:
                os.write(self._child.stdin.fileno(), word + b"\n")
            except BrokenPipeError:
                pass  # it has died, and its output ends

    # -- the child -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._start_at = None
        self._unread = b""
        self._failure = ""
        self._started_at = time.monotonic()
        try:
            self._child = self._spawn(self._device)
        except OSError as error:  # no memory, no process left
            if not self._is_ready:
                raise Unavailable(f"the proxy process cannot be started: {error}") from error
            self._start_later(f"it cannot be started: {error}")

    def _hear(self, data: bytes) -> None:
        if not data:
            self._bury()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            said = _DECODER.decode(line)
            if isinstance(said, Counts):
                self._latest = said
                if self._is_asked:
                    self._is_asked = False
                    self._listener.report(self._report())
            elif isinstance(said, Failed):
                self._refused(said)
            else:
                self._serves(said)

    def _serves(self, where: Ready) -> None:
        """A port that was picked is kept: the next process binds it again."""
        self._device = msgspec.structs.replace(
            self._device, frontend=where.frontend, backend=where.backend, capture=where.capture
        )
        if not self._is_ready:
            self._is_ready = True
            self._listener.ready(where)

    def _refused(self, failed: Failed) -> None:
        if not self._is_ready:
            raise Unavailable(failed.text) if failed.is_unavailable else BadAddress(failed.text)
        self._failure = failed.text

    def _bury(self) -> None:
        """Its output has ended, and so has it."""
        status = self._end_child()
        self._before, self._latest = self._before + self._latest, Counts()
        if self._is_asked:
            self._is_asked = False
            self._listener.report(self._report())
        if self._stop_at is not None:
            return
        if not self._is_ready:
            raise Unavailable(f"the proxy process ended with status {status} before it was ready")
        self._restarts += 1
        if time.monotonic() - self._started_at >= _HEALTHY_S:
            self._backoff.reset()
        self._start_later(self._failure or f"it ended with status {status}")

    def _start_later(self, reason: str) -> None:
        wait_s = self._backoff.next() / 1e6
        self._start_at = time.monotonic() + wait_s
        self._listener.warn(f"the proxy process has died ({reason}); the next one starts in {wait_s:.2f} s")

    def _end_child(self) -> int | None:
        """See that it is gone; only after its output has ended, or when we are going ourselves."""
        child, self._child = self._child, None
        if child is None:
            return None
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            return child.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()

    def _report(self, *, is_final: bool = False) -> Report:
        return Report(counts=self._before + self._latest, restarts=self._restarts, is_final=is_final)


def _spawn(device: Device) -> subprocess.Popen[bytes]:
    described = msgspec.json.encode(device).decode()
    return subprocess.Popen(
        [sys.executable, "-m", "zbroker.processes.proxy", described],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
