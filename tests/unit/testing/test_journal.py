from patterns.io.journal import Journal, Reader
from patterns.wire.records import FIRST_INDEX, Position, Record, RecordKind
from zbroker.testing.journal import MemoryJournal


def record(index: int, payload: bytes = b"x") -> Record:
    return Record(index, RecordKind.APPEND, 1, index, 1, b"c", payload)


def opened(journal: MemoryJournal) -> list[tuple[Record, Position]]:
    seen: list[tuple[Record, Position]] = []
    journal.open(lambda *found: seen.append(found))
    return seen


def test_it_is_a_journal_and_its_reader() -> None:
    journal = MemoryJournal()
    as_journal: Journal = journal
    as_reader: Reader = journal
    assert as_journal is as_reader


def test_what_was_committed_is_there_in_the_next_life_and_nothing_else() -> None:
    journal = MemoryJournal()
    journal.open(lambda *found: None)
    for index in (1, 2):
        journal.append(record(index))
    assert journal.commit(0) == 2
    journal.append(record(3))
    assert journal.durable_index == 2
    assert [found.index for found, _ in opened(journal)] == [1, 2]
    assert journal.status()["bytes"] == 4


def test_each_life_has_a_higher_epoch_and_goes_on_with_the_next_index() -> None:
    journal = MemoryJournal()
    first = journal.open(lambda *found: None)
    journal.append(record(1))
    journal.close()
    second = journal.open(lambda *found: None)
    assert (first.epoch, first.next_index) == (1, FIRST_INDEX)
    assert (second.epoch, second.next_index) == (2, FIRST_INDEX + 1)


def test_records_are_read_back_where_they_were_put() -> None:
    journal = MemoryJournal()
    places = [journal.append(record(index, bytes([index]))) for index in (1, 2, 3)]
    assert journal.read([places[2], places[0]]) == [record(3, b"\3"), record(1, b"\1")]


def test_a_payload_that_is_a_view_is_kept_as_bytes() -> None:
    journal, lent = MemoryJournal(), bytearray(b"abc")
    place = journal.append(record(1, memoryview(lent)))  # type: ignore[arg-type]
    lent[:] = b"xyz"
    assert journal.read([place]) == [record(1, b"abc")]


def test_nothing_of_it_is_ever_due() -> None:
    journal = MemoryJournal()
    assert (journal.next_timeout(), journal.tidy_at, journal.checkpoint_due) == (None, None, False)
    assert journal.tidy(0) == []
