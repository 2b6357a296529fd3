"""Which segments still hold a message that anybody may read: the spans of each, and what was forgotten. FORMAT.md 7.3."""

from bisect import bisect_right
from collections.abc import Iterable

from patterns.wire.records import Position, Record, RecordKind
from zbroker.store.run import Visit

Span = tuple[int, int, int]  # stream id, first and last offset


class Liveness:
    """By segment, the first and last offset of each stream; by stream, the ranges that nobody wants any more.

    A segment of which no spans are known is alive.
    """

    def __init__(self) -> None:
        self._spans: dict[int, dict[int, tuple[int, int]]] = {}
        self._dead: dict[int, list[tuple[int, int]]] = {}
        self._given_up: set[int] = set()

    def begin(self, segment: int) -> None:
        """A segment whose every batch will be noted."""
        self._spans.setdefault(segment, {})

    def note(self, segment: int, stream_id: int, first: int, count: int) -> None:
        """A batch in a segment that was begun; batches of a stream come in order."""
        spans = self._spans[segment]
        known = spans.get(stream_id)
        spans[stream_id] = (first if known is None else known[0], first + count - 1)

    def load(self, segment: int, spans: Iterable[Span]) -> None:
        """What spans() said, in another life."""
        self._spans[segment] = {stream_id: (first, last) for stream_id, first, last in spans}

    def spans(self, segment: int) -> list[Span] | None:
        """Of a segment; None when they are not known."""
        found = self._spans.get(segment)
        return None if found is None else [(stream_id, *span) for stream_id, span in found.items()]

    def forget(self, ranges: Iterable[Span]) -> None:
        """Nobody will read these."""
        for stream_id, first, last in ranges:
            known = self._dead.setdefault(stream_id, [])
            merged: list[tuple[int, int]] = []
            for begin, end in sorted([*known, (first, last)]):
                if merged and begin <= merged[-1][1] + 1:
                    merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
                else:
                    merged.append((begin, end))
            self._dead[stream_id] = merged

    def give_up(self, segment: int) -> None:
        """The newest checkpoint does not list it: it was dead then."""
        self._given_up.add(segment)

    def is_dead(self, segment: int) -> bool:
        """Whether nobody will read any of it."""
        if segment in self._given_up:
            return True
        spans = self._spans.get(segment)
        return spans is not None and all(self._covers(stream_id, *span) for stream_id, span in spans.items())

    def count_dead(self, segments: Iterable[int], below: int) -> int:
        """How many of them, of those with a number below."""
        return sum(self.is_dead(segment) for segment in segments if segment < below)

    def _covers(self, stream_id: int, first: int, last: int) -> bool:
        ranges = self._dead.get(stream_id, [])
        place = bisect_right(ranges, (first, 1 << 63)) - 1
        return place >= 0 and ranges[place][0] <= first and last <= ranges[place][1]

    def drop(self, segment: int) -> None:
        """It is gone."""
        self._spans.pop(segment, None)
        self._given_up.discard(segment)


def noting(visit: Visit, liveness: Liveness) -> Visit:
    """A visit that notes each batch as well."""

    def note_and_visit(record: Record, position: Position) -> None:
        if record.kind == RecordKind.APPEND:
            liveness.begin(position.segment)
            liveness.note(position.segment, record.stream_id, record.base_offset, record.count)
        visit(record, position)

    return note_and_visit
