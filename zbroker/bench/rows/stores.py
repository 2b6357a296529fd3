"""The same bodies stored by others with the same number of messages a commit: LMDB, SQLite, and a file by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zbroker.bench.processes import Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.account import DiskAccount
from zbroker.bench.rows.durable import disk
from zbroker.bench.rows.plan import KIB, RAW, Plan, Settings, bars, data_folder, running_broker, timed

NEEDS: Final = "lmdb"
COMMIT_BYTES: Final = 64 * KIB
_BLOCK: Final = 4 * KIB


def _told(settings: Settings, one: bool) -> dict[str, Any]:
    per_commit = 1 if one else max(1, COMMIT_BYTES // settings.size)
    return {
        "size": settings.size,
        "per_commit": per_commit,
        "seconds": settings.seconds,
        "warm_up_s": settings.warm_up_s,
    }


def _sample(settings: Settings, said: dict[str, Any], per_commit: float | None, **more: Any) -> Sample:
    return timed(said, settings.size, lost=said["sent"] - said["received"], per_commit=per_commit, **more)


def _other(role: str, one: bool) -> Callable[[Settings], Sample]:
    def run(settings: Settings) -> Sample:
        told = _told(settings, one)
        with data_folder(settings.folder) as folder, Worker(role, folder=folder, **told) as worker:
            said = worker.said(settings.patience_s)
        stored = said["sent"] * settings.size
        written = said["written_bytes"]
        return _sample(
            settings,
            said,
            told["per_commit"],
            write_factor=None if written is None else written / stored,
            space_factor=said["disk_bytes"] / stored,
        )

    return run


def _lmdb(one: bool) -> Callable[[Settings], Sample]:
    return _other("store-lmdb", one)


def _sqlite(one: bool) -> Callable[[Settings], Sample]:
    return _other("store-sqlite", one)


def _ours(one: bool, *, pipelined: bool = False) -> Callable[[Settings], Sample]:
    def run(settings: Settings) -> Sample:
        told = _told(settings, one)
        with running_broker(settings, durable=True) as running:
            address = running.address()
            account = DiskAccount(running, address)
            with Worker("store-zbroker", address=address, pipelined=pipelined, **told) as worker:
                stored = worker.said(settings.patience_s)["stored"]
                factors = account.of(stored, stored * settings.size)
                said = worker.said(settings.patience_s)
        reached = factors.pop("per_commit")
        return _sample(settings, said, reached if pipelined else float(told["per_commit"]), **factors)

    return run


def _disk(one: bool) -> Callable[[Settings], Sample]:
    """A record is what one commit holds; bytes of bodies count, and what is written is whole blocks."""

    def run(settings: Settings) -> Sample:
        per_commit = _told(settings, one)["per_commit"]
        found = disk(settings, -(-per_commit * settings.size // _BLOCK) * _BLOCK)
        rate = (found.rate or 0.0) * per_commit
        return Sample(
            rate=rate,
            bytes_rate=rate * settings.size,
            p50_us=found.p50_us,
            p99_us=found.p99_us,
            messages=found.messages * per_commit,
            per_commit=float(per_commit),
        )

    return run


_SIZED: Final = frozenset(("size",))
_NETWORK: Final = frozenset(("size", "transport"))


def _pipelined(_one: bool) -> Callable[[Settings], Sample]:
    return _ours(one=False, pipelined=True)


_Make = Callable[[bool], Callable[[Settings], Sample]]
_BULK: Final = (False, "", ", commits of 64 KiB")
_SINGLE: Final = (True, "-one", ", one message a commit")
_ALL: Final = (False, "", ", all in one call")
_BOTH: Final = (_BULK, _SINGLE)
_KINDS: Final[tuple[tuple[str, str, str, _Make, frozenset[str], str, tuple[tuple[bool, str, str], ...]], ...]] = (
    ("store-pipelined", "zbroker", "Producer.send_many()", _pipelined, _NETWORK, "", (_ALL,)),
    ("store", "zbroker", "Producer.send_many(), send()", _ours, _NETWORK, "", _BOTH),
    ("store-lmdb", "LMDB", "Cursor.putmulti()", _lmdb, _SIZED, NEEDS, _BOTH),
    ("store-sqlite", "SQLite, WAL, FULL", "executemany()", _sqlite, _SIZED, "", _BOTH),
    ("store-disk", "the disk: pwrite + fdatasync", "os.pwrite", _disk, _SIZED, "", _BOTH),
)

PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(
        name=name + ending,
        group="stores",
        label=label + commit,
        api=api,
        body=RAW,
        run=make(one),
        honours=honours,
        needs=needs,
    )
    for name, label, api, make, honours, needs, ways in _KINDS
    for one, ending, commit in ways
)

BARS: Final = bars(
    ("store", "rate", ("store-lmdb",), None, True, "stored, commits of 64 KiB / LMDB"),
    ("store", "rate", ("store-sqlite",), None, True, "stored, commits of 64 KiB / SQLite"),
    ("store", "rate", ("store-disk",), None, True, "stored, commits of 64 KiB / the disk"),
    ("store-pipelined", "rate", ("store-lmdb",), None, True, "stored, pipelined / LMDB, commits of 64 KiB"),
    ("store-pipelined", "rate", ("store-sqlite",), None, True, "stored, pipelined / SQLite, commits of 64 KiB"),
    ("store-one", "rate", ("store-lmdb-one",), None, True, "stored, one message a commit / LMDB"),
    ("store-one", "rate", ("store-sqlite-one",), None, True, "stored, one message a commit / SQLite"),
    ("store-one", "rate", ("store-disk-one",), None, True, "stored, one message a commit / the disk"),
)
