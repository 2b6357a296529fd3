"""What a group must say of each message after kills, by SPEC.md 9.2 alone: the model that test_kill_groups.py holds it against. No test lives here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.crash.bare_member import BareMember, Lent


@dataclass
class Message:
    """One offset in one group.

    Attributes:
        low, high: of the attempt that may come next.
        attempt: that came last; 0: it never did.
        done: `acked` or `dead`.
        perhaps: the same, asked for when the broker was killed: only its next delivery, or its absence, tells.
    """

    body: Any
    low: int = 1
    high: int = 1
    attempt: int = 0
    heard_at: int = 0
    lease: int = 0
    holder: BareMember | None = None
    done: str = ""
    perhaps: str = ""
    is_released: bool = False
    is_fresh: bool = False  # delivered in this life of the broker


@dataclass
class Asked:
    """A SETTLE that waits for its answer."""

    member: BareMember
    action: str
    offsets: list[int]
    stale: tuple[int, int]  # at least, at most
    at: int


DONE = {"ack": "acked", "reject": "dead"}


@dataclass
class GroupAccount:
    """One group of one stream, which it has from the first message on."""

    name: str
    messages: dict[int, Message] = field(default_factory=dict)
    asked: dict[tuple[BareMember, int], Asked] = field(default_factory=dict)
    met: Counter[str] = field(default_factory=Counter)
    _leases: set[int] = field(default_factory=set)
    _clock: int = 0
    _known_until: int = 0  # what was heard before this is on disk

    # -- deliveries ---------------------------------------------------------------------------------------------------

    def hear(self, member: BareMember) -> None:
        """Take what a member was told."""
        member.hear()
        assert not member.errors, member.errors
        while member.lent:
            self._lent(member, member.lent.popleft())
        for key, asked in list(self.asked.items()):
            if asked.member is member and key[1] in member.settled:
                del self.asked[key]
                self._answered(asked, member.settled.pop(key[1]))
        if member.is_over:
            self.gone(member)

    def _lent(self, member: BareMember, lent: Lent) -> None:
        assert lent.lease not in self._leases, f"lease id {lent.lease} came twice"
        self._leases.add(lent.lease)
        self._clock += 1
        for offset, body in zip(lent.offsets, lent.bodies, strict=True):
            message = self.messages[offset]
            assert body == message.body, f"offset {offset} held {message.body}, and now {body}"
            assert not message.done, f"{offset} comes again and was {message.done}"
            assert message.holder is None, f"{offset} has two valid leases: {message.lease} and {lent.lease}"
            assert message.low <= lent.attempt <= message.high, (
                f"{self.name}[{offset}] comes with attempt {lent.attempt}, should be {message.low} to {message.high}"
            )
            assert lent.lease > message.lease, "tokens grow"
            message.holder, message.lease, message.attempt = member, lent.lease, lent.attempt
            message.heard_at, message.is_fresh, message.is_released, message.perhaps = self._clock, True, False, ""
        self.met["again" if lent.attempt > 1 else "first"] += len(lent.bodies)

    def held(self, member: BareMember | None = None) -> list[int]:
        """Offsets that a member holds, or all together."""
        return [
            at
            for at, one in self.messages.items()
            if one.holder is not None and (member is None or one.holder is member)
        ]

    # -- settles ------------------------------------------------------------------------------------------------------

    def settle(self, member: BareMember, offset: int, action: str) -> None:
        """Its holder settles one message."""
        self._ask(member, self.messages[offset].lease, action, [offset], (0, 0))

    def settle_stale(self, member: BareMember, offset: int, lease: int) -> None:
        """Somebody acks by a lease that is over, or another's."""
        self.met["stale"] += 1
        self._ask(member, lease, "ack", [offset], (1, 1))

    def claim(self, member: BareMember, offset: int) -> None:
        """Who held it before the restart acks it in time, or too late; only what the journal says came once may be claimed."""
        message = self.messages[offset]
        may_count = message.low <= 2 and not message.done
        self._ask(member, message.lease, "ack", [offset], (0 if may_count else 1, 1))

    def _ask(self, member: BareMember, lease: int, action: str, offsets: list[int], stale: tuple[int, int]) -> None:
        self._clock += 1
        number = member.settle(lease, action, *offsets)
        self.asked[member, number] = Asked(member, action, offsets, stale, self._clock)

    def _answered(self, asked: Asked, stale: int) -> None:
        low, high = asked.stale
        assert low <= stale <= high, f"{asked.action} of {self.name}{asked.offsets}: {stale} stale, not {low} to {high}"
        if stale:
            return
        if asked.action in DONE:
            self._known_until = max(self._known_until, asked.at)
            self.met["claimed" if asked.stale[1] else DONE[asked.action]] += 1
        for offset in asked.offsets:
            message = self.messages[offset]
            if asked.action in DONE:
                message.done, message.perhaps, message.holder = DONE[asked.action], "", None
            elif asked.action != "extend":
                self._give_back(message, is_released=asked.action == "release")

    def _give_back(self, message: Message, *, is_released: bool) -> None:
        message.holder = None
        message.is_released = is_released
        message.low = message.high = message.attempt + (not is_released)

    # -- ends ---------------------------------------------------------------------------------------------------------

    def gone(self, member: BareMember) -> None:
        """Its connection is lost: after the grace what it held goes to others, as another attempt."""
        for key in [key for key, asked in self.asked.items() if asked.member is member]:
            self._in_flight(self.asked.pop(key))
        for offset in self.held(member):
            self._give_back(self.messages[offset], is_released=False)

    def _in_flight(self, asked: Asked) -> None:
        for offset in asked.offsets:
            message = self.messages[offset]
            if not asked.stale[0] and not message.done:
                message.perhaps = DONE.get(asked.action, message.perhaps)
                message.is_released = message.is_released or asked.action == "release"
                if message.is_released:
                    message.low = min(message.low, message.attempt)

    def killed(self) -> dict[BareMember, list[int]]:
        """The broker was: nobody holds anything, and what no record tells of may be forgotten. Returns what each held."""
        before: dict[BareMember, list[int]] = {}
        for offset in self.held():
            holder = self.messages[offset].holder
            assert holder is not None
            before.setdefault(holder, []).append(offset)
        for asked in self.asked.values():
            self._in_flight(asked)
        self.asked.clear()
        for message in self.messages.values():
            message.holder = None
            if message.done or not message.is_fresh:
                continue
            is_known = message.heard_at < self._known_until
            message.low = message.attempt + (is_known and not message.is_released)
            message.high = message.attempt + 1
            message.is_fresh = False
        return before

    # -- the comparison -----------------------------------------------------------------------------------------------

    def compare(self, row: dict[str, Any]) -> None:
        """What `status` says of the group. Raises AssertionError."""
        done = Counter(one.done for one in self.messages.values())
        perhaps = Counter(one.perhaps for one in self.messages.values() if not one.done)
        assert row["balanced"], row
        assert row["accepted"] == len(self.messages), (row, len(self.messages))
        assert row["lost"] == row["expired"] == 0, row
        for what in ("acked", "dead"):
            assert done[what] <= row[what] <= done[what] + perhaps[what], (what, done, perhaps, row)
        assert row["pending"] == row["accepted"] - row["acked"] - row["dead"], row
        self.met["exact" if not perhaps["acked"] + perhaps["dead"] else "bounded"] += 1

    def resolve(self) -> None:
        """Everything that is pending is held: what does not come again was settled."""
        for message in self.messages.values():
            if not message.done and message.holder is None:
                assert message.perhaps, f"{self.name}: {message} is neither settled nor held by anybody"
                message.done, message.perhaps = message.perhaps, ""
