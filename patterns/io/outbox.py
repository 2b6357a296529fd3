"""The journal that a Producer may have for itself, as it knows one: zbroker.store.open_journal() makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from patterns.wire.errors import ZbrokerError
from patterns.wire.parcel import Parcel, Sender, Unsendable


@runtime_checkable
class Outbox(Protocol):
    """Batches on the own disk, in order, until a broker has them. For one thread at a time; instants are microseconds, monotonic.

    Attributes:
        folder: where it lies, for people.
        bytes_max: of what may wait.
        used_bytes: that wait, in blocks of 4 KiB as they lie on the disk, with what was refused; any thread may look.
        trouble: why nothing can be taken now though it is not full; None while it can. Any thread may look.
        last_number: of the newest message that was ever taken.
        safe: every message up to this number is on the disk.
        waiting_messages, refused_messages: any thread may look.
        damage: what the disk has lost of what it had taken, for people.
    """

    folder: str
    bytes_max: int
    used_bytes: int
    safe: int
    waiting_messages: int
    refused_messages: int
    damage: list[str]

    @property
    def trouble(self) -> ZbrokerError | None: ...

    @property
    def last_number(self) -> int: ...

    @property
    def has_more(self) -> bool:
        """Whether there is something to hand out."""
        ...

    def begin(self, stream: str) -> Sender:
        """Whose batches they are, in this stream. Raises BadArgument, StorageFull, StorageFailed."""
        ...

    def renew(self) -> Sender:
        """Another identity, on the disk, for what is not settled. Raises StorageFull, StorageFailed."""
        ...

    def keep(self, parcels: Sequence[Parcel], now: int) -> int:
        """Number parcels, in order, and write them; those up to `safe` are on the disk.

        Returns:
            How many were taken: fewer when the disk is full.

        Raises:
            StorageFailed: for ever.
        """
        ...

    def hand_out(self, fresh: Sequence[Parcel], bytes_max: int) -> list[Parcel | Unsendable]:
        """The next that were not handed out, about so many bytes, at least one; from `fresh`, which are safe, or from the disk.

        Never more than 64 that are not settled, as a restart knows it: what a broker remembers. None: they cannot be read at present.
        """
        ...

    def settle(self, last: int) -> None:
        """The broker has all messages up to this number, or has refused them for good; soon a restart knows it."""
        ...

    def refuse(self, number: int, error: ZbrokerError) -> None:
        """Put a batch where people find it; before it is settled. Raises StorageFull, StorageFailed."""
        ...

    def tend(self, now: int) -> None:
        """Do what is due: write what waited for room, say what is settled, give back space. Raises StorageFailed."""
        ...

    def next_timeout(self) -> int | None:
        """When tend() has something to do."""
        ...

    def close(self) -> None:
        """Say what is settled, and let go of the folder."""
        ...
