"""Phases of a broker and its sidecar as they can be told from outside, and strikes in the middle of one. No test lives here.

A phase of milliseconds is over before anybody who has seen it can send a signal. So both processes are stopped first, then it is
looked whether the phase is under way; if it is, the victims are struck, and if not, both go on and it is tried again.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from statistics import median
from typing import Final

from tests.crash.load import Load
from tests.processes import Broker, until
from zbroker.cli.exits import UNAVAILABLE
from zbroker.store.checkpoint import DRAFT as CHECKPOINT_DRAFT
from zbroker.store.compaction import DRAFT as COMPACTION_DRAFT
from zbroker.store.faults import FolderLocked
from zbroker.store.os_disk import OsDisk
from zbroker.store.segment import parse_name
from zbroker.store.verify import FolderReport, verify_folder

PHASE_S: Final = 60.0  # until a phase comes, on a machine that does twenty other things
PAUSE_S: Final = (0.03, 0.4)  # of a stop
DEATHS_MAX: Final = 4  # of sidecars in a life of a broker: with five within ten seconds it takes its journal for failed
_LATE_S: Final = 0.03  # the most between the sight of a phase and its strike
_LOOKS: Final = 20
_BETWEEN_LOOKS_S: Final = 0.0005
_READ_S: Final = 0.02  # within which a line that was said is taken out of its pipe


class Phase(Enum):
    """What is under way."""

    START = "start-up"  # begun, and no ready line
    LOAD = "load"  # sent, and not confirmed
    CHECKPOINT = "checkpoint"  # the sidecar has the draft open
    COMPACTION = "compaction"  # likewise
    SWAP = "swap"  # the compacted file has its name, and the broker still uses the one that it replaces


class How(Enum):
    """The signals that victims get."""

    KILL = "SIGKILL"
    PAUSE = "SIGSTOP, SIGCONT"
    PAUSE_AND_KILL = "SIGSTOP, SIGKILL"


VICTIMS: Final = (("broker",), ("sidecar",), ("broker", "sidecar"))


@dataclass(frozen=True)
class Strike:
    """Who gets which signals in which phase."""

    phase: Phase
    victims: tuple[str, ...]
    how: How

    def kills(self, victim: str) -> bool:
        return victim in self.victims and self.how is not How.PAUSE

    def __str__(self) -> str:
        return f"{self.phase.value}: {' and '.join(self.victims)}: {self.how.value}"


ALL: Final = [Strike(phase, victims, how) for phase in Phase for victims in VICTIMS for how in How]


@dataclass
class Striker:
    """Strikes at one broker over its lives.

    Attributes:
        hits: strikes that met their phase.
        misses: by phase, stops that did not meet it and were taken back.
        refusals: starts that ended because their sidecar was killed.
        verified: folders of dead brokers that were looked through.
    """

    broker: Broker
    load: Load
    dice: random.Random
    hits: list[Strike] = field(default_factory=list)
    misses: Counter[Phase] = field(default_factory=Counter)
    refusals: int = 0
    verified: int = 0
    _deaths: int = 0  # of sidecars in this life

    def strike(self, strike: Strike) -> None:
        """Once, in the middle of its phase; the broker runs afterwards, unless it was killed.

        Raises:
            AssertionError: the phase does not come, or the broker does not, or what it leaves is damaged.
        """
        print(f"strike {len(self.hits) + 1}: {strike}")  # shown when it fails
        if strike.phase is Phase.START:
            self._strike_start(strike)
        else:
            self._strike_work(strike)
        self.hits.append(strike)

    def kill(self) -> None:
        """The broker, if it runs. Its sidecar may live on for a moment: the next broker waits for it, or this does and looks at the folder."""
        self.broker.process.kill()
        if self.dice.random() < 1 / 2:
            reports: list[FolderReport] = []
            until(lambda: self._is_free(reports), what="a free folder")
            assert reports[0].is_whole, reports[0]
            self.verified += 1

    def _is_free(self, reports: list[FolderReport]) -> bool:
        with suppress(FolderLocked):
            reports.append(verify_folder(OsDisk(), str(self.broker.data)))
        return bool(reports)

    # -- at work ------------------------------------------------------------------------------------------------------

    def _strike_work(self, strike: Strike) -> None:
        if self._deaths >= DEATHS_MAX and strike.kills("sidecar"):
            self.kill()
        self.revive()
        before, wanted = self.load.progress, self.dice.randint(1, 300)
        self.load.permit(500, 1)
        until(lambda: self.load.progress > before + wanted or self.load.account.errors, what="any progress")
        until(lambda: self._meets(strike), PHASE_S, f"{strike.phase.value} at a stop, after {self.misses} in vain,")
        self._deaths += strike.kills("sidecar")
        if strike.kills("broker"):
            self.kill()

    def revive(self) -> None:
        """Begin the broker again, if it is dead."""
        if self.broker.process.process.poll() is not None:
            self.broker.start()
            self._deaths = 0

    def _meets(self, strike: Strike) -> bool:
        until(lambda: self._sees(strike.phase), PHASE_S, strike.phase.value)
        threading.Event().wait(self.dice.uniform(0, _LATE_S))
        return self._tries(strike)

    def _sees(self, phase: Phase) -> bool:
        """A phase that is shorter than the naps of until()."""
        assert not self.load.account.errors, self.load.account.errors
        self.load.permit_bulk()
        nap = threading.Event()
        for _ in range(_LOOKS):
            if self._is_under_way(phase, next(iter(self.broker.children()), 0)):
                return True
            nap.wait(_BETWEEN_LOOKS_S)
        return False

    # -- start-up -----------------------------------------------------------------------------------------------------

    def _strike_start(self, strike: Strike) -> None:
        until(lambda: self._meets_start(strike), PHASE_S, f"a stop before the ready line, after {self.misses} in vain,")

    def _meets_start(self, strike: Strike) -> bool:
        """Begin it, and strike before it is ready. If that was too late, it is ready, and the next try begins it anew."""
        process = self.broker.process
        if process.process.poll() is None:
            self.kill()
        self.broker.spawn()
        self._deaths = 0
        if "sidecar" in strike.victims:
            until(lambda: bool(self.broker.children()) or not self.broker.process.is_silent, what="a sidecar")
        threading.Event().wait(self.dice.uniform(0, median(self.broker.ready_s[-5:])))
        is_hit = self._tries(strike)
        if is_hit and strike.kills("broker"):
            self.kill()
            for said in self.broker.process.lines():
                self.broker.take_ready(said)
                self.misses[Phase.START] += 1
                return False
        else:
            self._await_ready(is_hit and strike.kills("sidecar"))
        return is_hit

    def _await_ready(self, may_refuse: bool) -> None:
        said = self.broker.process.line_or_end()
        if said is not None:
            self.broker.take_ready(said)
            self._deaths += may_refuse
            return
        status, errors = self.broker.process.wait(), self.broker.process.errors
        assert may_refuse, f"no ready line, exit status {status}:\n{errors}"
        assert status == UNAVAILABLE, errors
        assert "its sidecar process has died while it opened the folder" in errors
        self.refusals += 1

    # -- the stop, the look, the strike -------------------------------------------------------------------------------

    def _tries(self, strike: Strike) -> bool:
        """Whether the phase was under way when both stood still; then the victims were struck."""
        with self._halted() as pids:
            if set(strike.victims) <= pids.keys() and self._is_under_way(strike.phase, pids.get("sidecar", 0)):
                self._hit(strike, pids)
                return True
        self.misses[strike.phase] += 1
        return False

    @contextmanager
    def _halted(self) -> Iterator[dict[str, int]]:
        """Both stand still; who lives goes on at the end."""
        pids = {"broker": self.broker.process.process.pid}
        os.kill(pids["broker"], signal.SIGSTOP)
        try:
            until(lambda: _is_halted(pids["broker"]), what="the broker's stop")
            for pid in self.broker.children():
                pids["sidecar"] = pid
                os.kill(pid, signal.SIGSTOP)
                until(lambda pid=pid: _is_halted(pid), what="the sidecar's stop")
            yield pids
        finally:
            for pid in pids.values():
                _send(pid, signal.SIGCONT)

    def _hit(self, strike: Strike, pids: dict[str, int]) -> None:
        if strike.how is not How.KILL:
            for name in pids.keys() - set(strike.victims):
                _send(pids[name], signal.SIGCONT)
            threading.Event().wait(self.dice.uniform(*PAUSE_S))
        if strike.how is not How.PAUSE:
            for name in self.dice.sample(strike.victims, len(strike.victims)):
                _send(pids[name], signal.SIGKILL)

    def _is_under_way(self, phase: Phase, sidecar: int) -> bool:
        data = self.broker.data
        match phase:
            case Phase.START:
                threading.Event().wait(_READ_S)
                return self.broker.process.is_silent
            case Phase.LOAD:
                return self.load.is_waiting
            case Phase.CHECKPOINT:
                return _has_open(sidecar, data / CHECKPOINT_DRAFT)
            case Phase.COMPACTION:
                return _has_open(sidecar, data / COMPACTION_DRAFT)
            case Phase.SWAP:
                return _has_two_generations(data)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_halted(pid: int) -> bool:
    """All its threads, or it is gone."""
    states = []
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):
            states.append(task.read_text().rpartition(")")[2].split()[0])
    return all(state in "TtZX" for state in states)


def _has_open(pid: int, path: Path) -> bool:
    """A draft that is not open is of nobody: the sidecar that wrote it is dead."""
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            if os.readlink(link) == str(path):
                return True
    return False


def _has_two_generations(data: Path) -> bool:
    """Of one segment; each open removes what others have left."""
    numbers = [found[0] for name in os.listdir(data) if (found := parse_name(name))]
    return len(set(numbers)) < len(numbers)
