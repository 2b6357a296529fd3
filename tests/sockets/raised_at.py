"""A program whose signal handler raises at random instants in the midst of calls of one role; then it says what still holds.

Run by test_signals.py as `python -m tests.sockets.raised_at ROLE URL SEED SECONDS`; it prints one line of JSON. No test lives here.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import ZbrokerError

_LATEST_S = 0.008  # after arming: within the calls, which take less than a millisecond to a few
_LIMIT_S = 20.0


class Interrupted(Exception):
    """What the handler raises: as Ctrl-C does, or a limit made with setitimer()."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _disarm() -> None:
    while True:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
            return
        except Interrupted:
            pass  # it came just now


class Storm:
    """Calls under fire, until the time is over.

    Attributes:
        errors: what calls raised that the handler had not.
    """

    def __init__(self, seed: int, seconds: float) -> None:
        self.random = random.Random(seed)
        self.interrupted = 0
        self.errors: list[str] = []
        self._until = time.monotonic() + seconds

    def __call__(self, call: Callable[[], object]) -> None:
        signal.signal(signal.SIGALRM, _raise)
        while time.monotonic() < self._until:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + self.random.random() * _LATEST_S)
                while time.monotonic() < self._until:  # what is raised within a __del__ is lost, and no other comes
                    call()
            except Interrupted:
                self.interrupted += 1
            except ZbrokerError as error:
                self.errors.append(repr(error))
            finally:
                _disarm()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


def producer(storm: Storm, url: str) -> dict[str, object]:
    """Confirmed messages are stored, once, where the receipt says."""
    said: dict[int, int] = {}
    number = 0
    with Producer(url, "storm", timeout_s=_LIMIT_S) as role:

        def send() -> None:
            nonlocal number
            first, number = number, number + 50
            match storm.random.randrange(3):
                case 0:
                    said[first] = role.send(first).offset
                case 1:
                    receipts = role.send_many(range(first, first + 50))
                    said.update({first + at: receipt.offset for at, receipt in enumerate(receipts)})
                case _:
                    posted = role.post(first)
                    role.flush(_LIMIT_S)
                    said[first] = posted.result(_LIMIT_S).offset

        storm(send)
        said[number] = role.send(number).offset
    with Consumer(url, "storm", idle_timeout_s=_LIMIT_S) as reader:
        stored = {}
        for delivery in reader:
            stored[delivery.offset] = delivery.body
            if delivery.body == number:
                break
    wrong = [(body, at) for body, at in said.items() if stored.get(at) != body]
    twice = len(stored) - len(set(stored.values()))
    return {"wrong": wrong[:5], "twice": twice}


def requester(storm: Storm, url: str) -> dict[str, object]:
    """Each reply is of the request that was asked."""
    wrong: list[object] = []
    number = 0
    with Replier(url, "echo", lambda body: body) as replier, Requester(url) as role:
        serving = threading.Thread(target=replier.serve_forever)
        serving.start()
        replier.ready(_LIMIT_S)

        def ask() -> None:
            nonlocal number
            number += 1
            if storm.random.random() < 0.7:
                found: object = role.request("echo", number, timeout_s=_LIMIT_S)
            else:
                (found,) = role.stream("echo", number, timeout_s=_LIMIT_S)
            if found != number:
                wrong.append((number, found))

        storm(ask)
        ask()
        replier.close()
        serving.join()
    return {"wrong": wrong[:5]}


def replier(storm: Storm, url: str) -> dict[str, object]:
    """Whoever asks is answered, by a reply or an error, and the Replier's one place is free at the end."""
    answers: list[object] = []
    is_over = threading.Event()

    def ask() -> None:
        with Requester(url) as asker:
            while not is_over.is_set():
                try:
                    answers.append(asker.request("echo", 1, timeout_s=_LIMIT_S))
                except ZbrokerError as error:
                    answers.append(type(error).__name__)

    with Replier(url, "echo") as role:
        role.ready(_LIMIT_S)
        asking = threading.Thread(target=ask)
        asking.start()

        def serve() -> None:
            request = role.receive(_LIMIT_S)
            assert request is not None
            request.reply(request.body)
            del request

        storm(serve)
        is_over.set()
        while asking.is_alive():
            request = role.receive(0.1)
            if request is not None:
                request.reply(1)
        asking.join()
    return {"wrong": [answer for answer in answers if answer not in (1, "ReplierLost")][:5], "last": answers[-1]}


def consumer(storm: Storm, url: str) -> dict[str, object]:
    """All that is stored comes, while the member lives."""
    with Producer(url, "work") as source:
        source.send_many(range(20_000))
    seen: set[int] = set()
    with Consumer(url, "work", group="g", credit=100) as role:

        def take() -> None:
            delivery = role.receive(_LIMIT_S)
            if delivery is None:
                raise Interrupted  # all was taken
            seen.add(delivery.body)
            delivery.ack()

        storm(take)
        with Producer(url, "work") as source:
            source.send(-1)
        while -1 not in seen:
            take()
    return {"wrong": sorted(set(range(max(seen))) - seen)[2 * storm.interrupted :]}


def publisher(storm: Storm, url: str) -> dict[str, object]:
    """In order, and none twice."""
    got: list[int] = []
    with Subscriber(url, "n.>", idle_timeout_s=_LIMIT_S) as listener, Publisher(url, timeout_s=_LIMIT_S) as role:
        listener.ready(_LIMIT_S)
        number = 0

        def listen() -> None:
            for message in listener:
                got.append(message.body)
                if message.body < 0:
                    return

        listening = threading.Thread(target=listen)
        listening.start()

        def publish() -> None:
            nonlocal number
            number += 1
            role.publish("n.x", number)
            if storm.random.random() < 0.2:
                role.flush(_LIMIT_S)

        storm(publish)
        role.publish("n.x", -1)
        role.flush(_LIMIT_S)
        listening.join()
    return {"wrong": [] if got[:-1] == sorted(set(got[:-1])) else ["order"], "lost": listener.lost}


if __name__ == "__main__":
    _, which, url, seed, seconds = sys.argv
    storm = Storm(int(seed), float(seconds))
    found = {
        "producer": producer,
        "requester": requester,
        "replier": replier,
        "consumer": consumer,
        "publisher": publisher,
    }
    told = found[which](storm, url)
    print(json.dumps({**told, "interrupted": storm.interrupted, "errors": storm.errors[:5]}))
