"""What the broker's side of its sidecar promises, over a virtual line and disk; real processes are in tests/crash."""

from __future__ import annotations

import errno

import pytest

from patterns.wire.records import Position
from tests.unit.processes.sidecars import FOLDER, SECOND, Sidecars, record, settle
from zbroker.processes.sidecar_journal import State
from zbroker.store.faults import FolderLocked, JournalFailed, JournalFull, JournalUnfinished, NotOurs
from zbroker.store.journal import FileJournal
from zbroker.store.reader import RecordReader
from zbroker.testing.disk import PowerCut, VirtualDisk


def appended(journal, first, count, size=100):
    for index in range(first, first + count):
        journal.append(record(index, size))
    journal.commit(0)


def log_of(disk):
    """What a new broker finds."""
    disk.crash()
    log = []
    Sidecars(disk).journal().open(lambda record, position: log.append(record))
    return log


def test_an_open_shows_what_the_log_holds():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 500)
    settle(sidecars, journal)
    sidecars.kill()
    log = []
    opened = Sidecars(sidecars.disk).journal().open(lambda record, position: log.append((record, position)))
    assert [one for one, _ in log] == [record(index) for index in range(1, 501)]
    reader = RecordReader(sidecars.disk, FOLDER)
    assert list(reader.read([position for _, position in log])) == [one for one, _ in log]
    assert (opened.next_index, opened.epoch) == (501, 2)


def test_nothing_waits_and_nothing_is_confirmed_before_the_sidecar_says_so():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 3)
    assert journal.commit(0) == 0
    assert journal.hear(0) == []
    sidecars.turn()
    assert journal.durable_index == 0
    placed = journal.hear(0)
    assert [index for index, _ in placed] == [1, 2, 3]
    assert journal.durable_index == 3
    records = RecordReader(sidecars.disk, FOLDER).read([place for _, place in placed])
    assert list(records) == [record(1), record(2), record(3)]


def test_a_sidecar_that_takes_nothing_blocks_nobody():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 200, size=10_000)
    assert journal.is_blocked
    assert journal.status()["sidecar"]["unsent_bytes"] > 1 << 20
    settle(sidecars, journal)
    assert not journal.is_blocked


def test_a_broker_that_has_too_much_unconfirmed_is_full():
    sidecars = Sidecars()
    journal = sidecars.opened(unconfirmed_bytes_max=100_000)
    appended(journal, 1, 20, size=10_000)
    assert journal.full
    settle(sidecars, journal)
    assert not journal.full


def test_what_a_dead_sidecar_had_not_written_the_next_one_writes():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 5)
    sidecars.kill()
    assert journal.hear(sidecars.now) == []
    assert "signal 9" in journal.trouble
    assert [index for index, _ in settle(sidecars, journal)] == [1, 2, 3, 4, 5]
    assert (journal.restarts, journal.trouble) == (1, "")
    assert log_of(sidecars.disk) == [record(index) for index in range(1, 6)]


def test_what_a_dead_sidecar_had_written_and_not_told_is_not_written_twice():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 2)
    settle(sidecars, journal)
    appended(journal, 3, 4)
    sidecars.turn()
    sidecars._its._peer._arrived.clear()  # its words are lost with it
    sidecars.kill()
    appended(journal, 7, 1)
    assert settle(sidecars, journal) == [(3, 1), (4, 1), (5, 1), (6, 1), (7, 2)]
    assert log_of(sidecars.disk) == [record(index) for index in range(1, 8)]


def test_what_a_kill_in_the_middle_of_a_write_tears_is_written_again():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 30, size=500)
    sidecars.disk.cut_after = 1
    with pytest.raises(PowerCut):
        sidecars.turn()
    sidecars.kill()
    assert [index for index, _ in settle(sidecars, journal)] == list(range(1, 31))
    assert log_of(sidecars.disk) == [record(index, 500) for index in range(1, 31)]


def test_a_record_in_the_folder_that_this_broker_has_not_written_is_a_failure():
    sidecars = Sidecars()
    journal = sidecars.opened()
    sidecars.kill()
    other = Sidecars(sidecars.disk)
    stranger = other.opened()
    appended(stranger, 1, 1, size=7)
    settle(other, stranger)
    other.kill()
    appended(journal, 1, 1)
    with pytest.raises(JournalFailed, match="has not written"):
        settle(sidecars, journal)


def test_a_log_that_lost_what_was_confirmed_is_a_failure():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 1)
    settle(sidecars, journal)
    sidecars.kill()
    sidecars.disk = VirtualDisk()
    with pytest.raises(JournalFailed, match="known to be durable"):
        settle(sidecars, journal)


