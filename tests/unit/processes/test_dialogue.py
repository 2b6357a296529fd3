"""Messages survive the way through a stream of bytes, however it is cut; errors come out as they went in."""

from __future__ import annotations

import random

import pytest

from patterns.wire.records import Move, Position, Record
from zbroker.processes import dialogue
from zbroker.processes.dialogue import Inbox
from zbroker.store import faults
from zbroker.store.faults import JournalError

RECORD = Record(7, 1, 3, 40, 5, b"columns", b"payload" * 10)


def said_record(record: Record) -> bytes:
    return dialogue.record_head(record) + record.payload


@pytest.mark.parametrize("seed", range(20))
def test_messages_come_out_whole_and_in_order_however_the_stream_is_cut(seed):
    dice = random.Random(seed)
    bodies = [dice.randbytes(dice.choice([0, 1, 7, 300, 70_000])) for _ in range(30)]
    stream = b"".join(dialogue.said(number % 9, body) for number, body in enumerate(bodies))
    inbox, found = Inbox(), []
    while stream:
        size = dice.choice([1, 3, 5, 100, 9_000, 200_000])
        found += [(kind, data[start:end]) for kind, data, start, end in inbox.feed(stream[:size])]
        stream = stream[size:]
    assert found == [(number % 9, body) for number, body in enumerate(bodies)]


def test_a_record_is_the_same_on_the_other_side():
    ((kind, data, start, end),) = Inbox().feed(said_record(RECORD))
    assert kind == dialogue.RECORD
    assert dialogue.record_of(data, start, end) == RECORD


def test_a_record_with_its_place_is_the_same_on_the_other_side():
    place = Position(9, 1 << 40, 77, 3)
    (message,) = Inbox().feed(dialogue.said_at(dialogue.FOUND, RECORD, place))
    assert dialogue.record_at(message) == (RECORD, place)


def test_a_piece_keeps_its_segment():
    (message,) = Inbox().feed(dialogue.said_piece(b"chunk", 12) + b"chunk")
    assert dialogue.piece_of(message) == (b"chunk", 12)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_places_of_what_is_durable_keep_their_order(count):
    places = [Position(1, 4096 * number, 100 + number) for number in range(count)]
    (message,) = Inbox().feed(dialogue.said_durable(300, True, places))
    assert dialogue.durable_of(message) == (300, True, places)


@pytest.mark.parametrize(
    "error",
    [
        faults.FolderLocked("data"),
        faults.NewerFormat("data", "1.seg", 9, 2),
        faults.JournalFailed("data", "EIO"),
        OSError(5, "Input/output error", "data/LOCK"),
        OSError(5, "Input/output error"),
    ],
)
def test_an_error_keeps_its_class_and_its_text(error):
    (message,) = Inbox().feed(dialogue.said_fault(error))
    found = dialogue.fault_of(message)
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_every_error_of_the_store_can_be_told():
    for kind in JournalError.__subclasses__():
        error = kind.__new__(kind)
        error.args = ("what happened",)
        (message,) = Inbox().feed(dialogue.said_fault(error))
        assert type(dialogue.fault_of(message)) is kind


def test_moves_are_the_same_on_the_other_side():
    moves = [Move(4, 7, 100, Position(4, 8_192, 77, 2)), Move(4, 7, 105, None)]
    (message,) = Inbox().feed(dialogue.said_moved(moves))
    assert dialogue.moved_of(message) == moves
