"""What the journal does not know of a group yet."""

from __future__ import annotations

from patterns.wire.settled import Range
from zbroker.core.leases import Piece


class Dirty:
    """Absolute operations in the making."""

    __slots__ = ("acked", "dead", "delivered", "expired", "is_awaited", "lost", "passed", "waits")

    def __init__(self) -> None:
        self.acked: list[Range] = []
        self.dead: list[Range] = []
        self.lost: list[Range] = []
        self.expired: list[Range] = []
        self.passed: list[Range] = []
        self.waits: list[tuple[int, ...]] = []  # in order: a piece; or a piece, when it is due, and after which delay
        self.delivered = False
        self.is_awaited = False  # somebody is told when it is on disk

    def tried(self, piece: Piece) -> None:
        """It was delivered so often, and is not delayed."""
        before = self.waits[-1] if self.waits else ()
        if len(before) == len(piece) and before[1:] == (piece.first - 1, piece.tries):
            self.waits[-1] = (before[0], piece.last, piece.tries)
        else:
            self.waits.append(piece)

    @property
    def is_clean(self) -> bool:
        """Whether the journal knows all."""
        return not (self.delivered or self.waits or self.settles)

    @property
    def settles(self) -> bool:
        """Whether something is in it that should not wait."""
        return bool(self.is_awaited or self.acked or self.dead or self.lost or self.expired or self.passed)
