"""What a SETTLE may do, by SPEC.md 9.2 alone, and what is expected of its answer; where time makes two answers right, both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import TYPE_CHECKING

from patterns.wire.messages import Settle, Settled
from tests.simulation.books import UNRECORDED, Books
from tests.simulation.lending import Key, Lease, News, Session
from tests.simulation.policies import Policies
from tests.simulation.violation import Violation, require

if TYPE_CHECKING:
    from tests.simulation.world import World

STALL_US = 1_000_000


class Settling:
    """Of one life of a broker.

    Args:
        epoch: of that life; leases of older ones may be claimed.
    """

    def __init__(self, world: World, books: Books, policies: Policies, epoch: int) -> None:
        self._world = world
        self._books = books
        self._policies = policies
        self._epoch = epoch
        self._asked: dict[tuple[bytes, int], tuple[int, int]] = {}  # (peer, settle id) -> stale at least, at most
        self._sure: dict[tuple[bytes, int], tuple[Key, set[int]]] = {}  # what must be on disk with that answer
        self._verdicts: list[tuple[bytes, int, bool | None]] = []  # (peer, lease, stale?) of this turn, without an id
        self._stale_told: Counter[tuple[bytes, int]] = Counter()

    # -- what comes in ------------------------------------------------------------------------------------------------

    def heard(self, peer: bytes, session: Session, header: Settle, arrived: int, now: int) -> None:
        """A member's SETTLE."""
        for held in session.leases.values():
            held.is_doubtful = held.is_doubtful or not _validity(held, arrived, now)
        lease = session.leases.get(header.lease)
        asked = {offset for first, last in header.ranges for offset in range(first, last + 1)}
        session.progress_at = now
        if lease is None:
            self._unknown(peer, session, header, asked)
            return
        is_valid = not lease.is_doubtful
        named = (asked or set(lease.held)) & lease.held
        stale = len(asked - named) if asked else 0
        if header.action == "extend":
            lease.until = max(lease.until, now + min(header.delay_ms, 7 * 86_400_000) * 1_000)
            self._expect(peer, header, 0, 0 if is_valid else max(1, len(asked)))
            return
        if is_valid:
            self._expect(peer, header, stale, stale)
        else:
            self._expect(peer, header, stale, max(1, len(asked)))
        self._apply(lease, named, header.action, is_valid, header.delay_ms * 1_000)
        if header.id and is_valid and header.action in ("ack", "reject"):
            self._sure[peer, header.id] = lease.key, named

    def _apply(self, lease: Lease, named: set[int], action: str, is_valid: bool, delay_us: int) -> None:
        books = self._books
        for offset in named:
            message = books.groups[lease.key][offset]
            if message.holder is not lease:
                continue
            lease.held.discard(offset)
            if action == "reject" and self._policies.of(lease.key[:2]).dead_letter:
                message.comes_back(lease.attempt + 1, lease.attempt + 1)
                message.is_doomed, message.may_be_doomed = is_valid, True
                books.coverage["rejected"] += 1
            elif action in ("ack", "reject"):
                self._end(lease, offset, action, is_valid)
            elif action == "release":
                books.come_back(lease, offset, lease.attempt, lease.attempt + (not is_valid))
            else:
                due = self._due_after(lease, delay_us) if is_valid else 0
                books.come_back(lease, offset, lease.attempt + 1, lease.attempt + 1, due)
        if not lease.held:
            lease.session.leases.pop(lease.id, None)

    def _end(self, lease: Lease, offset: int, action: str, is_valid: bool) -> None:
        message = self._books.groups[lease.key][offset]
        if is_valid:
            message.holder, message.done, message.done_at = None, action, UNRECORDED
            self._books.note(News(lease.key, offset, lease.attempt, action, message.lent))
        else:
            self._books.come_back(lease, offset, lease.attempt, lease.attempt + 1)
            message.done, message.done_at = "perhaps", 0  # taken, if the broker saw the time otherwise
            self._books.coverage["settle_on_the_verge"] += 1

    def _due_after(self, lease: Lease, delay_us: int) -> int:
        """When a message that failed now may be lent again."""
        delay_us = delay_us or self._policies.of(lease.key[:2]).backoff_us(lease.attempt)
        return self._world.scheduler.now + delay_us

    def _unknown(self, peer: bytes, session: Session, header: Settle, asked: set[int]) -> None:
        """A lease that is not this session's: stale, but for a claim of before the restart."""
        count = len(asked) or 1
        if header.lease >> 32 < self._epoch and header.action == "ack" and asked:
            self._books.coverage["claim"] += 1
            self._expect(peer, header, 0, count)
            if session.pair is not None:
                for offset in asked:
                    message = self._books.of(self._policies.key(session.pair)).get(offset)
                    if message is not None and message.holder is None and not message.done:
                        message.done, message.done_at = "perhaps", 0
            return
        self._books.coverage["stale_settle"] += 1
        self._expect(peer, header, count, count)

    def _expect(self, peer: bytes, header: Settle, low: int, high: int) -> None:
        if header.id:
            self._asked[peer, header.id] = (low, high)
        else:
            self._verdicts.append((peer, header.lease, True if low else (False if not high else None)))

    # -- what goes out ------------------------------------------------------------------------------------------------

    def answered(self, peer: bytes, session: Session, header: Settled) -> None:
        """It says how many were stale, and that the others are on disk; of what was rejected, that it is a dead letter there."""
        low, high = self._asked.pop((peer, header.id), (0, 1 << 53))
        require(
            low <= header.stale <= high,
            f"6: a settle of {session.nonce!r} has {header.stale} stale messages, the model {low} to {high}",
        )
        key, named = self._sure.pop((peer, header.id), (None, set[int]()))
        if key is None or not self._policies.is_now(key) or key[:2] in self._policies.changed:
            return
        if self._world.truth.is_damaged:
            return
        for offset in named:
            message = self._books.groups[key][offset]
            is_there = message.done and message.done_at <= self._world.truth.durable
            require(is_there, f"7: {key}[{offset}] is said to be settled, and no record on disk says so")

    def told_stale(self, peer: bytes, lease: int) -> None:
        """An error says so of a settle without an id."""
        self._stale_told[peer, lease] += 1

    def turned(self, peers: Container[bytes]) -> None:
        """The end of a turn: each SETTLE without an id is answered by now, if there was something to say."""
        verdicts, self._verdicts = self._verdicts, []
        told, self._stale_told = self._stale_told, Counter()
        for peer, lease, stale in verdicts:
            if stale is None or peer not in peers:
                continue
            was_told = told[peer, lease] > 0
            expected = [verdict for other, id, verdict in verdicts if (other, id) == (peer, lease)]
            if len(set(expected)) == 1 and was_told is not stale:
                raise Violation(
                    f"6: a settle of lease {lease} was {'refused' if was_told else 'taken'}, and should not be"
                )


def _validity(lease: Lease, arrived: int, now: int) -> bool:
    """Whether it certainly counts: its time is not over, or was not when the message came and nobody listened."""
    until = lease.valid_until
    if now < until:
        return True
    return arrived < until and now - until > STALL_US
