"""Which segments still hold a message that anybody may read: the spans of each, and what was forgotten. FORMAT.md 7.3."""

from collections.abc import Iterable, Mapping, Sequence

from patterns.wire.records import Position, Record, RecordKind
from patterns.wire.settled import Range, Settled
from zbroker.store.run import Visit
from zbroker.store.segment import SegmentHeader

Span = tuple[int, int, int]  # stream id, first and last offset


class Liveness:
    """By segment, the first and last offset of each stream; by stream, the offsets that nobody wants any more.

    A segment of which no spans are known is alive.
    """

    def __init__(self) -> None:
        self._spans: dict[int, dict[int, tuple[int, int]]] = {}
        self._sizes: dict[int, dict[int, int]] = {}  # bytes of the records of each span
        self._forgotten: dict[int, Settled] = {}
        self._given_up: set[int] = set()

    def begin(self, segment: int) -> None:
        """A segment whose every batch will be noted."""
        self._spans.setdefault(segment, {})
        self._sizes.setdefault(segment, {})

    def note(self, segment: int, stream_id: int, first: int, count: int, size: int) -> None:
        """A batch in a segment that was begun; batches of a stream come in order."""
        spans = self._spans[segment]
        known = spans.get(stream_id)
        spans[stream_id] = (first if known is None else known[0], first + count - 1)
        sizes = self._sizes[segment]
        sizes[stream_id] = sizes.get(stream_id, 0) + size

    def load(self, segment: int, spans: Sequence[Span], sizes: Sequence[int]) -> None:
        """What spans() and sizes() said, in another life; or what is left of it. Without sizes each message has a byte."""
        self._spans[segment] = {stream_id: (first, last) for stream_id, first, last in spans}
        if len(sizes) != len(spans):
            sizes = [last - first + 1 for _, first, last in spans]
        self._sizes[segment] = {span[0]: size for span, size in zip(spans, sizes, strict=True)}

    def spans(self, segment: int) -> list[Span] | None:
        """Of a segment; None when they are not known."""
        found = self._spans.get(segment)
        return None if found is None else [(stream_id, *span) for stream_id, span in found.items()]

    def sizes(self, segment: int) -> list[int]:
        """Bytes of the records of each of these spans."""
        return list(self._sizes.get(segment, {}).values())

    def forget(self, ranges: Iterable[Span]) -> None:
        """Nobody will read these."""
        for stream_id, first, last in ranges:
            known = self._forgotten.get(stream_id)
            if known is None:
                known = self._forgotten[stream_id] = Settled()
            known.add(first, last)

    def wanted(self, stream_id: int, first: int, last: int) -> list[Range]:
        """What of these offsets somebody may read, in order."""
        known = self._forgotten.get(stream_id)
        return [(first, last)] if known is None else list(known.missing(first, last))

    def live(self, segment: int) -> int | None:
        """About how many bytes of a segment's records are wanted; None when its spans are not known.

        About: all messages of a stream in one segment count as equally large.
        """
        spans = self._spans.get(segment)
        if spans is None:
            return None
        sizes, live = self._sizes[segment], 0
        for stream_id, (first, last) in spans.items():
            known, count = self._forgotten.get(stream_id), last - first + 1
            wanted = count if known is None else count - known.count(first, last)
            live += -(-sizes[stream_id] * wanted // count)  # none is 0, and one is not
        return live

    def give_up(self, segment: int) -> None:
        """The newest checkpoint does not list it: it was dead then, and no later one may list it again."""
        self._given_up.add(segment)

    def is_dead(self, segment: int) -> bool:
        """Whether nobody will read any of it."""
        if segment in self._given_up:
            return True
        spans = self._spans.get(segment)
        return spans is not None and not any(self._is_wanted(stream_id, *span) for stream_id, span in spans.items())

    def droppable(self, headers: Mapping[int, SegmentHeader], below: int) -> set[int]:
        """Those of the segments with a number below that the log needs no more.

        Not one that begins a life, as long as the last segment of the life before is kept as it was written: where that
        one ends stands in the first_index of its successor alone, and what lies behind was never confirmed. What a checkpoint has
        left out stays so, whatever has gone before it since: the end of that stands in the checkpoint.
        """
        found: set[int] = set()
        before: SegmentHeader | None = None
        for number in sorted(headers):
            if number >= below:
                break
            header = headers[number]
            is_end_of_void = before is not None and before.generation == 0 and before.epoch != header.epoch
            if number in self._given_up or (self.is_dead(number) and not is_end_of_void):
                found.add(number)
            else:
                before = header
        return found

    def _is_wanted(self, stream_id: int, first: int, last: int) -> bool:
        known = self._forgotten.get(stream_id)
        return known is None or next(known.missing(first, last), None) is not None

    def drop(self, segment: int) -> None:
        """It is gone."""
        self._spans.pop(segment, None)
        self._sizes.pop(segment, None)
        self._given_up.discard(segment)


def noting(visit: Visit, liveness: Liveness) -> Visit:
    """A visit that notes each batch as well."""

    def note_and_visit(record: Record, position: Position) -> None:
        if record.kind == RecordKind.APPEND:
            liveness.begin(position.segment)
            liveness.note(position.segment, record.stream_id, record.base_offset, record.count, position.size)
        visit(record, position)

    return note_and_visit
