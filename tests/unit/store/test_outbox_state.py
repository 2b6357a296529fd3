"""A checkpoint and what follows it say the same as the whole log."""

from __future__ import annotations

from patterns.wire.messages import Codec
from patterns.wire.parcel import Parcel, Sender
from patterns.wire.records import Damage, LostRange, Move, Position, Record, RecordKind, encode_lost
from zbroker.store.outbox_state import Place, State, head_of, parcel_of, said

ME = Sender("journal-1", bytes(16))


def appended(number: int, count: int = 1) -> Record:
    parcel = Parcel(number, count, Codec.JSON, b"columns", b"payload", "a.b")
    return Record(number, RecordKind.APPEND, 1, number, count, head_of(parcel), parcel.payload)


def at(offset: int, segment: int = 1) -> Position:
    return Position(segment, offset, 100)


def filled() -> State:
    state = State()
    state.visit(Record(1, RecordKind.CATALOG, payload=said(("orders", ME))), at(0))
    for number in (1, 11, 21):
        state.visit(appended(number, 10), at(number * 64))
    return state


def test_a_parcel_comes_back_from_its_record() -> None:
    parcel = parcel_of(appended(5, 3))
    assert (parcel.number, parcel.count, parcel.codec, parcel.columns, parcel.payload, parcel.topic) == (
        5, 3, Codec.JSON, b"columns", b"payload", "a.b",
    )  # fmt: skip


def test_a_log_says_whose_it_is_and_what_waits() -> None:
    state = filled()
    state.visit(Record(5, RecordKind.OPS, payload=said(10)), at(0))
    assert (state.stream, state.sender, list(state.places), state.next_number) == ("orders", ME, [11, 21], 31)


def test_a_checkpoint_says_the_same() -> None:
    state, again = filled(), State()
    assert again.restore([state.told()])
    for chunks in state.by_segment().values():
        assert all(again.index(chunk) for chunk in chunks)
    assert (again.stream, again.sender, list(again.places), again.next_number) == ("orders", ME, [1, 11, 21], 31)
    assert again.places[11].position == state.places[11].position


def test_bytes_of_another_version_are_no_checkpoint() -> None:
    assert not State().restore([b"\xc1"])
    assert not State().restore([said({"version": 2})])
    assert not State().index(b"\xc1")


def test_an_index_that_is_lost_is_made_again_from_the_segment() -> None:
    state, again = filled(), State()
    state.settled = 10
    again.restore([state.told()])
    for number in (1, 11, 21):
        again.reindex(appended(number, 10), at(number * 64, 7))
    assert [(number, place.position.segment) for number, place in again.places.items()] == [(11, 7), (21, 7)]


def test_a_batch_that_moved_is_found_there() -> None:
    state = filled()
    state.move(Move(1, 1, 11, at(4_096, 9)))
    state.move(Move(1, 1, 12_345, at(0, 9)))
    state.move(Move(1, 1, 21, None))
    assert [place.position.segment for place in state.places.values()] == [1, 9, 1]


def test_numbers_of_lost_batches_are_given_to_nobody() -> None:
    state = filled()
    lost = LostRange(5, RecordKind.APPEND, 1, 31, 10)
    damage = [Damage(5, 5, 1, 0, 0, [lost], "body"), Damage(6, 9, 1, 0, 500, [], "header")]
    state.visit(Record(10, RecordKind.LOST, payload=encode_lost(damage)), at(0))
    assert state.next_number == 541


def test_a_place_counts_whole_blocks() -> None:
    state = State()
    state.visit(appended(1), Position(1, 0, 4_097))
    assert state.places[1] == Place(1, 8_192, Position(1, 0, 4_097))
