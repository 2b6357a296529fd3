"""A fault says what happened, to which folder, and what to do."""

import pytest

from zbroker.store import faults

EXAMPLES = [
    faults.FolderLocked("/data/j"),
    faults.NotOurs("/data/j", "holds x"),
    faults.EpochsSpent("/data/j", 2, 1 << 21, (1 << 21) - 1),
    faults.NewerFormat("/data/j", "1.seg", 2, 1),
    faults.NetworkFileSystem("/data/j", "nfs4"),
    faults.LocksUnsupported("/data/j", "no locks available"),
    faults.FolderUnusable("/data/j", "cannot be read (permission denied)"),
    faults.BackupFailed("/data/j", "it is there already"),
    faults.JournalFailed("/data/j", "EIO"),
    faults.JournalUnfinished("/data/j", 1, "its sidecar process has died"),
    faults.JournalFull("/data/j", 10, "no space"),
    faults.RecordTooLarge("/data/j", 10, 5),
    faults.RecordUnreadable("/data/j", 1, "too many open files"),
    faults.RecordMoved("/data/j", 1),
    faults.RecordDamaged("/data/j", 1, 2, "no header"),
]


@pytest.mark.parametrize("fault", EXAMPLES, ids=lambda fault: type(fault).__name__)
def test_a_fault_names_the_folder_and_is_a_journal_error(fault: faults.JournalError) -> None:
    assert "/data/j" in str(fault)
    assert len(str(fault)) > 60


def test_every_fault_has_an_example() -> None:
    assert {type(fault) for fault in EXAMPLES} == set(faults.JournalError.__subclasses__())
