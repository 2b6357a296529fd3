"""Those who use streams: producers, members of groups, readers without one."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from patterns.core.consume import ConsumerEngine, Delivered, LostOffsets, TakesLong
from patterns.core.produce import Batch, Confirmed, ProducerEngine, batch_of
from patterns.wire import codec
from patterns.wire.errors import BadArgument, Fenced, NoSuchGroup, NoSuchStream, OutcomeUnknown, StorageFailed
from patterns.wire.messages import Codec
from tests.simulation.client import ADDRESS, Client
from tests.simulation.live import TOPICS, Sent
from tests.simulation.message_ids import Mark
from tests.simulation.violation import Violation, require

if TYPE_CHECKING:
    from tests.simulation.world import World

PADS = (0, 0, 10, 60, 300, 1500)
IDS_AGAIN = 60  # of the latest ones that a stream's producers have used


class Sending(NamedTuple):
    """A batch on its way, and what is in it."""

    batch: Batch
    uids: list[str]
    ids: list[str | None]
    mark: Mark


class ProducerActor(Client):
    """Sends batches and believes their confirms.

    Args:
        stable: a name, so that a new life of it fences the old one; "" for none.
    """

    def __init__(self, world: World, name: str, stream: str, stable: str) -> None:
        super().__init__(world, name)
        self.stream = stream
        self.stable = stable
        self.pace_us = self.random.choice([20_000, 100_000, 600_000])
        self.batches_max = self.random.choice([1, 3, 12])
        self.messages_max = self.random.choice([50, 400, 1_500])  # enough to roll segments; a run must stay short
        self.own = world.chances.of(f"{name}/own")
        self.delay_ms = self.own.choice([0, 0, 300, 20_000])
        self.id_share = self.own.choice([0.0, 0.0, 0.5, 1.0])
        self.again_share = self.own.choice([0.05, 0.3, 0.8])  # of messages with ids
        self.topic_share = self.own.choice([0.0, 0.3, 1.0])  # of batches
        self.count = self.id_count = 0
        self.confirmed_count = 0
        self._sendings: dict[int, Sending] = {}
        self.last_uid = 0

    def make_engine(self) -> ProducerEngine:
        self._sendings.clear()
        return ProducerEngine([ADDRESS], self.stream, self.nonce(), Codec.MSGPACK, self.jitter, self.stable)

    def act(self, now: int) -> int:
        if (
            not self.is_quiet
            and self.count < self.messages_max
            and self.engine.unconfirmed < 100
            and self.engine.error is None
        ):
            for _ in range(self.random.randint(1, self.batches_max)):
                self._send(now)
        return int(self.pace_us * (0.2 + 1.6 * self.random.random()))

    def _send(self, now: int) -> None:
        bodies = []
        pad = "x" * self.random.choice(PADS)
        for _ in range(self.random.choice([1, 1, 2, 7, 30 if len(pad) < 500 else 12])):  # a record must fit a segment
            self.count += 1
            bodies.append([f"{self.name}.{self.count}", pad])
        has_topics = self.own.random() < self.topic_share
        for part in codec.encode(Codec.MSGPACK, bodies):
            ids, uids = self._ids(part.count), [body[0] for body in bodies[: part.count]]
            topics = self._topics(uids) if has_topics else None
            batch = batch_of(Codec.MSGPACK, part, delays=self._delays(part.count), ids=ids, topics=topics)
            self._sendings[id(batch)] = Sending(batch, uids, ids, self.world.message_ids.mark(self.stream))
            del bodies[: part.count]
            self.engine.append([batch], now)

    def _ids(self, count: int) -> list[str | None]:
        """New ones, and those of others, and of itself."""
        used = self.world.ids_used.setdefault(self.stream, deque(maxlen=IDS_AGAIN))
        ids: list[str | None] = []
        for _ in range(count):
            if self.own.random() >= self.id_share:
                ids.append(None)
            elif used and self.own.random() < self.again_share:
                ids.append(self.own.choice(used))
            else:
                self.id_count += 1
                ids.append(f"{self.name}/{self.id_count}")
                used.append(f"{self.name}/{self.id_count}")
        return ids

    def _topics(self, uids: list[str]) -> list[str | None]:
        """One for all, or some."""
        one = self.own.choice([*TOPICS, ""])
        topics = [one or self.own.choice(TOPICS) for _ in uids]
        for uid, topic in zip(uids, topics, strict=True):
            number = int(uid.rpartition(".")[2])
            self.world.live.sent[uid] = Sent((self.name, self.life), number, topic, self.stream)
        return list(topics)

    def _delays(self, count: int) -> list[int] | None:
        if not self.delay_ms or self.own.random() < 0.7:
            return None
        return [self.own.choice([0, self.delay_ms, self.own.randint(0, self.delay_ms)]) for _ in range(count)]

    def take(self, event: Any, now: int) -> None:
        if isinstance(event, Confirmed):
            for batch in event.batches:
                self._done(batch)

    def _done(self, batch: Batch) -> None:
        sending = self._sendings.pop(id(batch))
        if batch.error is not None:
            self._refused(batch)
            return
        require(batch.offset >= 0, f"10: batch {batch.sequence} of {self.name} is confirmed without an offset")
        self.confirmed_count += len(sending.uids)
        repeated = [place for first, _, count in batch.repeats or () for place in range(first, first + count)]
        is_whole = len(repeated) == len(sending.uids)
        for place, uid in enumerate(sending.uids):
            offset, _ = batch.receipt(place)
            if place in repeated:
                mark, message_id = sending.mark, sending.ids[place]
                self.world.message_ids.repeated(self.stream, offset, message_id, mark, is_whole=is_whole)
            else:
                self.world.truth.confirmed(self.stream, offset, uid)

    def _refused(self, batch: Batch) -> None:
        """Who keeps the protocol is refused nothing but for a reason of the broker's disk."""
        self.world.coverage[f"refused_{batch.error.name}"] += 1
        if isinstance(batch.error, StorageFailed | Fenced):
            return
        if isinstance(batch.error, OutcomeUnknown) and self.world.truth.is_damaged:
            return
        raise Violation(f"10: batch {batch.sequence} of {self.name} is refused: {batch.error.name}: {batch.error}")

    def settled(self) -> bool:
        return (
            self.engine is None
            or self.engine.error is not None
            or (self.engine.is_ready and not self.engine.unconfirmed)
        )


