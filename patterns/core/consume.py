"""Consuming (SPEC.md 9.2): credit that follows the consumer's pace, leases, and what is settled."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientEngine, ClientSession, error_of
from patterns.core.handling import Handling
from patterns.wire.address import Address
from patterns.wire.codec import check
from patterns.wire.errors import BadBody, ProtocolError, StaleLease, TooLarge, ZbrokerError
from patterns.wire.frames import Message, columns_of
from patterns.wire.messages import (
    Codec,
    Columns,
    Deliver,
    ErrorHeader,
    Hello,
    Join,
    Joined,
    Leave,
    Lost,
    Ready,
    Resume,
    Role,
    Settle,
    Settled,
)

_HELD_US: Final = 250_000  # work that a consumer may hold ahead of what it does: a quarter second of its own pace
_BYTES_WINDOW: Final = 2 * 1024 * 1024
_GRANTS_A_WINDOW: Final = 4  # so three quarters of it are open at the least, and a word for each batch is spared
PROCESSING_MAX_US: Final = 3_600_000_000  # where neither the caller nor the group says it
_CLUSTER: Final = (
    1 << 53
)  # between our numbers for leases of one cluster and of the next; on the wire they are below it
_RANGES_A_SETTLE: Final = 3_000  # of 19 bytes at most, so that they fit into a header of 64 KiB
_LEASES_RESUMED_MAX: Final = 7_000  # of 9 bytes at most, likewise; the rest is given back and delivered again


class Delivered(msgspec.Struct, gc=False):
    """A batch, or a slice of one, that was lent to us; `size` is what credit counts, `lease` our own number for it."""

    lease: int
    attempt: int
    offset: int
    offsets: list[int] | None
    count: int
    codec: Codec
    payload: bytes
    sizes: list[int] | None
    columns: Columns
    topic: str | None
    published_at: int
    size: int

    @property
    def token(self) -> int:
        """The broker's number for the lease."""
        return self.lease % _CLUSTER


class SettledEvent(msgspec.Struct):
    """A settle that asked for an answer: so many of its messages were not ours any more."""

    id: int
    stale: int
    error: ZbrokerError | None = None


class LostOffsets(msgspec.Struct, gc=False):
    """Damage took these messages of the stream."""

    first: int
    last: int


class TakesLong(msgspec.Struct, gc=False):
    """The caller seems to have had its time: see is_overdue and give_back(), once what it has settled is told."""


class _Lease(msgspec.Struct, gc=False):
    """What of a lease is still ours: how many messages, and what is settled but not yet told, by action.

    Attributes:
        asked: offsets whose settling was to be confirmed; who was not answered may ask again.
    """

    open: int
    ranges: dict[tuple[str, int, str], list[tuple[int, int]]]
    asked: set[int] = msgspec.field(default_factory=set)


