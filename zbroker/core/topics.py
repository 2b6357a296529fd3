"""Live publish-subscribe through the broker (SPEC.md 8): who hears a batch, what a slow subscriber loses, and its account."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from patterns.wire import codec
from patterns.wire.errors import (
    BadBody,
    CreditExceeded,
    Overloaded,
    RemoteProtocolError,
    TooLarge,
    Untranslatable,
    ZbrokerError,
)
from patterns.wire.frames import Form, Frames, Message, columns_of, pack, reform
from patterns.wire.identity import publisher_of
from patterns.wire.limits import (
    BATCH_MESSAGES_MAX,
    BODY_BYTES_MAX,
    CREDIT_BYTES,
    CREDIT_MESSAGES,
    INTEGER_MAX,
    MIB,
    REPLIES_UNREAD_CUT,
)
from patterns.wire.messages import (
    Audience,
    Codec,
    Columns,
    Hello,
    Overflow,
    Publish,
    Role,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from patterns.wire.names import channel_of, channels_of, check_pattern, check_topic
from patterns.wire.server import Session, Sessions
from patterns.wire.subscriptions import Subscriptions
from patterns.wire.words import counted
from zbroker.core.plain_subscribers import PlainSubscribers
from zbroker.core.subscribers import Subscriber, cost_of
from zbroker.core.translate import Translate, needed, translate

if TYPE_CHECKING:
    from zbroker.core.captures import Captures
    from zbroker.core.log import StreamLog

_TOPICS_CHECKED_MAX: Final = 65_536
_PUBLISHERS_REMEMBERED: Final = 4_096  # gone ones, whose next batch tells what was missed in between
PATTERNS_MAX: Final = 65_536  # of one session
PATTERN_BYTES_MAX: Final = 64 * MIB  # of one session; as many patterns as it may have, of four tokens and more
PATTERN_BYTES_ALL_MAX: Final = 256 * MIB  # a quarter of memory_bytes


class _Batch:
    """A batch on its way out, in as many writings as its subscribers need; each is made once."""

    __slots__ = ("columns", "header", "matched", "message", "topics", "translate", "views", "written")

    def __init__(self, message: Message, columns: Columns, topics: list[str], translate: Translate) -> None:
        assert isinstance(message.header, Publish)
        self.header = message.header
        self.message = message
        self.columns = columns
        self.topics = topics
        self.translate = translate
        self.matched: Counter[Subscriber] | None = None
        self.views: dict[Codec, tuple[bytes, Codec]] = {}
        self.written: dict[tuple[str, Codec], Frames] = {}

    def for_session(self, session: Session, counters: Counter[str]) -> Frames:
        """The frames as they came, or rewritten for a client of another form or codec."""
        used = self.header.codec
        wanted = session.codec if needed(used, session.codec) else used
        form = session.form
        if wanted is used and form is self.message.form:
            return self.message.frames
        frames = self.written.get((form.name, wanted))
        if frames is None:
            frames = self.written[(form.name, wanted)] = self._write(form, wanted, counters)
        return frames

    def _write(self, form: Form, wanted: Codec, counters: Counter[str]) -> Frames:
        message = self.message
        payload, used = self._view(wanted, counters)
        header = msgspec.structs.replace(self.header, codec=used)
        columns = reform(message.columns, message.form, form)
        return pack(header, columns=columns, payload=payload, key=message.key, form=form)

    def _view(self, wanted: Codec, counters: Counter[str]) -> tuple[bytes, Codec]:
        """The payload in a codec, translated once whatever the forms; as it came, labelled, when that cannot be."""
        used, payload = self.header.codec, self.message.payload
        if wanted is used:
            return payload, used
        view = self.views.get(wanted)
        if view is None:
            try:
                view = self.translate(bytes(payload), used, wanted), wanted
            except Untranslatable:
                counters["live_untranslated"] += 1
                view = payload, used
            self.views[wanted] = view
        return view

    def messages_for(self, subscriber: Subscriber, subscriptions: Subscriptions[Subscriber]) -> int:
        """How many of its messages this subscriber, who hears the batch, would have been handed."""
        index = self.columns.topic
        if isinstance(index, msgspec.UnsetType):
            return self.header.count
        if self.matched is None:
            self.matched = self._match(index, subscriptions)
        return self.matched[subscriber]

    def _match(self, index: list[int], subscriptions: Subscriptions[Subscriber]) -> Counter[Subscriber]:
        """Messages by subscriber, for all at once: a thousand slow ones ask about each batch."""
        by_answer: dict[int, tuple[int, tuple[Subscriber, ...]]] = {}
        for place, count in Counter(index).items():
            listeners = subscriptions.matching(self.topics[place])  # one tuple for all topics with the same listeners
            before = by_answer.get(id(listeners), (0, ()))[0]
            by_answer[id(listeners)] = before + count, listeners
        matched: Counter[Subscriber] = Counter()
        for count, listeners in by_answer.values():
            for subscriber in listeners:
                matched[subscriber] += count
        return matched


class Topics:
    """All live publishing of a broker.

    Args:
        sessions: where frames leave.
        plain: those who listen without a session.
        translate: how a batch gets into another codec.
    """

    def __init__(self, sessions: Sessions, plain: PlainSubscribers, translate: Translate = translate) -> None:
        self._translate = translate
        self._sessions = sessions
        self._plain = plain
        self._subscribers: dict[Session, Subscriber] = {}
        self._subscriptions: Subscriptions[Subscriber] = Subscriptions()
        self._pattern_bytes = 0  # of all sessions
        self._names: dict[Session, bytes] = {}  # what publishers have in `publisher`
        self._publishers: dict[Session, int] = {}  # and the audience that each was told last
        self._sequences: dict[bytes, dict[int, int]] = {}  # by publisher, by channel: the next message's
        self._open_starts: set[bytes] = set()  # publishers that began elsewhere: any first sequence will do
        self._gone: dict[bytes, None] = {}
        self._channels_checked: dict[str, int] = {}
        self._listening: dict[int | None, Counter[Subscriber]] = {}  # by channel, None: all; values count patterns
        self._audience = 0
        self._audience_changed = False
        self._in_debt: set[Subscriber] = set()
        self._too_slow: dict[Subscriber, None] = {}  # sessions that end with this turn
        self.counters: Counter[str] = Counter()
        self.captures: Captures | None = None  # of a broker with streams

    # -- sessions ------------------------------------------------------------------------------------------------

    def admit(self, session: Session, hello: Hello) -> None:
        """A publisher's or subscriber's HELLO was accepted."""
        if session.role is Role.SUBSCRIBER:
            self._subscribers[session] = Subscriber(session, hello.overflow)
        if session.role is not Role.PUBLISHER:
            return
        self._publishers[session] = -1
        self._audience_changed = True
        name = self._names[session] = publisher_of(session.nonce)
        self._gone.pop(name, None)
        if name not in self._sequences:
            self._sequences[name] = {}
            if hello.resume is not None:
                self._open_starts.add(name)

    def ended(self, session: Session) -> None:
        """A session is over: its subscriptions with it; a publisher's sequences stay for a while."""
        subscriber = self._subscribers.pop(session, None)
        if subscriber is not None:
            for pattern in subscriber.patterns.values():
                self._stop_hearing(subscriber, pattern)
            self._in_debt.discard(subscriber)
            self._too_slow.pop(subscriber, None)
            self._count_audience(subscriber, was_heard=bool(subscriber.patterns), is_heard=False)
        if self._publishers.pop(session, None) is not None:
            if self.captures is not None:
                self.captures.ended(session)
            self._gone[self._names.pop(session)] = None
            if len(self._gone) > _PUBLISHERS_REMEMBERED:
                oldest = next(iter(self._gone))
                del self._gone[oldest]
                self._sequences.pop(oldest, None)
                self._open_starts.discard(oldest)

    def _count_audience(self, subscriber: Subscriber, *, was_heard: bool, is_heard: bool) -> None:
        if was_heard is not is_heard:
            self._audience += 1 if is_heard else -1
            self._audience_changed = True

    # -- subscribers ---------------------------------------------------------------------------------------------

    def subscribe(self, session: Session, message: Message, now: int) -> None:
        """SUBSCRIBE: a pattern under the subscriber's own id."""
        header = message.header
        assert isinstance(header, Subscribe)
        subscriber = self._subscribers[session]
        try:
            check_pattern(header.pattern)
            if header.id in subscriber.patterns:
                raise RemoteProtocolError(f"subscription id {header.id} is in use")
            if len(subscriber.patterns) >= PATTERNS_MAX:
                raise TooLarge(f"{PATTERNS_MAX} patterns are the most that one session may hold; use wildcards")
            cost = cost_of(header.pattern)
            self._check_cost(subscriber, cost)
        except ZbrokerError as error:
            self._sessions.refuse(session, error, "subscription", header.id)
            return
        self._count_audience(subscriber, was_heard=bool(subscriber.patterns), is_heard=True)
        subscriber.patterns[header.id] = header.pattern
        subscriber.pattern_bytes += cost
        self._pattern_bytes += cost
        self._listening.setdefault(channels_of(header.pattern), Counter())[subscriber] += 1
        self._subscriptions.add(header.pattern, subscriber)
        self._sessions.answer(session, Subscribed(header.id))

    def _check_cost(self, subscriber: Subscriber, cost: int) -> None:
        """Raises TooLarge, Overloaded."""
        held = subscriber.pattern_bytes
        if held + cost > PATTERN_BYTES_MAX:
            raise TooLarge(
                f"{counted(len(subscriber.patterns), 'pattern')} of this session cost {held} bytes and this one {cost} more, at"
                f" most {PATTERN_BYTES_MAX}; each costs its length, 256, and 128 for each token; use wildcards"
            )
        if self._pattern_bytes + cost > PATTERN_BYTES_ALL_MAX:
            raise Overloaded(
                f"the patterns of all sessions cost {self._pattern_bytes} bytes, at most {PATTERN_BYTES_ALL_MAX}; use"
                " fewer patterns with wildcards"
            )

    def unsubscribe(self, session: Session, message: Message, now: int) -> None:
        """UNSUBSCRIBE: an unknown id changes nothing."""
        header = message.header
        assert isinstance(header, Unsubscribe)
        subscriber = self._subscribers[session]
        pattern = subscriber.patterns.pop(header.id, None)
        if pattern is not None:
            self._stop_hearing(subscriber, pattern)
            self._count_audience(subscriber, was_heard=True, is_heard=bool(subscriber.patterns))

    def _stop_hearing(self, subscriber: Subscriber, pattern: str) -> None:
        self._subscriptions.remove(pattern, subscriber)
        cost = cost_of(pattern)
        subscriber.pattern_bytes -= cost
        self._pattern_bytes -= cost
        channel = channels_of(pattern)
        listening = self._listening[channel]
        listening[subscriber] -= 1
        if not listening[subscriber]:
            del listening[subscriber]

    # -- publishers ----------------------------------------------------------------------------------------------

    def publish(self, session: Session, message: Message, now: int) -> None:
        """PUBLISH: check at the door, then to everybody with a matching pattern."""
        header = message.header
        assert isinstance(header, Publish)
        into = session.into
        if not into.is_open:
            raise CreditExceeded(f"batch beyond the credit of {into.messages_max} messages and {into.bytes_max} bytes")
        into.spend(min(header.count, BATCH_MESSAGES_MAX), message.size)
        captures = self.captures
        if captures is None or not captures.patterns:  # asked for each batch: a call less
            captures = None
            self._sessions.regrant(session, CREDIT_MESSAGES, CREDIT_BYTES)
        else:
            self._sessions.regrant(session, *captures.window(session))
        if header.publisher != self._names[session]:
            raise RemoteProtocolError("`publisher` is not what the nonce of this session makes it (SPEC.md 8)")
        columns = columns_of(message, header.count)
        sizes = columns.sizes
        if header.codec is Codec.JSON:
            message.payload = bytes(message.payload)  # its door looks at text; of other codecs a view will do
        codec.check(header.codec, message.payload, header.count, None if sizes is msgspec.UNSET else sizes)
        if len(message.payload) > BODY_BYTES_MAX + 2 and header.count == 1:
            raise TooLarge(f"body of {len(message.payload)} bytes, at most {BODY_BYTES_MAX}")
        channel = message.key[0]
        topics = self._topics_of(header, columns, channel)
        self._note_sequence(header, channel)
        self.counters["published"] += header.count
        self._fan_out(_Batch(message, columns, topics, self._translate))
        if captures is not None:
            captures.take(session, message, columns, topics, now)

    def _topics_of(self, header: Publish, columns: Columns, channel: int) -> list[str]:
        """The batch's distinct topics, all valid and of its channel."""
        if not isinstance(columns.topics, msgspec.UnsetType):
            topics = columns.topics
        elif header.topic is not None:
            topics = [header.topic]
        else:
            raise BadBody("a batch names its topics in the header or in a column")
        checked = self._channels_checked
        for topic in topics:
            found = checked.get(topic)
            if found is None:
                found = self._check_topic(topic)
            if found != channel:
                raise RemoteProtocolError(f"topic {topic!r} is of channel {found}, frame 1 says {channel}")
        return topics

    def _check_topic(self, topic: str) -> int:
        channel = channel_of(check_topic(topic))
        if len(self._channels_checked) >= _TOPICS_CHECKED_MAX:
            self._channels_checked.clear()
        self._channels_checked[topic] = channel
        return channel

    def _note_sequence(self, header: Publish, channel: int) -> None:
        """What is missing in front of this batch was lost before it reached us; everyone on the channel hears of it."""
        sequences = self._sequences[header.publisher]
        expected = sequences.get(channel)
        if expected is None:
            expected = header.sequence if header.publisher in self._open_starts else 0
        gap = header.sequence - expected
        if gap < 0:
            raise RemoteProtocolError(f"sequence {header.sequence} on channel {channel}, {expected} expected")
        sequences[channel] = header.sequence + header.count
        if gap:
            self.counters["upstream_gaps"] += 1
            for subscriber in {**self._listening.get(channel, {}), **self._listening.get(None, {})}:
                subscriber.upstream = min(subscriber.upstream + gap, INTEGER_MAX)
                subscriber.owes_account = True
                self._in_debt.add(subscriber)

    def forward(
        self, message: Message, columns: Columns, topics: list[str], now: int, origin: StreamLog | None = None
    ) -> None:
        """A batch that was checked elsewhere, to everybody with a matching pattern. `origin`: the stream that it is stored in."""
        self._fan_out(_Batch(message, columns, topics, self._translate))
        if self.captures:
            self.captures.take(None, message, columns, topics, now, origin)

    def is_heard(self) -> bool:
        """Whether anybody listens to anything, or any stream does."""
        return bool(self._audience or self._plain or self.captures)

    def _fan_out(self, batch: _Batch) -> None:
        if self._plain:
            self._plain.offer(batch.header, batch.columns, batch.topics, batch.message.payload)
        matching = self._subscriptions.matching
        topics = batch.topics
        listeners = matching(topics[0])
        if len(topics) > 1:
            others = {found for topic in topics if (found := matching(topic)) is not listeners}
            if others:
                listeners = tuple(dict.fromkeys((*listeners, *(one for found in others for one in found))))
        for subscriber in listeners:
            self._deliver(batch, subscriber)

    def _deliver(self, batch: _Batch, subscriber: Subscriber) -> None:
        if subscriber.owes_account:
            self._account(subscriber)
        session = subscriber.session
        if subscriber.is_full and subscriber.overflow is not Overflow.DROP_OLDEST:
            self._overflow(batch, subscriber)
            return
        frames = batch.for_session(session, self.counters)
        size = sum(map(len, frames[2:]))
        if not (subscriber.counts_what_waits and session.must_wait):
            self._sessions.post(session, batch.header.count, size, frames)
            return
        session.hold((batch.header.count, size, frames, batch.messages_for(subscriber, self._subscriptions)))
        if subscriber.overflow is Overflow.DROP_OLDEST and subscriber.is_full:
            self.counters["live_dropped"] += subscriber.drop_oldest()

    def _overflow(self, batch: _Batch, subscriber: Subscriber) -> None:
        """No room for the newest: it is dropped, and at the end of the turn so is the subscriber, if it wants that."""
        messages = batch.messages_for(subscriber, self._subscriptions)
        self.counters["live_dropped"] += messages
        subscriber.lost += messages
        self._account(subscriber)
        if subscriber.overflow is Overflow.DISCONNECT:
            self._too_slow[subscriber] = None

    # -- accounts and audience -----------------------------------------------------------------------------------

    def _account(self, subscriber: Subscriber) -> None:
        self._in_debt.discard(subscriber)
        subscriber.account(self._sessions)

    def turn(self, now: int) -> None:
        """Once a turn: the end of who is too slow, accounts that no batch took along, and a changed audience."""
        for subscriber in list(self._too_slow):
            self.counters["live_dropped"] += subscriber.disconnect(self._sessions, now)
        for subscriber in list(self._in_debt):
            self._account(subscriber)
        if not self._audience_changed:
            return
        self._audience_changed = False
        for session, told in self._publishers.items():
            if told != self._audience and session.unread < REPLIES_UNREAD_CUT:
                self._publishers[session] = self._audience
                self._sessions.answer(session, Audience(self._audience))

    def status(self, rows_max: int) -> dict[str, int]:
        """Sessions by pattern, at most `rows_max` patterns."""
        found: Counter[str] = Counter()
        for subscriber in self._subscribers.values():
            found.update(set(subscriber.patterns.values()))
        return dict(found.most_common(rows_max))
