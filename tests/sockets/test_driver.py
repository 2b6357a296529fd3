"""The driver and its keeper: who sleeps on the sockets, what forks, what ends. Real threads, sockets and processes."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from patterns.io.clock import clock
from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import Closed, Forked, OutcomeUnknown, TimedOut, Unavailable
from tests.processes import Broker, only_long, program, until
from tests.sockets.places import Crowd, Place, serving

LEAVES_ALL_OPEN = """
import sys, threading
from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber
url = sys.argv[1]
roles = [Requester(url), Replier(url, "s"), Publisher(url), Subscriber(url, ">"), Producer(url, "w"),
         Consumer(url, "w", group="g"), Publisher("tcp://127.0.0.1:0"), Replier("tcp://127.0.0.1:0", "s"),
         Requester("tcp://127.0.0.1:9"), Subscriber("tcp://127.0.0.1:9", ">")]
if sys.argv[2] == "ready":
    roles[1].ready(); roles[3].ready(); roles[5].ready()
    roles[4].send(1)
    threading.Thread(target=lambda: next(iter(roles[3]), None), daemon=True).start()
    threading.Thread(target=lambda: next(iter(roles[1]), None), daemon=True).start()
print("made")
"""

FORKS = """
import os, sys
from patterns.sync import Consumer, Producer, Publisher, Requester
from patterns.wire.errors import Forked
url = sys.argv[1]
requester, producer, publisher = Requester(url), Producer(url, "w"), Publisher(url)
consumer = Consumer(url, "w", group="g")
bound = Publisher("tcp://127.0.0.1:0")
producer.send(0)
for one in (publisher, bound):
    one.publish("a", 0)
    one._driver.kicked = True  # as it is for a moment after each publish
producer._driver.kicked = True
calls = [lambda: requester.request("s", 1), lambda: producer.send(1), lambda: publisher.publish("a", 1),
         lambda: next(iter(consumer)), lambda: producer.flush(), lambda: publisher.flush(), lambda: consumer.ready(),
         lambda: producer.post(1), lambda: bound.publish("a", 1), lambda: bound.publish("a", 2)]
child = os.fork()
if child == 0:
    wrong = []
    for number, call in enumerate(calls):
        try:
            call()
            wrong.append(number)
        except Forked:
            pass
        except BaseException as error:
            wrong.append((number, repr(error)))
    for role in (requester, producer, publisher, consumer, bound):
        role.close()
    fresh = Producer(url, "w")
    offset = fresh.send("from the child").offset
    fresh.close()
    print("child", wrong, offset, flush=True)
    os._exit(0)
os.waitpid(child, 0)
bound._driver.kicked = publisher._driver.kicked = producer._driver.kicked = False
print("parent", producer.send(1).offset, [next(iter(consumer)).offset for _ in range(1)], flush=True)
for role in (requester, producer, publisher, consumer):
    role.close()
"""


FORKS_A_HANDLER = """
import os, sys
from patterns.sync import Consumer, Producer
from patterns.wire.errors import Forked
with Producer(sys.argv[1], "w") as producer:
    producer.send_many(range(3))
with Consumer(sys.argv[1], "w", group="g") as consumer:
    for delivery in consumer:
        child = os.fork()
        if child == 0:
            wrong = 0
            for call in (delivery.ack, delivery.nack, lambda: next(consumer.batches())):
                try:
                    call()
                    wrong += 1
                except Forked:
                    pass
            os._exit(wrong)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        delivery.ack(confirm=True)
        break
"""


FORKS_AN_ITERATION = """
import asyncio, os, sys
import patterns.aio
from patterns.sync import Consumer, Producer, Publisher, Subscriber
from patterns.wire.errors import Forked

def told(step):
    child = os.fork()
    if child == 0:
        try:
            step()
        except Forked:
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def in_sync(role):
    loop, codes = iter(role), []
    for number in range(1_000):
        assert next(loop).body == number
        if number % 250 == 100:  # somewhere in a batch, now and then
            codes.append(told(lambda: next(loop)))
    return codes

async def in_aio(url):
    async with patterns.aio.Consumer(url, "w", group="aio") as consumer:
        waiting = 0
        while not waiting:
            first = await consumer.receive(30)
            first.ack()
            rest = list(consumer._slices.waiting())
            consumer._slices._rest, waiting = iter(rest), len(rest)
        child = os.fork()
        if child == 0:
            try:
                consumer.__aiter__().__anext__().send(None)
            except Forked:
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

