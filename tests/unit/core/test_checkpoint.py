"""Pieces of a checkpoint, and back; that replay on top is right is shown in tests/property."""

from array import array

import msgspec
import pytest

from patterns.wire.records import Position
from zbroker.core import checkpoint
from zbroker.core.catalog import Catalog, Recorder
from zbroker.core.log import StreamLog
from zbroker.core.message_ids import MessageIds
from zbroker.core.producers import Accepted, Producer, Producers


def placed(log: StreamLog, segment: int, count: int = 1) -> None:
    number = log.append(log.batches + 1, count, 10, 1_000)
    log.place(number, Position(segment, 64 * number, 128))


def catalog() -> Catalog:
    return Catalog(Recorder([]))


def kinds(chunk: bytes) -> list[str]:
    return [piece[0] for piece in msgspec.msgpack.decode(chunk)]


def test_full_segments_come_first_then_the_state_then_the_rest() -> None:
    source = catalog()
    log = source.stream("s")
    for segment in (1, 1, 2, 4):
        placed(log, segment)
    pieces = list(checkpoint.cut(source, Producers(), [1, 2, 3], 4))
    assert [segment for _, segment in pieces] == [1, 2, 3, checkpoint.STATE, 4]
    assert kinds(pieces[3][0]) == ["version", "stream"]
    assert kinds(pieces[2][0]) == [], "nothing lies in segment 3, and that is said"


def test_places_come_back_and_twice_is_as_good_as_once() -> None:
    source, target = catalog(), catalog()
    log = source.stream("s")
    for segment in (1, 1, 2):
        placed(log, segment, count=3)
    pieces = list(checkpoint.cut(source, Producers(), [1], 2))
    checkpoint.restore([chunk for chunk, segment in pieces if segment == 0], target, Producers())
    for _ in range(2):
        for chunk, segment in pieces:
            if segment:
                checkpoint.index(chunk, target)
    back = target.by_name["s"]
    assert (back.batches, back.next_offset, back.messages) == (3, 9, 9)
    assert [back.position(number) for number in range(3)] == [log.position(number) for number in range(3)]


def test_an_index_of_an_earlier_version_is_understood_and_what_it_tells_of_may_be_known() -> None:
    target = catalog()
    log = target.stream("s")
    placed(log, 1, count=2)
    rows = (
        array("Q", [0, 2, 5]),
        array("I", [2, 3, 1]),
        array("Q", [9] * 3),
        array("Q", [1] * 3),
        array("Q", [0, 256, 64]),
    )
    for column in (*rows, sizes := array("I", [128, 129, 130])):
        column.byteswap()
    piece = ["index", log.id, [column.tobytes() for column in (*rows, sizes)]]
    checkpoint.index(msgspec.msgpack.encode([piece]), target)
    assert [log.position(number) for number in (1, 2)] == [Position(1, 256, 129), Position(1, 64, 130)]
    assert [log.end(number) for number in range(log.batches)] == [2, 5, 6]
    piece[2][5] = b""
    with pytest.raises(checkpoint.NOT_OURS):
        checkpoint.index(msgspec.msgpack.encode([piece]), target)


def test_what_was_given_up_comes_back() -> None:
    source, target = catalog(), catalog()
    log = source.stream("s")
    placed(log, 1, count=20_000)
    for first, last in ((0, 9), (5_000, 5_999), (12_288, 16_383)):
        log.given_up.add(first, last)
    pieces = list(checkpoint.cut(source, Producers(), [], 1))
    checkpoint.restore([chunk for chunk, segment in pieces if segment == 0], target, Producers())
    found = target.by_name["s"].given_up
    assert list(found.missing(0, 19_999)) == [(10, 4_999), (6_000, 12_287), (16_384, 19_999)]


def test_a_batch_that_comes_after_the_streams_piece_is_not_in_the_index() -> None:
    source = catalog()
    log = source.stream("s")
    placed(log, 1)
    pieces = checkpoint.cut(source, Producers(), [], 1)
    assert next(pieces)[1] == checkpoint.STATE
    placed(log, 1)
    [(chunk, _)] = list(pieces)
    [[_, _, columns]] = msgspec.msgpack.decode(chunk)
    assert columns[0][0] == 1, "one batch"


def test_a_producer_comes_back_with_all_its_lives_and_without_refusals() -> None:
    producers, back = Producers(), Producers()
    producer = producers.restore(7, "named", [b"a" * 16, b"b" * 16], 2)
    producer.accept(Accepted(1, 0, 99, 5))
    producer.accept(Accepted(2, 0, 98, 0, None))
    producer.journaled = True
    pieces = list(checkpoint.cut(catalog(), producers, [], 1))
    checkpoint.restore([pieces[0][0]], catalog(), back)
    [again] = list(back)
    assert isinstance(again, Producer)
    assert (again.id, again.name, again.epoch, again.journaled) == (7, "named", 2, True)
    assert list(again.nonces) == [b"a" * 16, b"b" * 16]
    assert (again.sequence, [one.sequence for one in again.batches]) == (1, [1])


@pytest.mark.parametrize("pieces", [[], [["version", 99]], [["stream", 1]], [["version", 1], ["new kind", 2]]])
def test_what_is_not_understood_is_refused(pieces: list[list[object]]) -> None:
    with pytest.raises((checkpoint.Unknown, LookupError)):
        checkpoint.restore([msgspec.msgpack.encode(pieces)], catalog(), Producers())
    with pytest.raises(checkpoint.Unknown):
        checkpoint.index(msgspec.msgpack.encode([["new kind", 2]]), catalog())


def test_the_last_index_waits_for_the_places_of_what_the_state_tells_of() -> None:
    source = catalog()
    log = source.stream("s")
    placed(log, 1)
    number = log.append(2, 1, 10, 1_000)  # the journal has yet to say where
    pieces = checkpoint.cut(source, Producers(), [], 1)
    assert next(pieces)[1] == checkpoint.STATE
    assert [next(pieces), next(pieces)] == [checkpoint.WAIT, checkpoint.WAIT]
    log.place(number, Position(2, 64, 128))
    [(chunk, segment)] = list(pieces)
    assert (kinds(chunk), segment) == (["batches"], 1)


def test_message_ids_come_back_from_several_pieces() -> None:
    source, target, count = catalog(), catalog(), 10_000
    log = source.stream("s")
    log.ids = MessageIds()
    log.ids.note([str(number) for number in range(count)], range(count), 1_000, log.config)
    pieces = list(checkpoint.cut(source, Producers(), [], 1))
    checkpoint.restore([chunk for chunk, segment in pieces if segment == 0], target, Producers())
    back = target.by_name["s"].ids
    assert back is not None
    back.opened(log.config, 1_000, ())
    assert len(back) == count
    assert back.repeats(["0", "5000", "9999", "new"], count, log.config, 1_000) == [(0, 0), (1, 5_000), (2, 9_999)]


def test_a_group_of_an_earlier_version_has_passed_nothing_over() -> None:
    target = catalog()
    target.add(1, "s")
    group = ["group", 1, 2, "g", 0, 10, 10, [1, 2, 3, 4]]
    checkpoint.restore([msgspec.msgpack.encode([["version", checkpoint.VERSION], group])], target, Producers())
    found = target.groups[1, 2]
    assert (found.acked, found.dead, found.expired, found.lost, found.passed) == (1, 2, 3, 4, 0)
