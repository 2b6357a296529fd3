"""Publishing (SPEC.md 8): lanes that collect messages into batches, and the engines that send them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientEngine, ClientSession, SessionReady
from patterns.wire.address import Address
from patterns.wire.attributes import pieces
from patterns.wire.codec import Encoded, encode
from patterns.wire.engine import Effect, Link, Open, PeerId, Send, Unreachable
from patterns.wire.errors import BadBody, Closed, TooLarge, ZbrokerError
from patterns.wire.frames import ECHO_PREFIX, MSGPACK, Frames, Message, columns_of, pack, pack_columns, parse
from patterns.wire.identity import publisher_of
from patterns.wire.limits import BATCH_BYTES_TARGET, BODY_BYTES_MAX, COLUMNS_BYTES_TARGET, CREDIT_BYTES, SUBSCRIBERS_MAX
from patterns.wire.messages import Audience, Codec, Columns, Echo, Hello, Publish, Ready, Resume, Role
from patterns.wire.names import channel_of, check_topic

_LANE_MESSAGES: Final = 128  # before a lane has seen how large its messages are
_LANE_MESSAGES_MAX: Final = 8_192  # of 8 bytes each they fill a batch
FIELDS: Final = 3  # a message in a lane is three items in one flat list: topic, body, headers
OUTBOX_BYTES_MAX: Final = (
    2 * CREDIT_BYTES
)  # batches that wait for the broker's credit; beyond, lanes keep theirs and publish() waits


class Lane:
    """The messages of one channel that have not left.

    One flat list, so that a message costs one `extend`, which no other thread can cut in two.

    Attributes:
        full: the length at which a batch of about 64 KiB is full.
        limit: at which publish() must not just append: `full`; 0 when one message fills a batch, and leaves in its own
            call, and as long as the broker has no room.
    """

    __slots__ = ("channel", "full", "items", "limit", "sequence")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.items: list[Any] = []
        self.full = self.limit = _LANE_MESSAGES * FIELDS
        self.sequence = 0

    def open(self) -> None:
        """Let messages in again."""
        self.limit = self.full if self.full > FIELDS else 0


class Lanes:
    """All lanes of a publisher, and the batches that come out of them."""

    def __init__(self, publisher: bytes, codec: Codec) -> None:
        self.publisher = publisher
        self._codec = codec
        self._by_channel: dict[int, Lane] = {}
        self.body_bytes_max = BODY_BYTES_MAX
        self.batches = 0  # made so far
        self._is_open = True
        self.errors: list[ZbrokerError] = []  # of bodies that could not be encoded; the next call raises them

    def lane(self, topic: str) -> Lane:
        """The lane that a topic goes to. Raises BadName."""
        channel = channel_of(check_topic(topic))
        found = self._by_channel.get(channel)
        if found is None:
            found = Lane(channel)
            if not self._is_open:
                found.limit = 0
            self._by_channel[channel] = found
        return found

    def admit(self, is_open: bool) -> None:
        """Let messages in, or have each publish() stop and wait for room first."""
        if is_open is not self._is_open:
            self._is_open = is_open
            for lane in list(self._by_channel.values()):
                if is_open:
                    lane.open()
                else:
                    lane.limit = 0

    @property
    def is_empty(self) -> bool:
        return not any(lane.items for lane in list(self._by_channel.values()))

    def held(self) -> list[str]:
        """The topics of the messages that are in no batch yet."""
        return [topic for lane in list(self._by_channel.values()) for topic in lane.items[::FIELDS]]

    def sequences(self) -> dict[str, int]:
        """The next sequence of each channel, for ECHO."""
        return {str(lane.channel): lane.sequence for lane in self._by_channel.values()}

    def drain_all(self) -> list[tuple[int, int, Frames]]:
        """Batches of all that has not left."""
        batches: list[tuple[int, int, Frames]] = []
        for lane in list(self._by_channel.values()):
            if lane.items:
                batches.extend(self.drain(lane))
        return batches

    def drain(self, lane: Lane) -> list[tuple[int, int, Frames]]:
        """Batches (messages, bytes that credit counts, frames) of what a lane holds now; other threads may go on filling it."""
        end = len(lane.items)
        items = lane.items[:end]
        del lane.items[:end]
        topics, bodies, headers = items[0::FIELDS], items[1::FIELDS], items[2::FIELDS]
        try:
            return self._batches(lane, topics, bodies, headers)
        except (BadBody, TooLarge):
            topics, bodies, headers = self._without_bad_ones(topics, bodies, headers)
            return self._batches(lane, topics, bodies, headers) if bodies else []

    def _batches(
        self, lane: Lane, topics: list[str], bodies: list[Any], headers: list[Any]
    ) -> list[tuple[int, int, Frames]]:
        """As few as payloads and columns allow; what is raised comes before the first of them has its sequence."""
        batches = []
        begin = 0
        for part in encode(self._codec, bodies, self.body_bytes_max):
            stop = begin + part.count
            same, packed = _columns(part, topics[begin:stop], headers[begin:stop])
            if len(packed) > COLUMNS_BYTES_TARGET and part.count > 1:
                for a, b in pieces(begin, stop, len(packed)):
                    batches += self._batches(lane, topics[a:b], bodies[a:b], headers[a:b])
            else:
                batches.append(self._batch(lane, part, topics[begin] if same else None, packed))
            begin = stop
        return batches

    def _batch(self, lane: Lane, part: Encoded, topic: str | None, packed: bytes) -> tuple[int, int, Frames]:
        header = Publish(
            publisher=self.publisher, sequence=lane.sequence, count=part.count, codec=self._codec, topic=topic
        )
        lane.sequence += part.count
        self.batches += 1
        size = len(packed) + len(part.payload)
        fitting = part.count * BATCH_BYTES_TARGET // max(size, 1)
        lane.full = FIELDS * min(max(fitting, 1), _LANE_MESSAGES_MAX)
        if self._is_open:
            lane.open()
        frames = pack(header, columns=packed, payload=part.payload, key=bytes((lane.channel,)))
        return part.count, size, frames

    def _without_bad_ones(self, *columns: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Leave out the bodies that cannot be encoded; remember why."""
        good: list[tuple[Any, Any, Any]] = []
        for topic, body, headers in zip(*columns, strict=True):
            try:
                encode(self._codec, [body], self.body_bytes_max)
            except (BadBody, TooLarge) as error:
                self.errors.append(type(error)(f"topic {topic!r}: {error.detail}"))
            else:
                good.append((topic, body, headers))
        kept = list(zip(*good, strict=True)) or [(), (), ()]
        return list(kept[0]), list(kept[1]), list(kept[2])