url = sys.argv[1]
with Producer(url, "w") as producer:
    producer.send_many(range(2_000))
with Consumer(url, "w", start="first") as consumer:
    print("reader", *in_sync(consumer), flush=True)
with Subscriber(url, "t") as subscriber, Publisher(url) as publisher:
    subscriber.ready(30)
    for number in range(2_000):
        publisher.publish("t", number)
    print("subscriber", *in_sync(subscriber), flush=True)
print("aio", asyncio.run(in_aio(url)), flush=True)
"""


def test_an_iteration_in_the_child_of_a_fork_gives_nothing_more(broker: Broker, tmp_path: Path) -> None:
    with program(FORKS_AN_ITERATION, tmp_path, broker.url) as forks:
        assert [forks.line() for _ in range(3)] == ["reader 0 0 0 0", "subscriber 0 0 0 0", "aio 0"]
        assert forks.wait() == 0


def test_an_ack_in_the_child_of_a_fork_is_refused_in_the_thread_that_iterates_too(
    broker: Broker, tmp_path: Path
) -> None:
    with program(FORKS_A_HANDLER, tmp_path, broker.url) as forks:
        assert forks.line() == "0"
        assert forks.wait() == 0


def test_after_a_fork_the_child_is_told_and_the_parent_goes_on(broker: Broker, tmp_path: Path) -> None:
    with program(FORKS, tmp_path, broker.url) as forks:
        assert forks.line() == "child [] 1"
        assert forks.line() == "parent 2 [0]"
        assert forks.wait() == 0


@pytest.mark.parametrize("when", ["at once", "ready"])
def test_a_program_that_leaves_all_open_ends(broker: Broker, tmp_path: Path, when: str) -> None:
    with program(LEAVES_ALL_OPEN, tmp_path, broker.url, when) as ending:
        assert ending.line() == "made"
        assert ending.wait(10) == 0
        assert "Traceback" not in ending.errors


def test_a_bind_that_fails_leaves_no_descriptors() -> None:
    with Publisher("tcp://127.0.0.1:0") as taken:

        def open_after(tries: int) -> int:
            for _ in range(tries):
                with pytest.raises(Unavailable):
                    Replier(taken.address, "s")
            return len(os.listdir("/dev/fd"))

        first = open_after(1)
        second = open_after(4)
        until(lambda: len(os.listdir("/dev/fd")) <= first, 30, f"{first} descriptors again, not {second}")


def test_an_exit_that_has_no_time_left_waits_for_nobody() -> None:
    with Producer("zb://127.0.0.1:1", "s") as producer:
        posted = producer.post(1)
        producer._driver.at_exit(0)
        assert producer.closed
        with pytest.raises(OutcomeUnknown):
            posted.result(0)


POSTS_AND_ENDS = """
import sys
from patterns.sync import Producer
producer = Producer(sys.argv[1], "posted")
for number in range(500):
    producer.post(number)
"""


def test_what_a_program_has_posted_when_it_ends_is_stored_or_told(broker: Broker, tmp_path: Path) -> None:
    with program(POSTS_AND_ENDS, tmp_path, broker.url) as ending:
        assert ending.wait() == 0
        is_told = "had no confirm" in ending.errors
    with Consumer(broker.url, "posted", idle_timeout_s=1.0) as consumer:
        assert is_told or [delivery.body for delivery in consumer] == list(range(500))


def test_an_idle_role_costs_no_cpu(broker: Broker) -> None:
    """A keeper or leader that spins would take all of it."""
    with Producer(broker.url, "w") as out, Consumer(broker.url, "w", group="g") as consumer, Publisher(broker.url) as p:
        out.send(1)
        p.wait_for_subscribers(0)
        consumer.ready()
        crowd = Crowd()
        ended = threading.Event()
        crowd.run(lambda: [d.ack() for d in consumer])
        until(lambda: consumer._driver.is_led, 10, "the waiting")
        before = time.process_time()
        ended.wait(2)
        used = time.process_time() - before
        consumer.close()
        crowd.join()
        assert used < 0.4


def test_what_is_posted_while_another_thread_leads_leaves_at_once(broker: Broker) -> None:
    """A kick that falls between a leader's turn and its sleep must not wait for its next timer, 2 s away."""
    with Producer(broker.url, "w") as out:
        out.send(0)
        ended = threading.Event()
        crowd = Crowd()
        crowd.run(lambda: out._driver.wait(ended.is_set, None))
        for number in range(2_000):
            posted = out.post(number)
            began = time.monotonic()
            assert posted.result(1.5).offset == number + 1, time.monotonic() - began
        ended.set()
        out._driver.kick()
        crowd.join()


