"""Plain ZeroMQ publishers (SPEC.md 8.1): what comes at an XSUB is checked, collected for a turn, and published in the broker's own name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from patterns.wire import codec
from patterns.wire.engine import PeerId
from patterns.wire.errors import BadBody, BadName
from patterns.wire.frames import MSGPACK, Frames, Message, pack, pack_columns
from patterns.wire.limits import BATCH_BYTES_TARGET, BATCH_MESSAGES_MAX, BODY_BYTES_MAX
from patterns.wire.messages import Codec, Columns, Publish
from patterns.wire.names import channel_of, check_topic
from zbroker.core.events import Event, PlainDropped
from zbroker.core.topics import Topics

_TOPICS_KNOWN: Final = 65_536
_WANTED: Final = {
    "shape": "two frames, topic and body",
    "topic": "a dotted topic in UTF-8 without spaces or wildcards",
    "size": f"a body of at most {BODY_BYTES_MAX} bytes",
    "body": "a body in the codec that plain_codec names",
}


class _Lane:
    """The messages of one channel that came in this turn, and the number of the next one."""

    __slots__ = ("bodies", "channel", "sequence", "size", "topics")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.sequence = 0
        self.topics: list[str] = []
        self.bodies: list[bytes] = []
        self.size = 0


class PlainPublishers:
    """All that publish at the XSUB. They have no session and no sequence, so the broker is their publisher.

    Args:
        topics: where batches go.
        nonce: names the broker as a publisher; another one in each life, since its sequences begin anew.
        label: the codec that their bodies are said to be in; json and msgpack are checked.
        tell: takes what people should hear of.
    """

    def __init__(self, topics: Topics, nonce: bytes, label: Codec, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._topics = topics
        self._nonce = nonce
        self._label = label
        self._peers: set[PeerId] = set()
        self._lanes: dict[int, _Lane] = {}
        self._filled: dict[_Lane, None] = {}
        self._known: dict[bytes, tuple[str, _Lane]] = {}
        self.counters: Counter[str] = Counter()

    def connected(self, peer: PeerId) -> None:
        """A connection has come."""
        self._peers.add(peer)

    def disconnected(self, peer: PeerId) -> None:
        """A connection has gone."""
        self._peers.discard(peer)

    def receive(self, frames: Frames, now: int) -> None:
        """A message: `[topic, body]`. What is anything else is counted by kind and dropped; there is nobody to tell."""
        match frames:
            case [topic, body]:
                pass
            case _:
                self._drop("shape")
                return
        known = self._known.get(topic) or self._learned(topic)
        if known is None:
            self._drop("topic")
        elif len(body) > BODY_BYTES_MAX:
            self._drop("size")
        elif not self._is_as_labelled(body):
            self._drop("body")
        else:
            self._take(*known, body, now)

    def _drop(self, fault: str) -> None:
        """Count it; tell people at 1, 2, 4, 8, .. of a kind, since its publisher hears nothing."""
        self.counters[f"plain_dropped.{fault}"] += 1
        count = self.counters[f"plain_dropped.{fault}"]
        if count & (count - 1) == 0:
            self._tell(PlainDropped(fault, count, _WANTED[fault]))

    def _learned(self, topic: bytes) -> tuple[str, _Lane] | None:
        """The topic as text and its channel's lane; None if it cannot be one of ours."""
        try:
            text = check_topic(topic.decode())
        except (UnicodeDecodeError, BadName):
            return None
        channel = channel_of(text)
        lane = self._lanes.get(channel)
        if lane is None:
            lane = self._lanes[channel] = _Lane(channel)
        if len(self._known) >= _TOPICS_KNOWN:
            self._known.clear()
        self._known[topic] = text, lane
        return text, lane

    def _is_as_labelled(self, body: bytes) -> bool:
        """One by one: two broken bodies may make a whole array when they are put together."""
        if self._label is Codec.RAW:
            return True
        payload = b"\x91" + body if self._label is Codec.MSGPACK else b"[" + body + b"]"
        try:
            codec.check(self._label, payload, 1, None)
        except BadBody:
            return False
        return True

    def _take(self, topic: str, lane: _Lane, body: bytes, now: int) -> None:
        if lane.bodies and (lane.size + len(body) > BATCH_BYTES_TARGET or len(lane.bodies) == BATCH_MESSAGES_MAX):
            self._publish(lane, now)
        lane.topics.append(topic)
        lane.bodies.append(body)
        lane.size += len(body)
        self._filled[lane] = None

    def turn(self, now: int) -> None:
        """Once a turn: what came in it leaves, a batch for each channel."""
        if self._filled:
            filled, self._filled = self._filled, {}
            for lane in filled:
                if lane.bodies:
                    self._publish(lane, now)

    def _publish(self, lane: _Lane, now: int) -> None:
        topics, bodies, label = lane.topics, lane.bodies, self._label
        count = len(bodies)
        distinct = {topic: place for place, topic in enumerate(dict.fromkeys(topics))}
        columns = Columns()
        if len(distinct) > 1:
            columns.topics, columns.topic = list(distinct), [distinct[topic] for topic in topics]
        if label is Codec.RAW and count > 1:
            columns.sizes = list(map(len, bodies))
        header = Publish(
            publisher=self._nonce,
            sequence=lane.sequence,
            count=count,
            codec=label,
            topic=topics[0] if len(distinct) == 1 else None,
        )
        lane.sequence += count
        lane.topics, lane.bodies, lane.size = [], [], 0
        packed = pack_columns(columns, MSGPACK) if count > 1 else b""
        payload = codec.join(label, bodies)
        key = bytes((lane.channel,))
        frames = pack(header, columns=packed, payload=payload, key=key)
        self.counters["plain_published"] += count
        size = len(packed) + len(payload)
        message = Message(b"P", key, header, packed, payload, MSGPACK, size, frames)
        self._topics.forward(message, columns, list(distinct), now)

    def status(self) -> dict[str, int]:
        """Connections."""
        return {"publishers": len(self._peers)}
