"""What people are shown of streams and groups: rows of `status` and of the verbs about them. Plain values; nothing changes here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patterns.wire.configs import told

if TYPE_CHECKING:
    from zbroker.core.consumers import Consumers
    from zbroker.core.deliveries import Member
    from zbroker.core.groups import Group
    from zbroker.core.intake import Intake
    from zbroker.core.log import StreamLog
    from zbroker.core.retention import Retention

_MEMBERS_SHOWN = 1_000  # of one group: a RESULT is one message
_LEASES_LOOKED_AT = 100_000  # for who holds the oldest message: a tenth of a second at the worst


class Accounts:
    """Over the parts that know. `wall_ms` is the broker's own clock at the moment of the question."""

    def __init__(self, intake: Intake, consumers: Consumers, retention: Retention) -> None:
        self._intake = intake
        self._consumers = consumers
        self._retention = retention

    def stream(self, log: StreamLog) -> dict[str, Any]:
        """A row of `status`."""
        return {
            "messages": log.messages,
            "batches": log.stored,
            "bytes": log.bytes,
            "kept_messages": self._retention.kept_messages(log),
            "kept_bytes": self._retention.kept_bytes(log),
            "first_offset": log.first_offset,
            "next_offset": log.next_offset,
            "durable_next": log.durable_next,
            "producers": self._intake.producers_of(log),
            "groups": len(log.groups),
            "lost": sum(last - first + 1 for first, last in log.lost),
        }

    def group(self, log: StreamLog, group: Group, wall_ms: int) -> dict[str, Any]:
        """A row of `status`."""
        return {
            "accepted": group.accepted(log.durable_next),
            "acked": group.acked,
            "dead": group.dead,
            "expired": group.expired,
            "lost": group.lost,
            "pending": group.pending(log.durable_next),
            "passed": group.passed,
            "leased": group.leased,
            "waiting": group.waiting,
            "delayed": group.delayed,
            "doomed": group.doomed.count,
            "redelivered": group.redelivered,
            "leases_lost": group.leases_lost,
            "members": self._consumers.members_of(group),
            "start": group.start,
            "floor": group.settled.floor,
            "lag": group.pending(log.durable_next),
            "lag_s": self._lag_s(log, group, wall_ms),
            "paused": group.is_paused,
            "balanced": group.balance(log.durable_next),
        }

    def _lag_s(self, log: StreamLog, group: Group, wall_ms: int) -> float:
        """How old the oldest message is that is not settled; 0.0 when there is none."""
        oldest = self._oldest(log, group)
        return 0.0 if oldest is None else max(0, wall_ms - log.published_of(oldest)) / 1_000

    def _oldest(self, log: StreamLog, group: Group) -> int | None:
        floor = max(group.settled.floor, group.start)
        first = log.base(log.find(floor)) if log.find(floor) < log.batches else log.next_offset
        oldest = max(floor, first)
        return oldest if oldest < log.durable_next else None

    def stream_whole(self, log: StreamLog) -> dict[str, Any]:
        """All about one stream: its row, its configuration, and how old its messages are."""
        is_empty = log.first_offset >= log.next_offset
        return {
            "name": log.name,
            **self.stream(log),
            "published_first": None if is_empty else log.published_of(log.first_offset),
            "published_last": None if is_empty else log.published_at,
            "config": told(log.config),
        }

    def group_whole(self, log: StreamLog, group: Group, wall_ms: int) -> dict[str, Any]:
        """All about one group: its row, its configuration, its first members, and who holds the oldest message."""
        members = self._consumers.members(group)
        return {
            "stream": log.name,
            "name": group.name,
            **self.group(log, group, wall_ms),
            "config": told(group.config),
            "oldest": self._oldest_row(log, group, members, wall_ms),
            "member_rows": [_member_row(member) for member in members[:_MEMBERS_SHOWN]],
        }

    def _oldest_row(self, log: StreamLog, group: Group, members: list[Member], wall_ms: int) -> dict[str, Any] | None:
        oldest = self._oldest(log, group)
        if oldest is None:
            return None
        published = log.published_of(oldest)
        found = _held_by(members, oldest)
        holder = None if found is None else {**_named(found[0]), "lease": found[1], "attempt": found[2]}
        return {
            "offset": oldest,
            "published_at": published,
            "age_s": max(0, wall_ms - published) / 1_000,
            "holder": holder,
        }


def _held_by(members: list[Member], offset: int) -> tuple[Member, int, int] | None:
    """Who holds an offset, by which lease, at which attempt; None: nobody, or it was not found in the first so many leases."""
    looked = 0
    for member in members:
        for lease in member.leases:
            looked += 1
            if lease.first <= offset < lease.first + lease.count and lease.held >> (offset - lease.first) & 1:
                return member, lease.id, lease.attempt
            if looked >= _LEASES_LOOKED_AT:
                return None
    return None


def _named(member: Member) -> dict[str, Any]:
    session = member.session
    return {"session": session.nonce.hex(), "name": session.name}


def _member_row(member: Member) -> dict[str, Any]:
    return {**_named(member), "leases": len(member.leases), "state": member.session.state.name.lower()}
