"""The reading thread, alone: a reader that waits for us, one that breaks, and the real one over a virtual disk."""

from __future__ import annotations

import select
import threading

import pytest

from patterns.wire.records import Position, Record, RecordKind
from tests.processes import until
from zbroker.core.effects import Read
from zbroker.processes.reading import ANSWERED_BYTES_MAX, LET_GO_S, STUCK_US, TAKEN_BYTES, ReadingThread
from zbroker.store.faults import RecordUnreadable


class Reader:
    """Reads what it is allowed to."""

    def __init__(self):
        self.allowed = threading.Semaphore(0)
        self.rounds, self.payload, self.failure, self.is_closed, self.closes = [], b"", None, False, 0

    def read(self, positions):
        self.allowed.acquire()
        self.rounds.append(len(positions))
        if self.failure is not None:
            raise self.failure
        return [Record(position.offset, RecordKind.APPEND, payload=self.payload) for position in positions]

    def status(self):
        return {"records": sum(self.rounds)}

    def close(self):
        self.is_closed = True
        self.closes += 1


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def time_us():
    return [0]


@pytest.fixture
def reads(reader, time_us):
    reads = ReadingThread(reader, "/j", lambda: time_us[0])
    reads.start()
    yield reads
    if not reads._is_closing:
        for _ in range(1_000):
            reader.allowed.release()
        assert reads.close()


def read_of(token, count=1, size=10):
    return Read(token, [Position(1, token, size)] * count)


def rings(reads):
    return bool(select.select([reads.fileno()], [], [], 0)[0])


def test_asking_waits_for_nothing_and_the_bell_rings_until_all_answers_are_taken(reads, reader):
    for token in (1, 2, 3):
        reads.ask(read_of(token))
    assert not reads.is_answered
    assert not rings(reads)
    for _ in range(3):
        reader.allowed.release()
    heard = []
    until(lambda: heard.extend(reads.answers()) or len(heard) == 3)
    assert [(read.token, [record.index for record in found]) for read, found in heard] == [(1, [1]), (2, [2]), (3, [3])]
    assert (rings(reads), reads.is_answered) == (False, False)


def test_what_came_while_it_read_is_read_together(reads, reader):
    reads.ask(read_of(1))
    until(lambda: reads.status()["waiting"] == 0)
    for token in (2, 3, 4):
        reads.ask(read_of(token, count=2))
    for _ in range(2):
        reader.allowed.release()
    heard = []
    until(lambda: heard.extend(reads.answers()) or len(heard) == 4)
    assert reader.rounds == [1, 6]
    assert [len(found) for _, found in heard] == [1, 2, 2, 2]


def test_it_waits_when_so_much_is_read_and_not_taken(reads, reader):
    reader.payload = bytes(TAKEN_BYTES)
    for token in range(20):
        reads.ask(read_of(token, size=TAKEN_BYTES))
        reader.allowed.release()
    until(lambda: len(reader.rounds) >= ANSWERED_BYTES_MAX // TAKEN_BYTES and rings(reads))
    assert len(reader.rounds) <= ANSWERED_BYTES_MAX // TAKEN_BYTES + 1
    heard = []
    until(lambda: heard.extend(reads.answers()) or len(heard) == 20)
    assert [read.token for read, _ in heard] == list(range(20))


def test_the_loop_takes_a_turns_worth_at_a_time(reads, reader):
    reader.payload = bytes(TAKEN_BYTES)
    for token in range(3):
        reads.ask(read_of(token))
    reader.allowed.release(3)
    until(lambda: len(reads._answers) == 3)
    assert [len(reads.answers()) for _ in range(3)] == [1, 1, 1]


def test_a_reader_that_breaks_is_counted_and_what_it_was_asked_can_be_asked_again(reads, reader):
    reader.failure = ValueError("a fault of ours")
    reads.ask(read_of(1, count=2))
    reader.allowed.release()
    heard = []
    until(lambda: heard.extend(reads.answers()) or heard)
    [(read, found)] = heard
    assert [type(error) for error in found] == [RecordUnreadable] * 2
    assert "a fault of ours" in str(found[0])
    assert reads.status() == {"waiting": 0, "failures": 1, "records": 2}
    reader.failure = None
    reads.ask(read)
    reader.allowed.release()
    until(lambda: reads.is_answered)
    assert isinstance(reads.answers()[0][1][0], Record)


def test_a_disk_that_does_not_answer_is_told(reads, reader, time_us):
    reads.ask(read_of(1))
    until(lambda: reads.status()["waiting"] == 0 and reads._busy_since is not None)
    assert reads.complaint() == ""
    time_us[0] += STUCK_US
    assert "10 s" in reads.complaint()
    reader.allowed.release()
    until(lambda: reads.is_answered)
    assert reads.complaint() == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_told(reads, reader):
    reader.failure = SystemExit()
    reads.ask(read_of(1))
    reader.allowed.release()
    until(lambda: "died" in reads.complaint())


def test_closing_ends_the_thread_and_what_was_not_read_is_not(reads, reader):
    reads.ask(read_of(1))
    until(lambda: reads.status()["waiting"] == 0)
    reads.ask(read_of(2))
    closing = threading.Thread(target=reads.close)
    closing.start()
    until(lambda: reads._is_closing)
    reader.allowed.release()
    closing.join()
    assert reader.is_closed
    assert reader.rounds == [1]


def test_files_are_let_go_of_while_there_is_much_to_read(reads, reader, time_us):
    for token in range(3):
        reads.ask(read_of(token))
        reader.allowed.release()
        until(lambda: reads.answers() != [])
        assert reader.closes <= token
        time_us[0] += int(LET_GO_S * 1e6)
    until(lambda: reader.closes >= 1)


def test_files_are_let_go_of_when_nothing_is_read_any_more(reads, reader, time_us):
    reads.ask(read_of(1))
    reader.allowed.release()
    until(lambda: reads.answers() != [])
    time_us[0] += int(LET_GO_S * 1e6)
    until(lambda: reader.closes >= 1)
