"""Dead letters against what the log says: each is the message that it names, comes once, and its group is done with that by the same record.

Holds invariant 9, from the records alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from patterns.wire.records import Record, RecordKind
from patterns.wire.settled import Settled
from tests.simulation.violation import require
from zbroker.core.catalog import decode_operations
from zbroker.core.letters import GROUP, OFFSET, STREAM
from zbroker.core.tail import Split, batch_of, stored_of

if TYPE_CHECKING:
    from tests.simulation.truth import LogTruth

KINDS: Final = {"acked": "acked", "dead": "dead", "redriven": "acked"}  # what records say: what groups count


class Burials:
    """All dead letters of a run."""

    def __init__(self, truth: LogTruth) -> None:
        self._truth = truth
        self._letters: dict[
            tuple[str, str, int, int], int
        ] = {}  # stream, group and offset of the dead, its group's id -> record
        self.coverage: Counter[str] = Counter()

    def appended(self, record: Record, uids: list[Any]) -> None:
        """A batch that is no producer's was written."""
        stored = stored_of(record)
        if stored.producer:
            return
        headers = [one or {} for one in _headers(record)]
        named = [(one[STREAM], one[GROUP], int(one[OFFSET])) for one in headers if STREAM in one]
        if not named:
            return
        self.coverage["dead_letter"] += len(named)
        for (stream, group, offset), uid in zip(named, uids, strict=True):
            self._bury(record, stream, group, offset, uid)

    def _bury(self, record: Record, stream: str, group: str, offset: int, uid: Any) -> None:
        truth = self._truth
        id = truth.holdings.names.get(stream)
        found = None if id is None else truth.messages.get((id, offset))
        require(
            found == uid or truth.is_damaged, f"9: the dead letter of {stream}[{offset}] is {uid!r}, it held {found!r}"
        )
        key = stream, group, offset, truth.holdings.groups.get((id or 0, group), 0)
        before = self._letters.get(key)
        is_there = before is not None and truth.has(before)
        require(not is_there or truth.is_damaged, f"9: {key} is a dead letter twice, at last by record {record.index}")
        self._letters[key] = record

    def is_buried(self, stream: str, group: str, id: int, offset: int) -> bool:
        """Whether there is a dead letter of it, on disk or on its way."""
        return (stream, group, offset, id) in self._letters


def settled_by(record: Record) -> list[tuple[str, int, int, list[list[int]]]]:
    """What a record says of groups: what, stream id, group id, ranges."""
    if record.kind == RecordKind.OPS:
        found: Iterable[Any] = decode_operations(record.payload)
    else:
        found = stored_of(record).operations or [] if record.kind == RecordKind.APPEND else []
    return [(KINDS[what], stream, group, ranges) for what, stream, group, ranges in found if what in KINDS]


def expired_by(record: Record) -> list[tuple[int, int, list[list[int]]]]:
    """Stream id, group id and ranges that an OPS record says nobody gets any more."""
    found: Iterable[Any] = decode_operations(record.payload)
    return [(stream, group, ranges) for what, stream, group, ranges in found if what == "expired"]


def recount(records: Iterable[Record]) -> dict[tuple[int, int, str], int]:
    """By stream id, group id and kind: how many messages a group is done with, by a plain union of what all records say."""
    sets: dict[tuple[int, int, str], Settled] = {}
    counts: Counter[tuple[int, int, str]] = Counter()
    for record in records:
        expired = [("expired", *one) for one in expired_by(record)] if record.kind == RecordKind.OPS else []
        for what, stream, group, ranges in (*settled_by(record), *expired):
            known = sets.setdefault((stream, group, what), Settled())
            counts[stream, group, what] += sum(known.add(first, last) for first, last in ranges)
    return counts


def _headers(record: Record) -> list[dict[str, str] | None]:
    columns = Split(batch_of(record)).columns
    return [None] * record.count if columns.headers is msgspec.UNSET else columns.headers
