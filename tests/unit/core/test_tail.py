"""The cache of batches: bounded, and never the only place of what is on disk."""

from __future__ import annotations

import pytest

from patterns.wire import codec
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Codec, Columns
from tests.unit.core.durable import Durable
from zbroker.core.tail import Batch, Split, Tail


def _batch(index: int, *bodies: object, kind: Codec = Codec.MSGPACK, columns: Columns | None = None) -> Batch:
    encoded = codec.encode(kind, bodies)[0]
    columns = columns or Columns()
    if encoded.sizes:
        columns.sizes = encoded.sizes
    return Batch(index, 0, len(bodies), kind, None, 0, pack_columns(columns, MSGPACK), encoded.payload)


def test_the_oldest_leave_first_and_the_bound_holds() -> None:
    tail = Tail(40_000)
    for index in range(100):
        tail.put((1, index), _batch(index, b"x" * 1_000))
        tail.trim(index)
    assert tail.bytes <= 30_000
    assert tail.get((1, 0)) is None
    assert tail.get((1, 99)) is not None


def test_what_is_not_durable_stays_whatever_the_bound() -> None:
    tail = Tail(4_000)
    for index in range(10):
        tail.put((1, index), _batch(index, b"x" * 1_000))
    tail.trim(4)
    assert [index for index in range(10) if tail.get((1, index))] == [5, 6, 7, 8, 9]


def test_batches_read_back_do_not_push_out_the_newest() -> None:
    tail = Tail(40_000)
    tail.put((1, 0), _batch(0, "new"))
    for index in range(100):
        tail.keep((2, index), _batch(index, b"x" * 1_000))
    assert tail.get((1, 0)) is not None
    assert tail.bytes <= 12_000


@pytest.mark.parametrize("kind", list(Codec))
def test_a_cut_holds_the_same_bodies_and_columns(kind: Codec) -> None:
    bodies = [b"a", b"bb", b"ccc"] if kind is Codec.RAW else ["a", "bb", "ccc"]
    split = Split(
        _batch(1, *bodies, kind=kind, columns=Columns(topics=["t", "u"], topic=[0, 1, 0], ids=["1", None, "3"]))
    )
    columns, payload = split.cut(1, 3)
    sizes = columns.sizes if isinstance(columns.sizes, list) else None
    assert codec.decode(kind, payload, 2, sizes) == bodies[1:]
    assert (columns.topics, columns.topic, columns.ids) == (["t", "u"], [1, 0], [None, "3"])


def test_a_slice_has_one_message_at_least() -> None:
    split = Split(_batch(1, "x" * 100, "y" * 100, "z"))
    assert [split.fitting(0, 3, limit) for limit in (1, 102, 204, 1_000)] == [1, 1, 2, 3]


def test_old_batches_are_read_ahead_and_shared_by_those_who_wait() -> None:
    rig = Durable()
    producer = rig.producer()
    for number in range(40):
        producer.append(number)
    rig.turn()
    again = rig.crash()
    again.slow_disk = True
    for peer, group in ((b"c", "g"), (b"d", "h"), (b"e", "")):
        again.consumer(peer, group=group, mode="batches")
    assert [len(read.positions) for read in again.reads] == [40]
    again.slow_disk = False
    again.answer(again.reads[0])
    for peer in (b"c", b"d", b"e"):
        assert [d.bodies[0] for d in again.deliveries(peer)] == list(range(40))


def test_a_reader_that_is_gone_when_its_batch_arrives_harms_nobody() -> None:
    rig = Durable()
    rig.producer().append("a")
    rig.turn()
    again = rig.crash()
    again.slow_disk = True
    again.consumer(group="", mode="batches")
    again.disconnect(b"c")
    again.pass_time(2_000_000)
    again.answer(again.reads[0])
    again.streams.loaded(99, [None], again.now)
    assert again.deliveries(b"c") == []


def test_batches_stay_cut_as_long_as_they_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = Tail()
    batches = [_batch(index, *("x" * 100 for _ in range(10))) for index in range(1, 9)]
    monkeypatch.setattr("zbroker.core.tail.SPLIT_BYTES", 3 * Split(batches[0]).memory)
    first = [tail.split((1, number), batch) for number, batch in enumerate(batches[:3])]
    assert [tail.split((1, number), batch) for number, batch in enumerate(batches[:3])] == first
    tail.split((1, 3), batches[3])
    assert tail.split((1, 2), batches[2]) is first[2]
    assert tail.split((1, 0), batches[0]) is not first[0]