def _columns(part: Encoded, topics: list[str], headers: list[Any]) -> tuple[bool, bytes]:
    """Whether all have one topic, and the columns' frame; empty when no column is needed."""
    same = topics.count(topics[0]) == len(topics)
    columns = Columns()
    if not same:
        distinct = {topic: index for index, topic in enumerate(dict.fromkeys(topics))}
        columns.topics, columns.topic = list(distinct), [distinct[topic] for topic in topics]
    if any(headers):
        columns.headers = headers
    if part.sizes is not None:
        columns.sizes = part.sizes
    plain = same and columns.headers is msgspec.UNSET and part.sizes is None
    return same, b"" if plain else pack_columns(columns, MSGPACK)


class AudienceChanged(msgspec.Struct, gc=False):
    """So many subscribers are there now."""

    subscribers: int


class PublisherEngine(ClientEngine):
    """Publishes through a broker, as far as its credit goes."""

    def __init__(self, addresses: Sequence[Address], nonce: bytes, codec: Codec, jitter: Jitter) -> None:
        super().__init__(addresses, jitter)
        self.lanes = Lanes(publisher_of(nonce), codec)
        self._nonce = nonce
        self._codec = codec
        self.audience = 0

    def _hello(self, session: ClientSession) -> Hello:
        resume = Resume(session.ready.epoch) if session.ready else None
        return Hello(role=Role.PUBLISHER, nonce=self._nonce, codec=self._codec, resume=resume)

    def publish(self, batches: list[tuple[int, int, Frames]], now: int) -> None:
        """Send batches in order, each as soon as credit admits it."""
        session = self.sessions[0]
        for messages, size, frames in batches:
            session.post(messages, size, frames, now)

    @property
    def room(self) -> bool:
        """Whether publish() may go on without waiting."""
        return self.sessions[0].outbox_bytes < OUTBOX_BYTES_MAX

    @property
    def unsent(self) -> int:
        """Bytes of batches that wait for the broker."""
        return self.sessions[0].outbox_bytes

    @property
    def is_drained(self) -> bool:
        """Whether nothing waits for the broker, in lanes or in batches."""
        return self.lanes.is_empty and not self.sessions[0].outbox

    def held(self) -> tuple[int, str]:
        """How many messages wait for the broker, in lanes and in batches, and a topic of theirs; 0 and "": none."""
        outbox, topics = self.sessions[0].outbox, self.lanes.held()
        count = sum(messages for messages, _size, _frames in outbox) + len(topics)
        if outbox:
            topics = [_topic_of(parse(outbox[0][2]))]
        return count, topics[0] if topics else ""

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        self.lanes.body_bytes_max = ready.limits.body_bytes_max

    def on_lost(self, session: ClientSession, now: int) -> None:
        self.audience = 0

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Audience(subscribers=subscribers):
                self.audience = subscribers
                self.news.append(AudienceChanged(subscribers))
            case _:
                self.counters["unexpected"] += 1