def test_sidecars_that_die_one_after_another_are_given_up():
    sidecars = Sidecars()
    journal = sidecars.opened()
    sidecars.dies_at_birth = 100
    sidecars.kill()
    for _ in range(4):
        journal.hear(sidecars.now)
    with pytest.raises(JournalFailed, match="5 times"):
        journal.hear(sidecars.now)
    assert sidecars.started == 5
    assert journal.fileno() == -1, "nobody polls what will never speak again"
    with pytest.raises(JournalFailed):
        journal.append(record(1))


def test_deaths_far_apart_are_each_followed_by_another_start():
    sidecars = Sidecars()
    journal = sidecars.opened()
    for number in range(8):
        sidecars.kill()
        journal.hear(sidecars.now)
        appended(journal, number + 1, 1)
        settle(sidecars, journal)
        sidecars.now += 5 * SECOND
    assert journal.restarts == 8


def test_a_failed_sync_is_for_good_and_starts_nobody():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 1)
    sidecars.disk.fail("fdatasync", errno.EIO)
    sidecars.turn()
    with pytest.raises(JournalFailed, match="Input/output"):
        journal.hear(0)
    assert sidecars.started == 1
    assert "Input/output" in journal.status()["failed"]
    with pytest.raises(JournalFailed):
        journal.commit(0)
    journal.close()


def test_no_process_to_be_had_is_tried_again():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 1)
    sidecars.refuses = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    sidecars.kill()
    journal.hear(sidecars.now)
    assert journal.fileno() == -1
    assert "temporarily unavailable" in journal.trouble
    sidecars.refuses = None
    sidecars.now = journal.next_timeout()
    settle(sidecars, journal)


def test_a_folder_that_is_held_for_a_moment_is_waited_for():
    sidecars = Sidecars()
    holder = sidecars.made or Sidecars(sidecars.disk)
    first = holder.opened()
    journal = sidecars.journal(lock_wait_us=10 * SECOND)
    line = sidecars.start
    turns = 0

    def start():
        found = line()

        def pump():
            nonlocal turns
            turns += 1
            if turns == 50:
                holder.kill()
            sidecars.turn()

        found.pump = pump
        return found

    journal._start = start
    assert journal.open(lambda record, position: None).epoch == 2
    assert first is not journal


@pytest.mark.parametrize("wait", [0, SECOND])
def test_a_folder_that_stays_held_is_refused(wait):
    disk = VirtualDisk()
    Sidecars(disk).opened()
    with pytest.raises(FolderLocked, match="is locked by another process"):
        Sidecars(disk).journal(wait).open(lambda record, position: None)


def test_a_folder_on_which_another_broker_lives_is_refused_at_once():
    disk = VirtualDisk()
    Sidecars(disk).opened()
    sidecars = Sidecars(disk)
    journal = sidecars.journal(lock_wait_us=10 * SECOND)
    journal._on_locked = lambda: False
    with pytest.raises(FolderLocked, match="is locked by another process"):
        journal.open(lambda record, position: None)
    assert sidecars.now < 2 * SECOND
    sidecars.turn()
    assert sidecars.scribe is None


def test_a_sidecar_that_returns_waits_for_the_one_before_whoever_claims_the_folder():
    sidecars = Sidecars()
    journal = sidecars.opened(lock_wait_us=SECOND)
    journal._on_locked = lambda: False
    appended(journal, 1, 1)
    sidecars.scribe = None
    sidecars.hang_up("signal 9")  # and its descriptors are not closed yet
    assert journal.hear(sidecars.now) == []
    sidecars.turn()
    assert journal.hear(sidecars.now) == []
    sidecars.disk.crash()
    assert [index for index, _ in settle(sidecars, journal)] == [1]


def test_a_foreign_folder_is_refused_as_by_the_store_itself():
    disk = VirtualDisk()
    disk.open(f"{FOLDER}/letter.txt", create=True)
    with pytest.raises(NotOurs, match=r"letter\.txt"):
        Sidecars(disk).opened()


def test_a_sidecar_that_dies_while_it_opens_is_an_error():
    sidecars = Sidecars()
    sidecars.dies_at_birth = 1
    with pytest.raises(JournalFailed, match="has died while it opened"):
        sidecars.opened()


def test_a_full_disk_holds_records_in_order_and_heals():
    disk = VirtualDisk()
    sidecars = Sidecars(disk)
    journal = sidecars.opened()
    disk.free_bytes = 0
    appended(journal, 1, 20, size=5_000)
    for _ in range(20):
        sidecars.turn()
        journal.hear(sidecars.now)
    assert journal.full
    assert journal.durable_index < 20
    disk.free_bytes = None
    sidecars.now += 2 * SECOND
    settle(sidecars, journal)
    assert not journal.full
    assert log_of(disk) == [record(index, 5_000) for index in range(1, 21)]


