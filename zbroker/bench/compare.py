"""`zbroker bench compare`: every row in every round, so that a ratio compares what ran side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from zbroker.bench.machine import MEMORY_FILE_SYSTEMS, file_system, machine, versions
from zbroker.bench.report import Report, Row, Sample, held_against
from zbroker.bench.rows import BARS, PLANS, Plan, Settings, disk_4k
from zbroker.bench.window import WINDOW

Progress = Callable[[int, int, str], None]
_DISK_PROBE_S: Final = 0.5


class UnknownRow(ValueError):
    """A name that no row has."""


def chosen(names: Sequence[str]) -> list[Plan]:
    """The rows of these names or groups, in the order of the table; all for none. Raises UnknownRow."""
    known = {plan.name for plan in PLANS} | {plan.group for plan in PLANS}
    for name in names:
        if name not in known:
            raise UnknownRow(f"no row {name!r}; there are {', '.join(sorted(known))}")
    return [plan for plan in PLANS if not names or plan.name in names or plan.group in names]


def order(plans: Sequence[Plan], rounds: int) -> Iterator[Plan]:
    """Group by group, every round of it forwards and then backwards: what drifts hits both sides alike."""
    for group in dict.fromkeys(plan.group for plan in plans):
        members = [plan for plan in plans if plan.group == group]
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


def compare(plans: Sequence[Plan], settings: Settings, progress: Progress) -> Report:
    """Run all, and hold them against the bars.

    Args:
        plans: see chosen().
        settings: how long, how often, how large.
        progress: told (samples done, samples in all, what runs now).

    Raises:
        BenchFailed: a process of a row died or fell silent.
    """
    before = machine()  # the load that others make, not ours
    probe = disk_4k(Settings(seconds=_DISK_PROBE_S, repeat=1, size=settings.size, folder=settings.folder))
    rows = {plan.name: _empty(plan, settings) for plan in plans}
    for done, plan in enumerate(order(plans, settings.repeat)):
        progress(done, len(plans) * settings.repeat, plan.label)
        rows[plan.name].samples.append(plan.run(settings))
    progress(len(plans) * settings.repeat, len(plans) * settings.repeat, "")
    return Report(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=before,
        versions=versions(),
        disk=_disk(settings.folder, probe),
        settings={
            "seconds": settings.seconds,
            "repeat": settings.repeat,
            "size": settings.size,
            "window_messages": WINDOW,
        },
        rows=list(rows.values()),
        ratios=_ratios(rows),
    )


def _ratios(rows: dict[str, Row]) -> list[Any]:
    return [ratio for bar in BARS if (ratio := held_against(bar, rows)) is not None]


def _empty(plan: Plan, settings: Settings) -> Row:
    body = f"raw, {settings.size} B" if plan.body == "raw" else plan.body
    return Row(name=plan.name, group=plan.group, label=plan.label, api=plan.api, body=body, samples=[])


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