class Deaf:
    """A poll that hears bells alone: the sockets' descriptors, whose edge another thread has swallowed, say nothing."""

    def __init__(self, wake_fd: int) -> None:
        self._poll = select.poll()
        self._poll.register(wake_fd, select.POLLIN)

    def poll(self, timeout_ms: int) -> list[tuple[int, int]]:
        return self._poll.poll(timeout_ms)

    def unregister(self, fd: int) -> None:
        pass


def test_who_waits_beside_a_leader_tells_it_of_what_its_own_send_has_taken_in(place: Place) -> None:
    """Else the leader slept until its next timer, two seconds away: threads that share a Requester took 12 ms a request."""
    replies: list[int] = []

    def answer(body: int) -> int:
        until(lambda: body == 1 or driver.is_led, what="the sleep of who waits for it")
        return body

    with serving(place.bind, "echo", answer) as replier, Requester(place.of(replier)) as asker:
        driver = asker._driver
        assert asker.request("echo", 1, timeout_s=20) == 1
        with driver.lock:
            driver._poll = Deaf(driver._wake.fd)
            driver.engine.next_timeout = lambda: None
        crowd = Crowd()
        crowd.run(lambda: replies.append(asker.request("echo", 2, timeout_s=60)))
        until(lambda: bool(replies) or driver.wait(lambda: False, clock()), what="the reply")
        crowd.join()
        assert replies == [2]


def test_a_keeper_that_never_comes_to_rest_lets_callers_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with Publisher("tcp://127.0.0.1:0") as publisher:
        with monkeypatch.context() as busy:
            busy.setattr(publisher._driver._links, "is_readable", lambda: True)
            until(lambda: publisher._driver._keeper.leads)
            for number in range(20):
                publisher.publish("a.b", number)
                publisher.flush(30)
        publisher.flush(30)


def test_who_cannot_get_at_the_sockets_is_told_at_the_deadline() -> None:
    with Publisher("tcp://127.0.0.1:0") as publisher:
        raised: list[BaseException] = []

        def flush() -> None:
            with pytest.raises(TimedOut) as caught:
                publisher.flush(0.1)
            raised.append(caught.value)

        with publisher._driver.lock:
            thread = threading.Thread(target=flush)
            thread.start()
            thread.join(30)
        assert len(raised) == 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda: (Publisher("tcp://127.0.0.1:0"), lambda role: role.wait_for_subscribers(1, 600)),
        lambda: (Publisher("zb://127.0.0.1:1"), lambda role: role.wait_for_subscribers(1, 600)),
        lambda: (Publisher("zb://127.0.0.1:1"), lambda role: role.flush(600)),
        lambda: (Subscriber("zb://127.0.0.1:1", "x"), lambda role: role.ready(600)),
        lambda: (Subscriber("tcp://127.0.0.1:1", "x"), lambda role: role.ready(600)),
        lambda: (Replier("zb://127.0.0.1:1", "x"), lambda role: role.ready(600)),
        lambda: (Consumer("zb://127.0.0.1:1", "x", group="g"), lambda role: role.ready(600)),
    ],
)
def test_what_waits_hears_of_a_close_by_another_thread(wait: Callable[[], tuple[Any, Callable[[Any], None]]]) -> None:
    role, call = wait()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call(role)
        except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: role._driver.is_led)
    role.close(1)
    thread.join(30)
    assert [type(error) for error in raised] == [Closed]


