"""Topics and streams (SPEC.md 8.2) beside the engine: what is stored because its topic is wanted, what is told because it is stored.

A message is known by its uid, the first field of its body. Who sends one says so here before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from patterns.wire import codec
from patterns.wire.frames import MSGPACK, Frames, Message, columns_of, parse
from patterns.wire.messages import Columns, Publish
from patterns.wire.records import Record, RecordKind
from tests.simulation.violation import require
from zbroker.core import captures
from zbroker.core.log import StreamLog
from zbroker.core.tail import stored_of

if TYPE_CHECKING:
    from tests.simulation.broker import BrokerProcess
    from tests.simulation.world import World

TOPICS = ("orders.eu", "orders.us", "stock")
UNPACED_BYTES_MAX = captures.UNPACED_BYTES_MAX


class Sent(NamedTuple):
    """A message with a topic, and whose it is: name and life, and its number among these. `stream`: where it is to be stored first."""

    sender: tuple[str, int]
    number: int
    topic: str
    stream: str = ""


def matches(pattern: str, topic: str) -> bool:
    """SPEC.md 4, word for word."""
    wanted, tokens = pattern.split("."), topic.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > place
        if place >= len(tokens) or token not in ("*", tokens[place]):
            return False
    return len(wanted) == len(tokens)


class Live:
    """All of a run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sent: dict[str, Sent] = {}
        self._records: dict[str, int] = {}  # uid -> index of the record of its producer
        self._captured: set[tuple[int, str]] = set()  # stream id and uid
        self.begin()

    def begin(self) -> None:
        """A life of the broker: what was to be stored is, or never will be."""
        self._due: dict[int, deque[str]] = {}  # by stream id: what its topics name, in the order in which it came
        self._dropped = 0  # of these

    # -- what is to be stored -----------------------------------------------------------------------------------------

    def watch(self, broker: BrokerProcess) -> None:
        """Hear of what is published because it is stored."""
        relays = broker.streams._intake.relays
        forward = relays._forward
        assert forward is not None

        def watched(message: Message, columns: Columns, topics: list[str], now: int, origin: StreamLog) -> None:
            assert forward is not None
            told = _messages(message, columns)
            self._check_durable(told)
            before = self._counts(broker)
            forward(message, columns, topics, now, origin)
            self._expect(broker, told, origin, before)

        relays._forward = watched

    def received(self, broker: BrokerProcess, peer: bytes, frames: Frames, now: int) -> None:
        """A PUBLISH goes to the engine, which may refuse it."""
        assert broker.engine is not None
        counters = broker.engine._topics.counters
        published, before = counters["published"], self._counts(broker)
        broker.receive(peer, frames, now)
        if counters["published"] > published:
            message = parse(frames)
            assert isinstance(message.header, Publish)
            self._expect(broker, _messages(message, columns_of(message, message.header.count)), None, before)

    @staticmethod
    def _counts(broker: BrokerProcess) -> tuple[int, int]:
        assert broker.engine is not None
        counters = broker.engine._sessions.counters
        return counters["captured"], counters["capture_dropped"]

    def _expect(
        self,
        broker: BrokerProcess,
        told: Sequence[tuple[str, str]],
        origin: StreamLog | None,
        before: tuple[int, int],
    ) -> None:
        """Each stream stores what its topics name, in order, or counts it as dropped, for a reason."""
        after = self._counts(broker)
        wanted = 0
        reasons = [broker.streams._intake.full, broker.streams._recorder.failed]
        for log in broker.streams._catalog.by_id.values():
            if not log.config.topics or log is origin:
                continue
            some = [uid for uid, topic in told if any(matches(one, topic) for one in log.config.topics)]
            self._due.setdefault(log.id, deque()).extend(some)
            wanted += len(some)
            is_bounded = log.config.retention == "work" and (log.config.bytes_max or log.config.messages_max)
            reasons.append(bool(some and (log.config.quota_bytes or is_bounded)))
        dropped = after[1] - before[1]
        self._dropped += dropped
        self._world.coverage["capture_dropped"] += dropped
        require(
            after[0] - before[0] + dropped == wanted,
            f"12: {told} are wanted {wanted} times, counted as captured or dropped: {before} before, now {after}",
        )
        reasons.append(origin is not None and captures.UNPACED_BYTES_MAX < UNPACED_BYTES_MAX)
        require(not dropped or any(reasons), f"12: {dropped} of {told} are not stored, and there is room")

    # -- what is stored -----------------------------------------------------------------------------------------------

    def handed(self, record: Record) -> None:
        """The engine has let go of a record."""
        if record.kind != RecordKind.APPEND:
            return
        stored = stored_of(record)
        columns = MSGPACK.columns.decode(stored.columns) if stored.columns else Columns()
        topics = _topics(stored.topic, columns, record.count)
        if topics is None:
            return
        told = list(zip(_uids(stored.codec, record.payload, record.count), topics, strict=True))
        if stored.producer:
            self._records.update((uid, record.index) for uid, _ in told)
        elif not _is_letter(columns):
            self._store(record, told)

    def _store(self, record: Record, told: Iterable[tuple[str, str]]) -> None:
        due = self._due.get(record.stream_id, deque())
        for uid, topic in told:
            while due and due[0] != uid:
                due.popleft()
                self._dropped -= 1
            require(bool(due), f"12: stream {record.stream_id} stores {uid}, which is not its turn, or not for it")
            due.popleft()
            require(self._dropped >= 0, f"12: stream {record.stream_id} stores {uid}, and not what came before it")
            require(
                self.sent[uid].topic == topic, f"12: {uid} is stored as of {topic}, it is of {self.sent[uid].topic}"
            )
            key = record.stream_id, uid
            is_new = key not in self._captured or self._world.truth.is_damaged
            require(is_new, f"12: stream {record.stream_id} stores {uid} twice")
            self._captured.add(key)
            self._world.coverage["recaptured" if self.sent[uid].stream else "captured"] += 1

    def turned(self, broker: BrokerProcess) -> None:
        """The end of a turn: what was to be stored has its record."""
        assert broker.engine is not None
        if broker.engine._effects or not self._due:
            return
        missing = [uid for due in self._due.values() for uid in due]
        require(len(missing) <= self._dropped, f"12: {missing} are not stored, {self._dropped} were to be dropped")
        self.begin()

    # -- what is told -------------------------------------------------------------------------------------------------

    def told(self, frames: Frames) -> None:
        """A PUBLISH goes to a subscriber."""
        message = parse([bytes(frame) for frame in frames])
        assert isinstance(message.header, Publish)
        self._check_durable(_messages(message, columns_of(message, message.header.count)))

    def _check_durable(self, told: Iterable[tuple[str, str]]) -> None:
        """What a producer sent is on disk."""
        truth = self._world.truth
        for uid, topic in told:
            sent = self.sent.get(uid)
            require(sent is not None and sent.topic == topic, f"12: {uid} of {topic} is told, it was sent as {sent}")
            if sent is not None and sent.stream:
                index = self._records.get(uid)
                is_durable = index is not None and index <= truth.durable
                require(is_durable or truth.is_damaged, f"1: {uid} of {sent.stream} is told live, and is not durable")


def _messages(message: Message, columns: Columns) -> list[tuple[str, str]]:
    """Uid and topic of each."""
    header = message.header
    assert isinstance(header, Publish)
    topics = _topics(header.topic, columns, header.count)
    assert topics is not None
    return list(zip(_uids(header.codec, message.payload, header.count), topics, strict=True))


def _topics(topic: str | None, columns: Columns, count: int) -> list[str] | None:
    if columns.topics is not msgspec.UNSET and columns.topic is not msgspec.UNSET:
        return [columns.topics[place] for place in columns.topic]
    return None if topic is None else [topic] * count


def _uids(used: Any, payload: Any, count: int) -> list[str]:
    return [body[0] for body in codec.decode(used, bytes(payload), count, None)]


def _is_letter(columns: Columns) -> bool:
    """A dead letter, or one that was sent back."""
    headers = [] if columns.headers is msgspec.UNSET else columns.headers
    return any(name.startswith("zb-") for one in headers for name in one or {})
