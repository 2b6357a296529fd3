"""Producers and consumers that go on whatever happens to the broker, and remember everything they were told. No test lives here."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice

from patterns.sync import Consumer, Delivery, Producer, SendManyError
from patterns.wire.errors import BufferFull, OutcomeUnknown, StaleLease, TimedOut, Unavailable

Value = tuple[str, int]
FILLER = bytes(1_024)  # behind the value of a body in bulk
CALL_OF_BULK = 32
HELD = 2_000  # messages of odd numbers that are not acked yet: more is dead than alive in a journal of some MiB
PASSING = (OutcomeUnknown, TimedOut, Unavailable, BufferFull)  # the broker is away; nothing else may be raised


@dataclass(frozen=True)
class Seen:
    """A message as a consumer got it."""

    offset: int
    value: Value
    attempt: int
    token: int
    at: float
    who: str


@dataclass
class Account:
    """What was confirmed, delivered and acked; appended to by all threads."""

    confirmed: list[tuple[int, Value]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    read: list[tuple[int, Value]] = field(default_factory=list)
    surely: list[tuple[int, float]] = field(default_factory=list)  # offset, when ack(confirm=True) returned
    errors: list[BaseException] = field(default_factory=list)

    @property
    def progress(self) -> int:
        return len(self.confirmed) + len(self.seen)

    def deliveries(self) -> dict[int, list[Seen]]:
        found: dict[int, list[Seen]] = defaultdict(list)
        for seen in self.seen:
            found[seen.offset].append(seen)
        return found


class Load:
    """The threads of a test; each strike permits them some work, so that the backlog stays small.

    Attributes:
        account: of the stream `work`, all of which a reader gets: its group `archive` settles nothing.
        bulk: of the stream `bulk`, of which every second message is acked long before the others, so that segments are
            compacted by a broker that keeps nothing beyond that.
    """

    def __init__(self, url: str) -> None:
        self.account, self.bulk = Account(), Account()
        self._url = url
        with Consumer(url, "work", group="archive", credit=1) as idle:
            idle.ready(30)
        self._ended, self._stopped = threading.Event(), threading.Event()
        producers = (self._sends, self._sends_many, self._posts, self._sends_named, self._sends_bulk)
        self._permits = [threading.Semaphore(0) for _ in producers]
        self._calls: set[int] = set()  # producers whose call is under way
        self._producers = [self._thread(work, permit) for work, permit in zip(producers, self._permits, strict=True)]
        self._consumers = [Consumer(url, "work", group="workers") for _ in range(2)]
        self._consumers += [
            Consumer(url, "work"),
            Consumer(url, "bulk", group="halves", credit=2 * HELD, idle_timeout_s=0.2),
        ]
        for consumer in self._consumers:
            consumer.ready(30)  # one that has never met a broker says so, instead of waiting on
        consumes = (self._acks_each, self._acks_batches, self._reads, self._acks_every_second)
        self._takers = [self._thread(work, one) for work, one in zip(consumes, self._consumers, strict=True)]

    def _thread(self, work, argument) -> threading.Thread:
        def run() -> None:
            try:
                work(argument)
            except BaseException as error:  # noqa: BLE001  the test's thread must hear of it
                self.account.errors.append(error)

        thread = threading.Thread(target=run, name=work.__name__, daemon=True)
        thread.start()
        return thread

    @property
    def progress(self) -> int:
        return self.account.progress + self.bulk.progress

    @property
    def is_waiting(self) -> bool:
        """Whether something was sent that is not confirmed."""
        return bool(self._calls)

    def permit(self, work: int, bulk: int) -> None:
        """Let producers send about so many more messages, and so many MiB in bulk."""
        amounts = (work // 10, work * 2 // 500, work * 2 // 500, work // 100, bulk * 1_024 // CALL_OF_BULK)
        for permit, amount in zip(self._permits, amounts, strict=True):
            permit.release(max(1, amount))

    def permit_bulk(self) -> None:
        """Let bulk go on for a call or two, if it has come to an end."""
        if id(self._permits[-1]) not in self._calls:
            self._permits[-1].release(2)

    def stop_producing(self, timeout_s: float) -> None:
        """What is under way ends first."""
        self._ended.set()
        for permit in self._permits:
            permit.release()
        deadline = time.monotonic() + timeout_s
        for thread in self._producers:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{thread.name} does not end"

    def stop(self) -> None:
        self._stopped.set()
        for consumer in self._consumers:
            consumer.close()
        for thread in self._takers:
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} does not end after close()"

    def _work(self, permit: threading.Semaphore) -> Iterator[None]:
        while True:
            permit.acquire()
            if self._ended.is_set():
                return
            self._calls.add(id(permit))
            yield
            self._calls.discard(id(permit))

    # -- producers -----------------------------------------------------------------------------------------------

    def _sends(self, permit: threading.Semaphore) -> None:
        with Producer(self._url, "work") as out:
            for number, _ in enumerate(self._work(permit)):
                value = ("one", number)
                try:
                    self.account.confirmed.append((out.send(value).offset, value))
                except PASSING:
                    continue  # it may be stored or not; the next number follows it in any case

    def _sends_many(self, permit: threading.Semaphore) -> None:
        with Producer(self._url, "work") as out:
            self._in_calls(self.account, out, "many", 100, permit)

    def _sends_named(self, permit: threading.Semaphore) -> None:
        with Producer(self._url, "work", name="bookkeeper") as out:
            self._in_calls(self.account, out, "named", 10, permit)

    def _sends_bulk(self, permit: threading.Semaphore) -> None:
        with Producer(self._url, "bulk") as out:
            self._in_calls(self.bulk, out, "bulk", CALL_OF_BULK, permit, FILLER)

    def _in_calls(
        self, account: Account, out: Producer, who: str, size: int, permit: threading.Semaphore, *filler: bytes
    ) -> None:
        numbers = count()
        for _ in self._work(permit):
            values = [(who, number) for number in islice(numbers, size)]
            try:
                receipts = out.send_many([(*value, *filler) for value in values])
            except SendManyError as error:
                receipts = error.receipts
            except PASSING:
                continue
            account.confirmed.extend((receipt.offset, value) for receipt, value in zip(receipts, values, strict=False))

    def _posts(self, permit: threading.Semaphore) -> None:
        numbers = count()
        with Producer(self._url, "work") as out:
            for _ in self._work(permit):
                values = [("post", number) for number in islice(numbers, 100)]
                posted = [(out.post(value), value) for value in values]
                try:
                    self.account.confirmed.extend((one.result(30).offset, value) for one, value in posted)
                except PASSING:
                    continue

    # -- consumers -----------------------------------------------------------------------------------------------

    def _acks_each(self, consumer: Consumer) -> None:
        for number, d in enumerate(consumer):
            seen = Seen(d.offset, tuple(d.body), d.attempt, d.token, time.monotonic(), "each")
            self.account.seen.append(seen)
            if number % 25:
                d.ack()
                continue
            try:
                d.ack(confirm=True)
            except (*PASSING, StaleLease):
                continue
            self.account.surely.append((d.offset, time.monotonic()))

    def _acks_batches(self, consumer: Consumer) -> None:
        for batch in consumer.batches():
            now, token = time.monotonic(), batch._delivered.lease
            self.account.seen.extend(
                Seen(offset, tuple(body), batch.attempt, token, now, "batches")
                for offset, body in zip(batch.offsets, batch.bodies, strict=True)
            )
            batch.ack()

    def _reads(self, consumer: Consumer) -> None:
        for d in consumer:
            self.account.read.append((d.offset, tuple(d.body)))

    def _acks_every_second(self, consumer: Consumer) -> None:
        held: dict[int, Delivery] = {}
        while not self._stopped.is_set():  # a loop ends when nothing came for a while
            for d in consumer:
                value = (d.body[0], d.body[1])
                self.bulk.seen.append(Seen(d.offset, value, d.attempt, d.token, time.monotonic(), "every second"))
                held[d.offset] = d  # it may have come before, and then that lease is over
                if d.offset % 2 == 0:
                    held.pop(d.offset).ack()
                self._ack_oldest(held)
            self._ack_oldest(held)

    def _ack_oldest(self, held: dict[int, Delivery]) -> None:
        while len(held) > (0 if self._ended.is_set() else HELD):
            held.pop(next(iter(held))).ack()