class ConsumerEngine(ClientEngine):
    """Reads one stream, as a member of a group or by itself.

    Args:
        mode: "slices": credit starts at 1 and grows with the pace; "batches": the ceiling at once.
        credit: the ceiling, messages taken from the broker and not yet by the caller. A group's member with a ceiling of
            1 gets nothing more before what it has is settled.
        processing_max_us: how long the caller may compute; then TakesLong. None: as long as its group says, else an hour.
        published_at: with a start of "time": of the first message, or after it; ms since 1970.

    Attributes:
        is_out: what was lent was given back, and nothing more comes until come_back().
        given_back_to: no lease up to this one is ours any more; 0: none was given back for its time.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        stream: str,
        group: str,
        start: str | int,
        nonce: bytes,
        codec: Codec,
        jitter: Jitter,
        *,
        credit: int,
        processing_max_us: int | None,
        published_at: int | None = None,
    ) -> None:
        super().__init__(addresses, jitter)
        self.stream = stream
        self.group = group
        self._start = start
        self._published_at = published_at
        self._next: int | None = None  # of a reader without a group: nobody else remembers how far it is
        self._nonce = nonce
        self._codec = codec
        self.mode = "slices"
        self._ceiling = credit
        self._window = 1
        self._own_max_us = processing_max_us
        self._handling = Handling(processing_max_us or PROCESSING_MAX_US)
        self._leases: dict[int, _Lease] = {}
        self._taken_at = 0
        self._taken = self._in_hand = 0
        self._waiting = 0  # messages that came in this session and the caller has not begun with
        self._waiting_bytes = 0
        self._settle_ids = 0
        self._epoch = 0
        self._cluster = ""
        self._base = 0  # what our numbers for leases have more than the broker's
        self._claimed: set[int] = set()  # leases of the broker's life before this one; they can be acked, not extended
        self._dirty: dict[int, None] = {}  # leases with something settled but not told, in order
        self._told: dict[
            int, tuple[str, int]
        ] = {}  # by settle id that waits for SETTLED, what is to be confirmed of which offset
        self.joined = False
        self.is_out = False
        self.given_back_to = 0
        self.stale = 0

    # -- session -------------------------------------------------------------------------------------------------

    def _hello(self, session: ClientSession) -> Hello:
        resume = None
        if session.ready is not None:
            leases = [number - self._base for number in islice(self._leases, _LEASES_RESUMED_MAX)]
            resume = Resume(session.ready.epoch, 0, leases)
        return Hello(
            role=Role.CONSUMER,
            nonce=self._nonce,
            codec=self._codec,
            credit_messages=0,  # JOIN says how batches are cut; before it nothing may come
            credit_bytes=0,
            resume=resume,
        )

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        self._waiting = self._waiting_bytes = 0
        if not ready.resumed:
            self._begin_anew(ready)
        if not self.is_out:
            self._join(session, now)

    def _begin_anew(self, ready: Ready) -> None:
        """The session is another one. A broker that was started again takes acks of what was held before it, for a while."""
        if ready.cluster != self._cluster:
            self._forsake()
            self._cluster = ready.cluster
        kept = (
            {} if ready.epoch == self._epoch else {n: one for n, one in self._leases.items() if n not in self._claimed}
        )
        self._leases = kept
        self._claimed = set(kept)
        self._dirty = {number: None for number in self._dirty if number in kept}
        self._epoch = ready.epoch

    def _forsake(self) -> None:
        """This is another cluster: its streams and leases have numbers of their own, which may be those of the one before."""
        self._leases.clear()
        self._next = None
        if self._epoch:
            self._base += _CLUSTER

    def _join(self, session: ClientSession, now: int) -> None:
        join = Join(id=1, stream=self.stream, group=self.group, start=self._start, mode=self.mode)
        if self._next is not None:
            join.start = self._next
        elif self._published_at is not None:
            join.published_at = self._published_at
        session.send(join, now)

    def on_lost(self, session: ClientSession, now: int) -> None:
        self.joined = False
        for number, (action, offset) in self._told.items():
            error = StaleLease(
                f"{self.place(offset)}: the connection broke before the broker confirmed the {action}; it may be {action}ed"
            )
            self.news.append(SettledEvent(number, 0, error))
        self._told.clear()

    def use(self, mode: str, now: int) -> None:
        """Switch between slices and batches; joins again if it was joined otherwise."""
        if mode == self.mode:
            return
        self.mode = mode
        session = self.sessions[0]
        if self.joined and session.is_ready:
            self._join(session, now)

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Deliver() as header:
                self._delivered(session, header, message, now)
            case Joined(id=0) as header:
                self._set_times(header)
            case Joined(next=following) as header:
                self._set_times(header)
                self.joined = True
                if not self.group and self._next is None:
                    self._next = following
                self._grant(session, now)
            case Settled(id=number, stale=stale):
                self._told.pop(number, None)
                self.stale += stale
                self.news.append(SettledEvent(number, stale))
            case Lost(first=int(first), last=int(last)):
                if not self.group:
                    self._next = last + 1
                self.news.append(LostOffsets(first, last))
            case ErrorHeader(scope="lease"):
                self.stale += 1
            case ErrorHeader(scope="stream") as header:
                self.error = error_of(header)
            case _:
                self.counters["unexpected"] += 1

    def _set_times(self, header: Joined) -> None:
        group_us = header.processing_max_ms * 1_000
        self._handling.set(header.lease_ms * 1_000, self._own_max_us or group_us or PROCESSING_MAX_US)

    @property
    def processing_max_s(self) -> float:
        """How long the caller may compute."""
        return self._handling.max_us / 1_000_000

    def _delivered(self, session: ClientSession, header: Deliver, message: Message, now: int) -> None:
        size = message.size
        session.into.spend(header.count, size)
        if not self.joined:
            return  # it crossed our LEAVE: the broker has it again
        try:
            columns = columns_of(message, header.count)
            sizes = None if isinstance(columns.sizes, msgspec.UnsetType) else columns.sizes
            if header.codec is Codec.RAW:
                check(header.codec, message.payload, header.count, sizes)
        except (ProtocolError, BadBody, TooLarge):
            self.counters["malformed"] += 1
            self._grant(session, now)  # nobody will take it, so nothing else opens the window again
            return
        self._waiting += header.count
        self._waiting_bytes += size
        lease = header.lease
        if lease:
            if not self._leases:
                self._handling.lent(now)
            lease += self._base
            self._leases[lease] = _Lease(header.count, {})
        offsets = None if isinstance(columns.offsets, msgspec.UnsetType) else columns.offsets
        if not self.group:
            self._next = header.offset + (offsets[-1] if offsets else header.count - 1) + 1
        event = Delivered(
            lease, header.attempt, header.offset, offsets, header.count, header.codec, message.payload, sizes,
            columns, header.topic, header.published_at, size,
        )  # fmt: skip
        self.news.append(event)

    # -- credit --------------------------------------------------------------------------------------------------

    def taken(self, count: int, size: int, now: int) -> None:
        """The caller begins with `count` messages more; its pace so far sets how many it may hold."""
        if self.mode == "batches":
            self._window = self._ceiling
        elif self._taken:
            each_us = max(1, now - self._taken_at) / self._taken
            self._window = int(max(1, min(_HELD_US / each_us, 2 * self._window, self._ceiling)))
        self._taken, self._taken_at = count, now
        self._in_hand = count
        self._waiting = max(0, self._waiting - count)
        self._waiting_bytes = max(0, self._waiting_bytes - size)
        self._handling.progress(now)
        self._grant_now(now)

    def wanted(self, now: int) -> None:
        """The caller has done what it began with, and waits for more."""
        self.come_back(now)
        self._in_hand = 0
        self._grant_now(now)

    def _grant_now(self, now: int) -> None:
        session = self.sessions[0]
        if session.is_ready and self.joined:
            self._grant(session, now)

    def _held(self) -> int:
        """What counts against the window: what waits for the caller. Where that is one message, what it has in hand too: a
        member that is free shall have the next.
        """
        if self._ceiling == 1 and self.group:
            return 1 if self._leases.keys() - self._claimed else 0
        return self._waiting + (self._in_hand if self.mode == "slices" and self._window == 1 else 0)

    def _grant(self, session: ClientSession, now: int) -> None:
        """The window counts from what the caller has begun with, so what waits for it is bounded too."""
        into = session.into
        window = self._ceiling if self.mode == "batches" else self._window
        messages_max = into.messages_used - self._held() + window
        bytes_max = into.bytes_used - self._waiting_bytes + _BYTES_WINDOW
        if (
            messages_max >= into.messages_max + max(1, window // _GRANTS_A_WINDOW)
            or bytes_max > into.bytes_max + _BYTES_WINDOW // 2
        ):
            session.grant(messages_max, bytes_max, now)

    # -- settling ------------------------------------------------------------------------------------------------

    def settle(self, lease: int, first: int, last: int, action: str, *, delay_ms: int = 0, reason: str = "") -> None:
        """Note what became of offsets of a lease; tell() sends it."""
        held = self._leases.get(lease)
        if held is None:
            self.stale += last - first + 1
            return
        ranges = held.ranges.setdefault((action, delay_ms, reason), [])
        if ranges and ranges[-1][1] + 1 == first:
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
        if action != "extend":
            held.open -= last - first + 1
        self._dirty[lease] = None

    @property
    def has_news(self) -> bool:
        """Whether tell() has something to send."""
        return bool(self._dirty)

    def tell(self, now: int) -> None:
        """Send what was settled, a message for each lease and action."""
        session = self.sessions[0]
        if not self._dirty or not session.is_ready or not self.joined:
            return
        for number in self._dirty:
            lease = self._leases.get(number)
            if lease is not None:
                self._tell_lease(session, number, lease, 0, now)
        self._dirty.clear()
        self._handling.progress(now)
        self._grant_settled(now)

    def _grant_settled(self, now: int) -> None:
        """Leases have ended; where they are what counts, something else may come."""
        if self._ceiling == 1:
            self._grant_now(now)

    def _tell_lease(self, session: ClientSession, number: int, lease: _Lease, about: int, now: int) -> None:
        for (action, delay_ms, reason), ranges in lease.ranges.items():
            if action == "extend":
                self._handling.keep(number, now + delay_ms * 1_000)
            for begin in range(0, len(ranges), _RANGES_A_SETTLE):
                part = ranges[begin : begin + _RANGES_A_SETTLE]
                header = Settle(
                    lease=number - self._base, action=action, id=about, ranges=part, delay_ms=delay_ms, reason=reason
                )  # fmt: skip
                session.send(header, now)
        lease.ranges.clear()
        if lease.open <= 0:
            self._leases.pop(number, None)

    def give_up(self, now: int) -> None:
        """Nack all that is still lent to us, at once; what was settled before is told first."""
        self.tell(now)
        session = self.sessions[0]
        if not session.is_ready or not self.joined:
            return  # nobody to tell: the broker counts the attempt when it takes the leases back
        for number in [number for number in self._leases if number not in self._claimed]:
            session.send(Settle(lease=number - self._base, action="nack"), now)
            del self._leases[number]

    def holds(self, lease: int) -> bool:
        """Whether what came with this lease is still lent to us; what a reader got always is."""
        return not lease or lease in self._leases

    def place(self, offset: int) -> str:
        """A message by name, for errors."""
        group = f", group {self.group!r}" if self.group else ""
        return f"offset {offset} of stream {self.stream!r}{group}"

    def settle_surely(
        self, lease: int, first: int, last: int, now: int, action: str = "ack", *, reason: str = ""
    ) -> int:
        """Settle and ask for SETTLED; the id of the SettledEvent that will come."""
        session, held = self.sessions[0], self._leases.get(lease)
        if held is not None and session.is_ready:
            self._tell_lease(session, lease, held, 0, now)  # one SETTLED answers this alone
        self.settle(lease, first, last, action, reason=reason)
        if held is not None:
            held.open += last - first + 1 if first in held.asked else 0
            held.asked.add(first)
        self._settle_ids += 1
        number = self._settle_ids
        if held is None or not session.is_ready:
            error = self._not_told(self.place(first), action, is_ours=held is not None)
            self.news.append(SettledEvent(number, last - first + 1, error))
            return number
        self._told[number] = action, first
        self._dirty.pop(lease, None)
        self._tell_lease(session, lease, held, number, now)
        self._grant_settled(now)
        return number

    def _not_told(self, place: str, action: str, *, is_ours: bool) -> ZbrokerError:
        """Why nothing can be confirmed now."""
        if is_ours:
            return StaleLease(
                f"{place}: no broker confirms anything now; if we still hold it when one is back, it is {action}ed"
            )
        return StaleLease(f"{place} is not ours any more: its lease ran out or was given back, or all of it is settled")

    # -- time: a handler that computes keeps its leases, for as long as it may ---------------------------------------

    def role_timeout(self) -> int | None:
        return self._handling.next_look() if self._leases and self.joined else None

    def on_timeout(self, now: int) -> None:
        if not self._leases or not self.joined or not self._handling.looks(now):
            return
        session = self.sessions[0]
        if self._handling.is_over(now, self._leases):
            self.news.append(TakesLong())
        elif session.is_ready and self._handling.extends(now):
            lease_ms = self._handling.lease_us // 1_000
            for number in [number for number in self._leases if number not in self._claimed]:
                session.send(Settle(lease=number - self._base, action="extend", delay_ms=lease_ms), now)

    @property
    def needs_driver(self) -> bool:
        """Whether somebody must drive though nobody waits: until it has joined, and when its time is kept closely."""
        if self.closed or self.error is not None or self.is_out:
            return False
        return not self.joined or (self._handling.is_short and bool(self.group))

    def is_overdue(self, now: int) -> bool:
        """Whether the caller has had its time, after all that it has settled was told."""
        return bool(self._leases) and self.joined and self._handling.is_over(now, self._leases)

    def give_back(self, now: int, *, leaves: bool) -> None:
        """The caller has had its time: an attempt counts for all that is still lent to us.

        Args:
            leaves: and take nothing more until come_back(): else what was given back might come to us again, and wait.
        """
        self.given_back_to = max(self._leases, default=self.given_back_to)
        self.give_up(now)
        if leaves and self.joined:
            self.sessions[0].send(Leave(id=1), now)
            self.joined, self.is_out = False, True
            self._leases.clear()
            self._claimed.clear()
            self._dirty.clear()
            self._waiting = self._waiting_bytes = 0
        self._grant_settled(now)

    def come_back(self, now: int) -> None:
        """The caller is there again, and wants more."""
        if self.is_out:
            self.is_out = False
            session = self.sessions[0]
            if session.is_ready:
                self._join(session, now)
