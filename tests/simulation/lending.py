"""What the model of groups is made of: messages, leases, sessions, and what a record will say of them."""

from __future__ import annotations

from typing import NamedTuple

from patterns.wire.messages import Deliver

Key = tuple[str, str, int]  # stream, group, and the index of the record that made it: a reset makes another one
Pair = tuple[str, str]


class News(NamedTuple):
    """What an OPS record will say of a message, which had been lent so often by then."""

    key: Key
    offset: int
    attempt: int
    done: str
    lent: int
    due: int = 0  # not before this is it lent again


class Lease:
    """A DELIVER that was sent; `held` is what nobody has settled of it."""

    __slots__ = ("attempt", "held", "id", "is_doubtful", "key", "length_us", "session", "until")

    def __init__(self, id: int, key: Key, session: Session, header: Deliver, now: int, length_us: int) -> None:
        self.id, self.key, self.session, self.attempt = id, key, session, header.attempt
        self.held = set(range(header.offset, header.offset + header.count))
        self.length_us = length_us  # the shortest that it may be by any configuration since
        self.until = now + length_us
        self.is_doubtful = False  # its time was over once, and whether a timer or the next SETTLE came first is open

    @property
    def valid_until(self) -> int:
        """Whoever works something off of one lease holds his others, too."""
        return max(self.until, self.session.progress_at + self.length_us)


class Session:
    """A consumer's session, by nonce."""

    __slots__ = ("leases", "lost_at", "nonce", "pair", "progress_at", "reads")

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce
        self.pair: Pair | None = None  # what it has joined
        self.reads = ""  # the stream that it reads without a group
        self.leases: dict[int, Lease] = {}
        self.progress_at = 0
        self.lost_at: int | None = None  # a send could not be routed: its grace runs


class Message:
    """One offset in one group: who holds it, whether it is done, and which attempt may come next."""

    __slots__ = (
        "counted",
        "done",
        "done_at",
        "due",
        "highest",
        "holder",
        "is_doomed",
        "lent",
        "may_be_doomed",
        "next_high",
        "next_low",
    )

    def __init__(self) -> None:
        self.holder: Lease | None = None
        self.done = ""
        self.done_at = 0  # index of the record that says so
        self.next_low = self.next_high = 1
        self.highest = 0
        self.lent = 0  # how often
        self.due = 0  # not before this is it lent again
        self.is_doomed = False  # rejected, and to become a dead letter
        self.may_be_doomed = False  # rejected when its lease may have been over
        # (how often lent, attempts that count) when nobody held it: a checkpoint may say so, until a record survives that
        # tells of a later time it was lent. Each moment by itself: of a newer one nothing may have reached the disk.
        self.counted: list[tuple[int, int]] = []

    def comes_back(self, low: int, high: int) -> None:
        self.holder = None
        self.counted = [one for one in self.counted if one[1] < low - 1] + [(self.lent, low - 1)]
        self.next_low, self.next_high = low, high
