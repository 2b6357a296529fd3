"""The broker process put together: sockets, guard, journal, engine, loop. No decision is made here but the order of the start."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec
import zmq

from patterns.io import sockets
from patterns.io.guard import Guard
from patterns.io.journal import Journal
from patterns.wire.limits import MIB
from patterns.wire.messages import Codec
from patterns.wire.server import Sessions
from zbroker import __version__
from zbroker.config import Options
from zbroker.core.broker import BrokerEngine, MakeStreams
from zbroker.core.effects import Effect
from zbroker.core.policy import Policy
from zbroker.core.streams import Streams
from zbroker.core.translate import Translate, strictly, translate
from zbroker.processes.claim import Claim
from zbroker.processes.clocks import now_us, wall_ms, wall_ms_at
from zbroker.processes.dialogue import Order
from zbroker.processes.line import Line
from zbroker.processes.logbook import Logbook
from zbroker.processes.loop import Loop
from zbroker.processes.news import News, news_of_cut
from zbroker.processes.plain import PlainPorts
from zbroker.processes.reading import ReadingThread
from zbroker.processes.sidecar_journal import LOCK_WAIT_US, SidecarJournal
from zbroker.processes.spawn import start_sidecar
from zbroker.store.os_disk import OsDisk
from zbroker.store.reader import RecordReader

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES: Final = 32 * MIB  # of freed memory, in each of two arenas
_MAPPED_BYTES_MIN: Final = 4 * MIB  # above the largest batch
_STUCK_S: Final = 0.2  # for GOODBYE, where nothing tells that it has left
# Contexts whose end would wait for a busy libzmq, kept from being collected until the process has gone.
_abandoned: Final[list[zmq.Context[zmq.Socket[bytes]]]] = []
_LINGER_MS: Final = 1_000  # for GOODBYE and the last outcomes; a peer that does not read must not hold us longer


class Serving(msgspec.Struct, frozen=True):
    """What the ready line says."""

    native: str
    xsub: str | None
    xpub: str | None
    data: str | None
    epoch: int


def serve(options: Options, on_ready: Callable[[Serving], None], sidecar: Line | None = None) -> None:
    """Run a broker until a signal.

    Args:
        sidecar: a process that was begun for its journal, to spare time; without one it begins one.

    Raises:
        Unavailable: an address is in use.
        BadAddress: it is none.
        JournalError: the data folder is locked or unusable.
    """
    _raise_files_limit()
    _keep_freed_memory()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    logbook = open_logbook(options)
    guard = Guard(options.memory_bytes, on_cut=lambda cut: _log(logbook, news_of_cut(cut)))
    router = sockets.bare_router(context)
    plain = PlainPorts(context, guard)
    journal: Journal | None = None
    claim = Claim(options.data_folder or "")
    reads: ReadingThread | None = None
    engine: BrokerEngine | None = None
    try:
        guard.watch(router)
        endpoint = sockets.bind(
            router, options.bind
        )  # before the journal: a second broker fails here, touching nothing
        plain.bind(options.xsub_address, options.xpub_address)
        folder = options.data_folder
        if folder is None:
            engine = _engine(options, os.urandom(16).hex(), epoch=wall_ms() // 1_000)
        else:
            journal = _make_journal(folder, sidecar, logbook, claim)
            engine = _recover(options, journal, claim)
            reads = ReadingThread(RecordReader(OsDisk(read_only=True), folder), folder, now_us)
            reads.start()
        guard.start()
        serving = Serving(endpoint, plain.xsub_endpoint, plain.xpub_endpoint, folder, engine.epoch)
        loop = Loop(engine, router, guard, journal, logbook, plain, options.drain_s * 1_000_000, reads)
        loop.run(lambda: _announce(serving, on_ready, logbook))
    finally:
        is_free = plain.stop()
        guard.close()
        plain.close(_LINGER_MS)
        router.close(_LINGER_MS)
        if is_free:
            context.term()  # returns when what lingers has left
        else:
            _abandoned.append(context)
            time.sleep(_STUCK_S)
        try:
            if reads is not None and not reads.close():
                logbook.write("warning", "reader_stuck", folder=folder)
            if journal is not None:
                journal.close()
            if engine is not None:
                logbook.write("info", "stopped", uptime_ms=engine.uptime_ms(now_us()))
        finally:
            claim.release()
            logbook.close()


def open_logbook(options: Options) -> Logbook:
    """The log as the settings want it, on standard error if there is one."""
    descriptor = sys.stderr.fileno() if sys.stderr is not None else None  # else its number may be a journal's
    return Logbook(options.log_format, options.log_level, descriptor, now_us, wall_ms)


def _announce(serving: Serving, on_ready: Callable[[Serving], None], logbook: Logbook) -> None:
    logbook.write("info", "started", **msgspec.structs.asdict(serving), pid=os.getpid(), version=__version__)
    on_ready(serving)


def _log(logbook: Logbook, news: News) -> None:
    level, event, fields = news
    logbook.write(level, event, **fields)


def _raise_files_limit() -> None:
    """As many connections as the system allows us: without a file handle for the next one, libzmq's accept spins."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS: unlimited is not to be had
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_freed_memory() -> None:
    """Have glibc keep what a burst of batches has freed for the next one, instead of giving it back page by page.

    The guard's malloc_trim gives all of it back after a flood. Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES_MIN)


def _engine(options: Options, cluster: str, epoch: int = 0, make_streams: MakeStreams | None = None) -> BrokerEngine:
    """An engine with what comes from outside: settings, an instant, a nonce of this life."""
    return BrokerEngine(
        cluster, now_us(), epoch, make_streams, os.urandom(16), Codec(options.plain_codec), translate_of(options)
    )


def policy_of(options: Options) -> Policy:
    """What its streams do where their own configuration says nothing."""
    return Policy(
        stream_bytes=options.stream_bytes,
        stream_quota_bytes=options.stream_quota_bytes,
        folder_quota_bytes=options.folder_quota_bytes,
        auto_create=options.auto_create,
        group_idle_s=float(options.group_idle_s),
    )


def translate_of(options: Options) -> Translate:
    """How it gets bodies into another codec."""
    return strictly if options.duplicate_keys == "refuse" else translate


def _make_journal(folder: str, begun: Line | None, logbook: Logbook, claim: Claim) -> Journal:
    """In a sidecar process: the one that was begun already, and another one should it die."""
    ahead = [] if begun is None else [begun]
    order = Order(folder, lock_wait_us=LOCK_WAIT_US)

    def waits() -> bool:
        if claim.is_another():
            return False
        logbook.write("warning", "journal_locked", folder=folder, wait_ms=LOCK_WAIT_US // 1_000)
        return True

    return SidecarJournal(lambda: ahead.pop() if ahead else start_sidecar(), order, now_us, waits)


def _recover(options: Options, journal: Journal, claim: Claim) -> BrokerEngine:
    """An engine that knows what the journal holds, in a folder that is ours."""

    def make_streams(sessions: Sessions, effects: list[Effect]) -> Streams:
        return Streams(sessions, effects, wall_ms_at, translate=translate_of(options), policy=policy_of(options))

    engine = _engine(options, "", make_streams=make_streams)
    opened = journal.open(engine.recover, engine)
    claim.take()
    engine.opened(opened, str(journal.status().get("uuid", "")), now_us())
    return engine
