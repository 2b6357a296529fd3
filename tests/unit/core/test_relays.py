"""Stored batches with topics: told live, once they are on disk, a lane for each channel."""

from __future__ import annotations

import msgspec

from patterns.wire import codec
from patterns.wire.messages import Columns, Publish
from patterns.wire.names import channel_of
from tests.unit.core.durable import Durable
from zbroker.core.log import StreamLog
from zbroker.core.relays import Relays

_Told = list[tuple[int, int, list[str], list[object]]]


def _joined(rig: Durable, *, is_heard: bool = True) -> _Told:
    told: _Told = []

    def forward(message: object, columns: Columns, topics: list[str], now: int, log: StreamLog) -> None:
        header = message.header  # type: ignore[attr-defined]
        assert isinstance(header, Publish)
        assert columns.ids is msgspec.UNSET
        bodies = codec.decode(header.codec, message.payload, header.count, None)  # type: ignore[attr-defined]
        told.append((message.key[0], header.sequence, topics, bodies))  # type: ignore[attr-defined]

    relays: Relays = rig.streams._intake.relays
    relays.join(forward, lambda: is_heard, bytes(16))
    return told


def test_a_batch_is_told_when_it_is_on_disk_and_not_before() -> None:
    rig = Durable()
    told = _joined(rig)
    rig.producer().append(*"ab", topic="x.y", columns=Columns(ids=["1", "2"]))
    rig.turn(sync=False)
    assert told == []
    rig.sync()
    assert told == [(channel_of("x"), 0, ["x.y"], ["a", "b"])]


def test_topics_of_several_channels_are_told_apart_and_numbered_on() -> None:
    rig = Durable()
    told = _joined(rig)
    producer = rig.producer()
    for _ in range(2):
        producer.append(*"abc", columns=Columns(topics=["x", "y.1", "unused"], topic=[0, 1, 0]))
    rig.turn()
    x, y = channel_of("x"), channel_of("y")
    assert told == [
        (x, 0, ["x"], ["a", "c"]),
        (y, 0, ["y.1"], ["b"]),
        (x, 2, ["x"], ["a", "c"]),
        (y, 1, ["y.1"], ["b"]),
    ]


def test_what_has_no_topic_or_no_listener_is_told_nobody() -> None:
    rig = Durable()
    told = _joined(rig, is_heard=False)
    producer = rig.producer()
    producer.append("a")
    producer.append("b", topic="x")
    rig.turn()
    assert told == []


def test_what_is_stored_already_is_not_told_again() -> None:
    rig = Durable()
    told = _joined(rig)
    producer = rig.producer()
    producer.append("a", topic="x", columns=Columns(ids=["1"]))
    producer.append(*"ab", topic="x", columns=Columns(ids=["1", "2"]))
    rig.turn()
    assert [bodies for _, _, _, bodies in told] == [["a"], ["b"]]
