"""Confirmed messages and requests, one at a time, beside bulk of 1 KiB: while the journal writes a checkpoint, while it compacts, and while it does neither.

The broker is not told: as long as one of these is under way, the folder holds its draft, and a process looks for that. All rows of a
group have the same load; each keeps its part of what was timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Final

import msgspec

from zbroker.bench.ends.asking import latency
from zbroker.bench.processes import Broker, Worker
from zbroker.bench.report import Sample
from zbroker.bench.rows.durable import bulk
from zbroker.bench.rows.plan import KIB, Plan, Settings, bars
from zbroker.bench.rows.request import ASK, asker
from zbroker.store.checkpoint import DRAFT as CHECKPOINT
from zbroker.store.compaction import DRAFT as COMPACTION

_SINGLE: Final = "single"  # the stream of what is sent one by one
_LONGER_S: Final = (
    1.0  # and twice as long as the bulk, whose process takes a moment to start; only what is beside it counts
)
_HELD: Final = 600_000  # a group takes nothing new beyond a million that it has not settled
_KEEPS_NOTHING: Final = ("--stream-bytes", "0")  # else a stream keeps 4 GiB for replay, and none of it is dead
Span = tuple[int, int]


class _Upkeep(msgspec.Struct, frozen=True):
    """What the journal does beside its log, and a load that makes it do so.

    Attributes:
        group: of the rows.
        label: of the work.
        draft: in the folder while it is under way.
        flags: of `zbroker run`.
        times: how many samples' time the bulk takes: a compaction needs two checkpoints, and dead messages, before it.
        held: messages that the group does not ack.
    """

    group: str
    label: str
    draft: str
    flags: tuple[str, ...]
    times: int
    held: int


class _Asked(msgspec.Struct, frozen=True):
    """What is timed.

    Attributes:
        row: what names of rows have.
        label, api: for people.
        start: of its ends, on a broker that is ready; the one that it returns waits for a word to begin.
    """

    row: str
    label: str
    api: str
    start: Callable[[Settings, str, ExitStack], Worker]


def _sender(settings: Settings, address: str, stack: ExitStack) -> Worker:
    return stack.enter_context(asker(settings, "send-each", address, stream=_SINGLE, waits=True, spans=True))


def _requester(settings: Settings, address: str, stack: ExitStack) -> Worker:
    stack.enter_context(Worker("serve-native", api=settings.api, address=address)).said()
    return stack.enter_context(asker(settings, "ask-native", address, api=settings.api, waits=True, spans=True))


def _run(settings: Settings, upkeep: _Upkeep, asked: _Asked, *, during: bool) -> Sample:
    times: list[int] = []
    damaged: list[int] = []
    settings = msgspec.structs.replace(settings, size=KIB, seconds=upkeep.times * settings.seconds)
    longer = msgspec.structs.replace(settings, seconds=2 * settings.seconds + _LONGER_S)

    def beside(running: Broker, stack: ExitStack) -> Callable[[dict[str, Any]], None]:
        watcher = stack.enter_context(Worker("watch-for", folder=running.folder, names=[CHECKPOINT, COMPACTION]))
        asking = asked.start(longer, running.connects_to, stack)
        for worker in (watcher, asking):
            worker.said()
        asking.go()

        def ended(sent: dict[str, Any]) -> None:
            said = asking.said(longer.patience_s)
            watcher.go()
            drafts = watcher.said()["times"]
            spans = drafts[upkeep.draft] if during else sorted(span for found in drafts.values() for span in found)
            times.extend(kept(within(said["spans"], sent["span"]), spans, during=during))
            damaged.append(said["damaged"])

        return ended

    found = bulk(settings, held=upkeep.held, flags=upkeep.flags, beside=beside)
    figures = latency(times, len(times), 0) if times else {}
    return Sample(
        rate=found.rate,
        bytes_rate=found.bytes_rate,
        p50_us=figures.get("p50_us"),
        p99_us=figures.get("p99_us"),
        p999_us=figures.get("p999_us"),
        max_us=figures.get("max_us"),
        timed=float(len(times)),
        messages=found.messages,
        lost=found.lost,
        damaged=found.damaged + sum(damaged),
    )


def within(operations: Iterable[Sequence[int]], span: Sequence[int]) -> list[Span]:
    """Those operations, (begin, end) of each, that began and ended in the span."""
    return [(one[0], one[1]) for one in operations if span[0] <= one[0] and one[1] <= span[1]]


def kept(operations: Sequence[Span], spans: Sequence[Sequence[int]], *, during: bool) -> list[int]:
    """How long those operations took, ns, that overlap with any of the spans; else those that overlap with none.

    Args:
        operations: (begin, end) of each, one after the other.
        spans: by their beginnings; they may overlap.
    """
    times = []
    at = 0
    for begin, end in operations:
        while at < len(spans) and spans[at][1] < begin:
            at += 1
        overlaps = at < len(spans) and spans[at][0] <= end
        if overlaps is during:
            times.append(end - begin)
    return times


_HONOURS: Final = frozenset(("transport",))
_UPKEEPS: Final = (
    _Upkeep("checkpoint", "a checkpoint is written", CHECKPOINT, (), 1, 0),
    _Upkeep("compaction", "a segment is compacted", COMPACTION, _KEEPS_NOTHING, 4, _HELD),
)
_ASKED: Final = (
    _Asked("", "one confirmed message at a time", "Producer.send()", _sender),
    _Asked("-request", "one request at a time", ASK, _requester),
)


def _runner(upkeep: _Upkeep, asked: _Asked, during: bool) -> Callable[[Settings], Sample]:
    return lambda settings: _run(settings, upkeep, asked, during=during)


PLANS: Final[tuple[Plan, ...]] = tuple(
    Plan(
        name=f"{upkeep.group}{asked.row}-{'during' if during else 'none'}",
        group=upkeep.group,
        label=f"{asked.label} beside bulk, {f'while {upkeep.label}' if during else 'neither checkpoint nor compaction'}",
        api=f"{asked.api} beside send_many()",
        body="raw, 1 KiB in bulk",
        run=_runner(upkeep, asked, during),
        honours=_HONOURS,
    )
    for upkeep in _UPKEEPS
    for asked in _ASKED
    for during in (False, True)
)

BARS: Final = bars(
    *(
        (f"{upkeep.group}{asked.row}-during", "p99_us", (f"{upkeep.group}{asked.row}-none",), 3.0, False,
         f"p99 of {what} during a {upkeep.group} / without")
        for upkeep in _UPKEEPS
        for asked, what in zip(_ASKED, ("confirms", "requests"), strict=True)
    )
)  # fmt: skip
