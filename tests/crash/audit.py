"""What a broker that was started on a folder serves, held against what clients were told before. No test lives here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patterns.sync import Admin, Consumer
from tests.processes import until

Place = tuple[str, int]  # stream, offset
NUMBER_BYTES = 8  # a body begins with its number, which no other body has
STEP_S = 0.2
READY_S = 60  # several brokers start at once here, beside who knows what; one that hangs is found all the same
READ_S = 90  # a broker looks half a minute for a record whose file is gone, in case it was moved
_HERE = Path(__file__).resolve().parent
# For a broker: many segments and checkpoints in a short run (see switches/sitecustomize.py), which imports this very zbroker.
SMALL = {
    "PYTHONPATH": f"{_HERE / 'switches'}:{_HERE.parent.parent}",
    "CRASH_SEGMENT_BYTES": str(1 << 20),
    "CRASH_CHECKPOINT_RECORDS": "30",
}


@dataclass
class Told:
    """What clients were told.

    Attributes:
        stored: number of the body that is at a place, by who was told so: a producer by its confirm, a consumer by a message.
        acked: offsets of `work` whose ack was confirmed to the group `g`.
        epochs: of brokers that were ready.
    """

    stored: dict[Place, int] = field(default_factory=dict)
    acked: set[int] = field(default_factory=set)
    epochs: list[int] = field(default_factory=list)

    def hear(self, words: list[str]) -> None:
        """A mark, as traced_run.py words it."""
        if words[0] == "ready":
            self.epochs.append(int(words[1]))
        elif words[0] == "acked":
            self.acked.add(int(words[1]))
        else:
            self.store(words[1], int(words[2]), int(words[3]))

    def store(self, stream: str, offset: int, number: int) -> None:
        """Raises AssertionError when it is said to hold something else."""
        before = self.stored.setdefault((stream, offset), number)
        assert before == number, f"offset {offset} of {stream} held {before}, and now {number}"

    def next_of(self, stream: str) -> int:
        """One above all offsets that were told of."""
        return max((offset for name, offset in self.stored if name == stream), default=-1) + 1


@dataclass
class Served:
    """What a broker serves.

    Attributes:
        url: of the broker.
        stored: number of the body at each place that a reader gets.
        lost: offsets of each stream that a reader is told are lost; there may be millions that never were.
        delivered: offsets of `work` that the group `g` gets.
        status: as `zbroker status --json` has it.
    """

    url: str
    stored: dict[Place, int] = field(default_factory=dict)
    lost: dict[str, list[range]] = field(default_factory=dict)
    delivered: list[int] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)

    def is_lost(self, place: Place) -> bool:
        return any(place[1] in one for one in self.lost.get(place[0], []))

    def next_of(self, stream: str) -> int:
        return self.status["streams"].get(stream, {"next_offset": 0})["next_offset"]


def status_of(url: str) -> dict[str, Any]:
    with Admin(url, timeout_s=30) as admin:
        return admin.status()


def number_of(body: bytes) -> int:
    return int(body[:NUMBER_BYTES])


def served(url: str, *, drains: bool = True) -> Served:
    """Read every stream to its end; then, if wanted, work off what the group `g` of `work` has left."""
    found = Served(url, status=status_of(url))
    for stream, held in found.status["streams"].items():
        _read(url, stream, held["next_offset"], found)
    if drains and "work/g" in found.status["groups"]:
        _drain(url, found)
    return found


def _read(url: str, stream: str, end: int, found: Served) -> None:
    """Each offset comes, or is told to be lost."""
    read: set[int] = set()

    def is_at_end() -> bool:
        lost = sum(min(last + 1, end) - first for first, last in reader.lost_offsets if first < end)
        while len(read) + lost < end and (delivery := reader.receive(STEP_S)) is not None:
            assert delivery.offset not in read, f"offset {delivery.offset} of {stream} came twice"
            read.add(delivery.offset)
            found.stored[stream, delivery.offset] = number_of(delivery.body)
        return len(read) + lost >= end

    with Consumer(url, stream, codec="raw", start=0) as reader:  # "first" is the first that is there
        reader.ready(30)
        if end:
            until(is_at_end, READ_S, f"reading {stream} to offset {end}, now {len(read)} and {reader.lost_offsets}")
        found.lost[stream] = [range(first, last + 1) for first, last in reader.lost_offsets]
        assert not [offset for offset in read if found.is_lost((stream, offset))], "lost and served"


def _drain(url: str, found: Served) -> None:
    """What is pending comes, each once; some of it may turn out to be lost on the way."""

    def is_drained() -> bool:
        pending = admin.status()["groups"]["work/g"]["pending"]
        for _ in range(pending):
            if (delivery := member.receive(STEP_S)) is None:
                break
            found.delivered.append(delivery.offset)
            delivery.ack()
        return pending == 0

    with Admin(url, timeout_s=30) as admin, Consumer(url, "work", group="g", codec="raw") as member:
        member.ready(30)
        until(is_drained, READ_S, "the group's drain")


def renamed(found: Served, names: dict[str, str]) -> Served:
    """With other names of streams: where the record of a name is lost, its stream is called recovered-<id>."""

    def name_of(name: str) -> str:
        return names.get(name, name)

    streams = {name_of(name): held for name, held in found.status["streams"].items()}
    return replace(
        found,
        stored={(name_of(stream), offset): number for (stream, offset), number in found.stored.items()},
        lost={name_of(stream): lost for stream, lost in found.lost.items()},
        status={**found.status, "streams": streams},
    )


def check(told: Told, found: Served, *, operations_lost: bool = False) -> None:
    """Raises AssertionError with what is missing, or is there and must not be.

    Args:
        operations_lost: the broker reports that it lost some, so acks may be undone.
    """
    missing = {place for place in told.stored if place not in found.stored and not found.is_lost(place)}
    assert not missing, f"confirmed and neither there nor told lost: {sorted(missing)[:20]}"
    wrong = {place: (told.stored[place], found.stored[place]) for place in told.stored.keys() & found.stored.keys()}
    assert not {place: two for place, two in wrong.items() if two[0] != two[1]}, "other bodies than were confirmed"
    assert len(set(found.stored.values())) == len(found.stored), "a body is stored twice"
    if not operations_lost:
        again = told.acked & set(found.delivered)
        assert not again, f"surely acked, and came again: {sorted(again)[:20]}"
    assert len(set(found.delivered)) == len(found.delivered), "delivered twice to a group whose members all live"
    assert found.status["epoch"] > max(told.epochs, default=0), "an epoch came twice"
    for stream in {name for name, _ in told.stored}:
        assert found.next_of(stream) >= told.next_of(stream), f"offsets of {stream} would be given twice"
    assert found.status["anomalies"] == 0, found.status["anomalies"]
    assert all(group["balanced"] for group in found.status["groups"].values())


def verify(folder: Path, command: Iterable[str] = ()) -> tuple[int, dict[str, Any], str]:
    """Exit status, report, and words of `zbroker store verify`; waits while the lock of who was killed is still held.

    Args:
        command: in front of the interpreter.
    """
    run = [*command, sys.executable, "-m", "zbroker", "store", "verify", str(folder), "--json"]
    while True:
        done = subprocess.run(run, capture_output=True, check=False, timeout=60)
        words = done.stderr.decode()
        if not (done.returncode == 69 and "is locked by another process" in words):
            return done.returncode, json.loads(done.stdout or b"{}"), words
