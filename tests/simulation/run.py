"""Running seeds: one, many for a time, and a failing one again and again until its list of faults cannot be cut down."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.simulation.defects import Defects
from tests.simulation.faults import Fault
from tests.simulation.world import World
from zbroker.core import broker, captures, checkpoint, column, heap, intake, leases, message_ids, topics

_FEW: Final = 8
_SMALL: Final = (
    (
        2,
        column,
        "BLOCK",
        _FEW,
    ),  # in every second seed what is packed when there are thousands is packed when there are eight
    (2, leases, "YOUNG_MAX", _FEW),
    (2, heap, "YOUNG_MAX", _FEW),
    (2, message_ids, "_PIECE", _FEW),
    (3, checkpoint, "CHUNK_BYTES", 1_000),  # else the state of a small world is one chunk, of one moment
    (3, captures, "UNPACED_BYTES_MAX", 3_000),
    *((4, module, "CREDIT_BYTES", 4_000) for module in (broker, captures, intake, topics)),
    *((4, module, "CREDIT_MESSAGES", 30) for module in (broker, captures, intake, topics)),
)
_SHRINK_RUNS_MAX: Final = 200
PROCESSES: Final = 2


class Outcome(NamedTuple):
    """What became of a seed."""

    seed: int
    error: str  # "" when all held
    trace_crc: int
    steps: int
    simulated_us: int
    counters: Counter[str]
    plan: list[Fault]


@contextmanager
def packed_early(seed: int) -> Iterator[None]:
    """What is for thousands is for few, so that few reach it."""
    with ExitStack() as stack:
        for one_in, module, name, few in _SMALL:
            if seed % one_in == 1:
                stack.enter_context(patch.object(module, name, few))
        yield


def run_seed(
    seed: int,
    *,
    kinds: Sequence[str] | None = None,
    only: Sequence[int] | None = None,
    defects: type[Defects] = Defects,
) -> Outcome:
    """One run. Whatever is raised is its error: a broken promise, or a crash of an engine, which is one too."""
    world = World(seed, kinds=kinds, only=only)
    error = ""
    try:
        with defects.planted(), packed_early(seed):
            world.run()
    except Exception as raised:  # noqa: BLE001  an engine that raises is a finding, not the end of the search
        place = traceback.extract_tb(raised.__traceback__)[-1]
        error = f"{type(raised).__name__}: {raised} [{place.filename.rpartition('/')[2]}:{place.lineno}]"
    return Outcome(
        seed, error, world.trace_crc, world.scheduler.steps, world.scheduler.now, world.account(), world.plan
    )


def _check_of(outcome: Outcome) -> str:
    """Where it stands: file and line."""
    return outcome.error.rpartition("[")[2]


def shrink(seed: int, *, kinds: Sequence[str] | None = None, defects: type[Defects] = Defects) -> Outcome:
    """The shortest list of faults found with which the same check still fails: whole halves go first, then single ones."""
    best = run_seed(seed, kinds=kinds, defects=defects)
    if not best.error:
        return best
    kept = list(range(len(best.plan)))
    size, runs = max(1, len(kept) // 2), 0
    while size and kept and runs < _SHRINK_RUNS_MAX:
        for begin in range(0, len(kept), size):
            rest = kept[:begin] + kept[begin + size :]
            found = run_seed(seed, kinds=kinds, only=rest, defects=defects)
            runs += 1
            if found.error and _check_of(found) == _check_of(best):
                best, kept = found, rest
                break
        else:
            size //= 2
    return best


class Tally:
    """Many outcomes added up."""

    def __init__(self) -> None:
        self.seeds = 0
        self.steps = 0
        self.simulated_us = 0
        self.counters: Counter[str] = Counter()
        self.failures: list[Outcome] = []
        self.seconds = 0.0

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.steps += outcome.steps
        self.simulated_us += outcome.simulated_us
        self.counters += outcome.counters
        if outcome.error:
            self.failures.append(outcome)

    def lines(self) -> list[str]:
        """For people."""
        faults = sum(count for name, count in self.counters.items() if name.startswith("fault."))
        rate = self.steps / self.seconds if self.seconds else 0
        speed = self.simulated_us / 1e6 / self.seconds if self.seconds else 0
        lines = [
            f"{self.seeds} seeds, {faults} faults, {self.steps} steps in {self.seconds:.0f} s"
            f" ({rate:.0f} steps/s, {speed:.0f} simulated seconds a second), {len(self.failures)} failed"
        ]
        lines += [f"  {name:<40} {count}" for name, count in sorted(self.counters.items())]
        return lines


def run_many(
    seeds: Iterable[int],
    seconds: float,
    *,
    kinds: list[str] | None = None,
    defects: type[Defects] = Defects,
    stop_at_failure: bool = False,
    processes: int = PROCESSES,
) -> Tally:
    """Seeds in order, until they or the time are over."""
    tally = Tally()
    began = time.monotonic()
    left = iter(seeds)
    context: Any = multiprocessing.get_context("spawn")  # fork copies threads and locks of whoever runs us
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running = {pool.submit(run_seed, seed, kinds=kinds, defects=defects) for seed in islice(left, processes)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                tally.add(future.result())
            is_over = time.monotonic() - began >= seconds or (stop_at_failure and tally.failures)
            for seed in () if is_over else islice(left, processes - len(running)):
                running.add(pool.submit(run_seed, seed, kinds=kinds, defects=defects))
    tally.failures.sort(key=lambda failure: failure.seed)
    tally.seconds = time.monotonic() - began
    return tally
