"""Stored batches that have topics, delivered live once they are on disk (SPEC.md 8.2). The broker is their publisher."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from patterns.wire.frames import MSGPACK, Message, pack, pack_columns
from patterns.wire.identity import publisher_of
from patterns.wire.messages import Columns, Publish
from patterns.wire.names import channel_of
from zbroker.core.log import StreamLog
from zbroker.core.tail import Batch, Split

# (message, columns, topics, now, the stream that it is stored in)
Forward = Callable[[Message, Columns, list[str], int, StreamLog], None]
_LIVE: Final = ("sizes", "topics", "topic", "headers")  # columns that PUBLISH has


class Relays:
    """What waits to be on disk, to be published then. The tail holds these batches as long, so they cost nothing here."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, StreamLog, Batch]] = deque()
        self._sequences: dict[int, int] = {}  # by channel: the next message's
        self._publisher = bytes(16)
        self._forward: Forward | None = None
        self._is_heard: Callable[[], bool] = bool

    def join(self, forward: Forward, is_heard: Callable[[], bool], nonce: bytes) -> None:
        """Where batches go, whether anybody is there, and whose they are; another one in each life, since sequences begin anew."""
        self._forward, self._is_heard, self._publisher = forward, is_heard, publisher_of(nonce)

    def expect(self, index: int, log: StreamLog, batch: Batch) -> None:
        """A batch with topics is to be published when the record of that index is on disk."""
        if self._forward is not None:
            self._waiting.append((index, log, batch))

    def persisted(self, index: int, now: int) -> None:
        """Everything up to index is on disk."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= index:
            _, log, batch = waiting.popleft()
            if self._is_heard():
                for part in _parts_of(batch):
                    self._send(log, *part, now)

    def _send(
        self,
        log: StreamLog,
        batch: Batch,
        columns: Columns,
        topics: list[str],
        now: int,
    ) -> None:
        """Publish messages of one channel."""
        assert self._forward is not None, "else nothing is expected"
        channel, count = channel_of(topics[0]), batch.count
        sequence = self._sequences.get(channel, 0)
        self._sequences[channel] = sequence + count
        columns = live_columns(columns)
        packed = pack_columns(columns, MSGPACK)
        packed = b"" if packed == b"\x80" else packed
        topic = batch.topic if columns.topics is msgspec.UNSET else None
        header = Publish(publisher=self._publisher, sequence=sequence, count=count, codec=batch.codec, topic=topic)
        key = bytes((channel,))
        frames = pack(header, columns=packed, payload=batch.payload, key=key)
        size = len(packed) + len(batch.payload)
        message = Message(b"P", key, header, packed, batch.payload, MSGPACK, size, frames)
        self._forward(message, columns, topics, now, log)


def _parts_of(batch: Batch) -> Iterator[tuple[Batch, Columns, list[str]]]:
    """The batch, taken apart if its topics are of several channels; with its columns and distinct topics."""
    columns = MSGPACK.columns.decode(batch.columns) if batch.columns else Columns()
    if columns.topics is msgspec.UNSET or columns.topic is msgspec.UNSET:
        assert batch.topic is not None, "it has topics"
        yield batch, columns, [batch.topic]
        return
    by_channel: dict[int, list[slice]] = {}
    for place, at in enumerate(columns.topic):
        by_channel.setdefault(channel_of(columns.topics[at]), []).append(slice(place, place + 1))
    if len(by_channel) == 1:
        yield batch, columns, _used(columns)
        return
    split = Split(batch)
    for places in by_channel.values():
        part, payload = split.pick(places)
        yield msgspec.structs.replace(batch, count=len(places), payload=payload), part, _used(part)


def _used(columns: Columns) -> list[str]:
    """The distinct topics that messages have; `topics` become these."""
    assert columns.topics is not msgspec.UNSET
    assert columns.topic is not msgspec.UNSET
    used = sorted(set(columns.topic))
    if len(used) < len(columns.topics):
        places = {at: place for place, at in enumerate(used)}
        columns.topics = [columns.topics[at] for at in used]
        columns.topic = [places[at] for at in columns.topic]
    return columns.topics


def live_columns(columns: Columns) -> Columns:
    """What PUBLISH has of them."""
    found = Columns()
    for name in _LIVE:
        setattr(found, name, getattr(columns, name))
    return found
