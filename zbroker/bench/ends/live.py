"""Live publish-subscribe, the roles of zbroker: a sender and a receiver, each for threads and awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from patterns import aio
from patterns.sync import Publisher, Subscriber
from zbroker.bench.ends.bodies import PATTERN, STAMP, TOPIC
from zbroker.bench.ends.feed import Feed, Sending, run
from zbroker.bench.ends.starting import stay
from zbroker.bench.ends.tally import Expected, LatencyTally, SortingTally, Tally, tally_of
from zbroker.bench.ends.window import START_MS, TIMEOUT_MS, Stalled

Say = Callable[[dict[str, Any]], None]
_IDLE_S: Final = TIMEOUT_MS / 1_000


def send_native(say: Say, *, api: str, address: str, codec: str, **told: Any) -> None:
    """Publisher.publish() for each message."""
    sending = msgspec.convert(told, Sending)
    if api == "aio":
        asyncio.run(_send_awaited(say, address, codec, sending))
    else:
        _send(say, address, codec, sending)


def _send(say: Say, address: str, codec: str, sending: Sending) -> None:
    window, feed_now, end = sending.prepare()
    with Publisher(address, codec=codec, timeout_s=_IDLE_S) as publisher:
        say({"address": publisher.address, "window": window.address})
        sent = 0
        started = window.wait_for_start(START_MS)
        say({"begun": started})
        if started:
            publisher.wait_for_subscribers(1, timeout_s=_IDLE_S)
            sent = run(feed_now(), _step(publisher))
        publisher.publish(TOPIC, end)
        publisher.flush()
        say({"sent": sent, "batches": publisher.batches})
        stay()


def _step(publisher: Publisher) -> Callable[[Sequence[Any]], None]:
    publish = publisher.publish

    def step(bodies: Sequence[Any]) -> None:
        for body in bodies:
            publish(TOPIC, body)

    return step


async def _send_awaited(say: Say, address: str, codec: str, sending: Sending) -> None:
    window, feed_now, end = sending.prepare()
    async with aio.Publisher(address, codec=codec, timeout_s=_IDLE_S) as publisher:
        say({"address": publisher.address, "window": window.address})
        sent = 0
        started = await asyncio.to_thread(window.wait_for_start, START_MS)
        say({"begun": started})
        if started:
            await publisher.wait_for_subscribers(1, timeout_s=_IDLE_S)
            sent = await _run_awaited(feed_now(), publisher)
        await publisher.publish(TOPIC, end)
        await publisher.flush()
        say({"sent": sent, "batches": publisher.batches})
        await asyncio.Event().wait()  # as stay() does


async def _run_awaited(feed: Feed, publisher: aio.Publisher) -> int:
    publish = publisher.publish
    try:
        while (part := feed.next()) is not None:
            for body in part:
                await publish(TOPIC, body)
            if feed.must_wait:
                await asyncio.to_thread(feed.wait)  # a loop that stands still would not send what is left
    except Stalled:
        pass  # the receiver's account tells how much is missing
    return feed.sent


# -- receiving ---------------------------------------------------------------------------------------------------


def receive_native(say: Say, *, api: str, address: str, codec: str, **told: Any) -> None:
    """Iteration over a Subscriber; a Message for each."""
    expected = msgspec.convert(told, Expected)
    tally = tally_of(expected)
    if api == "aio":
        asyncio.run(_receive_awaited(address, codec, tally, expected.idle_s))
    else:
        _receive(address, codec, tally, expected.idle_s)
    say(tally.said())
    tally.close()


def _receive(address: str, codec: str, tally: Tally, idle_s: float) -> None:
    with Subscriber(address, PATTERN, codec=codec, idle_timeout_s=idle_s) as subscriber:
        subscriber.ready(timeout_s=START_MS / 1_000)
        tally.start()
        if isinstance(tally, LatencyTally):
            for message in subscriber:
                if tally.note(message.body):
                    break
        else:
            take = _mixed(subscriber) if isinstance(tally, SortingTally) else _one_stream(subscriber)
            while not tally.ended:
                tally.add(take(tally.wanted))


def _one_stream(subscriber: Subscriber) -> Callable[[int], list[Any]]:
    def take(count: int) -> list[Any]:
        return [message.body for message in islice(subscriber, count)]

    return take


def _mixed(subscriber: Subscriber) -> Callable[[int], list[Any]]:
    """Of several senders: nobody knows how many are to come, so it stops at each end of a stream."""

    def take(count: int) -> list[Any]:
        got = []
        for message in islice(subscriber, count):
            body = message.body
            got.append(body)
            if len(body) < STAMP.size:
                break
        return got

    return take


async def _receive_awaited(address: str, codec: str, tally: Tally, idle_s: float) -> None:
    async with aio.Subscriber(address, PATTERN, codec=codec, idle_timeout_s=idle_s) as subscriber:
        await subscriber.ready(timeout_s=START_MS / 1_000)
        tally.start()
        if isinstance(tally, LatencyTally):
            async for message in subscriber:
                if tally.note(message.body):
                    break
            return
        got: list[Any] = []
        wanted = tally.wanted
        async for message in subscriber:
            got.append(message.body)
            if len(got) >= wanted:
                tally.add(got)
                if tally.ended:
                    return
                got, wanted = [], tally.wanted
        tally.add(got)  # silence: what is missing is lost


def stop_reading(say: Say, *, address: str) -> None:
    """A Subscriber that is there and takes nothing. Runs until the process ends."""
    with Subscriber(address, PATTERN, codec="raw") as subscriber:
        subscriber.ready(timeout_s=START_MS / 1_000)
        say({"ready": True})
        stay()
