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
    _check_captures(streams._captures, len(streams._catalog.by_id))
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
        entries = feeder.entries
        messages, size = sum(entry.count for entry in entries), sum(entry.bytes for entry in entries)
        require(
            (feeder.messages, feeder.bytes) == (messages, size),
            f"12: a producer has {messages} messages of {size} bytes that are not safe, counted {feeder.messages} of {feeder.bytes}",
        )
        before = size - entries[-1].bytes if entries else 0
        require(before <= intake.CREDIT_BYTES, f"12: a producer has {size} bytes that are not safe")


def _check_captures(of: captures.Captures, streams: int) -> None:
    """What a publisher sends counts for each stream that stores it."""
    by_owner: dict[int, int] = {}
    newest: dict[int, int] = {}
    for _, held, _, _, size in of._unsynced:
        by_owner[id(held)] = by_owner.get(id(held), 0) + size
        newest[id(held)] = size
    for held in (of._unpaced, *of._held.values()):
        size = by_owner.get(id(held), 0)
        require(held.bytes == size, f"12: a publisher has {size} bytes that are not stored yet, counted {held.bytes}")
        most = captures.UNPACED_BYTES_MAX if held is of._unpaced else streams * captures.CREDIT_BYTES
        before = size - newest.get(id(held), 0) * streams
        require(before <= most, f"12: {size} bytes of a publisher are not stored yet, at most {most}")


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
