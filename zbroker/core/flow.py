"""A streamed reply on its way through the broker (SPEC.md 7): its credit, in the numbers of both ends. Nothing is sent here."""

from __future__ import annotations

from patterns.wire.errors import CreditExceeded, RemoteProtocolError
from patterns.wire.messages import Partial
from patterns.wire.session import Credit, raise_for_parts


class Flow:
    """The parts of one reply. A translation changes their sizes, so each end has its own account of bytes.

    Attributes:
        asked: what the requester has granted, and what was passed on to it.
        given: what the replier was told, and what came from it.

    Raises:
        BadArgument: more credit at once than we reckon with.
    """

    __slots__ = ("asked", "given")

    def __init__(self, messages: int, size: int) -> None:
        self.asked = Credit()
        self.given = Credit()
        self.widen(messages, size)

    @property
    def has_begun(self) -> bool:
        """Whether a part came: another replier would begin anew."""
        return self.given.messages_used > 0

    def widen(self, messages: int, size: int) -> None:
        """The requester's totals. Raises BadArgument."""
        raise_for_parts(self.asked, messages, size)

    def begin(self, *, slowly: bool) -> tuple[int, int]:
        """What a replier that begins is told; `slowly`: one part, until the requester has read what waits for it."""
        self.given = Credit()
        if slowly:
            self.given.raise_to(1, 1)
            return 1, 1
        return self.allow()

    @property
    def is_due(self) -> bool:
        """Whether the replier is to hear of more: it has no more than half left of what it may have. So what it is told
        doubles each time, and CREDITs that grant part by part, or nothing, cost it none."""
        asked, given = self.asked, self.given
        return _halved(given.messages_left, asked.messages_left) or _halved(
            given.bytes_max - given.bytes_used, asked.bytes_max - asked.bytes_used
        )

    def allow(self) -> tuple[int, int]:
        """The replier's totals, now that the requester's have changed."""
        asked, given = self.asked, self.given
        given.raise_to(asked.messages_max, given.bytes_used + asked.bytes_max - asked.bytes_used)
        return given.messages_max, given.bytes_max

    def came(self, part: Partial, size: int) -> None:
        """A part of so many bytes came. Raises RemoteProtocolError, CreditExceeded when it must not."""
        given = self.given
        if part.sequence != given.messages_used:
            raise RemoteProtocolError(f"part {part.sequence} of a reply, part {given.messages_used} is the next")
        if not given.is_open:
            limits = f"{given.messages_max} parts and {given.bytes_max} bytes"
            raise CreditExceeded(f"part {part.sequence} of a reply is beyond its credit of {limits}")
        given.spend(1, size)

    def passed(self, size: int) -> None:
        """It left for the requester, as so many bytes."""
        self.asked.spend(1, size)


def _halved(left: int, may_have: int) -> bool:
    """Also when nothing is left, or less than nothing; but not as long as the new total would admit nothing either."""
    return max(0, 2 * left) <= may_have > 0
