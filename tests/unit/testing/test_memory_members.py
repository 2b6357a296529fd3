"""What a member of a group is given by a broker in memory while its connection comes and goes, or its event loop is busy."""

import asyncio
import threading

from patterns import aio
from patterns.sync import Consumer, Producer
from zbroker.testing import MemoryBroker

SOON_S = 30.0
EXPIRED_S = 30.0  # a session without a word is over by then, and so are its leases


def test_what_waited_for_a_member_whose_session_is_over_is_not_given_to_it() -> None:
    with (
        MemoryBroker() as broker,
        Producer(broker.url, "work") as producer,
        Consumer(broker.url, "work", group="g", idle_timeout_s=SOON_S) as slow,
    ):
        batches = slow.batches()
        producer.send(0)
        assert next(batches).bodies == [0]
        for number in (1, 2):
            producer.send(number)
        slow.ready(timeout_s=SOON_S)  # a turn: by now they wait in it for the one that is busy
        broker.cut(slow)
        broker.advance(EXPIRED_S)
        with Consumer(broker.url, "work", group="g") as other:
            for _ in range(3):
                taken = other.receive(timeout_s=SOON_S)
                assert taken is not None
                taken.ack(confirm=True)
        broker.mend()
        slow.ready(timeout_s=SOON_S)
        producer.send(3)
        assert next(batches).bodies == [3]


def test_a_loop_that_is_busy_while_time_is_skipped_is_not_waited_for_at_each_step() -> None:
    is_busy, may_go_on = threading.Event(), threading.Event()

    async def run(url: str) -> object:
        async with aio.Consumer(url, "work", group="g") as consumer:
            await consumer.ready()
            is_busy.set()
            may_go_on.wait()
            delivery = await consumer.receive(SOON_S)
            return delivery and delivery.body

    with MemoryBroker() as broker, Producer(broker.url, "work") as producer:
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(run(broker.url))))
        thread.start()
        is_busy.wait()
        broker.advance(300)  # in as many steps as there are heartbeats
        producer.send(1)
        may_go_on.set()
        thread.join()
        assert found == [1]
