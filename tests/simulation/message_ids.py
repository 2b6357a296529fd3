"""Message ids (SPEC.md 9.5) beside the engine: what each stream must remember, and what it may not take for known.

It hears each record when the engine lets go of it, and all that have survived when a life begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from patterns.wire.configs import StreamConfig
from patterns.wire.records import Record, RecordKind
from tests.simulation.violation import require
from zbroker.core.message_ids import ids_of
from zbroker.core.tail import IDS, Stored, stored_of

if TYPE_CHECKING:
    from tests.simulation.world import World

JUMP_MS = (
    1_000  # the smallest jump of the wall clock: an engine that saw it, and stored nothing then, has forgotten more
)


class Known(NamedTuple):
    """A stored message that has an id; `number` counts them in its stream."""

    message_id: str
    published_at: int
    number: int


class Mark(NamedTuple):
    """What there was when a batch was sent."""

    published_at: int
    number: int
    configs: int


class Window:
    """One stream's.

    Attributes:
        at: by offset.
        newest: id -> offset of the last message that has it.
        order: the ids, as their messages were stored.
    """

    def __init__(self, name: str) -> None:
        self.config = StreamConfig(name)
        self.at: dict[int, Known] = {}
        self.newest: dict[str, int] = {}
        self.order: list[str] = []
        self.published_at = 0

    def note(self, offset: int, message_id: str) -> None:
        self.order.append(message_id)
        self.at[offset] = Known(message_id, self.published_at, len(self.order))
        self.newest[message_id] = offset

    def must(self, known: Known, now_ms: int) -> bool:
        """Whether it is to be remembered: not too old, and not too many came after it."""
        config = self.config
        is_young = known.published_at > now_ms - config.dedup_s * 1_000
        return is_young and len(self.order) - known.number < config.dedup_ids_max

    def may(self, known: Known, now_ms: int, configs: Sequence[StreamConfig], upto: int) -> bool:
        """Whether it can be; ids that came twice count once after a restart."""
        after = self.order[known.number : upto]
        is_young = known.published_at > now_ms - max(config.dedup_s for config in configs) * 1_000
        most = max(config.dedup_ids_max for config in configs)
        return is_young and (len(after) < most or len(set(after) - {known.message_id}) < most)


class MessageIds:
    """Of all streams, over the broker's lives."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._windows: dict[int, Window] = {}
        self._names: dict[str, list[int]] = {}
        self._configs: dict[str, list[StreamConfig]] = {}  # all that a stream ever was told to be, lost ones as well
        self._unsure: set[tuple[int, int]] = set()  # stream id, offset: a configuration was in force that forgot it

    # -- records ------------------------------------------------------------------------------------------------------

    def opened(self, records: Sequence[Record]) -> None:
        """A life begins with these, in any order."""
        self._windows.clear()
        self._names.clear()
        for record in sorted(records, key=lambda record: record.index):
            self._take(record, is_new=False)
        for name, streams in self._names.items():  # what it was told last may be lost: it is what it was before
            self._configs[name].append(self._windows[streams[-1]].config)

    def handed(self, record: Record) -> None:
        """The engine has let go of it."""
        self._take(record, is_new=True)

    def _take(self, record: Record, *, is_new: bool) -> None:
        if record.kind == RecordKind.CATALOG:
            self._configure(record.index, msgspec.msgpack.decode(record.payload), is_new=is_new)
        elif record.kind == RecordKind.APPEND:
            stored = stored_of(record)
            window = self._window(record.stream_id, f"recovered-{record.stream_id}")
            window.published_at = stored.published_at
            if is_new and stored.repeats and not self._world.truth.is_damaged:
                self._judge_repeats(window, record, stored.repeats)
            if stored.marks & IDS:
                self._store(window, record, stored, is_new=is_new)

    def _window(self, stream: int, name: str) -> Window:
        window = self._windows.get(stream)
        if window is None:
            window = self._windows[stream] = Window(name)
            self._names.setdefault(name, []).append(stream)
            self._configs.setdefault(name, [window.config])
        return window

    def _configure(self, index: int, named: list[Any], *, is_new: bool) -> None:
        if named[0] == "stream":
            window = self._window(index, named[1])
            if is_new:  # another one may have been deleted, which was told to be something else
                self._configs[named[1]].append(window.config)
        elif named[0] == "configured":
            window = self._window(named[1], f"recovered-{named[1]}")
            now_ms = self._now_ms(window, self._world.wall_ms() if is_new else 0)
            self._doubt(named[1], window, now_ms)
            window.config = msgspec.convert(named[2], StreamConfig)
            self._configs[window.config.name].append(window.config)
            self._doubt(named[1], window, now_ms)

    def _now_ms(self, window: Window, wall_ms: int) -> int:
        """As late as the engine may have taken it to be."""
        return max(wall_ms, window.published_at) + JUMP_MS * self._world.injected["wall_jump"]

    def _doubt(self, stream: int, window: Window, now_ms: int) -> None:
        """What is beyond the configuration may be forgotten by now; another one does not bring it back."""
        beyond = [offset for offset in window.newest.values() if not window.must(window.at[offset], now_ms)]
        self._unsure.update((stream, offset) for offset in beyond)

    def _store(self, window: Window, record: Record, stored: Stored, *, is_new: bool) -> None:
        ids = ids_of(stored.columns)
        if is_new and not self._world.truth.is_damaged:
            self._judge_new(window, record, [one for one in ids if one is not None])
        for place, message_id in enumerate(ids):
            if message_id is not None:
                window.note(record.base_offset + place, message_id)

    # -- what is held against the engine ------------------------------------------------------------------------------

    def _judge_new(self, window: Window, record: Record, ids: list[str]) -> None:
        """Nothing is stored whose id must be known."""
        is_once = len(set(ids)) == len(ids) or not window.config.dedup_s
        require(is_once, f"10: record {record.index} of stream {record.stream_id} has one id twice: {ids}")
        now_ms = self._now_ms(window, 0)
        for message_id in ids:
            offset = window.newest.get(message_id)
            if offset is None:
                continue
            is_known = (record.stream_id, offset) not in self._unsure and window.must(window.at[offset], now_ms)
            require(
                not is_known,
                f"10: {message_id} is stored by record {record.index}, and was at offset {offset} of stream {record.stream_id}",
            )
            self._unsure.discard((record.stream_id, offset))
            self._world.coverage["id_stored_again"] += 1

    def _judge_repeats(self, window: Window, record: Record, repeats: list[tuple[int, int]]) -> None:
        """Nothing is left out whose id must be forgotten."""
        end = record.base_offset + record.count
        for place, offset in repeats:
            known = window.at.get(offset)
            is_within = record.base_offset <= offset < end and window.config.dedup_s > 0
            require(
                is_within
                or (known is not None and window.may(known, window.published_at, [window.config], len(window.order))),
                f"10: message {place} of record {record.index} is left out for {offset}, {known}, which {window.config} forgets",
            )
            self._world.coverage["id_left_out"] += 1

    # -- receipts -----------------------------------------------------------------------------------------------------

    def mark(self, stream: str) -> Mark:
        """As things are when a batch leaves."""
        streams = self._names.get(stream)
        window = Window(stream) if not streams else self._windows[streams[-1]]
        return Mark(window.published_at, len(window.order), len(self._configs.get(stream, [None])))

    def repeated(self, stream: str, offset: int, message_id: str | None, mark: Mark, *, is_whole: bool) -> None:
        """A receipt says that a message was not stored, because the one at this offset has its id.

        Args:
            is_whole: so was all of its batch, of which no record tells.
        """
        world = self._world
        windows = [self._windows[id] for id in self._names.get(stream, ())]
        found = [window.at[offset] for window in windows if offset in window.at]
        same = [known for known in found if known.message_id == message_id]
        others = self._windows.values() if world.truth.is_damaged else ()  # damage may have taken the stream's name
        is_elsewhere = any(offset in window.at and window.at[offset].message_id == message_id for window in others)
        require(
            bool(same) or is_elsewhere or (not found and world.truth.is_damaged),
            f"10: {stream}[{offset}] is said to have id {message_id}, it has {found}",
        )
        world.coverage["id_repeated"] += 1
        if not is_whole or not same or world.truth.is_damaged or world.injected["wall_jump"]:
            return
        configs = self._configs[stream][mark.configs - 1 :]
        require(
            any(window.may(same[-1], mark.published_at, configs, mark.number) for window in windows),
            f"10: {message_id} is not stored for {stream}[{offset}], {same}, which {configs} forget",
        )
        world.coverage["batch_repeated"] += 1
