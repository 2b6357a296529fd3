"""Batches in memory: the newest, and those read back lately. Bounded; a cache, and never the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from patterns.wire import codec
from patterns.wire.errors import BadBody, Untranslatable
from patterns.wire.frames import MSGPACK
from patterns.wire.messages import Codec, Columns
from patterns.wire.records import Record
from patterns.wire.settled import Range
from zbroker.core.translate import Translate, needed, translate

TAIL_BYTES: Final = 64 << 20
_LOADED_SHARE: Final = 4  # one part in four is for what was read back: slow readers must not push out the newest
UNREADABLE: Final = (BadBody, msgspec.MsgspecError, UnicodeError, RecursionError, LookupError)  # see Tail.unreadable()
SPLIT_BYTES: Final = (
    24 << 20
)  # of batches kept cut into bodies; who takes slices comes back to one, delayed ones to many
_ITEM_BYTES: Final = 128  # what a body costs by being an object, with what its columns say of it
_VIEWS: Final = 32  # translated batches kept; more than one group reads the newest
BATCH_OVERHEAD: Final = 512  # what a batch costs beside its bytes, so that tiny batches are bounded too

DELAYS: Final = 1  # marks of a batch
IDS: Final = 2
TOPICS: Final = 4  # a column of them

_T = TypeVar("_T")
Key = tuple[int, int]  # stream id, number of the batch in its stream


def marks_of(columns: Columns) -> int:
    """What somebody must look at in the columns of a batch."""
    has_delays = columns.delays is not msgspec.UNSET and any(columns.delays)
    has_ids = columns.ids is not msgspec.UNSET and any(columns.ids)
    return DELAYS * has_delays | IDS * has_ids | TOPICS * (columns.topics is not msgspec.UNSET)


class Stored(msgspec.Struct, array_like=True, gc=False):
    """The columns of an APPEND record: what the broker adds, then the client's columns in msgpack form.

    An array, so that new fields go at the end and older records still decode.
    """

    producer: int
    epoch: int
    sequence: int
    previous: int
    crc: int
    codec: Codec
    topic: str | None
    published_at: int
    columns: bytes
    kept: list[Range] | None = None  # places of the messages that are left, if some were taken out
    marks: int = 0  # what its columns have that somebody must look at: DELAYS, IDS, TOPICS
    group: str | None = None  # for this group alone; others pass over it
    operations: list[list[Any]] | None = None  # as in OPS; they hold if, and only if, this record does
    repeats: list[tuple[int, int]] | None = None  # places of the batch that were stored before, and their offsets


_stored = msgspec.msgpack.Decoder(Stored).decode


def stored_of(record: Record) -> Stored:
    """The decoded columns of an APPEND record. Raises msgspec.MsgspecError."""
    return _stored(record.columns)


class Batch(msgspec.Struct, gc=False):
    """A stored batch as deliveries need it; `columns` in msgpack form."""

    index: int
    base: int
    count: int
    codec: Codec
    topic: str | None
    published_at: int
    columns: bytes
    payload: bytes
    kept: list[Range] | None = None  # of a sliced one: places of the messages that are left; `count` is as it was
    marks: int = 0
    group: str | None = None

    @property
    def bytes(self) -> int:
        return len(self.payload) + len(self.columns) + BATCH_OVERHEAD

    @property
    def stored(self) -> int:
        """How many messages it holds."""
        return self.count if self.kept is None else sum(last - first + 1 for first, last in self.kept)

    def run(self, place: int) -> tuple[int, int, int]:
        """The first and last place of the messages without a gap that begin or go on at a place, or come next after it.

        The third is how many messages are stored before them. `count`, `count - 1` when none comes any more.
        """
        if self.kept is None:
            return 0, self.count - 1, 0
        before = 0
        for first, last in self.kept:
            if last >= place:
                return first, last, before
            before += last - first + 1
        return self.count, self.count - 1, before

    def offsets(self) -> Iterator[int]:
        """Of the messages that it holds."""
        for first, last in self.kept or [(0, self.count - 1)]:
            yield from range(self.base + first, self.base + last + 1)


def batch_of(record: Record) -> Batch:
    """The batch in an APPEND record."""
    stored = _stored(record.columns)
    return Batch(
        record.index,
        record.base_offset,
        record.count,
        stored.codec,
        stored.topic,
        stored.published_at,
        stored.columns,
        record.payload,
        stored.kept,
        stored.marks,
        stored.group,
    )


class Split:
    """A batch cut into its bodies, for deliveries of a part of it."""

    __slots__ = ("batch", "columns", "items", "sizes")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.columns = MSGPACK.columns.decode(batch.columns) if batch.columns else Columns()
        sizes = None if self.columns.sizes is msgspec.UNSET else self.columns.sizes
        self.items: list[Any] = codec.items_of(batch.codec, batch.payload, batch.stored, sizes)
        self.sizes = sizes or [len(memoryview(item)) for item in self.items]

    @property
    def memory(self) -> int:
        """What it takes in memory, about: the batch, its bodies once more, and what makes objects of them."""
        return 2 * self.batch.bytes + _ITEM_BYTES * len(self.items)

    def fitting(self, begin: int, end: int, bytes_max: int) -> int:
        """Where a slice from the stored message `begin` ends, at most at `end`, with at most bytes_max; one at least."""
        size = 0
        for place in range(begin, end):
            size += self.sizes[place]
            if size > bytes_max and place > begin:
                return place
        return end

    def cut(self, begin: int, end: int) -> tuple[Columns, bytes]:
        """Columns and payload of the stored messages begin to end - 1."""
        columns = self._columns(lambda column: column[begin:end])
        return columns, codec.join(self.batch.codec, self.items[begin:end])

    def pick(self, places: list[slice]) -> tuple[Columns, bytes]:
        """The same of several stretches."""
        columns = self._columns(lambda column: [item for place in places for item in column[place]])
        return columns, codec.join(self.batch.codec, [item for place in places for item in self.items[place]])

    def _columns(self, part: Callable[[list[Any]], list[Any]]) -> Columns:
        columns = Columns(topics=self.columns.topics)
        for name in ("sizes", "topic", "keys", "headers", "ids", "delays", "published"):
            column = getattr(self.columns, name)
            if column is not msgspec.UNSET:
                setattr(columns, name, part(column))
        return columns


class Tail:
    """Two queues of batches, oldest out first: those just appended, and those read back.

    Args:
        counters: of the broker; batches that no translation can carry over are counted there.
        translate: how a batch gets into another codec.
    """

    def __init__(
        self,
        bytes_max: int = TAIL_BYTES,
        counters: Counter[str] | None = None,
        translate: Translate = translate,
    ) -> None:
        self._translate = translate
        self._counters = Counter() if counters is None else counters
        self._new: dict[Key, Batch] = {}
        self._loaded: dict[Key, Batch] = {}
        self._splits: dict[tuple[Key, Codec], Split] = {}
        self._split_bytes = 0
        self._views: dict[tuple[Key, Codec], Batch] = {}
        self._loaded_max = bytes_max // _LOADED_SHARE
        self._new_max = bytes_max - self._loaded_max
        self._new_bytes = self._loaded_bytes = 0

    @property
    def bytes(self) -> int:
        """Held now."""
        return self._new_bytes + self._loaded_bytes

    @property
    def loaded_max(self) -> int:
        """Bytes kept of what is read back; each batch takes 512 more than its record."""
        return self._loaded_max

    def get(self, key: Key) -> Batch | None:
        """The batch if it is here."""
        return self._new.get(key) or self._loaded.get(key)

    def put(self, key: Key, batch: Batch) -> None:
        """A batch that was just appended; it stays at least until it is durable, for it cannot be read before."""
        self._new[key] = batch
        self._new_bytes += batch.bytes

    def trim(self, durable_index: int) -> None:
        """Let go of the oldest durable batches above the bound."""
        while self._new_bytes > self._new_max and self._new:
            key = next(iter(self._new))
            if self._new[key].index > durable_index:
                return  # in order of index: all behind it are not durable either; credit bounds them
            self._new_bytes -= self._new.pop(key).bytes

    def keep(self, key: Key, batch: Batch) -> None:
        """A batch that was read back."""
        if key in self._new or key in self._loaded:
            return
        self._loaded[key] = batch
        self._loaded_bytes += batch.bytes
        while self._loaded_bytes > self._loaded_max and len(self._loaded) > 1:
            oldest = next(iter(self._loaded))
            self._loaded_bytes -= self._loaded.pop(oldest).bytes

    def view(self, key: Key, batch: Batch, target: Codec) -> Batch:
        """The batch in a codec, translated once for all who want it; as it is when the codec cannot express it."""
        if not needed(batch.codec, target):
            return batch
        view = self._views.get((key, target))
        if view is None or view.kept != batch.kept:  # it may be of before its segment was compacted
            try:
                payload = self._translate(batch.payload, batch.codec, target)
                view = msgspec.structs.replace(batch, codec=target, payload=payload)
            except Untranslatable:
                self._counters["stored_untranslated"] += 1
                view = batch  # delivered as it is, labelled: the consumer may read it raw, or reject it
            self._views[key, target] = view
            _bound(self._views, _VIEWS)
        return view

    def unreadable(self) -> None:
        """A batch is whole on the disk, and its bytes make no sense: the door did not see it. UNREADABLE was raised."""
        self._counters["stored_unreadable"] += 1

    def split(self, key: Key, batch: Batch) -> Split:
        """The batch cut into bodies; kept, since the next slice is likely of the same one. Raises UNREADABLE."""
        split = self._splits.get((key, batch.codec))
        if split is None or split.batch.kept != batch.kept:
            before, split = split, Split(batch)
            self._splits[key, batch.codec] = split
            self._split_bytes += split.memory - (before.memory if before else 0)
            while self._split_bytes > SPLIT_BYTES and len(self._splits) > 1:
                self._split_bytes -= self._splits.pop(next(iter(self._splits))).memory
        return split


def _bound(cache: dict[tuple[Key, Codec], _T], size: int) -> None:
    """Forget the oldest entries; each was used by whoever asked for it."""
    while len(cache) > size:
        del cache[next(iter(cache))]
