"""What can go wrong with a journal, each with what happened, to which folder, and what to do.

The broker maps these to the wire's storage errors (5xx); nothing here knows a number.
"""

from typing import Final

from patterns.wire.words import counted


class JournalError(Exception):
    """Any fault of the store."""


class FolderLocked(JournalError):
    """Another process holds the folder."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"journal folder {folder} is locked by another process; stop that broker, or give this one a "
            "folder of its own. The lock goes with its process: there is no stale file to remove"
        )


class NotOurs(JournalError):
    """The folder, or a file in it, belongs to something else."""

    def __init__(self, folder: str, found: str) -> None:
        super().__init__(
            f"journal folder {folder} {found}; nothing was changed. Name an empty folder, or move the "
            "foreign file out of it"
        )


class EpochsSpent(JournalError):
    """The next life would have an epoch of which no ids of producers and leases can be made."""

    def __init__(self, folder: str, number: int, epoch: int, epoch_max: int) -> None:
        super().__init__(
            f"journal folder {folder} would go on with segment {number} and epoch {epoch}, at most {epoch_max}; nothing was "
            "changed. A file NNNNNNNNNN-GGGG.seg with a number far above the others is a copy under a wrong name: move it "
            "out of the folder. Else make a new journal of this one, with `zbroker store export` and `zbroker store import`"
        )


class NewerFormat(JournalError):
    """Written by a newer version that says older ones must not read it."""

    def __init__(self, folder: str, name: str, reader_min: int, ours: int) -> None:
        super().__init__(
            f"{name} in journal folder {folder} needs a reader of format {reader_min}, this one reads "
            f"{ours}; nothing was changed. Run the newer zbroker that wrote it"
        )


class NetworkFileSystem(JournalError):
    """The folder lies where a sync promises less than we promise."""

    def __init__(self, folder: str, kind: str) -> None:
        super().__init__(
            f"journal folder {folder} lies on a network file system ({kind}), where locks and syncs are "
            "not what they are on a disk; use a local disk, or allow it explicitly and take the risk"
        )


class LocksUnsupported(JournalError):
    """The file system has no locks, so two brokers could write at once."""

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(
            f"journal folder {folder} lies on a file system without file locks ({why}); two brokers could write to it "
            "at once. Use a local file system such as ext4, xfs or btrfs"
        )


class FolderUnusable(JournalError):
    """The system does not let us at the folder."""

    def __init__(self, folder: str, why: str) -> None:
        super().__init__(
            f"journal folder {folder} {why}; nothing was changed. Check its path, owner and permissions, and that its "
            "file system is mounted for writing; or name another folder"
        )


class BackupFailed(JournalError):
    """A backup could not be made; what there is of one is not taken for one."""

    def __init__(self, target: str, why: str) -> None:
        super().__init__(
            f"backup {target} was not made: {why}. The journal itself is untouched, and a broker on it goes on"
        )


AFTER_A_REFUSAL: Final = (
    "It is not tried again in this life, because after a failed sync the kernel may show bytes that the disk does not hold. "
    "Check the disk, then restart"
)
AFTER_A_CHANGE: Final = (
    "Nothing is confirmed any more, because a file without its name is gone with the process that writes it. Put back what was "
    "there if you can, then restart; `zbroker store verify` shows what the folder holds once the broker is stopped"
)


AFTER_DEATHS: Final = (
    "The disk has refused nothing: look for what ends the process (signal 9: the kernel for want of memory, or a limit of its "
    "container), then restart; what was confirmed is there"
)


class JournalFailed(JournalError):
    """The disk refused a write or a sync, or the files were taken away; what there is, is unknown until the next open."""

    def __init__(self, folder: str, cause: str, advice: str = AFTER_A_REFUSAL) -> None:
        super().__init__(f"journal in {folder} has failed: {cause}. {advice}")


class JournalUnfinished(JournalError):
    """Who writes the journal was not there, or not done, when its broker had to end. Nothing has failed."""

    def __init__(self, folder: str, records: int, why: str) -> None:
        super().__init__(
            f"journal in {folder} was left before all of it was written ({why}). All that was confirmed is on the disk; "
            f"{counted(records, 'record')} had no confirm, and whoever waits for one sends again when a broker is back"
        )


class JournalFull(JournalError):
    """There is no room for this record."""

    def __init__(self, folder: str, needed_bytes: int, why: str) -> None:
        super().__init__(
            f"journal in {folder} has no room for {needed_bytes} bytes: {why}. Free space on that file "
            "system; a broker that runs goes on by itself then, one that could not start must be started again"
        )


class RecordTooLarge(JournalError):
    """A record that no segment can hold, however much room the disk has."""

    def __init__(self, folder: str, record_bytes: int, bytes_max: int) -> None:
        super().__init__(
            f"a record of {record_bytes} bytes does not fit a segment of the journal in {folder}, at most "
            f"{bytes_max}; raise segment_bytes or lower the message limit"
        )


class RecordUnreadable(JournalError):
    """The system has no file handle or memory left for it: the record is whole, but cannot be read at present."""

    def __init__(self, folder: str, segment: int, why: str) -> None:
        super().__init__(
            f"segment {segment} in {folder} cannot be read now ({why}); it is tried again every second. When too many "
            "files are open, raise the limit of open files"
        )


class RecordMoved(JournalError):
    """The file of this position is gone: the record was written to another place, or is not needed any more."""

    def __init__(self, folder: str, segment: int) -> None:
        super().__init__(
            f"segment {segment} in {folder} is gone: it was compacted or given back while it was to be read; whoever "
            "knows where its records lie now looks again"
        )


class RecordDamaged(JournalError):
    """The bytes at this position are not the record that was written there."""

    def __init__(self, folder: str, segment: int, offset: int, found: str) -> None:
        super().__init__(
            f"record at byte {offset} of segment {segment} in {folder}: {found}. What it held is "
            "lost, and who consumes it is told; `zbroker store verify` shows the extent once the broker is stopped"
        )
