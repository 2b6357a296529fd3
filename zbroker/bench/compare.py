"""`zbroker bench compare`: every row in every round, so that a ratio compares what ran side by side."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from zbroker.bench.ends.nats import is_installed as nats_is_there
from zbroker.bench.ends.window import WINDOW
from zbroker.bench.machine import MEMORY_FILE_SYSTEMS, file_system, machine, versions
from zbroker.bench.report import Ratio, Report, Row, Sample, held_against
from zbroker.bench.rows import BARS, FIRST_GROUPS, PLANS, Plan, Settings
from zbroker.bench.rows.durable import disk_4k
from zbroker.bench.rows.nats import NEEDS as NATS
from zbroker.bench.rows.plan import RAW
from zbroker.bench.rows.stores import NEEDS as LMDB
from zbroker.extras import how_to_install

ALL: Final = "all"
Progress = Callable[[float, int, str], None]
_DISK_PROBE_S: Final = 0.5


class UnknownRow(ValueError):
    """A name that no row has."""


def chosen(names: Sequence[str]) -> list[Plan]:
    """The rows of these names or groups, in the order of the table; the first groups for none. Raises UnknownRow."""
    groups = list(dict.fromkeys(plan.group for plan in PLANS))
    known = {plan.name for plan in PLANS} | {ALL, *groups}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=5)
            raise UnknownRow(
                f"no row or group {name!r}; "
                + (f"did you mean {', '.join(near)}?" if near else f"groups are {', '.join([*groups, ALL])}")
            )
    wanted = set(names or FIRST_GROUPS)
    return [plan for plan in PLANS if ALL in wanted or wanted & {plan.name, plan.group}]


def without_missing(plans: Sequence[Plan], *, over_tcp: bool) -> tuple[list[Plan], list[str]]:
    """(the rows that can be run here, why others cannot)."""
    missing = {}
    if not over_tcp:
        missing[NATS] = "nats-server has no ipc transport"
    elif not nats_is_there():
        missing[NATS] = f"nats-server and nats-py are not installed: {how_to_install('bench')}"
    if find_spec(LMDB) is None:
        missing[LMDB] = f"lmdb is not installed: {how_to_install('bench')}"
    wanted = {plan.needs for plan in plans}
    return [plan for plan in plans if plan.needs not in missing], [
        reason for needs, reason in missing.items() if needs in wanted
    ]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A row at one size."""

    plan: Plan
    size: int | None

    @property
    def name(self) -> str:
        return self.plan.name if self.size is None else f"{self.plan.name}@{self.size}"


def cases_of(plans: Sequence[Plan], sizes: Sequence[int]) -> list[Case]:
    """Each row at each size; once, where it has no say in it, or there is one size only."""
    return [
        Case(plan=plan, size=size)
        for plan in plans
        for size in (sizes if "size" in plan.honours and len(sizes) > 1 else (None,))
    ]


def order(cases: Sequence[Case], rounds: int) -> Iterator[Case]:
    """Group by group and size by size, every round of it forwards and then backwards: what drifts hits both sides alike."""
    for key in dict.fromkeys((case.plan.group, case.size) for case in cases):
        members = [case for case in cases if (case.plan.group, case.size) == key]
        for number in range(rounds):
            yield from members if number % 2 == 0 else reversed(members)


@contextmanager
def disk_folder(wanted: Path | None) -> Iterator[Path]:
    """The folder that is given, or a temporary one that is on a disk.

    Raises:
        OSError: there is none.
    """
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
        return
    places = (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd())
    place = next((one for one in places if one.is_dir() and file_system(one) not in MEMORY_FILE_SYSTEMS), None)
    if place is None:
        raise OSError("no temporary folder is on a disk; name one with --data")
    with tempfile.TemporaryDirectory(prefix="zbroker-bench-", dir=place) as made:
        yield Path(made)


@contextmanager
def socket_folder(transport: str) -> Iterator[Path | None]:
    """A short folder for ipc:// sockets; None for tcp."""
    if transport == "tcp":
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="zb-", dir="/tmp") as made:  # a socket's path has at most 107 bytes
        yield Path(made)


def compare(plans: Sequence[Plan], settings: Settings, progress: Progress, sizes: Sequence[int] = ()) -> Report:
    """Run all, and hold them against the bars.

    Args:
        plans: see chosen().
        settings: how long, how often, how large.
        progress: told (samples done, samples in all, what runs now).
        sizes: of raw bodies, bytes; rows whose size can be chosen run at each. None: the one of the settings.

    Raises:
        BenchFailed: a process of a row died or fell silent.
    """
    before = machine()  # the load that others make, not ours
    probe = disk_4k(msgspec.structs.replace(settings, seconds=_DISK_PROBE_S))
    if len(sizes) == 1:
        settings = msgspec.structs.replace(settings, size=sizes[0])
    cases = cases_of(plans, sizes or (settings.size,))
    rows = {case.name: _empty(case, settings) for case in cases}
    total = len(cases) * settings.repeat
    for done, case in enumerate(order(cases, settings.repeat)):
        label = rows[case.name].label

        def tell(part: float, done: int = done, label: str = label) -> None:
            progress(done + part, total, label)

        tell(0.0)
        told = msgspec.structs.replace(settings, size=case.size or settings.size, tell=tell)
        rows[case.name].samples.append(case.plan.run(told))
    progress(total, total, "")
    return Report(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=before,
        versions=versions(),
        disk=_disk(settings.folder, probe),
        settings=_told(settings, sizes),
        rows=list(rows.values()),
        ratios=ratios_of(rows),
    )


def _told(settings: Settings, sizes: Sequence[int]) -> dict[str, Any]:
    return {
        "seconds": settings.seconds,
        "repeat": settings.repeat,
        "size": settings.size,
        "sizes": list(sizes) or [settings.size],
        "transport": "tcp" if settings.sockets is None else "ipc",
        "connections": settings.connections,
        "api": settings.api,
        "rate": settings.rate,
        "backlog": settings.backlog,
        "window_messages": WINDOW,
    }


def ratios_of(rows: dict[str, Row]) -> list[Ratio]:
    """Bar by bar, at each size of its row; a row that has no sizes stands beside those that have."""
    found = []
    for size in dict.fromkeys(row.size for row in rows.values()):
        known = {name.partition("@")[0]: row for name, row in rows.items() if row.size in (None, size)}
        for bar in BARS:
            ratio = held_against(bar, known)
            if ratio is not None and (size is None or any(known[name].size for name in (bar.row, *bar.against))):
                found.append(ratio)
    return found


def _empty(case: Case, settings: Settings) -> Row:
    plan = case.plan
    body = f"raw, {case.size or settings.size} B" if plan.body == RAW else plan.body
    return Row(name=case.name, group=plan.group, label=plan.label, api=plan.api, body=body, samples=[], size=case.size)


def _disk(folder: Path, probe: Sample) -> dict[str, Any]:
    kind = file_system(folder)
    return {
        "file_system": kind,
        "in_memory": kind in MEMORY_FILE_SYSTEMS,
        "write_4k_and_fdatasync_p50_us": probe.p50_us,
        "write_4k_and_fdatasync_p99_us": probe.p99_us,
    }


def names_in(text: str | None) -> list[str]:
    """The names of `--rows a,b`."""
    parts: Iterable[str] = (text or "").split(",")
    return [part.strip() for part in parts if part.strip()]
