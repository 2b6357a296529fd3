"""The program whose system calls are recorded: a broker over several lives, and what clients were told, as marks in a file.

Arguments: the folder, the seed, and the number of lives. A mark is a line, written after the fact that it tells of, so that in an
account of both processes' calls everything that the fact depends on stands before it:

    ready EPOCH | stored STREAM OFFSET BODY | seen STREAM OFFSET BODY | acked OFFSET
"""

from __future__ import annotations

import os
import random
import sys
from contextlib import suppress
from pathlib import Path

from patterns.sync import Consumer, Producer
from patterns.wire.errors import ZbrokerError
from tests.processes import Broker

ROUNDS = 12  # of a life; each ends by an ack or two
WAIT_S = 0.3  # for a message on its way; there may be none, and then what is recorded would be a pause


class Run:
    """Counts bodies, so that each is sent once, and writes marks."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._dice = random.Random(seed)
        self._marks = os.open(folder / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._sent = 0

    def mark(self, *words: object) -> None:
        os.write(self._marks, f"{' '.join(map(str, words))}\n".encode())

    def _body(self) -> bytes:
        """Its number, and so much behind it that some commits are large and some segments fill."""
        self._sent += 1
        return b"%08d" % self._sent + bytes(self._dice.choice([0, 10, 300, 5_000, 40_000]))

    def life(self, broker: Broker, is_clean: bool) -> None:
        self.mark("ready", broker.epochs[-1])
        out = Producer(broker.url, "work", codec="raw", name="p", timeout_s=30)
        beside = Producer(broker.url, "beside", codec="raw", timeout_s=30)
        consumer = Consumer(broker.url, "work", group="g", codec="raw")
        consumer.ready(30)
        for _ in range(ROUNDS):
            self._round(out, beside, consumer)
        for _ in range(5):
            out.post(self._body())  # under way when it ends
        if is_clean:
            broker.terminate()
        else:
            broker.kill()
        for one in (out, beside, consumer):
            with suppress(ZbrokerError):
                one.close(0)  # nobody is there any more to wait for

    def _round(self, out: Producer, beside: Producer, consumer: Consumer) -> None:
        body = self._body()
        self.mark("stored work", out.send(body).offset, int(body[:8]))
        bodies = [self._body() for _ in range(self._dice.randint(1, 20))]
        for body, receipt in zip(bodies, out.send_many(bodies), strict=True):
            self.mark("stored work", receipt.offset, int(body[:8]))
        body = self._body()
        posted = beside.post(body)
        for _ in range(self._dice.randint(1, 12)):
            delivery = consumer.receive(0.0 if self._dice.random() < 0.5 else WAIT_S)
            if delivery is not None:
                self.mark("seen work", delivery.offset, int(delivery.body[:8]))
                self._ack(delivery)
        self.mark("stored beside", posted.result(30).offset, int(body[:8]))

    def _ack(self, delivery) -> None:
        if self._dice.random() < 0.5:
            delivery.ack()
        else:
            delivery.ack(confirm=True)
            self.mark("acked", delivery.offset)


def main() -> None:
    folder, seed, lives = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    run = Run(folder, seed)
    switches = {name: value for name, value in os.environ.items() if name.startswith(("CRASH_", "PYTHONPATH"))}
    broker = Broker(folder, environment=switches, ready_s=60)  # strace slows it down
    for life in range(lives):
        with broker:
            run.life(broker, is_clean=life % 3 == 2)


main()
