"""Work of every kind, at a steady pace, by threads that remember no more than what is under way. No test lives here."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Final

from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber

_FILLER: Final = b"." * 1_000
_BATCH: Final = 100
_DRAIN_S: Final = 60.0


class Load:
    """Threads that work until they are told to end.

    Attributes:
        done: how often each kind of work was done.
        errors: what ended a thread; empty if all is well.
    """

    def __init__(self, url: str) -> None:
        self.done: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._url = url
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._under_way: set[tuple[str, int]] = set()  # given to a producer, and not acked yet
        self._replier = Replier(url, "soak.echo", self._answer)
        self._subscriber = Subscriber(url, "soak.>")
        self._subscriber.ready(30)
        self._members = [Consumer(url, "soak", group="workers") for _ in range(2)]
        self._takers = [
            self._thread(self._replier.serve_forever),
            self._thread(self._hear),
            *(self._thread(lambda member=member: self._consume(member)) for member in self._members),
        ]
        makers = (self._send_many, self._send, self._publish, self._ask, self._come_and_go)
        self._makers = [self._thread(work) for work in makers]

    def _thread(self, work: Callable[[], object]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001  the test's thread must hear of it
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def stop(self) -> set[tuple[str, int]]:
        """End, what is under way first; what was sent and never acked."""
        self._ended.set()
        for thread in self._makers:
            thread.join(_DRAIN_S)
            assert not thread.is_alive(), "a thread of the load does not end"
        nap = threading.Event()
        for _ in range(int(_DRAIN_S * 10)):
            if not self._under_way:
                break
            nap.wait(0.1)
        for role in (self._replier, self._subscriber, *self._members):
            role.close()
        for thread in self._takers:
            thread.join(_DRAIN_S)
            assert not thread.is_alive(), "a thread does not end after close()"
        return self._under_way

    def _pause(self, seconds: float) -> bool:
        """Whether to go on."""
        return not self._ended.wait(seconds)

    # -- durable -------------------------------------------------------------------------------------------------

    def _begun(self, who: str, numbers: range) -> list[tuple[str, int, bytes]]:
        with self._lock:
            self._under_way.update((who, number) for number in numbers)
        return [(who, number, _FILLER) for number in numbers]

    def _send_many(self) -> None:
        with Producer(self._url, "soak", timeout_s=60) as out:
            for first in count(0, _BATCH):
                out.send_many(self._begun("many", range(first, first + _BATCH)))
                self.done["sent"] += _BATCH
                if not self._pause(0.05):
                    return

    def _send(self) -> None:
        with Producer(self._url, "soak", timeout_s=60) as out:
            for number in count():
                out.send(*self._begun("one", range(number, number + 1)))
                self.done["sent"] += 1
                if not self._pause(0.02):
                    return

    def _consume(self, member: Consumer) -> None:
        for batch in member.batches():
            batch.ack()
            with self._lock:
                self._under_way.difference_update((who, number) for who, number, _ in batch.bodies)
            self.done["consumed"] += len(batch.bodies)

    # -- live ----------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        with Publisher(self._url) as out:
            for first in count(0, _BATCH):
                for number in range(first, first + _BATCH):
                    out.publish("soak.live", number)
                self.done["published"] += _BATCH
                if not self._pause(0.05):
                    return

    def _hear(self) -> None:
        last = -1
        for message in self._subscriber:
            assert message.body > last, f"{message.body} after {last}"
            last = message.body
            self.done["heard"] += 1

    @property
    def lost(self) -> int:
        """Published messages that the subscriber knows to have missed."""
        return self._subscriber.lost

    def _answer(self, body: int) -> object:
        return body if body % 10 else iter_parts(body)

    def _ask(self) -> None:
        with Requester(self._url) as requester:
            for number in count(1):
                if number % 10:
                    assert requester.request("soak.echo", number, timeout_s=60, wait_s=30) == number
                else:
                    parts = list(requester.stream("soak.echo", number, timeout_s=60, part_timeout_s=60, wait_s=30))
                    assert parts == [number, number + 1, number + 2]
                self.done["asked"] += 1
                if not self._pause(0.01):
                    return

    # -- clients that come and go ----------------------------------------------------------------------------------

    def _come_and_go(self) -> None:
        while self._pause(0.2):
            with Subscriber(self._url, "soak.live", "other.*") as subscriber:
                subscriber.ready(30)
            with Requester(self._url) as requester:
                requester.request("soak.echo", 1, timeout_s=60)
            with Consumer(self._url, "soak", start="new") as reader:
                reader.receive(30)
            with Producer(self._url, "soak", timeout_s=60) as out:
                out.send(*self._begun("guest", range(self.done["guests"], self.done["guests"] + 1)))
            self.done["guests"] += 1


def iter_parts(body: int):
    """A streamed reply of three parts."""
    for more in range(3):
        yield body + more