class MemberActor(Client):
    """A member of a group, well-behaved or not.

    Args:
        group: "" reads without one, in order.
    """

    def __init__(self, world: World, name: str, stream: str, group: str) -> None:
        super().__init__(world, name)
        self.stream = stream
        self.group = group
        self.manner = self.random.choice(["prompt", "prompt", "slow", "never", "fickle", "late"])
        self.mode = self.random.choice(["batches", "slices"])
        self.credit = self.random.choice([1, 10, 100, 1000])
        self.held: deque[tuple[Delivered, int, int]] = deque()  # a delivery, its next message, when it is done
        self.next_offset = 0
        self.seen = 0
        self.free_at = 0

    def make_engine(self) -> ConsumerEngine:
        self.held.clear()
        self.next_offset = 0
        engine = ConsumerEngine(
            [ADDRESS],
            self.stream,
            self.group,
            "first",
            self.nonce(),
            Codec.MSGPACK,
            self.jitter,
            credit=self.credit,
            processing_max_us=3_000_000 if self.credit >= 100 else 600_000_000,
        )
        engine.mode = self.mode
        return engine

    def act(self, now: int) -> int:
        engine = self.engine
        if engine.error is not None and self._begins_again(engine.error):
            return 0
        while self.held and self.held[0][2] <= now:
            delivered, _, _ = self.held.popleft()
            self._work_off(delivered, now)
        if engine.has_news:
            engine.tell(now)
        if not self.held:
            engine.wanted(now)
        return self.random.randint(1_000, 60_000)

    def _begins_again(self, error: Exception) -> bool:
        """What it has joined is gone: another life of it makes another one, and reads that from its start."""
        is_late = not self.group and isinstance(
            error, BadArgument
        )  # of another stream, of the name, that is not so long
        if not isinstance(error, NoSuchGroup | NoSuchStream) and not is_late:
            return False
        steward = self.world.steward
        may = steward is not None and steward.may_end(self.stream, self.group)
        require(may or self.world.truth.is_damaged, f"11: {self.name} is refused, and nobody has deleted that: {error}")
        self.world.coverage[f"joined_again_{error.name}"] += 1
        self.crash()
        self.start()
        return True

    def take(self, event: Any, now: int) -> None:
        if isinstance(event, Delivered):
            self._delivered(event, now)
        elif isinstance(event, LostOffsets):
            require(self.world.truth.is_damaged, f"2: {self.name} is told that {event} is lost, and nothing was")
            if not self.group:
                self.next_offset = max(self.next_offset, event.last + 1)

        elif isinstance(event, TakesLong) and self.engine.is_overdue(now):
            self.engine.give_back(now, leaves=self.seen % 3 > 0)
            self.world.coverage["took_too_long"] += 1

    def _delivered(self, event: Delivered, now: int) -> None:
        bodies = codec.decode(event.codec, event.payload, event.count, event.sizes)
        for place, body in enumerate(bodies):
            self.world.truth.delivered(self.stream, event.offset + place, body[0])
        self.seen += event.count
        if not self.group:
            is_next = self.world.truth.holdings.are_forgotten(self.stream, self.next_offset, event.offset - 1)
            require(
                event.offset >= self.next_offset and is_next,
                f"2: {self.name} expects {self.next_offset}, gets {event.offset}",
            )
            self.world.coverage["reader_passed_over"] += event.offset > self.next_offset
            self.next_offset = event.offset + event.count
        self.engine.taken(event.count, event.size, now)
        if not event.lease:
            return
        wait = {"slow": 2_000_000, "late": 40_000_000}.get(self.manner, 20_000)
        self.held.append((event, 0, now + int(wait * self.random.random())))

    def _work_off(self, event: Delivered, now: int) -> None:
        engine, first, last = self.engine, event.offset, event.offset + event.count - 1
        manner = "prompt" if self.is_quiet else self.manner
        if manner == "never":
            return
        if manner == "fickle":
            self._hesitate(event)
        elif self.random.random() < 0.1:
            engine.settle_surely(event.lease, first, last, now, "ack" if self.random.random() < 0.9 else "reject")
        else:
            engine.settle(event.lease, first, last, "ack")

    def _hesitate(self, event: Delivered) -> None:
        """Settle each piece in another way, and some not at all."""
        first, last = event.offset, event.offset + event.count - 1
        while first <= last:
            end = self.random.randint(first, last)
            action = self.random.choice(["ack", "ack", "nack", "nack", "reject", "release", "extend", ""])
            if action:
                delay_ms = self.random.choice([0, 0, 50, 2_000]) if action == "nack" else 40_000 * (action == "extend")
                self.engine.settle(event.lease, first, end, action, delay_ms=delay_ms)
            first = end + 1
