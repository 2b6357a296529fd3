"""`zbroker top`: what a broker does, again and again. Nothing of the terminal is changed, so nothing has to be put back."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from patterns.wire.errors import LoadError, OutcomeError, Unavailable, ZbrokerError
from zbroker.cli.answer import understood
from zbroker.cli.bodies import line_of
from zbroker.cli.command import (
    ClientCommand,
    broker_options,
    closing,
    count_option,
    seconds,
    timeout_option,
)
from zbroker.cli.exits import UNAVAILABLE, end
from zbroker.cli.words import fitted, time_of
from zbroker.processes.clocks import wall_ms

if TYPE_CHECKING:
    from patterns.sync import Admin

_CLEAR: Final = "\x1b[H\x1b[2J"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_FIRST_S: Final = 0.5  # a rate needs two looks; who has just started it wants to see something
_INTERVAL_S_MIN: Final = 0.1  # less measures the broker's clock
_INTERVAL_S_MAX: Final = 3_600.0
_GONE: Final = (Unavailable, OutcomeError, LoadError)  # a broker that is started again, or will be


def _interval(text: str) -> float:
    value = seconds(text)
    if not _INTERVAL_S_MIN <= value <= _INTERVAL_S_MAX:
        raise click.BadParameter(f"{text!r} is not between {_INTERVAL_S_MIN} and {_INTERVAL_S_MAX:g} seconds")
    return value


@click.command(cls=ClientCommand)
@broker_options
@click.option(
    "--interval",
    "interval_s",
    type=_interval,
    default="2",
    metavar="S",
    help="Seconds between refreshes.  [2]",
)
@count_option("Exit after so many refreshes.")
@timeout_option("How long to wait for each answer, in seconds.", default=5.0)  # fmt: skip
def top(url: str, as_json: bool, interval_s: float, count: int | None, timeout_s: float) -> None:
    """Watch a broker: rates a second, streams and groups with their lag, sessions, cuts of the guard, memory. Ctrl-C ends it.

    On a terminal it redraws the screen; in a pipe each refresh is a block of lines, and with --json one object a line.
    Exit status 69: no broker answered at first, or at the last of N refreshes; in between it goes on trying.
    1: a broker answered with a status that this version does not understand, at first or later.

    \b
    zbroker top --url zb://localhost --interval 1
    zbroker top --json --count 1 | jq .rates
    """
    from patterns.sync import Admin

    screen = _Screen(url, as_json=as_json)
    try:
        with closing(Admin(url, timeout_s=timeout_s)) as admin:
            (gone,) = deque(islice(_refreshes(admin, screen, interval_s), count), maxlen=1)  # the last
    except KeyboardInterrupt:
        screen.leave()
        return
    if gone is not None:
        end(UNAVAILABLE, str(gone))


def _refreshes(admin: Admin, screen: _Screen, interval_s: float) -> Iterator[ZbrokerError | None]:
    """Show one after the other; each time, why there was nothing to show."""
    from zbroker.cli.rates import frame_of

    before = understood(admin.status(), screen.url)
    time.sleep(min(_FIRST_S, interval_s))
    gone_since: float | None = None
    while True:
        began = time.monotonic()
        try:
            after = understood(admin.status(), screen.url)
        except _GONE as error:
            gone_since = began if gone_since is None else gone_since
            screen.gone(error, began - gone_since)
            yield error
        else:
            gone_since = None
            screen.show(frame_of(before, after))
            before = after
            yield None
        time.sleep(max(0.0, began + interval_s - time.monotonic()))


class _Screen:
    """A terminal that is drawn over, or a pipe that is written to. One write a refresh: no flicker, no half lines."""

    def __init__(self, url: str, *, as_json: bool) -> None:
        self.url = url
        self._as_json = as_json
        self._is_terminal = sys.stdout.isatty() and not as_json and os.environ.get("TERM", "dumb") != "dumb"
        self._draws = 0

    def show(self, frame: dict[str, Any]) -> None:
        """A refresh."""
        from zbroker.cli.rates import lines_of

        if self._as_json:
            self._write_json(frame)
            return
        columns = shutil.get_terminal_size().columns if self._is_terminal else 80
        up = time_of(frame["uptime_ms"] // 1_000 * 1_000_000)
        head = f"{self.url}  epoch {frame['epoch']}, up {up}  {time.strftime('%H:%M:%S')}"
        self._draw([fitted(head, columns), *lines_of(frame, columns)])

    def gone(self, error: ZbrokerError, for_s: float) -> None:
        """No answer came; it is asked again."""
        if self._as_json:
            self._write_json({"error": error.name, "detail": error.detail, "gone_s": round(for_s, 1)})
            return
        columns = shutil.get_terminal_size().columns if self._is_terminal else 10_000
        text = f"gone for {for_s:,.0f} s, still trying: {error}"
        self._draw([fitted(line, columns) for line in (f"{self.url}  {time.strftime('%H:%M:%S')}", text)])

    def leave(self) -> None:
        """After Ctrl-C: what comes next begins on a line of its own."""
        if self._is_terminal and self._draws:
            self._write("\n")

    def _write_json(self, fields: dict[str, Any]) -> None:
        from zbroker.processes.logbook import rfc3339

        self._write(line_of({"time": rfc3339(wall_ms()), **fields}).decode() + "\n")

    def _draw(self, lines: list[str]) -> None:
        if self._is_terminal:
            fit = lines[: max(1, shutil.get_terminal_size().lines - 1)]
            drawn = "".join(f"{line}{_REST_OF_LINE}\n" for line in fit)
            self._write(f"{_HOME if self._draws else _CLEAR}{drawn}{_REST_OF_SCREEN}")
        else:
            self._write("".join(f"{line}\n" for line in ([""] if self._draws else []) + lines))
        self._draws += 1

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
