"""A burst of 200,000 messages that slow workers work off at their own pace: the stream is the buffer, and nothing is lost.

`python burst.py 200000 40000`: so many messages, so many a second for all workers together.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator

from patterns.sync import Admin, Consumer, Producer

WORKERS = 4
GROUP = "workers"


class Pace:
    """So many messages a second in all, however many threads ask; as a database or somebody else's service allows."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def wait(self, messages: int) -> None:
        with self._lock:
            begins = max(self._free_at, time.monotonic())
            self._free_at = begins + messages / self._rate
        time.sleep(max(0.0, self._free_at - time.monotonic()))


class Account:
    """Which messages were worked on, and how often; and when all were."""

    def __init__(self, messages: int) -> None:
        self._seen = bytearray(messages)
        self._lock = threading.Lock()
        self._left = messages
        self.twice = 0
        self.is_complete = threading.Event()

    def add(self, numbers: list[int]) -> None:
        with self._lock:
            for number in numbers:
                if self._seen[number]:
                    self.twice += 1
                else:
                    self._seen[number] = 1
                    self._left -= 1
            if not self._left:
                self.is_complete.set()

    @property
    def missing(self) -> int:
        return self._left


def work(consumer: Consumer, pace: Pace, account: Account) -> None:
    """Whole batches: for many small messages the fast way."""
    for batch in consumer.batches():
        pace.wait(len(batch))
        account.add([body["n"] for body in batch.bodies])
        batch.ack()


def messages_of(count: int) -> Iterator[dict[str, object]]:
    return ({"n": number, "reading": number * 0.5} for number in range(count))


def main(address: str, messages: int, rate: int) -> None:
    stream = f"readings-{os.getpid()}-{time.monotonic_ns()}"
    account, pace = Account(messages), Pace(rate)
    consumers = [Consumer(address, stream, group=GROUP) for _ in range(WORKERS)]
    threads = [threading.Thread(target=work, args=(consumer, pace, account)) for consumer in consumers]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    with Producer(address, stream) as producer:
        receipts = producer.send_many(messages_of(messages))
    sent = time.monotonic()
    with Admin(address) as admin:
        lag = admin.show_group(stream, GROUP)["lag"]
    print(f"sent, and on disk: {len(receipts)} messages")
    print(f"the burst took {sent - began:.1f} s, and left {lag} messages behind it", file=sys.stderr)
    account.is_complete.wait(300)
    took = time.monotonic() - began
    for consumer in consumers:
        consumer.close()
    for thread in threads:
        thread.join()
    print(f"worked off after {took:.1f} s, {messages / took:.0f} a second, at most {rate}", file=sys.stderr)
    print(f"lost: {account.missing}, worked on twice: {account.twice}")
    with Admin(address) as admin:
        admin.delete_stream(stream)  # this program's own


if __name__ == "__main__":
    try:
        numbers = [int(argument) for argument in sys.argv[1:3]]
        main(os.environ.get("ZBROKER_URL", "zb://localhost"), *(numbers + [200_000, 40_000][len(numbers) :]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
