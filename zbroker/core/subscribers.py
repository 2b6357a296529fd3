"""A subscriber as the broker sees it (SPEC.md 8): its patterns, what it loses when too much waits for it, and its account.

What waits in its outbox is known there by how many of its messages the subscriber would have been handed, or, a LOST, by
its header.
"""

from __future__ import annotations

from typing import Final

from patterns.wire.errors import SlowSubscriber
from patterns.wire.frames import pack
from patterns.wire.limits import MIB
from patterns.wire.messages import Lost, Overflow
from patterns.wire.server import Session, Sessions

OUTBOX_BYTES_MAX: Final = 8 * MIB  # batches that one subscriber has given no credit for; the same as for replies


def cost_of(pattern: str) -> int:
    """What holding a pattern costs, about: a node of 80 bytes and a string a token, and an entry of its own."""
    return 256 + len(pattern) + 128 * (pattern.count(".") + 1)


class Subscriber:
    """One subscriber's session.

    Attributes:
        patterns: by its own ids.
        lost: messages dropped for it in all.
        pattern_bytes: what its patterns cost us, about.
        upstream: messages missing in front of what publishers sent, in all.
        owes_account: a LOST must go out before its next batch.
        counts_what_waits: whether a batch that waits must be known by its messages, as it may be dropped later.
    """

    __slots__ = (
        "counts_what_waits",
        "lost",
        "overflow",
        "owes_account",
        "pattern_bytes",
        "patterns",
        "session",
        "upstream",
    )

    def __init__(self, session: Session, overflow: Overflow) -> None:
        self.session = session
        self.overflow = overflow
        self.counts_what_waits = overflow is not Overflow.DROP_NEWEST
        self.patterns: dict[int, str] = {}
        self.pattern_bytes = 0
        self.lost = 0
        self.upstream = 0
        self.owes_account = False

    @property
    def is_full(self) -> bool:
        """Whether more waits for it than is held for anybody."""
        return self.session.outbox_bytes > OUTBOX_BYTES_MAX

    def account(self, sessions: Sessions) -> None:
        """LOST, in its place: behind the batches that wait already, in front of the next.

        As long as one waits at the end of the outbox, it is brought up to date there; so a stalled subscriber holds no
        more of them than it holds batches.
        """
        session = self.session
        self.owes_account = False
        if session.outbox and isinstance(session.outbox[-1][3], Lost):
            session.take_back(last=True)
        header = self._totals()
        sessions.post(session, 0, 0, pack(header, form=session.form), header)

    def drop_oldest(self) -> int:
        """Drop the oldest batches until the rest fits, a LOST in their place; how many messages that was."""
        session, outbox = self.session, self.session.outbox
        dropped = upstream = 0
        while self.is_full and len(outbox) > 1:
            known = session.take_back()[3]
            if isinstance(known, Lost):
                upstream = known.upstream  # what is told further back stays there; totals never fall, so 0 says nothing
            else:
                assert isinstance(known, int)
                dropped += known
        self.lost += dropped
        header = Lost(messages=self.lost, upstream=upstream)
        session.hold((0, 0, pack(header, form=session.form), header), first=True)
        return dropped

    def disconnect(self, sessions: Sessions, now: int) -> int:
        """End its session: all that waits is lost; how many messages that was."""
        session = self.session
        dropped = sum(known for *_, known in session.outbox if isinstance(known, int))
        self.lost += dropped
        sessions.tell(session, self._totals())
        why = f"more than the {OUTBOX_BYTES_MAX} bytes that are held for a subscriber waited for this one"
        what = "take messages faster, or make it with overflow='drop_oldest' or 'drop_newest'"
        sessions.end(session, SlowSubscriber(f"{why}, which asked for overflow='disconnect'; {what}"), now)
        return dropped

    def _totals(self) -> Lost:
        return Lost(messages=self.lost, upstream=self.upstream)