def test_many_threads_and_roles_end_before_a_deadline(broker: Broker) -> None:
    crowd = Crowd()
    with (
        serving(broker.url, "echo", lambda body: body),
        Requester(broker.url) as asker,
        Producer(broker.url, "w") as out,
        Publisher(broker.url) as publisher,
    ):
        for who in range(5):
            crowd.run(lambda who=who: [asker.request("echo", n, timeout_s=20) for n in range(100)])
            crowd.run(lambda who=who: [out.send(n) for n in range(50)])
            crowd.run(lambda who=who: [out.post(n).result(20) for n in range(50)])
            crowd.run(lambda who=who: [publisher.publish(f"t{who}", n) for n in range(2_000)])
        crowd.join(60)


def _roles(place: Place) -> list[Callable[[], Any]]:
    return [
        lambda: Replier(place.bind, "s"),
        lambda: Publisher(place.bind),
        lambda: Requester(place.broker.url if place.broker else "tcp://127.0.0.1:9"),
        lambda: Subscriber(place.broker.url if place.broker else "tcp://127.0.0.1:9", ">"),
    ]


def test_roles_leave_no_thread_and_no_descriptor(place: Place) -> None:
    for make in _roles(place):
        make().close()
    threads = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        for make in _roles(place):
            make().close()
    until(lambda: threading.active_count() <= threads, 10, "the end of the keepers")
    if descriptors:
        until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 4, 10, "the closing of descriptors")


def test_closing_while_another_thread_waits_leaves_no_descriptor(broker: Broker) -> None:
    def once() -> None:
        consumer = Consumer(broker.url, "w", group="g")
        crowd = Crowd()
        crowd.run(list, consumer)
        until(lambda: consumer._driver.is_led, 10, "the waiting")
        consumer.close()
        crowd.join()

    once()
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the system shows no descriptors in /proc")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        once()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 4, 10, "the closing of descriptors")


def test_a_closed_object_says_so_and_closing_twice_is_harmless(place: Place) -> None:
    for make in _roles(place):
        role = make()
        role.close()
        role.close()
        assert role.closed
    with pytest.raises(Closed):
        role.ready()


def test_many_threads_may_close_at_once(place: Place) -> None:
    for make in _roles(place):
        role = make()
        crowd = Crowd()
        for _ in range(4):
            crowd.run(role.close)
        crowd.join()


def test_a_session_is_there_at_once_each_time(place: Place) -> None:
    """A wakeup that is missed while connecting would cost the whole 5 s of a handshake."""
    with serving(place.bind, "echo", lambda body: body) as replier:
        address = place.of(replier)
        for number in range(50):
            with Requester(address) as asker:
                assert asker.request("echo", number, timeout_s=3) == number


def test_who_waits_beside_a_leader_may_have_a_deadline_in_ages() -> None:
    with Publisher("tcp://127.0.0.1:0") as publisher:
        driver, done = publisher._driver, threading.Event()
        crowd = Crowd()
        crowd.run(driver.wait, done.is_set, clock() + (1 << 53) * 1_000)
        crowd.run(driver.wait, done.is_set, clock() + (1 << 53) * 1_000)
        until(lambda: driver.followers)
        done.set()
        publisher.flush(30)
        crowd.join()


def test_forked_is_raised_for_what_a_parent_made() -> None:
    """In this process, without a fork: the mark is what counts."""
    with Publisher("tcp://127.0.0.1:0") as publisher:
        publisher._driver.forked = True
        with pytest.raises(Forked):
            publisher.flush()
        publisher._driver.forked = False


@only_long
def test_a_thousand_sessions_one_after_the_other(place: Place) -> None:
    with serving(place.bind, "echo", lambda body: body) as replier:
        address = place.of(replier)
        for number in range(1_000):
            with Requester(address) as asker:
                assert asker.request("echo", number, timeout_s=3) == number


def test_a_timeout_of_nothing_takes_what_has_come(tmp_path: Path) -> None:
    """Who polls with receive(0) is the only one to read the sockets: without a look they would stay unread for ever."""
    with Broker(tmp_path) as broker:
        with Producer(broker.url, "s") as out:
            out.send_many(range(50))
        with Consumer(broker.url, "s", group="g") as member:
            member.ready(30)
            taken = []

            def has_all() -> bool:
                if (delivery := member.receive(0)) is not None:
                    taken.append(delivery.body)
                    delivery.ack()
                return len(taken) == 50

            until(has_all, what="taking 50 messages")
            assert taken == list(range(50))
