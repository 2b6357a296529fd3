"""A broker in memory that is killed, cut and moved in time while threads of a program work: what was confirmed is delivered all the same."""

import threading
from random import Random

import pytest

from patterns.sync import Consumer, Producer
from patterns.wire.errors import Closed, OutcomeUnknown, StaleLease, TimedOut, Unavailable
from tests.processes import LONG, until
from zbroker.testing import MemoryBroker

FAULTS = 60 if LONG else 12
LATE = (Closed, StaleLease, OutcomeUnknown, TimedOut, Unavailable)


class Program:
    """A producer and two members of a group, each in a thread."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.confirmed = 0
        self.seen: set[int] = set()
        self._over = threading.Event()
        self._producer = Producer(broker.url, "work", timeout_s=1e6)
        self.members = [Consumer(broker.url, "work", group="g") for _ in range(2)]
        self._threads = [threading.Thread(target=self._produce)]
        self._threads += [threading.Thread(target=self._consume, args=(member,)) for member in self.members]
        for thread in self._threads:
            thread.start()

    def _produce(self) -> None:
        while not self._over.is_set():
            self._producer.send_many(range(self.confirmed, self.confirmed + 20))
            self.confirmed += 20

    def _consume(self, member: Consumer) -> None:
        for number, delivery in enumerate(member):
            self.seen.add(delivery.body)
            try:
                delivery.ack(confirm=number % 100 == 0)
            except LATE:
                pass  # it comes again, to one of the two

    def finish(self, broker: MemoryBroker) -> None:
        """All that was confirmed arrives; whoever waits for a time gets it."""
        self._over.set()

        def is_done() -> bool:
            broker.advance(1)
            return not self._threads[0].is_alive() and len(self.seen) >= self.confirmed

        until(is_done, 60)
        for role in (self._producer, *self.members):
            role.close()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("seed", range(4 if LONG else 1))
def test_what_was_confirmed_is_delivered_whatever_happens(seed: int) -> None:
    random = Random(seed)
    with MemoryBroker() as broker:
        program = Program(broker)
        for _ in range(FAULTS):
            before = program.confirmed
            match random.randrange(4):
                case 0:
                    broker.restart()
                case 1:
                    broker.cut(random.choice(program.members))
                    broker.advance(random.random() * 12)
                    broker.mend()
                case 2:
                    broker.cut()
                    broker.mend()
                case _:
                    broker.advance(random.random() * 20)
            until(lambda before=before: program.confirmed > before)  # type: ignore[misc]
            broker.check()
        program.finish(broker)
        assert program.seen >= set(range(program.confirmed))