def test_a_disk_that_is_full_when_a_sidecar_is_to_return_is_tried_again():
    disk = VirtualDisk()
    sidecars = Sidecars(disk)
    journal = sidecars.opened()
    appended(journal, 1, 1)
    settle(sidecars, journal)
    disk.free_bytes = 0
    appended(journal, 2, 1)
    sidecars.kill()
    journal.hear(sidecars.now)
    sidecars.turn()
    journal.hear(sidecars.now)
    assert "no room" in journal.trouble
    disk.free_bytes = None
    sidecars.now += 2 * SECOND
    settle(sidecars, journal)
    assert log_of(disk) == [record(1), record(2)]


def test_close_makes_everything_durable():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 100, size=5_000)
    journal.close()
    assert sidecars.scribe is None
    assert log_of(sidecars.disk) == [record(index, 5_000) for index in range(1, 101)]


def test_close_of_a_full_journal_says_so():
    disk = VirtualDisk()
    sidecars = Sidecars(disk)
    journal = sidecars.opened()
    disk.free_bytes = 0
    appended(journal, 1, 20, size=5_000)
    with pytest.raises(JournalFull):
        journal.close()


def test_close_of_a_sidecar_that_has_died_unnoticed_is_well_if_all_is_on_the_disk():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 10)
    settle(sidecars, journal)
    sidecars.kill()
    journal.close()
    assert sidecars.started == 1
    assert log_of(sidecars.disk) == [record(index) for index in range(1, 11)]


def test_close_of_a_sidecar_that_dies_has_another_one_write_the_rest():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 10)
    journal._line.pump = sidecars.kill
    journal.close()
    assert sidecars.started == 2
    assert sidecars.scribe is None
    assert log_of(sidecars.disk) == [record(index) for index in range(1, 11)]


def test_close_of_sidecars_that_all_die_says_so():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 10)
    sidecars.dies_at_birth = 100
    sidecars.kill()
    with pytest.raises(JournalFailed, match=r"died 5 times in a row.*The disk has refused nothing"):
        journal.close()


def test_close_while_a_sidecar_returns_waits_for_nothing_that_is_on_the_disk():
    sidecars = Sidecars()
    journal = sidecars.opened()
    sidecars.kill()
    sidecars.refuses = OSError("no processes")
    assert journal.hear(sidecars.now) == []
    assert journal._state is State.AWAY
    journal.close()


def test_close_while_no_sidecar_can_be_started_says_what_is_left_and_that_nothing_has_failed():
    sidecars = Sidecars()
    journal = sidecars.opened()
    sidecars.kill()
    sidecars.refuses = OSError("no processes")
    assert journal.hear(sidecars.now) == []
    appended(journal, 1, 10)
    with pytest.raises(JournalUnfinished, match=r"no processes.*10 records had no confirm") as told:
        journal.close()
    assert "failed" not in str(told.value)


def test_close_of_a_sidecar_that_stands_still_ends_after_a_while():
    sidecars = Sidecars()
    journal = sidecars.opened()

    def stand_still():
        sidecars.now += SECOND

    journal._line.pump = stand_still
    with pytest.raises(JournalUnfinished, match="not finished within 10 s"):
        journal.close()


def test_a_broker_that_dies_leaves_a_sidecar_that_finishes():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 10)
    journal._line.close()
    sidecars.turn()
    assert sidecars.scribe is None
    assert log_of(sidecars.disk)[:10] in ([], [record(index) for index in range(1, 11)])


def test_status_is_the_journals_and_the_sidecars():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 2)
    settle(sidecars, journal)
    journal.status()
    sidecars.turn()
    journal.hear(0)
    status = journal.status()
    own = sidecars.made[-1].status()
    assert set(own) < set(status)
    assert status["durable_index"] == 2
    assert status["sidecar"] == {
        "pid": 1_001,
        "state": State.SERVING.value,
        "restarts": 0,
        "unconfirmed_bytes": 0,
        "unsent_bytes": 0,
    }


class Engine:
    """Makes checkpoints of one chunk, and takes them."""

    def __init__(self):
        self.restored, self.indexed, self.log = [], [], []

    def restore(self, chunks):
        self.restored += chunks
        return True

    def index(self, chunk):
        self.indexed.append(chunk)
        return True

    def reindex(self, record, position):
        raise AssertionError("an index was there")

    def visit(self, record, position):
        self.log.append(record.index)


