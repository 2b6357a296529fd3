"""Those who need no disk: requesters, repliers, publishers, subscribers, and somebody who asks for the status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patterns.core.admin import AdminEngine, Answered
from patterns.core.publish import PublisherEngine
from patterns.core.reply import ReplierEngine, Requested
from patterns.core.request import Outcome, RequesterEngine
from patterns.core.subscribe import Received, SubscriberEngine
from patterns.wire import codec
from patterns.wire.errors import ApplicationError
from patterns.wire.messages import Codec
from tests.simulation.client import ADDRESS, Client
from tests.simulation.live import TOPICS, Sent
from tests.simulation.violation import require

if TYPE_CHECKING:
    from tests.simulation.world import World

SLACK_US = 250_000  # a client's process needs its turn to say that a deadline is over


class RequesterActor(Client):
    """Asks; each request has one outcome, by its deadline."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.pace_us = self.random.choice([20_000, 200_000])
        self._open: dict[int, tuple[int, str]] = {}  # id -> deadline, body
        self._count = 0

    def make_engine(self) -> RequesterEngine:
        self._open.clear()
        return RequesterEngine([ADDRESS], self.nonce(), Codec.MSGPACK, self.jitter)

    def act(self, now: int) -> int:
        if not self.is_quiet and len(self._open) < 50:
            self._ask(now)
        return int(self.pace_us * (0.2 + 1.6 * self.random.random()))

    def _ask(self, now: int) -> None:
        self._count += 1
        body = f"{self.name}.{self.life}.{self._count}"
        idempotent = self.random.random() < 0.3
        timeout_us = self.random.choice([50_000, 1_000_000, 8_000_000])
        self.world.asked[body] = idempotent
        payload = codec.encode(Codec.MSGPACK, [body])[0].payload
        number = self.engine.request(
            "price", Codec.MSGPACK, payload, b"", timeout_us=timeout_us, idempotent=idempotent, now=now
        )
        self._open[number] = (now + timeout_us, body)

    def take(self, event: Any, now: int) -> None:
        if not isinstance(event, Outcome):
            return
        require(event.id in self._open, f"11: request {event.id} of {self.name} has a second outcome")
        deadline, body = self._open.pop(event.id)
        if not self.was_stalled:
            require(now <= deadline + SLACK_US, f"11: {body} has its outcome {(now - deadline) / 1e6:.3f} s late")
        if event.error is None:
            require(codec.decode(event.codec, event.payload, 1, None) == [body], f"11: {body} has another's reply")
            require(self.world.served.get(body, 0) > 0, f"11: {body} was answered by nobody")
            self.world.coverage["replied"] += 1
        else:
            self.world.coverage[f"outcome_{event.error.name}"] += 1

    def settled(self) -> bool:
        return self.engine is None or not self._open


class ReplierActor(Client):
    """Answers, late at times, and at times with an error."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.concurrency = self.random.choice([1, 4])
        self.work_us = self.random.choice([1_000, 100_000, 2_000_000])
        self._work: list[tuple[int, Requested]] = []

    def make_engine(self) -> ReplierEngine:
        self._work.clear()
        return ReplierEngine([ADDRESS], ["price"], self.nonce(), Codec.MSGPACK, self.jitter, self.concurrency)

    def take(self, event: Any, now: int) -> None:
        if isinstance(event, Requested):
            (body,) = codec.decode(event.codec, event.payload, 1, None)
            self.world.serve(body)
            open_now = sum(one[1].token in self.engine._open for one in self._work)
            require(open_now < self.concurrency, f"12: {self.name} has more than its credit")
            self._work.append((now + int(self.work_us * self.random.random()), event))

    def act(self, now: int) -> int:
        for one in [one for one in self._work if one[0] <= now]:
            self._work.remove(one)
            if self.random.random() < 0.1:
                self.engine.fail(one[1].token, ApplicationError("no such sku", code="no_such_sku"), now)
            else:
                self.engine.reply(one[1].token, one[1].codec, one[1].payload, b"", now)
        return self.random.randint(500, 20_000)


class PublisherActor(Client):
    """Publishes numbered messages to a few topics."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.pace_us = self.random.choice([20_000, 300_000])
        self.messages_max = self.random.choice([200, 1_000, 3_000])
        self.bursts_max = self.random.choice([1, 1, 10])
        self.count = 0

    def make_engine(self) -> PublisherEngine:
        return PublisherEngine([ADDRESS], self.nonce(), Codec.MSGPACK, self.jitter)

    def act(self, now: int) -> int:
        engine = self.engine
        if not self.is_quiet and self.count < self.messages_max and engine.is_ready and engine.room:
            for _ in range(self.random.randint(1, self.bursts_max)):
                self._publish(self.random.randint(1, 10), now)
        return int(self.pace_us * (0.2 + 1.6 * self.random.random()))

    def _publish(self, count: int, now: int) -> None:
        """A few messages, in a batch for each channel."""
        for _ in range(count):
            topic = self.random.choice(TOPICS)
            self.count += 1
            uid = f"{self.name}.{self.count}"
            self.world.live.sent[uid] = Sent((self.name, self.life), self.count, topic)
            self.engine.lanes.lane(topic).items.extend((topic, [uid], None))
        self.engine.publish(self.engine.lanes.drain_all(), now)


class SubscriberActor(Client):
    """Hears every message once at most, in the order of each publisher, or producer, and channel."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.patterns = self.random.choice([["orders.>"], ["*.eu", "stock"], [">"]])
        self._last: dict[tuple[tuple[str, int], str], int] = {}
        self._lost = 0

    def make_engine(self) -> SubscriberEngine:
        self._last.clear()
        self._lost = 0
        return SubscriberEngine([ADDRESS], self.patterns, self.nonce(), Codec.MSGPACK, self.jitter)

    def act(self, now: int) -> int:
        self.engine.taken(now)
        lost = self.engine.loss.lost
        require(lost >= self._lost, f"12: {self.name} counts {lost} lost after {self._lost}")
        self._lost = lost
        return self.random.randint(1_000, 100_000)

    def take(self, event: Any, now: int) -> None:
        if not isinstance(event, Received):
            return
        bodies = codec.decode(event.codec, event.payload, event.count, event.sizes)
        topics = event.topics or [event.topic] * event.count
        for place in event.wanted if event.wanted is not None else range(event.count):
            sent = self.world.live.sent[bodies[place][0]]
            key = sent.sender, topics[place].partition(".")[0]
            is_next = sent.number > self._last.get(key, 0) or (sent.stream and self.world.truth.is_damaged)
            require(bool(is_next), f"12: {self.name} hears {sent} after {self._last.get(key)}")
            self._last[key] = sent.number
            self.world.coverage["heard_stored" if sent.stream else "heard"] += 1


class AdminActor(Client):
    """Asks for the status now and then; each answer comes once."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._open: set[int] = set()

    def make_engine(self) -> AdminEngine:
        self._open.clear()
        return AdminEngine([ADDRESS], self.nonce(), self.jitter)

    def act(self, now: int) -> int:
        if not self.is_quiet and len(self._open) < 5:
            self._open.add(self.engine.ask("status", {}, now))
        return self.random.randint(100_000, 3_000_000)

    def take(self, event: Any, now: int) -> None:
        if isinstance(event, Answered):
            require(event.id in self._open, f"11: status {event.id} of {self.name} is answered twice")
            self._open.discard(event.id)

    def settled(self) -> bool:
        return self.engine is None or not self._open
