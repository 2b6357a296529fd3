"""The simplest reads: answered when asked, handed over once."""

from __future__ import annotations

from patterns.wire.records import Position, Record, RecordKind
from zbroker.core.effects import Read
from zbroker.testing.reads import ImmediateReads


class Reader:
    def read(self, positions):
        return [Record(position.offset, RecordKind.APPEND) for position in positions]


def test_what_is_asked_is_answered_once_and_in_order():
    reads = ImmediateReads(Reader())
    assert not reads.is_answered
    asked = [Read(token, [Position(1, token, 10)]) for token in (1, 2)]
    for read in asked:
        reads.ask(read)
    assert reads.is_answered
    assert [(read, [record.index for record in found]) for read, found in reads.answers()] == [
        (asked[0], [1]),
        (asked[1], [2]),
    ]
    assert (reads.is_answered, reads.answers()) == (False, [])
