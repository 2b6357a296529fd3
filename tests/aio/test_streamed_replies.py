"""Replies in parts under asyncio, and cancelling at both ends."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import patterns.sync
from patterns.aio import IncomingRequest, Replier, Requester
from patterns.wire.errors import (
    ApplicationError,
    BadArgument,
    Cancelled,
    Closed,
    HandlerFailed,
    ReplierLost,
    ShuttingDown,
    TimedOut,
)
from patterns.wire.limits import PARTS_WINDOW
from tests.aio.loops import IDLE_S, attempts, in_a_loop, serving
from tests.processes import program
from tests.sockets import places
from tests.sockets.places import Place
from tests.sockets.test_streamed_replies import PARTS_REPLIER


class Rows:
    """A handler that streams numbers, and what it has done."""

    def __init__(self, stall_at: int = -1) -> None:
        self.made = 0
        self.closed = asyncio.Event()
        self._stall_at = stall_at

    async def __call__(self, body: int) -> AsyncIterator[int]:  # type: ignore[misc]
        try:
            for number in range(body):
                if number == self._stall_at:
                    await asyncio.Event().wait()
                self.made += 1
                yield number
        finally:
            self.closed.set()


@in_a_loop
async def test_parts_come_in_order_and_the_loop_ends(place: Place) -> None:
    async with serving(place.bind, "rows", Rows(), concurrency=2) as replier, Requester(place.of(replier)) as asker:
        for count in (0, 1, 3 * PARTS_WINDOW + 1):
            rows = asker.stream("rows", count)
            assert [part async for part in rows] == list(range(count))
            assert [part async for part in rows] == []
        assert not asker._streams
        assert not asker._outcomes
        with pytest.raises(BadArgument):
            await asker.request("rows", 1)


@in_a_loop
async def test_generators_of_every_kind_stream(place: Place) -> None:
    def plain(body: int) -> Iterator[int]:
        yield from range(body)

    async def awaited(body: int) -> Iterator[int]:
        return plain(body)

    with ThreadPoolExecutor(1) as executor:
        for handler, more in ((plain, {}), (awaited, {}), (plain, {"executor": executor})):
            async with (
                serving(place.bind, "rows", handler, **more) as replier,
                Requester(place.of(replier), codec="json") as asker,
            ):
                assert [part async for part in asker.stream("rows", 300, type=int)] == list(range(300))


@in_a_loop
async def test_both_shells_stream_to_each_other(place: Place) -> None:
    def rows(body: int) -> Iterator[int]:
        yield from range(body)

    with places.serving(place.bind, "rows", rows) as replier:
        async with Requester(place.of(replier)) as asker:
            assert [part async for part in asker.stream("rows", 300)] == list(range(300))
    async with serving(place.bind, "rows", Rows()) as one:
        address = place.of(one)

        def take() -> list[object]:
            with patterns.sync.Requester(address) as asker:
                return list(asker.stream("rows", 300))

        assert await asyncio.to_thread(take) == list(range(300))


@in_a_loop
async def test_what_the_handler_raises_comes_after_the_parts(place: Place) -> None:
    async def rows(body: str) -> AsyncIterator[int]:
        yield 1
        raise ApplicationError("there are no more", code="no_more") if body == "known" else KeyError(body)

    async with serving(place.bind, "rows", rows) as replier, Requester(place.of(replier)) as asker:
        for body, error in (("known", ApplicationError), ("other", HandlerFailed)):
            parts = asker.stream("rows", body)
            assert await anext(parts) == 1
            with pytest.raises(error):
                await anext(parts)


@pytest.mark.parametrize("how", ["break", "close", "async with", "task"])
@in_a_loop
async def test_leaving_closes_the_generator_a_window_ahead(place: Place, how: str) -> None:
    rows = Rows(stall_at=3 if how == "task" else -1)
    async with serving(place.bind, "rows", rows, concurrency=2) as replier, Requester(place.of(replier)) as asker:
        if how == "break":
            async for part in asker.stream("rows", 1_000_000):
                if part == 5:
                    break
        elif how == "task":
            first = asyncio.Event()

            async def take() -> None:
                async for part in asker.stream("rows", 1_000_000, part_timeout_s=IDLE_S):
                    if part == 2:
                        first.set()

            task = asyncio.create_task(take())
            await first.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with asker.stream("rows", 1_000_000) as parts:
                await anext(parts)
                if how == "close":
                    parts.close()
                    assert [part async for part in parts] == []
        await rows.closed.wait()
        assert rows.made <= 6 + PARTS_WINDOW + 1
        assert [part async for part in asker.stream("rows", 3)] == [0, 1, 2]


@in_a_loop
async def test_the_next_part_may_be_cancelled_at_any_await(place: Place) -> None:
    gate = asyncio.Event()

    async def rows(body: object) -> AsyncIterator[object]:
        await gate.wait()
        yield body

    async with serving(place.bind, "rows", rows, concurrency=4) as replier, Requester(place.of(replier)) as asker:
        for attempt in attempts():
            gate.clear()
            parts = asker.stream("rows", attempt.name, part_timeout_s=IDLE_S)
            taking = asyncio.create_task(attempt(anext(parts)))
            await attempt.waits.wait()
            gate.set()
            assert await taking in (None, attempt.name)
            assert [part async for part in parts] == []
            assert [part async for part in asker.stream("rows", "next", part_timeout_s=IDLE_S)] == ["next"]
            assert not asker._outcomes


@in_a_loop
async def test_a_replier_killed_in_the_middle_is_lost_after_what_came(place: Place, tmp_path: Path) -> None:
    with program(PARTS_REPLIER, tmp_path, place.bind) as killed:
        printed = await asyncio.to_thread(killed.line)
        async with Requester(place.broker.url if place.broker else printed) as asker:
            parts = asker.stream("rows", 10, part_timeout_s=IDLE_S)
            assert [await anext(parts) for _ in range(10)] == list(range(10))
            await asyncio.to_thread(killed.kill)
            with pytest.raises(ReplierLost):
                await anext(parts)


@in_a_loop
async def test_many_streams_share_a_requester_and_a_slow_one_stops_nobody(place: Place) -> None:
    async with (
        serving(place.bind, "rows", Rows(), concurrency=16) as replier,
        Requester(place.of(replier)) as asker,
        asker.stream("rows", 1_000_000) as slow,
    ):
        assert await anext(slow) == 0

        async def take(count: int) -> int:
            return len([part async for part in asker.stream("rows", count, part_timeout_s=IDLE_S)])

        counts = range(200, 210)
        assert await asyncio.gather(*map(take, counts)) == list(counts)
        assert await anext(slow) == 1


@in_a_loop
async def test_send_part_waits_and_says_when_nobody_does(place: Place) -> None:
    async with Replier(place.bind, "rows") as replier:
        await replier.ready()

        async def send_all(request: IncomingRequest) -> int:
            for number in range(1_000_000):
                try:
                    await request.send_part(number)
                except Cancelled:
                    return number
            return -1

        async def serve() -> int:
            request = await replier.receive(IDLE_S)
            number = await send_all(request)
            request.fail("nobody waits")
            request = await replier.receive(IDLE_S)
            await request.send_part("x")
            request.end()
            return number

        serving = asyncio.create_task(serve())
        async with Requester(place.of(replier)) as asker:
            async for part in asker.stream("rows", None, part_timeout_s=IDLE_S):
                if part == 3:
                    break
            assert [part async for part in asker.stream("rows", None, part_timeout_s=IDLE_S)] == ["x"]
        assert 4 <= await serving <= 4 + PARTS_WINDOW


@pytest.mark.parametrize("concurrency", [1, 4])
@in_a_loop
async def test_a_handler_is_cancelled_when_its_requester_gives_up(place: Place, concurrency: int) -> None:
    ended: list[str] = []

    async def handler(body: str) -> str:
        if body == "go on":
            return body
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(body)
            if body == "swallow":
                return "late"
            raise
        return ""

    async with serving(place.bind, "slow", handler, concurrency=concurrency) as replier:  # noqa: SIM117
        async with Requester(place.of(replier)) as asker:
            for body in ("raise", "swallow"):
                with pytest.raises(TimedOut):
                    await asker.request("slow", body, timeout_s=0.2)
                assert await asker.request("slow", "go on", timeout_s=IDLE_S) == "go on"
                assert ended[-1] == body
            asking = asyncio.create_task(asker.request("slow", "task", timeout_s=IDLE_S))
            while replier._serving == {}:
                await asyncio.sleep(0.01)
            asking.cancel()
            assert await asker.request("slow", "go on", timeout_s=IDLE_S) == "go on"
            while "task" not in ended:
                await asyncio.sleep(0.01)
            assert not replier._cancelled
            assert not replier._stopped


@in_a_loop
async def test_a_handler_in_an_executor_looks_for_itself(place: Place) -> None:
    seen = threading.Event()

    def handler(body: object, request: Any) -> None:
        while not request.is_cancelled:
            seen.wait(0.01)
        seen.set()

    with ThreadPoolExecutor(1) as executor:
        async with serving(place.bind, "slow", handler, executor=executor) as replier:  # noqa: SIM117
            async with Requester(place.of(replier)) as asker:
                with pytest.raises(TimedOut):
                    await asker.request("slow", 1, timeout_s=0.2)
        assert await asyncio.to_thread(seen.wait, IDLE_S)


@pytest.mark.parametrize("concurrency", [1, 3])
@in_a_loop
async def test_close_lets_handlers_finish_and_refuses_what_was_not_begun(place: Place, concurrency: int) -> None:
    gate, begun = asyncio.Event(), []

    async def handler(body: object) -> object:
        begun.append(body)
        await gate.wait()
        return body

    replier = Replier(place.bind, "gate", handler, concurrency=concurrency)
    await replier.ready()
    serving = asyncio.create_task(replier.serve_forever())
    async with Requester(place.of(replier)) as asker:
        asking = [asyncio.create_task(asker.request("gate", n, timeout_s=IDLE_S)) for n in range(concurrency)]
        while len(begun) < concurrency:
            await asyncio.sleep(0.01)
        if not place.brokered:  # a broker gives it no more than it has credit for
            late = asyncio.create_task(asker.request("gate", "late", timeout_s=IDLE_S))
            while not replier._requests and concurrency == 1:
                await asyncio.sleep(0.01)
        closing = asyncio.create_task(replier.close(IDLE_S))
        if not place.brokered:
            with pytest.raises(ShuttingDown, match="not begun"):
                await late
        assert not closing.done()
        gate.set()
        assert await asyncio.gather(*asking) == list(range(concurrency))
        await closing
        await serving
        assert begun == list(range(concurrency))


@in_a_loop
async def test_close_says_what_was_not_answered_in_time(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    rows = Rows(stall_at=1)
    replier = Replier(place.bind, "rows", rows, concurrency=2)
    await replier.ready()
    serving = asyncio.create_task(replier.serve_forever())
    async with Requester(place.of(replier)) as asker:
        parts = asker.stream("rows", 5, part_timeout_s=IDLE_S)
        assert await anext(parts) == 0
        with caplog.at_level(logging.WARNING):
            await replier.close(0.1)
        assert "closed while 1 request had no reply" in caplog.text
        with pytest.raises(ReplierLost):
            await anext(parts)
        await rows.closed.wait()
        await serving


@in_a_loop
async def test_a_requester_that_closes_ends_its_streams(place: Place) -> None:
    rows = Rows()
    async with serving(place.bind, "rows", rows, concurrency=2) as replier:
        asker = Requester(place.of(replier))
        parts = asker.stream("rows", 1_000_000)
        await anext(parts)
        await asker.close()
        with pytest.raises(Closed):
            [part async for part in parts]
        await rows.closed.wait()