def _topic_of(batch: Message) -> str:
    """The topic of the first message of a batch of ours."""
    assert isinstance(batch.header, Publish)
    if batch.header.topic is not None:
        return batch.header.topic
    columns = columns_of(batch, batch.header.count)
    assert columns.topics
    assert columns.topic
    return columns.topics[columns.topic[0]]


class PeerPublisherEngine:
    """Publishes on an XPUB of its own. Never waits: at a subscriber's high-water mark libzmq drops, and the gap shows."""

    def __init__(self, address: Address, nonce: bytes, codec: Codec) -> None:
        self.address = address
        self.lanes = Lanes(nonce, codec)
        self.wants: list[Effect] = []
        self.news: list[object] = []
        self._listeners: set[bytes] = set()
        self._audience_changed = False
        self._closed = False
        self.counters: Counter[str] = Counter()
        self.error: ZbrokerError | None = None

    def start(self, now: int) -> None:
        """Bind, or connect to a forwarder."""
        self.wants.append(Open(1, self.address.endpoint))
        self.news.append(SessionReady(False))

    def connected(self, link: Link, now: int) -> None:
        """Subscriptions tell more."""

    def disconnected(self, link: Link, now: int) -> None:
        """XPUB takes the subscriptions back by itself."""

    def unreachable(self, link: Link, now: int, why: Unreachable = Unreachable.NOBODY) -> None:
        """libzmq goes on trying."""

    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None:
        """A subscription: one byte on or off, then the prefix."""
        first = frames[0]
        on, prefix = first[:1] == b"\x01", first[1:]
        if not prefix.startswith(ECHO_PREFIX) or len(prefix) != len(ECHO_PREFIX) + 16:
            return
        nonce = prefix[len(ECHO_PREFIX) :]
        if on:
            if len(self._listeners) >= SUBSCRIBERS_MAX and nonce not in self._listeners:
                self.counters["subscribers_refused"] += (
                    1  # each costs memory, and anybody can say that he is a thousand
                )
                return
            self._listeners.add(nonce)
            echo = Echo(self.lanes.publisher, self.lanes.sequences())
            self.wants.append(Send(1, b"", pack(echo, key=nonce)))
        else:
            self._listeners.discard(nonce)
        self._audience_changed = True

    def publish(self, batches: list[tuple[int, int, Frames]], now: int) -> None:
        """Send batches in order."""
        self.wants.extend(Send(1, b"", frames) for _messages, _size, frames in batches)

    @property
    def is_drained(self) -> bool:
        return self.lanes.is_empty

    def held(self) -> tuple[int, str]:
        """As PublisherEngine.held(); only lanes hold any."""
        topics = self.lanes.held()
        return len(topics), topics[0] if topics else ""

    room = True
    unsent = 0

    @property
    def audience(self) -> int:
        return len(self._listeners)

    def events(self) -> list[object]:
        """A change of the audience is told once a turn, and ends none: a forwarder that comes back subscribes for thousands."""
        events, self.news = self.news, []
        if self._audience_changed:
            self._audience_changed = False
            events.append(AudienceChanged(len(self._listeners)))
        return events

    def effects(self) -> list[Effect]:
        effects, self.wants = self.wants, []
        return effects

    def next_timeout(self) -> int | None:
        return None

    def handle_timeout(self, now: int) -> None:
        """There is no timer."""

    def leave(self, now: int) -> None:
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def is_ready(self) -> bool:
        return not self._closed

    was_ready = True

    def unavailable(self) -> ZbrokerError:
        return Closed("this Publisher is closed")
