"""What streams give up, and when they take nothing more: bounds of age, bytes and number, quotas, purges. No I/O, no record.

`limits`: beyond its bounds the oldest messages go that nobody is owed, or, without keep_unsettled, owed or not. `work`: what
every group has settled goes, and at the bounds producers are refused. After a restart the journal is told again: of offsets
without a batch, which were given up before, or lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from patterns.wire.limits import INTEGER_MAX
from patterns.wire.settled import Range, merged
from zbroker.core.policy import DEFAULT_POLICY, Policy
from zbroker.core.room import Limit, Pace, full

if TYPE_CHECKING:
    from zbroker.core.log import StreamLog

STEP: Final = 1_024  # batches that are looked at in one go: a millisecond
_AGAIN_PARTS: Final = (
    8  # so large a part of what is kept must have been settled before the pinned ones are looked at again
)
_QUOTA_PARTS: Final = 8  # what need not be kept goes when all but one in so many parts of the quota are taken


class _Bounds(NamedTuple):
    """What of a stream is too much, as its configuration and the clock say now."""

    bytes_max: int
    messages_max: int
    published_max: int  # ms since 1970; what is not younger goes
    keeps: bool  # what groups have not settled
    is_work: bool


class _Account:
    """One stream's: which batches were counted, which were looked at, what was given up."""

    __slots__ = (
        "bytes", "bytes_calm", "counted", "drained", "due", "end", "gone", "is_wanted", "log", "looked", "messages_calm", "pace",
        "settled_then", "untold"
    )  # fmt: skip

    def __init__(self, log: StreamLog) -> None:
        self.log = log
        self.bytes = 0  # of the records that are kept, of those that were counted
        self.drained = 0  # of those that were given up since
        self.pace = Pace()
        self.bytes_calm = self.messages_calm = -1  # up to so much nobody needs to look, as of the last look
        self.due: int | None = None  # when the oldest one that is kept is too old, as far as somebody looks then
        self.is_wanted = False  # somebody was refused, so whatever may go is to go at once
        self.settled_then = 0  # by all groups together, when the pinned ones were looked at last
        self.begin()

    def begin(self) -> None:
        """Count anew; what lies below the floor of what was given up is no batch any more."""
        log, floor = self.log, self.log.given_up.floor
        self.counted = self.looked = min(log.find(floor), log.placed)
        self.end = min(floor, log.base(self.counted)) if self.counted < log.batches else floor
        self.gone = self.end  # messages that were given up
        self.bytes = 0
        self.untold: list[Range] = [(0, self.end - 1)] if self.end else []

    @property
    def messages(self) -> int:
        """What is kept, and what comes; not what damage took behind the last batch, which is no message any more."""
        log = self.log
        return max(log.end(log.batches - 1) - self.gone, 0) if log.stored else 0

    @property
    def is_calm(self) -> bool:
        """Whether the bounds are so far away that neither one more batch nor one settled changes anything."""
        return self.bytes <= self.bytes_calm and (
            self.messages_calm == INTEGER_MAX or self.messages <= self.messages_calm
        )

    def calm_down(self, bounds: _Bounds) -> None:
        """All was looked at."""
        ages = self.log.config.age_max_s is not None and self.due is None  # the next batch is the oldest
        must_look = bounds.is_work or ages
        self.bytes_calm, self.messages_calm = (-1, -1) if must_look else (bounds.bytes_max, bounds.messages_max)

    def look_again(self) -> None:
        """What stayed the last time may go now."""
        self.looked = min(self.looked, self.log.find(self.log.given_up.floor))
        self.settled_then = self._settled()

    def placed(self, number: int) -> bool:
        """The usual case of count(): the next one has come, and all before it are counted. Whether it was that."""
        log = self.log
        if number != self.counted or log.base(number) != self.end:
            return False
        self.counted += 1
        self.end = log.end(number)
        self.bytes += log.size(number)
        return True

    def count(self, left: int) -> list[Range]:
        """Take in batches that have come since, at most so many; returns what of them, and between them, was given up before."""
        log, gone = self.log, self.untold
        self.untold = []
        end = min(log.placed, self.counted + left)
        if self._count_whole(end):
            return gone
        for number in range(self.counted, end):
            self.counted = number + 1
            if log.is_gone(number):
                continue  # as good as none
            first, following = log.base(number), log.end(number)
            if first > self.end:
                gone.append((self.end, first - 1))
                log.given_up.add(self.end, first - 1)
                self.gone += first - self.end
            self.end = following
            known = log.given_up.count(first, following - 1)
            self.gone += known
            if known:
                gone += _between(first, following - 1, list(log.given_up.missing(first, following - 1)))
            if known < following - first:
                self.bytes += log.size(number)
        return gone

    def _count_whole(self, end: int) -> bool:
        """Take in batches up to a number at once, if nothing is missing among them; after a start there may be millions."""
        log, begin = self.log, self.counted
        if begin >= end or log.is_gone(begin):
            return False
        first, following, sizes = log.base(begin), log.end(end - 1), log.sizes(begin, end)
        is_whole = first <= self.end and following - first == log.messages_in(begin, end)
        if not is_whole or 0 in sizes or log.given_up.count(first, following - 1):
            return False
        self.counted, self.end = end, following
        self.bytes += sum(sizes)
        return True

    def is_beyond(self, bounds: _Bounds, number: int) -> bool:
        """Whether there is too much, of which this batch is the oldest."""
        if bounds.is_work:
            return bool(self.log.groups)
        if self.bytes > bounds.bytes_max or self.messages > bounds.messages_max:
            return True
        return bounds.published_max > 0 and self.log.published(number) <= bounds.published_max

    def give_up(self, bounds: _Bounds, left: int) -> list[Range]:
        """Of the oldest batches what may go, until no more is kept than there should be, or so many were looked at."""
        log, found = self.log, []
        end = min(self.counted, self.looked + left)
        while self.looked < end and self.is_beyond(bounds, self.looked):
            if log.end(self.looked) > log.durable_next:
                break  # confirms of it are still to come
            most = self._most(bounds)
            before = self.gone
            found += self._give_up(self.looked, most, bounds.keeps)
            if self.gone - before == most:
                break
            self.looked += 1
        return found

    def _most(self, bounds: _Bounds) -> int:
        """How many messages are too many; without end where a number is not what bounds the stream."""
        is_exact = not bounds.is_work and self.bytes <= bounds.bytes_max
        if not is_exact or 0 < self.log.published(self.looked) <= bounds.published_max:
            return INTEGER_MAX
        return self.messages - bounds.messages_max

    def _give_up(self, number: int, most: int, keeps: bool) -> list[Range]:
        """What may go of one batch. Its bytes count until all of it is gone, or the journal has cut the rest out."""
        log = self.log
        first, last = log.base(number), log.end(number) - 1
        kept = last - first + 1 - log.given_up.count(first, last)
        groups = log.groups.values() if keeps else ()
        owed = merged([gap for group in groups for gap in group.settled.missing(first, last)])
        free = [run for part in _between(first, last, owed) for run in log.given_up.missing(*part)]
        free = list(_at_most(free, most))
        gone = sum(log.given_up.add(*run) for run in free)
        if not gone:
            return []
        self.gone += gone
        if gone == kept:
            self.bytes -= log.size(number)
            self.drained += log.size(number)
            return [(first, last)]  # whole, so that it is known to be gone
        return free

    def is_done(self, bounds: _Bounds) -> bool:
        """Whether there is nothing more to do until something is added or settled, or gets too old."""
        log = self.log
        if self.counted < log.placed:
            return False
        has_next = self.looked < self.counted and log.base(self.looked) < log.durable_next
        if has_next and self.is_beyond(bounds, self.looked):
            return False
        return not self._begins_again(bounds)

    def _begins_again(self, bounds: _Bounds) -> bool:
        """What was looked at and stayed should go as well: those that somebody was owed may have been settled since."""
        log = self.log
        oldest = log.find(log.given_up.floor)
        if oldest >= min(self.looked, log.batches) or not self.is_beyond(bounds, oldest):
            return False
        settled = self._settled()
        if settled - self.settled_then < (1 if self.is_wanted else max(1, self.messages // _AGAIN_PARTS)):
            return False
        self.settled_then = settled
        self.looked = oldest
        self.is_wanted = False
        return True

    def _settled(self) -> int:
        return sum(
            group.acked + group.dead + group.expired + group.lost + group.passed for group in self.log.groups.values()
        )


class Retention:
    """All streams of a broker.

    Args:
        policy: what counts where a stream's own configuration says nothing.
        expire: hears of a stream, and below which offset its groups are owed nothing any more.
    """

    def __init__(
        self, policy: Policy = DEFAULT_POLICY, expire: Callable[[StreamLog, int], None] = lambda log, below: None
    ) -> None:
        self._policy = policy
        self._expire = expire
        self._accounts: dict[int, _Account] = {}
        self._due: dict[StreamLog, None] = {}
        self._ages: list[tuple[int, int]] = []  # when a stream's oldest batch is too old, and the stream's id
        self._bytes = self._drained = 0  # of all
        self._pace = Pace()

    def _account(self, log: StreamLog) -> _Account:
        account = self._accounts.get(log.id)
        if account is None:
            account = self._accounts[log.id] = _Account(log)
        return account

    def touch(self, log: StreamLog) -> None:
        """Something was added to it, or settled in it."""
        account = self._accounts.get(log.id)
        if account is None or not account.is_calm:
            self._due[log] = None

    def placed(self, log: StreamLog, number: int) -> None:
        """A batch of it has a place, and a size."""
        account = self._account(log)
        before = account.bytes
        is_counted = account.placed(number)
        self._bytes += account.bytes - before
        if not (is_counted and account.is_calm):
            self._due[log] = None

    def configured(self, log: StreamLog) -> None:
        """Its bounds are others, or a group of it is gone: what had to stay may go."""
        self._account(log).look_again()
        self._due[log] = None

    def purged(self, log: StreamLog) -> None:
        """All below the floor of what it has given up went at once, and the journal is told so."""
        account = self._account(log)
        before = account.bytes
        account.begin()
        account.untold = []
        self._take_in(account, before)
        self._due[log] = None

    def deleted(self, log: StreamLog) -> None:
        """It is not there any more."""
        self._due.pop(log, None)
        account = self._accounts.pop(log.id, None)
        if account is not None:
            self._bytes -= account.bytes
            self._drained += account.bytes

    def _take_in(self, account: _Account, before: int) -> None:
        self._bytes += account.bytes - before
        self._drained += max(before - account.bytes, 0)

    # -- what goes ------------------------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether there is something to look at."""
        return bool(self._due)

    def sweep(self, wall_ms: int = 0) -> list[tuple[int, int, int]]:
        """Ranges (stream id, first, last) that are to be kept no longer; a bounded piece of the work.

        Args:
            wall_ms: the time, as in `published_at`; 0: it cannot be trusted, and nothing goes for its age.
        """
        found: list[tuple[int, int, int]] = []
        left = STEP
        while self._due and left > 0:
            log = next(iter(self._due))
            del self._due[log]
            account, bounds = self._account(log), self._bounds(log, wall_ms)
            counted, looked, before = account.counted, account.looked, account.bytes
            gone = account.count(left)
            left -= account.counted - counted
            given_up = account.give_up(bounds, left)
            left -= max(account.looked - looked, 0) + 1
            self._take_in(account, before)
            if given_up and not bounds.keeps:
                self._expire(log, given_up[-1][1] + 1)
            found += [(log.id, first, last) for first, last in merged(gone + given_up)]
            if account.is_done(bounds):
                self._await_age(account, wall_ms)
                account.calm_down(bounds)
            else:
                self._due[log] = None  # behind the others
        return found

    def _bounds(self, log: StreamLog, wall_ms: int) -> _Bounds:
        config = log.config
        bytes_max = self._policy.stream_bytes if config.bytes_max is None else config.bytes_max
        quota = self._quota(log)
        if quota:  # what may go goes before producers are refused
            bytes_max = min(bytes_max, quota - quota // _QUOTA_PARTS)
        messages_max = INTEGER_MAX if config.messages_max is None else config.messages_max
        age_ms = 0 if config.age_max_s is None else int(config.age_max_s * 1_000)
        published_max = wall_ms - age_ms if age_ms and wall_ms else 0
        return _Bounds(bytes_max, messages_max, published_max, config.keep_unsettled, config.retention == "work")

    def _quota(self, log: StreamLog) -> int:
        quota = log.config.quota_bytes
        return self._policy.stream_quota_bytes if quota is None else quota

    # -- age ------------------------------------------------------------------------------------------------------

    def _await_age(self, account: _Account, wall_ms: int) -> None:
        """Look again when the next batch is too old."""
        log, age_s = account.log, account.log.config.age_max_s
        if age_s is None or account.looked >= log.placed:
            return
        due = max(log.published(account.looked) + int(age_s * 1_000), wall_ms + 1)
        if account.due is None or due < account.due:
            account.due = due
            heappush(self._ages, (due, log.id))

    @property
    def next_age(self) -> int | None:
        """When something may be too old, as `published_at` tells time."""
        return self._ages[0][0] if self._ages else None

    def wake(self, wall_ms: int) -> None:
        """Look at streams of which something may be too old by now."""
        while self._ages and self._ages[0][0] <= wall_ms:
            due, id = heappop(self._ages)
            account = self._accounts.get(id)
            if account is not None and account.due == due:
                account.due = None
                self._due[account.log] = None

    # -- room -----------------------------------------------------------------------------------------------------

    def check_room(self, log: StreamLog, size: int, now: int) -> None:
        """Raise StreamFull if the stream is to take nothing more for now; it may have overrun its bounds by less than a batch.

        Args:
            size: bytes of what is to be stored, for how long that must wait.
            now: microseconds.
        """
        account = self._accounts.get(log.id)
        used = log.unplaced_bytes + (account.bytes if account is not None else 0)
        quota, folder = self._quota(log), self._policy.folder_quota_bytes
        if quota and used >= quota:
            self._refuse(log, Limit("quota_bytes", quota, used), size, now)
        if folder and self._bytes >= folder:
            limit = Limit("folder_quota_bytes", folder, self._bytes)
            raise full(log.name, limit, self._pace.retry_after_ms(now, self._drained, self._bytes - folder + size))
        config = log.config
        if config.retention != "work":
            return
        if config.bytes_max is not None and used >= config.bytes_max:
            self._refuse(log, Limit("bytes_max", config.bytes_max, used), size, now)
        if config.messages_max is not None and self._account(log).messages >= config.messages_max:
            self._refuse(log, Limit("messages_max", config.messages_max, self._account(log).messages), 1, now)

    def _refuse(self, log: StreamLog, limit: Limit, size: int, now: int) -> None:
        account = self._account(log)
        account.is_wanted = True
        self.touch(log)
        drained = account.gone if limit.name == "messages_max" else account.drained
        raise full(log.name, limit, account.pace.retry_after_ms(now, drained, limit.used - limit.most + size))

    def resized(self, log: StreamLog, number: int, by: int) -> None:
        """The journal has written a batch anew, so many bytes larger; or it is gone."""
        account = self._accounts.get(log.id)
        if account is not None and number < account.counted:
            before = account.bytes
            account.bytes += by
            self._take_in(account, before)

    def kept_messages(self, log: StreamLog) -> int:
        """How many messages are there; soon after a start, at most."""
        account = self._accounts.get(log.id)
        return account.messages if account is not None else log.next_offset - log.first_offset

    def kept_bytes(self, log: StreamLog) -> int:
        """Of records that are kept, as far as they were counted: soon after a start it is behind."""
        account = self._accounts.get(log.id)
        return account.bytes if account is not None else 0

    @property
    def folder_bytes(self) -> int:
        """The same of all streams."""
        return self._bytes


def _between(first: int, last: int, gaps: list[Range]) -> Iterator[Range]:
    """What is left of first to last without the gaps, which are in order."""
    for gap_first, gap_last in gaps:
        if first < gap_first:
            yield first, gap_first - 1
        first = gap_last + 1
    if first <= last:
        yield first, last


def _at_most(ranges: list[Range], most: int) -> Iterator[Range]:
    """The first so many offsets of ranges that are in order."""
    for first, last in ranges:
        if most <= 0:
            return
        last = min(last, first + most - 1)
        yield first, last
        most -= last - first + 1
