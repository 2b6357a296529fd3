"""Subscribing (SPEC.md 8): what is received is in order, filtered exactly, and accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientEngine, ClientSession, advice_on, error_of
from patterns.wire.address import Address
from patterns.wire.engine import Close, Effect, Link, Listen, Open, PeerId, Unreachable
from patterns.wire.errors import BadBody, ProtocolError, TooLarge, Unavailable, ZbrokerError
from patterns.wire.frames import ECHO_PREFIX, PUBLISH_PREFIX, Frames, Message, columns_of, parse
from patterns.wire.limits import CHANNELS, REPLIES_UNREAD_MAX
from patterns.wire.messages import (
    Codec,
    Columns,
    Echo,
    ErrorHeader,
    Hello,
    Lost,
    Overflow,
    Publish,
    Ready,
    Resume,
    Role,
    Subscribe,
    Subscribed,
)
from patterns.wire.names import channel_of, channels_of, check_pattern, matcher

_MESSAGES_WINDOW: Final = 262_144
_SEQUENCES_REMEMBERED: Final = 262_144  # 4,096 publishers on all 64 channels
_SUBSCRIBES_UNDER_WAY: Final = (
    REPLIES_UNREAD_MAX  # a broker withholds the answers to who asks for many times more at once
)
_BYTES_WINDOW: Final = 4 * 1024 * 1024  # 64 batches in flight keep two busy processes apart


class Received(msgspec.Struct, gc=False):
    """A batch of which at least one message is wanted.

    Attributes:
        wanted: which messages, by index; None: all.
        topics: one for each message; None: all have `topic`.
    """

    publisher: bytes
    sequence: int
    count: int
    codec: Codec
    payload: bytes
    sizes: list[int] | None
    topic: str
    topics: list[str] | None
    headers: list[dict[str, str] | None] | None
    wanted: list[int] | None


class Loss:
    """What a subscriber knows to have missed."""

    def __init__(self) -> None:
        self.dropped = 0  # by the broker, for this subscriber, over all sessions
        self.upstream = 0  # gaps in what publishers sent
        self.interruptions = 0  # breaks of unknown size
        self._session = (0, 0)
        self._next: dict[tuple[bytes, int], int] = {}

    @property
    def lost(self) -> int:
        return self.dropped + self.upstream

    def reported(self, messages: int, upstream: int) -> None:
        """A LOST of this session: absolute totals, which never fall."""
        before_messages, before_upstream = self._session
        self._session = max(messages, before_messages), max(upstream, before_upstream)
        self.dropped += self._session[0] - before_messages
        self.upstream += self._session[1] - before_upstream

    def session_began(self) -> None:
        """Totals count from zero again."""
        self._session = (0, 0)

    def saw(self, publisher: bytes, channel: int, sequence: int, count: int) -> None:
        """A batch of a direct publisher; a jump in its sequence is a loss."""
        key = (publisher, channel)
        expected = self._next.get(key)
        if expected is not None and sequence > expected:
            self.upstream += sequence - expected
        self._next[key] = max(expected or 0, sequence + count)  # over two forwarders the same batch comes twice
        if len(self._next) > _SEQUENCES_REMEMBERED:  # a peer that invents publishers shall not fill our memory
            del self._next[next(iter(self._next))]

    def told(self, publisher: bytes, channel: int, following: int) -> None:
        """An ECHO says which sequence comes next."""
        self.saw(publisher, channel, following, 0)

    def forget(self, publisher: bytes) -> None:
        """A publisher is gone for good: one break of unknown size."""
        self.interruptions += 1
        for key in [key for key in self._next if key[0] == publisher]:
            del self._next[key]


def _wanted(columns: Columns, topics: list[str], matches: Callable[[str], bool]) -> list[int] | None:
    """Indexes of the messages that a subscriber asked for; None when that is all of them."""
    kept = [matches(topic) for topic in topics]
    if all(kept):
        return None
    assert not isinstance(columns.topic, msgspec.UnsetType)
    return [index for index, place in enumerate(columns.topic) if kept[place]]


def received(message: Message, header: Publish, matches: Callable[[str], bool]) -> Received | None:
    """The batch in a PUBLISH, checked; None when none of it is wanted. Raises ProtocolError, BadBody, TooLarge."""
    columns = columns_of(message, header.count)
    sizes = None if isinstance(columns.sizes, msgspec.UnsetType) else columns.sizes
    headers = None if isinstance(columns.headers, msgspec.UnsetType) else columns.headers
    topics: list[str] | None = None
    wanted: list[int] | None = None
    channel = message.key[0]
    if header.topic is not None:
        if not matches(header.topic):
            return None
        if channel_of(header.topic) != channel:
            raise ProtocolError(f"topic {header.topic!r} is not of channel {channel}")
    elif isinstance(columns.topics, msgspec.UnsetType) or isinstance(columns.topic, msgspec.UnsetType):
        raise ProtocolError("a PUBLISH without topics")
    else:
        wanted = _wanted(columns, columns.topics, matches)
        if wanted == []:
            return None
        distinct = columns.topics
        if any(channel_of(topic) != channel for topic in distinct):
            raise ProtocolError(f"a topic of the batch is not of channel {channel}")  # its sequences would be another's
        topics = [distinct[place] for place in columns.topic]
    return Received(
        header.publisher, header.sequence, header.count, header.codec, message.payload, sizes,
        header.topic or "", topics, headers, wanted,
    )  # fmt: skip


class SubscriberEngine(ClientEngine):
    """Subscribes through a broker."""

    def __init__(
        self,
        addresses: Sequence[Address],
        patterns: Sequence[str],
        nonce: bytes,
        codec: Codec,
        jitter: Jitter,
        overflow: Overflow = Overflow.DROP_NEWEST,
    ) -> None:
        super().__init__(addresses, jitter)
        self._patterns = [check_pattern(pattern) for pattern in patterns]
        self._matches = matcher(self._patterns)
        self._nonce = nonce
        self._codec = codec
        self._overflow = overflow
        self._asked = 0  # patterns, from the first on, that were asked for in this session
        self._confirmed: set[int] = set()
        self._epoch = 0
        self.loss = Loss()

    def _hello(self, session: ClientSession) -> Hello:
        return Hello(
            role=Role.SUBSCRIBER,
            nonce=self._nonce,
            codec=self._codec,
            credit_messages=_MESSAGES_WINDOW,
            credit_bytes=_BYTES_WINDOW,
            resume=Resume(session.ready.epoch) if session.ready else None,
            overflow=self._overflow,
        )

    @property
    def is_listening(self) -> bool:
        """Whether every pattern is registered."""
        return self.is_ready and len(self._confirmed) == len(self._patterns)

    @property
    def missing(self) -> str:
        return ", ".join(map(str, self.addresses))

    def unavailable(self) -> ZbrokerError:
        if not self.is_ready or self.error is not None:
            return super().unavailable()
        return Unavailable(
            f"{self.missing} has confirmed {len(self._confirmed)} of {len(self._patterns)} patterns so far; wait longer"
        )

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        if self._epoch:
            self.loss.interruptions += 1  # whatever was published between the two sessions
        self._epoch = ready.epoch
        self.loss.session_began()
        self._confirmed.clear()
        self._asked = 0
        self._ask(session, now)

    def _ask(self, session: ClientSession, now: int) -> None:
        """SUBSCRIBE for the next patterns, as far as the answers to those before have come."""
        while self._asked < min(len(self._patterns), len(self._confirmed) + _SUBSCRIBES_UNDER_WAY):
            self._asked += 1
            session.send(Subscribe(self._asked, self._patterns[self._asked - 1]), now)

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Publish() as header:
                self._published(session, header, message)
            case Subscribed(id=number):
                self._confirmed.add(number)
                self._ask(session, now)
            case Lost(messages=messages, upstream=upstream):
                self.loss.reported(messages, upstream)
            case ErrorHeader(scope="subscription") as header:
                self.error = error_of(header)
            case _:
                self.counters["unexpected"] += 1

    def _published(self, session: ClientSession, header: Publish, message: Message) -> None:
        session.into.spend(header.count, message.size)
        try:
            batch = received(message, header, self._matches)
        except (ProtocolError, BadBody, TooLarge):
            self.counters["malformed"] += 1
            return
        if batch is not None:
            self.news.append(batch)

    def taken(self, now: int) -> None:
        """The caller has taken what was received: grant as much again, half a window at a time."""
        session = self.sessions[0]
        into = session.into
        if session.is_ready and (
            into.messages_left < _MESSAGES_WINDOW // 2 or into.bytes_max - into.bytes_used < _BYTES_WINDOW // 2
        ):
            session.grant(into.messages_used + _MESSAGES_WINDOW, into.bytes_used + _BYTES_WINDOW, now)


class PeerSubscriberEngine:
    """Subscribes to publishers directly, or through libzmq's forwarders: one SUB for each address."""

    def __init__(self, addresses: Sequence[Address], patterns: Sequence[str], nonce: bytes) -> None:
        self.addresses = tuple(addresses)
        self._matches = matcher([check_pattern(pattern) for pattern in patterns])
        channels = {channels_of(pattern) for pattern in patterns}
        everything = None in channels
        self._channels = list(range(CHANNELS)) if everything else sorted(c for c in channels if c is not None)
        self._prefixes = [PUBLISH_PREFIX] if everything else [PUBLISH_PREFIX + bytes((c,)) for c in self._channels]
        self._nonce = nonce
        self.wants: list[Effect] = []
        self.news: list[Any] = []
        self._heard: dict[Link, set[bytes]] = {}  # link -> publishers that echoed
        self._doubtful: dict[Link, set[bytes]] = {}  # link -> publishers that a break made doubtful
        self._details: dict[Link, str] = {}  # link -> why it has no connection
        self._closed = False
        self.was_ready = False
        self.loss = Loss()
        self.counters: Counter[str] = Counter()
        self.error: ZbrokerError | None = None

    def start(self, now: int) -> None:
        """Connect and subscribe; the ECHO's own prefix last, since XPUB takes them in order."""
        for link, address in enumerate(self.addresses, start=1):
            self._heard[link] = set()
            self.wants.append(Open(link, address.endpoint))
            self.wants.extend(Listen(link, prefix) for prefix in self._prefixes)
            self.wants.append(Listen(link, ECHO_PREFIX + self._nonce))

    @property
    def is_listening(self) -> bool:
        """Whether each address has echoed."""
        return all(self._heard.values())

    is_ready = is_listening

    @property
    def missing(self) -> str:
        return ", ".join(str(self.addresses[link - 1]) for link, heard in self._heard.items() if not heard)

    def connected(self, link: Link, now: int) -> None:
        """The ECHO tells more."""
        self._details.pop(link, None)

    def disconnected(self, link: Link, now: int) -> None:
        """libzmq connects and subscribes again; the next ECHO tells what was missed."""
        heard = self._heard.get(link)
        if heard:
            self._doubtful.setdefault(link, set()).update(heard)
            heard.clear()

    def unreachable(self, link: Link, now: int, why: Unreachable = Unreachable.NOBODY) -> None:
        """libzmq goes on trying."""
        address = self.addresses[link - 1]
        hint = f"; if that is a broker, write {address.of_a_broker}" if why is Unreachable.STRANGER else ""
        self._details[link] = why.value.format(place=address) + hint

    def receive(self, link: Link, peer: PeerId, frames: Frames, now: int) -> None:
        try:
            message = parse(frames)
            header = message.header
            if isinstance(header, Publish):
                self._published(message, header)
            elif isinstance(header, Echo):
                self._echoed(link, header)
            else:
                self.counters["unexpected"] += 1
        except (ProtocolError, BadBody, TooLarge, ZbrokerError):
            self.counters["malformed"] += 1

    def _published(self, message: Message, header: Publish) -> None:
        batch = received(message, header, self._matches)
        self.loss.saw(header.publisher, message.key[0], header.sequence, header.count)
        if batch is not None:
            self.news.append(batch)

    def _echoed(self, link: Link, echo: Echo) -> None:
        doubtful = self._doubtful.pop(link, set())
        doubtful.discard(echo.publisher)
        for publisher in sorted(doubtful):
            self.loss.forget(publisher)
        for channel in self._channels:
            self.loss.told(echo.publisher, channel, echo.sequences.get(str(channel), 0))
        self._heard[link].add(echo.publisher)
        self.was_ready = True

    def taken(self, now: int) -> None:
        """Nothing to grant: libzmq's high-water marks bound this link."""

    def events(self) -> list[Any]:
        events, self.news = self.news, []
        return events

    def effects(self) -> list[Effect]:
        effects, self.wants = self.wants, []
        return effects

    def next_timeout(self) -> int | None:
        return None

    def handle_timeout(self, now: int) -> None:
        """There is no timer."""

    def leave(self, now: int) -> None:
        if not self._closed:
            self.wants.extend(Close(link) for link in self._heard)
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed

    def unavailable(self) -> ZbrokerError:
        details = "".join(f": {detail}" for link, detail in self._details.items() if not self._heard[link])
        return Unavailable(f"no publisher answers at {self.missing}{details}; {advice_on(details)}")
