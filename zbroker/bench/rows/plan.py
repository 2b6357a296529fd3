"""What a row is, how a run is made, and the processes that rows have in common."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from zbroker.bench.processes import Broker
from zbroker.bench.report import Bar, Sample

SPARE_S: Final = 60.0  # beyond the measured time: what is under way still arrives, on a slow disk too
KIB: Final = 1_024
STEADY_RATE: Final = 20_000.0  # messages/s
STEADY_BYTES: Final = 20e6  # bytes/s
RAW: Final = "raw"
DICT: Final = "dict"
STAMPED: Final = "stamped"
_numbers = count()


def _tell_nobody(_part: float) -> None:
    """A sample that nobody watches."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is made.

    Attributes:
        seconds: of each sample; the first fifth of it, at most half a second, is warm-up.
        repeat: rounds; in each, every row runs once.
        size: of a raw body, bytes.
        folder: on the disk that durable rows write to.
        sockets: a short folder for ipc:// sockets; None: tcp:// on the loopback interface.
        connections: of the rows with many.
        api: "sync" or "aio": which shell of ours is at both ends.
        rate: messages a second; None: as fast as possible.
        backlog: messages of the rows with one.
        tell: what a long sample calls with the part of it that is done, 0 to 1.
    """

    seconds: float
    repeat: int
    size: int
    folder: Path
    sockets: Path | None = None
    connections: int = 1_000
    api: str = "sync"
    rate: float | None = None
    backlog: int = 50_000
    tell: Callable[[float], None] = _tell_nobody

    @property
    def warm_up_s(self) -> float:
        return min(0.5, self.seconds / 5)

    @property
    def patience_s(self) -> float:
        """How long a sample may take; a fixed rate that cannot be kept takes twice its time."""
        return 2 * self.seconds + SPARE_S

    def steady(self) -> float:
        """The fixed rate of rows that have one: the one asked for, or what two cores carry with ease at this size."""
        return self.rate or min(STEADY_RATE, STEADY_BYTES / self.size)

    def endpoint(self) -> str:
        """A new one to bind to."""
        return "tcp://127.0.0.1:0" if self.sockets is None else f"ipc://{self.sockets}/{next(_numbers)}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One row before it is run.

    Attributes:
        name: stable.
        group: its rows are interleaved round by round.
        label, api, body: see report.Row.
        run: makes one sample.
        honours: which settings change it, of "size", "transport", "api", "rate" and "backlog".
        needs: the extra without which it cannot run, "nats" or "lmdb", or nothing.
    """

    name: str
    group: str
    label: str
    api: str
    body: str
    run: Callable[[Settings], Sample]
    honours: frozenset[str]
    needs: str = ""


def bars(*rows: tuple[str, str, tuple[str, ...], float | None, bool, str]) -> tuple[Bar, ...]:
    """(row, field, against, bar, at_least, text) of each."""
    return tuple(
        Bar(row=row, field=field, against=against, bar=bar, at_least=at_least, text=text)
        for row, field, against, bar, at_least, text in rows
    )


@contextmanager
def data_folder(parent: Path) -> Iterator[str]:
    """A new folder for a journal; removed afterwards."""
    made = tempfile.mkdtemp(prefix="zbroker-bench-", dir=parent)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def running_broker(settings: Settings, *flags: str, durable: bool = False) -> Iterator[Broker]:
    """A broker of its own, without a journal or with a new one. Not ready yet: ask for its address."""
    with ExitStack() as stack:
        folder = stack.enter_context(data_folder(settings.folder)) if durable else None
        yield stack.enter_context(Broker(settings.endpoint(), folder, *flags))


@contextmanager
def broker(settings: Settings, *, durable: bool = False) -> Iterator[str]:
    """The address of a broker of its own."""
    with running_broker(settings, durable=durable) as running:
        yield running.address()


def timed(said: dict[str, Any], size: int, **more: Any) -> Sample:
    """A sample of what a worker says of operations that it timed."""
    return Sample(
        rate=said["rate"],
        bytes_rate=said.get("bytes_rate", said["rate"] * size),
        p50_us=said.get("p50_us"),
        p99_us=said.get("p99_us"),
        p999_us=said.get("p999_us"),
        max_us=said.get("max_us"),
        messages=said["received"],
        damaged=said.get("damaged", 0),
        **more,
    )
