"""The thread that drives an engine while no caller does and there is something to do. Parked otherwise."""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import TYPE_CHECKING, Final

from patterns.io.clock import clock
from patterns.wire.words import described

if TYPE_CHECKING:
    from patterns.io.driver import Driver

_log = logging.getLogger("zbroker")
_WATCH_US: Final = 5_000  # a caller that comes back within it finds the sockets free
_NAPS_MS: Final = (1, 2, 4)  # while callers send full batches by themselves; then timers and monitors are looked at
_LEAST_US: Final = 1_000
_CALM_US: Final = 1_000_000  # after a turn that failed: what raises once may raise in each
_LONG_US: Final = 3_600_000_000


class Keeper:
    """Drives on behalf of callers that have left; gives way as soon as one waits again."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        self._thread = threading.Thread(target=self._run, name="zbroker-keeper", daemon=True)
        self._stopped = False
        self._parked = False
        self._watches = False  # parked for a moment only: it looks again by itself
        self._bursts = 0
        self._seen = -1  # calls of wait() when it last looked
        self.leads = False
        self.naps = False  # looks again in a moment, whatever is posted

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; it may be the one that calls."""
        self._stopped = True
        self.call()
        if self._thread.ident is None:
            self._close()  # it was never started: a bind has failed
        elif self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)

    def call(self) -> None:
        """End its sleep. It marks itself as awake: done here, an exception of a signal's handler could leave it asleep so."""
        if self._parked:
            try:
                os.write(self._write_fd, b"!")
            except (BlockingIOError, OSError):
                pass

    def is_wanted(self) -> bool:
        """Whether it would have something to do; the driver's lock is held."""
        return self._parked and not self._watches and self._driver.in_background()

    def look_at_clock(self) -> int | None:
        """Time was skipped: do what is due in the caller's thread; who sleeps looks how long. Returns when the engine is due next."""
        driver = self._driver
        with driver.lock:
            if driver.is_closed:
                return None
            driver.catch_up()
            driver.turn()  # after so long, a turn that has taken something in leaves what is due for the next
            driver.run_deferred()
            driver.ring_everybody()
            self.call()
            return driver.engine.next_timeout()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        while not self._stopped and not self._driver.is_closed:
            try:
                self._keep(poll)
            except Exception as error:  # noqa: BLE001  the top of a thread: whoever posts must not wait for a dead one
                with self._driver.lock:
                    self._driver.fail(error)
                self._park(poll, _CALM_US)
            except BaseException as error:  # noqa: BLE001  a callback that calls exit: in a thread that ends no program
                _log.error("a callback has raised %s in a thread of ours, where it ends nothing", described(error))
        self._close()

    def _close(self) -> None:
        os.close(self._read_fd)
        os.close(self._write_fd)

    def _keep(self, poll: select.poll) -> None:
        driver = self._driver
        with driver.lock:
            if driver.is_closed:
                return
            led = driver.is_led
            wanted = driver.in_background()
            due = driver.engine.next_timeout()
        now = clock()
        if driver.bursts != self._bursts:
            self._nap(poll)
        elif not led and (driver.kicked or (due is not None and due <= now)):
            with driver.lock:
                if not driver.is_led:
                    driver.turn()
                    driver.run_deferred()
        elif wanted and not led and driver.entries == self._seen:
            self._lead()
        else:
            self._seen = driver.entries
            self._watches = wanted and not led
            self._park(poll, _WATCH_US if self._watches else max(_LEAST_US, _until(due, now)))
            self._watches = False

    def _nap(self, poll: select.poll) -> None:
        """Callers fill batches faster than we could wake: stay out of their way, and send what is left once they do not any more."""
        self.naps = True
        for nap_ms in _NAPS_MS:
            self._bursts = self._driver.bursts
            poll.poll(nap_ms)
            if self._driver.bursts - self._bursts < nap_ms or self._stopped:
                break  # fewer than one a millisecond: what is left, and what has come, would wait longer for the next one
        self.naps = False
        with self._driver.lock:
            if not self._driver.is_led and not self._driver.is_closed:
                self._driver.catch_up()
                self._driver.run_deferred()

    def _lead(self) -> None:
        self.leads = True
        try:
            self._driver.wait(self._enough, None, keeper=True)
        finally:
            self.leads = False

    def _enough(self) -> bool:
        driver = self._driver
        return (
            self._stopped or bool(driver.followers) or driver.bursts != self._bursts or not driver.in_background()
        )  # fmt: skip

    def _park(self, poll: select.poll, timeout_us: int) -> None:
        """Sleep until called. Marked as parked before the last look, so that a kick in between is not missed."""
        self._parked = True
        if not self._driver.kicked and not self._stopped:
            poll.poll(timeout_us / 1_000)
        self._parked = False
        try:
            os.read(self._read_fd, 4_096)
        except BlockingIOError:
            pass  # nobody called: the time was up


def _until(due: int | None, now: int) -> int:
    """So long nothing is due; never longer than poll() takes: a streamed reply may have a deadline in years."""
    return _LONG_US if due is None else min(_LONG_US, due - now)
