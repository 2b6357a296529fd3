"""The broker process put together: sockets, guard, journal, engine, loop. No decision is made here but the order of the start."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable
from typing import Final

import msgspec
import zmq

from patterns.io import sockets
from patterns.io.journal import Journal
from patterns.wire.server import Sessions
from zbroker.config import Options
from zbroker.core.broker import BrokerEngine
from zbroker.core.effects import Effect
from zbroker.core.streams import Streams
from zbroker.processes.guard import Guard
from zbroker.processes.loop import Loop, now_us
from zbroker.store.journal import FileJournal
from zbroker.store.os_disk import OsDisk

_LINGER_MS: Final = 1_000  # for GOODBYE and the last outcomes; a peer that does not read must not hold us longer


class Serving(msgspec.Struct, frozen=True):
    """What the ready line says."""

    native: str
    data: str | None
    epoch: int


def serve(options: Options, on_ready: Callable[[Serving], None]) -> None:
    """Run a broker until a signal.

    Raises:
        Unavailable: the address is in use.
        BadAddress: it is none.
        JournalError: the data folder is locked or unusable.
    """
    _raise_files_limit()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    guard = Guard(options.memory_bytes)
    router = sockets.bare_router(context)
    journal: Journal | None = None
    try:
        guard.watch(router)
        endpoint = sockets.bind(
            router, options.bind
        )  # before the journal: a second broker fails here, touching nothing
        folder = options.data_folder
        if folder is None:
            engine = BrokerEngine(os.urandom(16).hex(), now_us(), epoch=_wall_ms() // 1_000)
        else:
            journal = FileJournal(OsDisk(), folder, random_bytes=os.urandom, wall_ms=_wall_ms)
            engine = _recover(journal)
        guard.start()
        loop = Loop(engine, router, guard, journal)
        loop.run(lambda: on_ready(Serving(endpoint, folder, engine.epoch)))
    finally:
        guard.close()
        router.close(_LINGER_MS)
        context.term()  # returns when what lingers has left
        if journal is not None:
            journal.close()


def _raise_files_limit() -> None:
    """As many connections as the system allows us: without a file handle for the next one, libzmq's accept spins."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS: unlimited is not to be had
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _recover(journal: Journal) -> BrokerEngine:
    """An engine that knows what the journal holds."""
    engine = BrokerEngine("", now_us(), make_streams=_make_streams)
    opened = journal.open(engine.recover)
    engine.opened(opened, str(journal.status().get("uuid", "")), now_us())
    return engine


def _make_streams(sessions: Sessions, effects: list[Effect]) -> Streams:
    return Streams(sessions, effects, _wall_ms_at)


def _wall_ms() -> int:
    """Milliseconds since 1970: for people and for records, never for a timer."""
    return time.time_ns() // 1_000_000


def _wall_ms_at(now: int) -> int:
    """The same for an instant of the engine's clock."""
    return (time.time_ns() // 1_000 + now - now_us()) // 1_000