def checkpointed(sidecars, journal):
    sidecars.made[-1]._checkpoints.is_due = lambda index, size: True
    appended(journal, journal.durable_index + 1, 1)
    settle(sidecars, journal)
    assert journal.checkpoint_due
    full, current = journal.begin_checkpoint()
    assert not journal.checkpoint_due
    sidecars.made[-1]._checkpoints.is_due = lambda index, size: False
    for segment in full:
        journal.put_checkpoint(b"where", segment)
    journal.put_checkpoint(b"state", 0)
    journal.put_checkpoint(b"here", current)
    journal.end_checkpoint(journal.durable_index)
    journal.commit(0)
    for _ in range(5):
        sidecars.turn()


def test_a_checkpoint_is_cut_here_and_written_there():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 50, size=4_000)
    settle(sidecars, journal)
    checkpointed(sidecars, journal)
    appended(journal, 52, 1)
    settle(sidecars, journal)
    sidecars.kill()
    engine = Engine()
    Sidecars(sidecars.disk).journal().open(engine.visit, engine)
    assert engine.restored == [b"state"]
    assert engine.log == [52]
    assert b"here" in engine.indexed
    assert b"where" in engine.indexed


def test_a_sidecar_that_returns_reads_from_the_checkpoint_on():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 50, size=4_000)
    settle(sidecars, journal)
    checkpointed(sidecars, journal)
    sidecars.kill()
    journal.hear(sidecars.now)
    visited = []
    FileJournal.open, original = (
        lambda self, visit, restorer: original(self, lambda r, p: (visited.append(r.index), visit(r, p)), restorer),
        FileJournal.open,
    )
    try:
        settle(sidecars, journal)
    finally:
        FileJournal.open = original
    assert visited == []


def test_pieces_of_a_checkpoint_whose_sidecar_died_are_dropped():
    sidecars = Sidecars()
    journal = sidecars.opened()
    sidecars.made[-1]._checkpoints.is_due = lambda index, size: True
    appended(journal, 1, 1)
    settle(sidecars, journal)
    journal.begin_checkpoint()
    sidecars.kill()
    journal.hear(sidecars.now)
    settle(sidecars, journal)
    journal.put_checkpoint(b"state", 0)
    journal.end_checkpoint(1)
    assert journal._line.waiting_bytes == 0


def test_what_nobody_will_read_is_told_again_to_the_next_sidecar():
    sidecars = Sidecars()
    journal = sidecars.opened()
    journal.forget([(1, 0, 4), (1, 5, 9), (1, 20, 29), (2, 0, 0)])
    sidecars.kill()
    journal.hear(sidecars.now)
    settle(sidecars, journal)
    journal.commit(0)
    sidecars.turn()
    liveness = sidecars.made[-1]._liveness
    assert liveness.wanted(1, 0, 40) == [(10, 19), (30, 40)]
    assert liveness.wanted(2, 0, 3) == [(1, 3)]


def test_the_place_of_a_record_is_a_position_of_the_store():
    sidecars = Sidecars()
    journal = sidecars.opened()
    appended(journal, 1, 1)
    journal.commit(0)
    sidecars.turn()
    ((index, place),) = journal.hear(0)
    assert (index, type(place), place.segment, place.generation) == (1, Position, 1, 0)


@pytest.mark.parametrize("kill_after", [None, 1, 4])
def test_the_broker_hears_where_batches_lie_after_a_compaction_whenever_the_sidecar_dies(monkeypatch, kill_after):
    monkeypatch.setattr("zbroker.store.checkpoint.CHECKPOINT_RECORDS", 30)
    monkeypatch.setattr("zbroker.store.compactor.MOVES_A_STEP", 5)
    sidecars = Sidecars()
    journal = sidecars.opened()
    places: dict[int, Position | None] = {}
    told = 0

    def live() -> None:
        nonlocal told
        journal.commit(sidecars.now)
        sidecars.turn()
        if journal.next_timeout() is not None:
            journal.handle_timeout(sidecars.now)
        places.update(journal.hear(sidecars.now))
        if journal.tidy_at is not None:
            for move in journal.tidy(sidecars.now):
                told += 1
                places[move.base_offset] = move.position
        if journal.checkpoint_due:
            full, current = journal.begin_checkpoint()
            for segment in (*full, 0, current):
                journal.put_checkpoint(b"", segment)
            journal.end_checkpoint(max(places))

    for index in range(1, 201):
        appended(journal, index, 1, size=1_500)
        live()
    journal.forget([(1, index, index) for index in range(1, 180, 2)])
    killed = False
    for _ in range(1_500):
        live()
        sidecars.now += 20_000
        if kill_after is not None and told > kill_after and not killed:
            killed = True
            sidecars.kill()
    assert told
    assert killed == (kill_after is not None)
    reader = RecordReader(sidecars.disk, FOLDER)
    for index in range(2, 201, 2):
        assert reader.read([places[index]]) == [record(index, 1_500)]
    assert {place.generation for place in places.values() if place is not None} == {0, 1}
