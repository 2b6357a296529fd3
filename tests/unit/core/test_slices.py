"""A batch of which only some messages are left: what is cut out, and what consumers are given of the rest."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from patterns.wire import codec
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Codec, Columns, Lost
from patterns.wire.records import Move, Position, Record, RecordKind
from tests.unit.core.durable import Durable
from zbroker.core.slices import sliced
from zbroker.core.tail import Split, Stored, Tail, batch_of

CODECS = [Codec.MSGPACK, Codec.JSON, Codec.RAW]


def record(kind: Codec, count: int, base: int = 100) -> Record:
    bodies = [b"%d" % place * (place % 3 + 1) if kind is Codec.RAW else f"body {place}" for place in range(count)]
    encoded = codec.encode(kind, bodies)[0]
    columns = Columns(keys=[f"key {place}" for place in range(count)])
    if encoded.sizes:
        columns.sizes = encoded.sizes
    stored = Stored(1, 1, 1, 0, 77, kind, None, 5, pack_columns(columns, MSGPACK))
    return Record(9, RecordKind.APPEND, 3, base, count, msgspec.msgpack.encode(stored), encoded.payload)


def messages(found: Record) -> dict[int, tuple[bytes, str]]:
    batch = batch_of(found)
    split = Split(batch)
    return {
        offset: (bytes(item), key)
        for offset, item, key in zip(batch.offsets(), split.items, split.columns.keys, strict=True)
    }


@pytest.mark.parametrize("kind", CODECS)
def test_slicing_twice_is_slicing_once_by_what_both_want(kind: Codec) -> None:
    random = Random(3)
    for _ in range(50):
        whole = record(kind, random.randint(1, 30))
        every = messages(whole)
        first, second = ([at for at in every if random.random() < 0.6] for _ in range(2))
        once = sliced(whole, [(at, at) for at in first])
        if not first:
            assert once is None
            continue
        assert once is not None
        assert (once.index, once.base_offset, once.count) == (whole.index, whole.base_offset, whole.count)
        assert messages(once) == {at: every[at] for at in first}
        both = sorted(set(first) & set(second))
        twice = sliced(once, [(at, at) for at in second])
        assert ({} if twice is None else messages(twice)) == {at: every[at] for at in both}


def test_bytes_that_make_no_sense_are_left_as_they_are() -> None:
    assert sliced(Record(1, RecordKind.APPEND, 3, 0, 2, b"\xc1", b""), [(0, 0)]) is None


def test_runs_say_what_is_there_and_how_many_come_before() -> None:
    cut = sliced(record(Codec.JSON, 10, base=0), [(1, 2), (5, 5), (8, 9)])
    assert cut is not None
    batch = batch_of(cut)
    assert [batch.run(place) for place in (0, 1, 2, 3, 5, 6, 9)] == [
        (1, 2, 0),
        (1, 2, 0),
        (1, 2, 0),
        (5, 5, 2),
        (5, 5, 2),
        (8, 9, 3),
        (8, 9, 3),
    ]
    assert batch_of(record(Codec.JSON, 10)).run(4) == (0, 9, 0)


def compacted(rig: Durable, wanted: list[tuple[int, int]]) -> None:
    """As the journal does it to the one batch that there is."""
    place = next(number for number, found in enumerate(rig.records) if found.kind == RecordKind.APPEND)
    whole = rig.records[place]
    cut = sliced(whole, wanted)
    rig.records[place] = cut or whole
    position = None if cut is None else Position(1, whole.index, 64, 1)
    rig.streams.moved([Move(1, whole.stream_id, whole.base_offset, position)])


@pytest.mark.parametrize("mode", ["batches", "slices"])
def test_a_consumer_is_given_what_is_left_at_its_own_offsets(mode: str) -> None:
    rig = Durable(tail_bytes=0)
    rig.producer().append(*range(10))
    rig.turn()
    other = Durable(rig.records, epoch=2, tail_bytes=0)
    compacted(other, [(2, 3), (7, 7)])
    other.consumer(b"c", mode=mode)
    for _ in range(6):
        other.turn()
    given = [
        (at, body)
        for delivery in other.deliveries(b"c")
        for at, body in zip(delivery.offsets, delivery.bodies, strict=True)
    ]
    assert given == [(2, 2), (3, 3), (7, 7)]
    assert other.take(b"c", Lost) == [], "nothing was lost: it was given up before this group came"
    account = other.streams.status(1_000, 0)["groups"]["s/g"]
    assert (account["expired"], account["lost"]) == (7, 0)


def test_a_batch_that_is_gone_whole_is_passed_over() -> None:
    rig = Durable(tail_bytes=0)
    rig.producer().append(1, 2, 3)
    rig.turn()
    other = Durable(rig.records, epoch=2, tail_bytes=0)
    compacted(other, [])
    other.producer().append(4)
    other.turn()
    other.consumer(b"c")
    for _ in range(4):
        other.turn()
    assert [delivery.offsets for delivery in other.deliveries(b"c")] == [[3]]


@pytest.mark.parametrize("form", [Codec.MSGPACK, Codec.JSON])
def test_what_was_cut_up_before_its_segment_was_compacted_is_not_taken_for_what_is_left(form: Codec) -> None:
    whole = record(Codec.JSON, 6, base=0)
    cut = sliced(whole, [(1, 1), (4, 5)])
    assert cut is not None
    tail = Tail()
    for found, items in ((whole, 6), (cut, 3)):
        batch = tail.view((3, 0), batch_of(found), form)
        assert batch.codec is form
        assert len(tail.split((3, 0), batch).items) == items
