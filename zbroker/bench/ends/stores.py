"""The same bodies, the same number of messages a commit, stored by others: LMDB and SQLite in this process, and our broker.

Everything that was committed is read back afterwards and compared; that is not timed.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain, cycle, islice, takewhile
from pathlib import Path
from typing import Any, Final

import msgspec

from patterns.sync import Consumer, Producer
from zbroker.bench.ends.asking import latency
from zbroker.bench.ends.bodies import END, raw_bodies
from zbroker.bench.ends.durable import CREDIT, STREAM, TIMEOUT_S
from zbroker.bench.ends.feed import parts_of
from zbroker.bench.footprint import allocated_in, written_in

Say = Callable[[dict[str, Any]], None]
Commit = Callable[[int, list[bytes]], None]  # the number of the first message, and bodies that one commit holds
_MAP_BYTES: Final = 1 << 36  # of LMDB's map: address space, not memory or disk
_KEY_BYTES: Final = 8
_IO: Final = Path("/proc/self/io")


class Storing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be stored.

    Attributes:
        size: of a body, bytes.
        per_commit: messages.
        seconds: how long.
        warm_up_s: what is not measured at the beginning.
    """

    size: int
    per_commit: int
    seconds: float
    warm_up_s: float

    def parts(self) -> list[list[bytes]]:
        """The pool, over and over if it must be, in commits."""
        pool = raw_bodies(self.size)
        whole = max(len(pool), self.per_commit) // self.per_commit * self.per_commit
        return parts_of(list(islice(cycle(pool), whole)), self.per_commit)

    def run(self, commit: Commit) -> dict[str, Any]:
        """Commit after commit until the time is up; what the parent hears."""
        clock = time.perf_counter_ns
        parts = self.parts()
        times: list[int] = []
        begin = end = clock()
        warm, until = begin + int(self.warm_up_s * 1e9), begin + int(self.seconds * 1e9)
        count = 0
        while end < until:
            part = parts[count % len(parts)]
            started = clock()
            commit(count * self.per_commit, part)
            end = clock()
            count += 1
            if started >= warm or end >= until:
                times.append(end - started)
        said = latency(times, count * self.per_commit, 0)
        rate = said["rate"] * self.per_commit
        return {**said, "rate": rate, "bytes_rate": rate * self.size, "sent": count * self.per_commit}

    def pipelined(self, send_many: Callable[[Iterable[bytes]], Sized]) -> dict[str, Any]:
        """All at once, for as long; times of commits are not known."""
        until = time.perf_counter_ns() + int(self.seconds * 1e9)
        parts = takewhile(lambda _part: time.perf_counter_ns() < until, cycle(self.parts()))
        begin = time.perf_counter_ns()
        sent = len(send_many(chain.from_iterable(parts)))
        rate = sent * 1e9 / (time.perf_counter_ns() - begin)
        return {"rate": rate, "bytes_rate": rate * self.size, "sent": sent}

    def checked(self, said: dict[str, Any], stored: Iterable[bytes]) -> dict[str, Any]:
        """The same with what was read back."""
        expected = cycle(body for part in self.parts() for body in part)
        found = damaged = 0
        for body, wanted in zip(islice(stored, said["sent"]), expected, strict=False):
            found += 1
            damaged += body != wanted
        return {**said, "received": found, "damaged": damaged}


def _told(said: dict[str, Any], folder: str, written: int | None) -> dict[str, Any]:
    return {**said, "written_bytes": written, "disk_bytes": allocated_in(Path(folder))}


def store_in_lmdb(say: Say, *, folder: str, **told: Any) -> None:
    """A transaction for each commit, as LMDB comes: synced when it is committed. Keys rise, which it is told."""
    import lmdb

    storing = msgspec.convert(told, Storing)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        before = written_in(_IO)
        with lmdb.open(place, map_size=_MAP_BYTES) as environment:

            def commit(first: int, bodies: list[bytes]) -> None:
                with environment.begin(write=True) as transaction:
                    items = [(number.to_bytes(_KEY_BYTES, "big"), body) for number, body in enumerate(bodies, first)]
                    transaction.cursor().putmulti(items, append=True)

            said = _told(storing.run(commit), place, _since(before))
            with environment.begin() as transaction:
                say(storing.checked(said, transaction.cursor().iternext(keys=False, values=True)))


def _since(before: int | None) -> int | None:
    now = written_in(_IO)
    return None if before is None or now is None else now - before


def store_in_sqlite(say: Say, *, folder: str, **told: Any) -> None:
    """A transaction for each commit, write-ahead log, synchronous=FULL: synced when it is committed."""
    storing = msgspec.convert(told, Storing)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        before = written_in(_IO)
        connection = sqlite3.connect(os.path.join(place, "store"), isolation_level=None)
        for setting in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute("CREATE TABLE message (number INTEGER PRIMARY KEY, body BLOB NOT NULL)")

        def commit(first: int, bodies: list[bytes]) -> None:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO message VALUES (?, ?)", enumerate(bodies, first))
            connection.execute("COMMIT")

        said = _told(storing.run(commit), place, _since(before))
        rows = connection.execute("SELECT body FROM message ORDER BY number")
        say(storing.checked(said, (body for (body,) in rows)))
        connection.close()


def store_in_zbroker(say: Say, *, address: str, pipelined: bool, **told: Any) -> None:
    """send() of one message, or send_many() of one commit's worth, each on disk before the next begins.

    Pipelined: one send_many() of all, and the broker makes commits of what has come.
    """
    storing = msgspec.convert(told, Storing)
    with Producer(address, STREAM, codec="raw", timeout_s=TIMEOUT_S) as producer:
        producer.send(END)

        def commit(_first: int, bodies: list[bytes]) -> None:
            if len(bodies) == 1:
                producer.send(bodies[0])
            else:
                producer.send_many(bodies)

        said = storing.pipelined(producer.send_many) if pipelined else storing.run(commit)
    say({"stored": said["sent"]})  # the parent looks at the disk now
    with Consumer(address, STREAM, credit=CREDIT, codec="raw", idle_timeout_s=TIMEOUT_S) as consumer:
        say(storing.checked(said, _read(consumer, said["sent"])))


def _read(consumer: Consumer, messages: int) -> Iterator[bytes]:
    left = messages
    for batch in consumer.batches():
        for body in batch.bodies:
            if body != END:
                yield body
                left -= 1
        if not left:
            return
