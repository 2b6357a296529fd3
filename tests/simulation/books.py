"""What has become of each message in each group, and what of it the journal knows: records that were handed to it, and crashes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from patterns.wire.records import Opened, Record
from tests.simulation.lending import Key, Lease, Message, News

UNRECORDED = 1 << 62

if TYPE_CHECKING:
    from tests.simulation.world import World


class Books:
    """Of all groups, over the lives of a broker.

    Attributes:
        groups: by offset, what was ever lent or settled.
        coverage: what was met.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.groups: dict[Key, dict[int, Message]] = {}
        self.coverage: Counter[str] = Counter()
        self._image: dict[
            Key, dict[int, tuple[int, str, int, int]]
        ] = {}  # what the journal knows: attempts, how it ended, its due time, how often it was lent
        self._news: list[News] = []  # what no OPS record holds yet
        self._journaled: list[tuple[int, list[News]]] = []
        self._last_ops = 0

    def of(self, key: Key) -> dict[int, Message]:
        """A group's messages."""
        return self.groups.setdefault(key, {})

    # -- what happens -------------------------------------------------------------------------------------------------

    def note(self, news: News) -> None:
        """The next OPS record says so."""
        self._news.append(news)

    def come_back(self, lease: Lease, offset: int, low: int, high: int, due: int = 0) -> None:
        """Nobody holds it; a record will say which attempts count, and takes back what one before may say."""
        message = self.groups[lease.key][offset]
        message.comes_back(low, high)
        message.due = due
        self.note(News(lease.key, offset, high - 1, "", message.lent, due))  # or less: `counted` has that

    def give_back(self, lease: Lease, counted: int | None) -> None:
        """A lease ends; `counted`: 1 if the attempt counts, None where it may or may not."""
        lease.session.leases.pop(lease.id, None)
        if counted == 0 and (lease.is_doubtful or self._world.scheduler.now >= lease.valid_until):
            counted = None  # its time may have been over before
        low = lease.attempt + (counted or 0)
        high = lease.attempt + (1 if counted is None else counted)
        for offset in lease.held:
            if self.groups[lease.key][offset].holder is lease:
                self.come_back(lease, offset, low, high)

    def expire(self, key: Key, offset: int) -> Message:
        """Nobody gets it any more, whoever holds it."""
        message = self.of(key).setdefault(offset, Message())
        holder = message.holder
        if holder is not None:
            holder.held.discard(offset)
            if not holder.held:
                holder.session.leases.pop(holder.id, None)
            message.comes_back(holder.attempt + 1, holder.attempt + 1)
        message.done, message.done_at, message.is_doomed = "expired", UNRECORDED, False
        return message

    # -- the journal and its crashes ----------------------------------------------------------------------------------

    def handed(self, record: Record) -> None:
        """An OPS record has left the engine; it holds all that had happened by then."""
        if record.index <= self._last_ops:  # one that was held comes again
            return
        self._last_ops = record.index
        for news in self._news:
            if news.done:
                self.groups[news.key][news.offset].done_at = record.index
        self._journaled.append((record.index, self._news))
        self._news = []

    def say(self, index: int, news: News) -> None:
        """A record of another kind says so."""
        self._journaled.append((index, [news]))

    def stopped(self) -> None:
        """In order: nothing is forgotten, but what was delivered in the last moment."""
        self._journaled.append((0, [news for news in self._news if news.done]))
        self._news = []

    def crashed(self) -> None:
        """What no record holds is forgotten."""
        self._news = []

    def opened(self, opened: Opened, records: list[Record]) -> None:
        """A new life knows what the records hold that have survived."""
        kept = {record.index for record in records}
        for index, news in self._journaled:
            if index == 0 or index in kept:
                self._know(news)
        self._journaled, self._news = [], []
        self._last_ops = opened.next_index - 1
        if opened.damage:
            self._image = {}  # an OPS record may be among the lost: then all of it may come again
            self.coverage["reopened_damaged"] += 1
        for key, messages in self.groups.items():
            image = self._image.get(key, {})
            for offset, message in messages.items():
                self._begin(message, *image.get(offset, (0, "", 0, 0)))

    def _begin(self, message: Message, known: int, done: str, due: int, lent: int) -> None:
        message.due = 0 if self._world.injected["wall_jump"] else due - 2_000  # told in milliseconds
        attempts = min([known, *(counted for _, counted in message.counted)])
        message.holder, message.is_doomed = None, False
        message.done, message.done_at = done or ("perhaps" if message.done else ""), 0
        most = known if lent == message.lent else max(message.highest, known)
        message.next_low, message.next_high = attempts + 1, most + 1

    def _know(self, told: list[News]) -> None:
        """A record with these has survived."""
        for news in told:
            image = self._image.setdefault(news.key, {})
            _, done, *_ = image.get(news.offset, (0, "", 0, 0))
            image[news.offset] = (news.attempt, news.done or done, news.due, news.lent)
            message = self.groups[news.key][news.offset]
            message.counted = [one for one in message.counted if one[0] >= news.lent]

    # -- what is asked ------------------------------------------------------------------------------------------------

    def is_settled(self, stream: str, group: str, id: int, offset: int, durable: int) -> bool:
        """Whether a member has acked or rejected it, or may have, and a record up to `durable` says so."""
        message = self.groups.get((stream, group, id), {}).get(offset)
        return message is not None and bool(message.done) and message.done_at <= durable
