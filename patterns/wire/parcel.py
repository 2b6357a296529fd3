"""What a Producer and a journal of its own hand to one another: batches on the way to a broker, and whose they are. Values only."""

from __future__ import annotations

import msgspec

from patterns.wire.errors import ZbrokerError
from patterns.wire.messages import Codec


class Sender(msgspec.Struct, frozen=True):
    """A producer that outlives programs and brokers: its name, and the nonce of the one session that it ever has.

    With the same nonce a broker takes the next program for the same one that comes back, and so still knows its last batches.
    """

    name: str
    nonce: bytes


class Parcel(msgspec.Struct, gc=False, eq=False):
    """A batch, from the moment that it is on the producer's own disk.

    Attributes:
        number: of its first message among all that this journal ever took, from 1; the batch's sequence at the broker.
        count: of its messages.
    """

    number: int
    count: int
    codec: Codec
    columns: bytes
    payload: bytes
    topic: str | None = None

    @property
    def size(self) -> int:
        """Bytes of columns and payload."""
        return len(self.columns) + len(self.payload)

    @property
    def last(self) -> int:
        """The number of its last message."""
        return self.number + self.count - 1


class Unsendable(msgspec.Struct, frozen=True):
    """A batch of the journal that cannot be read any more; what it held is lost."""

    number: int
    count: int
    error: ZbrokerError
