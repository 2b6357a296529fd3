"""What leaves for good: messages beyond their stream's bounds, purged ones, streams and groups. The journal is told to forget them.

It is told only once all that says so is on disk: first what groups are not owed any more, then what is gone, then Forget. What
is deleted is remembered by its id, for the journal may have records of it for a while, and must be told again after a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from patterns.wire.configs import GroupConfig
from patterns.wire.errors import BadArgument, NoSuchGroup, NoSuchStream
from patterns.wire.messages import Count
from zbroker.core.administration import Administration, Arguments, Call, OfGroup, OfStream, Verb
from zbroker.core.catalog import Catalog, Recorder
from zbroker.core.consumers import Consumers
from zbroker.core.dead_letters import REDRIVE
from zbroker.core.effects import Effect, Forget
from zbroker.core.events import Event, GroupExpired
from zbroker.core.groups import Group
from zbroker.core.log import StreamLog
from zbroker.core.policy import Policy
from zbroker.core.retention import Retention
from zbroker.core.timers import Timers

JUMP_MS: Final = 3_600_000  # clocks are set by less, when they are; by more when something is wrong
FORGET_MAX: Final = 1_024  # ranges that the journal is told of in one go
_LOOK_PARTS: Final = 10  # how often idle groups are looked for, while the shortest of their times passes
_LOOK_US_MIN: Final = 1_000_000
_LOOK_US_MAX: Final = 60_000_000

Given = list[tuple[int, int, int]]  # stream id, first and last offset


class OfPurge(Arguments):
    """`keep`: but for so many of the newest. `before`: below this offset. `published_before`: ms since 1970. None of them: all."""

    stream: str
    keep: Count | None = None
    before: Count | None = None
    published_before: Count | None = None


class Removal:
    """The only one who tells the journal to forget.

    Attributes:
        warn, note: whom warnings and events are told; set by who wants to hear.

    Args:
        policy: says after how long idle groups that were made by first use are deleted.
        flush: writes what groups have settled, so that a record behind it tells of what comes later.
    """

    def __init__(
        self,
        catalog: Catalog,
        recorder: Recorder,
        retention: Retention,
        consumers: Consumers,
        timers: Timers,
        effects: list[Effect],
        flush: Callable[[], None],
        policy: Policy,
    ) -> None:
        self._catalog = catalog
        self._recorder = recorder
        self._retention = retention
        self._consumers = consumers
        self._timers = timers
        self._effects = effects
        self._flush = flush
        self.warn: Callable[[str, str], None] = lambda key, text: None
        self.note: Callable[[Event], None] = lambda event: None
        self._given_up: deque[tuple[int, Given]] = deque()  # once this index is durable
        self._ahead_at_start = 0
        self._has_jumped = False
        self._idle_since: dict[Group, int] = {}
        self._idle_us = int(policy.group_idle_s * 1_000_000)
        self._is_looking = False

    def add_verbs(self, administration: Administration) -> None:
        """Those that remove."""

        def purge(asked: OfPurge, call: Call) -> None:
            self._purge_stream(administration.stream_of(asked.stream), asked, call)

        def delete(asked: OfStream, call: Call) -> None:
            self._delete_stream(administration.stream_of(asked.stream), call)

        def delete_group(asked: OfGroup, call: Call) -> None:
            self._delete_group(*administration.group_of(asked.stream, asked.group), call)

        administration.add("purge_stream", Verb(OfPurge, purge, True))
        administration.add("delete_stream", Verb(OfStream, delete, True))
        administration.add("delete_group", Verb(OfGroup, delete_group, True))

    def opened(self, now: int, ahead: int) -> None:
        """Recovery is over.

        Args:
            ahead: how far the broker's own clock is ahead of the engine's, in ms.
        """
        self._ahead_at_start = ahead
        ends = ((id, 0, end - 1) for id, end in self._catalog.deleted.items() if end)
        while ranges := list(islice(ends, FORGET_MAX)):
            self._given_up.append((self._recorder.last_index, ranges))
        self.watch(now)

    # -- retention ------------------------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether sweep() has something to do."""
        return self._retention.has_more

    def next_due(self, ahead: int) -> int | None:
        """When something gets too old; microseconds on the engine's clock."""
        age = self._retention.next_age
        return None if age is None or self._has_jumped else max(age - ahead, 0) * 1_000

    def sweep(self, wall_ms: int, ahead: int, durable_index: int) -> None:
        """Give up what is too much, a piece of it. All that groups have settled has its record."""
        self._check_clock(ahead)
        if not self._has_jumped:
            self._retention.wake(wall_ms)
        if not self._retention.has_more:
            return
        ranges = self._retention.sweep(0 if self._has_jumped else wall_ms)
        self._flush()  # groups may have been owed some of it
        if ranges:
            self._given_up.append((self._recorder.last_index, ranges))
        self.forget(durable_index)

    def forget(self, durable_index: int) -> None:
        """Everything up to this index is on disk."""
        while self._given_up and self._given_up[0][0] <= durable_index:
            _, ranges = self._given_up.popleft()
            for stream_id, first, last in ranges:
                log = self._catalog.by_id.get(stream_id)
                if log is not None:
                    log.give_up(first, last)
            self._effects.append(Forget(ranges))

    def _check_clock(self, ahead: int) -> None:
        jump_ms = ahead - self._ahead_at_start
        has_jumped = abs(jump_ms) > JUMP_MS
        if has_jumped is self._has_jumped:
            return
        self._has_jumped = has_jumped
        hours = abs(jump_ms) / 3_600_000
        way = "forward" if jump_ms > 0 else "back"
        text = (
            f"the system's clock went {hours:,.1f} hours {way} while this broker ran: nothing is deleted for its age until that "
            "is set right, or the broker is started again"
        )
        self.warn("clock", text if has_jumped else "")
        if not has_jumped:
            for log in self._catalog.by_id.values():
                self._retention.touch(log)

    def expire(self, log: StreamLog, below: int) -> None:
        """Its groups are owed nothing below this offset any more."""
        for group in log.groups.values():
            self._consumers.expire(group, below)

    # -- purge ----------------------------------------------------------------------------------------------------

    def purge(self, log: StreamLog, below: int) -> int:
        """All messages below an offset go now; returns how many. What groups had not settled of them is expired."""
        self.expire(log, below)  # a group that was reset may have been lent what others were done with
        self._flush()
        if below <= log.given_up.floor:
            return 0
        self._catalog.purged(log, below)
        count = log.purge(below)
        self._retention.purged(log)
        self._given_up.append((self._recorder.last_index, [(log.id, 0, below - 1)]))
        return count

    def _purge_stream(self, log: StreamLog, asked: OfPurge, call: Call) -> None:
        below = _below(log, asked)
        count = self.purge(log, below)
        call.done(
            {"stream": log.name, "purged": count, "below": max(below, log.first_offset), "next": log.durable_next}
        )

    # -- delete ---------------------------------------------------------------------------------------------------

    def _delete_stream(self, log: StreamLog, call: Call) -> None:
        groups = len(log.groups)
        self._flush()
        self._catalog.delete_stream(log)
        count = log.purge(log.next_offset)
        self._retention.deleted(log)
        gone = NoSuchStream(f"stream {log.name!r} was deleted; whoever uses its name now makes another one")
        self._consumers.dismiss(log, None, gone)
        if log.next_offset:
            self._given_up.append((self._recorder.last_index, [(log.id, 0, log.next_offset - 1)]))
        call.done({"stream": log.name, "deleted": True, "messages": count, "groups": groups})

    def _delete_group(self, log: StreamLog, group: Group, call: Call) -> None:
        if self._keeps_letters(group):
            raise BadArgument(
                f"group {group.name!r} of stream {log.name!r} knows which dead letters were sent back, and groups still send theirs "
                "there; `zbroker stream purge` throws away letters, `zbroker stream delete` the stream with all of them"
            )
        pending = group.pending(log.durable_next)
        self._drop_group(log, group, "was deleted")
        call.done({"stream": log.name, "name": group.name, "deleted": True, "pending": pending})

    def _keeps_letters(self, group: Group) -> bool:
        """Whether it is `redrive` of a stream that gets dead letters: without it each would be sent back again."""
        log = self._catalog.by_id[group.stream_id]
        return group.name == REDRIVE and any(
            one.config.dead_letter == log.name for one in self._catalog.groups.values()
        )

    def _drop_group(self, log: StreamLog, group: Group, why: str) -> None:
        self._flush()
        self._catalog.delete_group(group)
        gone = NoSuchGroup(f"group {group.name!r} of stream {log.name!r} {why}; whoever joins it now makes another one")
        self._consumers.dismiss(log, group, gone)
        self._retention.configured(log)  # what it was owed may go

    # -- idle groups ----------------------------------------------------------------------------------------------

    def watch(self, now: int) -> None:
        """A group may have come that is deleted once nobody has used it for long."""
        if not self._is_looking:
            self._look(now)

    def _look(self, now: int) -> None:
        """Delete groups that had no member for as long as they say; look again in a part of the shortest such time."""
        before, self._idle_since = self._idle_since, {}
        shortest = self._idle_us
        for group in list(self._catalog.groups.values()):
            idle_us = _idle_us(group)
            if not idle_us or self._keeps_letters(group):
                continue
            if not self._consumers.members_of(group):
                since = before.get(group, now)
                if now - since >= idle_us and not self._recorder.failed:
                    self._expire_group(group)
                    continue
                self._idle_since[group] = since
            shortest = min(shortest or idle_us, idle_us)
        self._is_looking = shortest > 0
        if shortest:
            pause = min(max(shortest // _LOOK_PARTS, _LOOK_US_MIN), _LOOK_US_MAX)
            self._timers.at(now + pause, self._look)

    def _expire_group(self, group: Group) -> None:
        log = self._catalog.by_id[group.stream_id]
        idle_s = group.config.idle_expiry_s or 0.0
        self._drop_group(log, group, f"had no member for {idle_s:g} s and was deleted")
        self.note(GroupExpired(log.name, group.name, idle_s))


def _idle_us(group: Group) -> int:
    """Without members for so long it goes; 0: never."""
    config: GroupConfig = group.config
    return int((config.idle_expiry_s or 0.0) * 1_000_000)


def _below(log: StreamLog, asked: OfPurge) -> int:
    """Up to which offset, without it, a purge goes. What is not durable stays. Raises BadArgument."""
    said: dict[str, Any] = {name: getattr(asked, name) for name in ("keep", "before", "published_before")}
    said = {name: value for name, value in said.items() if value is not None}
    if len(said) > 1:
        raise BadArgument(f"a purge by {' and '.join(said)}; say one of them")
    if asked.keep is not None:
        return newest(log, asked.keep)
    if asked.before is not None:
        if asked.before > log.next_offset:
            raise BadArgument(
                f"before={asked.before} lies beyond the next offset {log.next_offset} of stream {log.name!r}"
            )
        return min(asked.before, log.durable_next)
    if asked.published_before is not None:
        return min(log.published_since(asked.published_before), log.durable_next)
    return log.durable_next


def newest(log: StreamLog, count: int) -> int:
    """The offset from which on so many durable messages are kept, fewer if there are no more."""
    low, high = log.given_up.floor, log.durable_next
    while low < high:
        middle = (low + high) // 2
        kept = log.durable_next - middle - log.given_up.count(middle, log.durable_next - 1)
        if kept > count:
            low = middle + 1
        else:
            high = middle
    return low
