"""What the broker holds in memory, against what it says that it holds at most (SPEC.md 6, 8.2, 11): invariant 12."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.violation import require
from zbroker.core import captures, intake
from zbroker.core.services import OUTBOX_BYTES_MAX
from zbroker.core.subscribers import OUTBOX_BYTES_MAX as SUBSCRIBER_BYTES_MAX

if TYPE_CHECKING:
    from tests.simulation.broker import BrokerProcess
    from zbroker.core.tail import Tail


def check_held(broker: BrokerProcess) -> None:
    """Each count is what is there, and within its bound, by less than one batch."""
    streams = broker.streams
    _check_producers(streams._intake)
    broker.captors = max(broker.captors, len(streams._captures.patterns))
    _check_captures(streams._captures, max(broker.captors, 1))
    _check_tail(streams._tail, streams._intake.durable_index)
    assert broker.engine is not None
    for session in broker.engine._sessions:
        if session.outbox:
            size = sum(len(frame) for _, _, frames, *_ in session.outbox for frame in frames)
            require(session.outbox_bytes == size, f"12: {session.role} counts {session.outbox_bytes}, {size} wait")
            most = max(OUTBOX_BYTES_MAX, SUBSCRIBER_BYTES_MAX)
            newest = sum(map(len, session.outbox[-1][2]))
            require(size - newest <= most, f"12: {size} bytes wait for a {session.role}, at most {most}")


def _check_producers(of: intake.Intake) -> None:
    for feeder in of._feeders.values():
        entries = list(feeder.entries)
        _check("a producer", (feeder.messages, feeder.bytes), [(entry.count, entry.bytes) for entry in entries])
        _check_credit("a producer", [(entry.count, entry.bytes) for entry in entries], 1, 1)


def _check_captures(of: captures.Captures, streams: int) -> None:
    """What a publisher sends counts for each stream that stores it."""
    parts: dict[int, list[tuple[int, int]]] = {}
    for _, held, _, count, size in of._unsynced:
        parts.setdefault(id(held), []).append((count, size))
    for held in (of._unpaced, *of._held.values()):
        _check("a publisher", (held.messages, held.bytes), parts.get(id(held), []))
    for held in of._held.values():
        _check_credit("a publisher", parts.get(id(held), []), streams, 2)  # credit is renewed before it is stored
    require(
        of._unpaced.bytes <= captures.UNPACED_BYTES_MAX, f"12: {of._unpaced.bytes} bytes are captured without credit"
    )


def _check(who: str, counted: tuple[int, int], parts: list[tuple[int, int]]) -> None:
    found = sum(count for count, _ in parts), sum(size for _, size in parts)
    require(counted == found, f"12: of {who} {found[0]} messages, {found[1]} bytes, are not safe, counted {counted}")


def _check_credit(who: str, parts: list[tuple[int, int]], streams: int, beyond: int) -> None:
    """All but so many batches are within the credit."""
    for most, sizes in zip((intake.CREDIT_MESSAGES, intake.CREDIT_BYTES), zip(*parts, strict=True), strict=False):
        within = sum(sorted(sizes)[: max(0, len(sizes) - beyond * streams)])
        require(within <= streams * most, f"12: of {who} {sizes} are not safe, its credit is {most}")


def _check_tail(tail: Tail, durable: int) -> None:
    """What is durable is a cache, and bounded; credit bounds the rest."""
    needed = 0
    for batch in reversed(tail._new.values()):
        if batch.index <= durable:
            break
        needed += batch.bytes
    cached = tail._new_bytes - needed
    require(cached <= tail._new_max, f"12: {cached} bytes of durable batches are cached, at most {tail._new_max}")
    is_alone = len(tail._loaded) <= 1
    require(
        is_alone or tail._loaded_bytes <= tail._loaded_max, f"12: {tail._loaded_bytes} bytes that were read are cached"
    )


def check_tail(tail: Tail) -> None:
    """Its counts are what is there; slower, for the end of a run."""
    for count, batches in ((tail._new_bytes, tail._new), (tail._loaded_bytes, tail._loaded)):
        size = sum(batch.bytes for batch in batches.values())
        require(count == size, f"12: {count} bytes are cached, {size} are there")
