"""Requester and Replier under asyncio: one outcome for each request, and handlers that overlap."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import patterns.sync
from patterns.aio import Admin, Replier, Requester
from patterns.wire.errors import (
    ApplicationError,
    BadArgument,
    HandlerFailed,
    NoReplier,
    ReplierLost,
    TimedOut,
    Unavailable,
    ValidationFailed,
)
from tests.aio.loops import IDLE_S, in_a_loop, serving
from tests.processes import Broker, program
from tests.sockets import places
from tests.sockets.places import Place

SILENT = """
import sys
from patterns.sync import Replier
with Replier(sys.argv[1], "slow") as replier:
    replier.ready()
    print(replier.address)
    for request in replier:
        print("got", request.body)
"""


@in_a_loop
async def test_a_request_has_its_reply(place: Place) -> None:
    async with serving(place.bind, "double", lambda body: body * 2) as replier, Requester(place.of(replier)) as asker:
        assert [await asker.request("double", number) for number in range(100)] == list(range(0, 200, 2))


@in_a_loop
async def test_both_shells_speak_to_each_other(place: Place) -> None:
    with places.serving(place.bind, "echo", lambda body: body) as replier:
        async with Requester(place.of(replier)) as asker:
            assert await asker.request("echo", 1) == 1
    async with serving(place.bind, "echo", lambda body: body) as one:
        address = place.of(one)

        def ask() -> object:
            with patterns.sync.Requester(address) as asker:
                return asker.request("echo", 2)

        assert await asyncio.to_thread(ask) == 2


@in_a_loop
async def test_a_thousand_requests_at_once(place: Place) -> None:
    async with serving(place.bind, "echo", lambda body: body) as replier, Requester(place.of(replier)) as asker:
        asked = [asker.request("echo", number, timeout_s=IDLE_S, headers={"n": "x"}) for number in range(1_000)]
        assert await asyncio.gather(*asked) == list(range(1_000))
        assert not asker._outcomes
        assert not asker._driver._waiters


@in_a_loop
async def test_async_handlers_overlap_up_to_the_concurrency(place: Place) -> None:
    met, most, now = asyncio.Barrier(3), 0, 0

    async def handler(body: int) -> int:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await met.wait()
        now -= 1
        return body

    async with serving(place.bind, "meet", handler, concurrency=3) as replier, Requester(place.of(replier)) as asker:
        asked = [asker.request("meet", number, timeout_s=IDLE_S) for number in range(6)]
        assert sorted(await asyncio.gather(*asked)) == list(range(6))
        assert most == 3


@in_a_loop
async def test_a_handler_in_an_executor_does_not_stop_the_loop(place: Place) -> None:
    gate = threading.Event()

    def handler(body: str) -> str:
        assert gate.wait(IDLE_S)
        return body

    with ThreadPoolExecutor(1) as executor:
        async with (
            serving(place.bind, "block", handler, executor=executor) as replier,
            Requester(place.of(replier)) as asker,
        ):
            asking = asyncio.create_task(asker.request("block", "x", timeout_s=IDLE_S))
            with pytest.raises(NoReplier):
                await asker.request("elsewhere", 1, wait_s=0.1)
            gate.set()
            assert await asking == "x"


@in_a_loop
async def test_failures_are_typed(place: Place) -> None:
    async def handler(body: str) -> object:
        if body == "known":
            raise ApplicationError("sku 7 is unknown", code="no_such_sku")
        if body == "odd":
            return object()
        raise KeyError(body)

    async with serving(place.bind, "fails", handler, type=str) as replier, Requester(place.of(replier)) as asker:
        with pytest.raises(ApplicationError, match="sku 7"):
            await asker.request("fails", "known")
        with pytest.raises(HandlerFailed, match="KeyError"):
            await asker.request("fails", "other")
        with pytest.raises(HandlerFailed):
            await asker.request("fails", "odd")
        with pytest.raises(ValidationFailed):
            await asker.request("fails", 7)
        with pytest.raises(NoReplier, match="elsewhere"):
            await asker.request("elsewhere", 1, wait_s=0.1)


@in_a_loop
async def test_a_silent_replier_times_out_and_its_late_reply_meets_nobody(place: Place) -> None:
    async with Replier(place.bind, "slow") as replier:
        await replier.ready()
        async with Requester(place.of(replier)) as asker:
            with pytest.raises(TimedOut):
                await asker.request("slow", "first", timeout_s=0.3)
            asking = asyncio.create_task(asker.request("slow", "second", timeout_s=IDLE_S))
            async for request in replier:
                request.reply(f"{request.body} answered")
                if request.body == "second":
                    break
            assert await asking == "second answered"


@in_a_loop
async def test_a_killed_replier_is_lost(place: Place, tmp_path: Path) -> None:
    with program(SILENT, tmp_path, place.bind) as killed:
        printed = await asyncio.to_thread(killed.line)
        async with Requester(place.broker.url if place.broker else printed) as asker:
            asking = asyncio.create_task(asker.request("slow", 1, timeout_s=IDLE_S))
            assert await asyncio.to_thread(killed.line) == "got 1"
            await asyncio.to_thread(killed.kill)
            with pytest.raises(ReplierLost):
                await asking


@in_a_loop
async def test_the_next_broker_is_asked_when_one_is_killed(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    with Broker(folders[0], durable=False) as a, Broker(folders[1], durable=False) as b:
        both = f"{a.url},{b.url}"
        async with serving(both, "echo", lambda body: body), Requester(both) as asker:
            assert await asker.request("echo", 1) == 1
            a.kill()
            assert await asker.request("echo", 2, timeout_s=IDLE_S, wait_s=15, idempotent=True) == 2


@in_a_loop
async def test_nobody_there_is_unavailable_and_the_text_names_the_address() -> None:
    for address in ("tcp://127.0.0.1:9", "zb://127.0.0.1:9"):
        async with Requester(address) as asker:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
                await asker.request("echo", 1, timeout_s=0.5)


@in_a_loop
async def test_close_ends_serving_and_a_handler_under_way(place: Place) -> None:
    began = asyncio.Event()

    async def handler(body: object) -> None:
        began.set()
        await asyncio.Event().wait()

    replier = Replier(place.bind, "slow", handler, concurrency=2)
    await replier.ready()
    serving = asyncio.create_task(replier.serve_forever())
    async with Requester(place.of(replier)) as asker:
        asking = asyncio.create_task(asker.request("slow", 1, timeout_s=IDLE_S))
        await began.wait()
        await replier.close(0.1)
        await serving
        with pytest.raises(ReplierLost):
            await asking


@in_a_loop
async def test_iteration_ends_when_idle_and_goes_on(place: Place) -> None:
    async with Replier(place.bind, "echo", idle_timeout_s=0.2) as replier:
        await replier.ready()
        assert [request async for request in replier] == []
        async with Requester(place.of(replier)) as asker:
            asking = asyncio.create_task(asker.request("echo", 1))
            request = await replier.receive(IDLE_S)
            request.reply(2)
            assert await asking == 2


@in_a_loop
async def test_wrong_use_is_refused_at_once() -> None:
    async def handler(body: object) -> object:
        return body

    with pytest.raises(BadArgument):
        Replier("tcp://127.0.0.1:0", "x", handler, concurrency=0)
    with ThreadPoolExecutor(1) as executor, pytest.raises(BadArgument):
        Replier("tcp://127.0.0.1:0", "x", handler, executor=executor)
    async with Replier("tcp://127.0.0.1:0", "x") as replier:
        with pytest.raises(BadArgument):
            await replier.serve_forever()


@in_a_loop
async def test_an_admin_asks(broker: Broker) -> None:
    async with Admin(broker.url) as admin:
        assert "streams" in await admin.status()


@in_a_loop
async def test_what_crosses_the_leave_of_its_replier_was_not_begun(broker: Broker) -> None:
    async with Requester(broker.url) as requester, Admin(broker.url) as admin:
        for _ in range(8):
            async with Replier(broker.url, "s") as replier:
                await replier.ready(IDLE_S)
                asking = [requester.request("s", 1, timeout_s=IDLE_S) for _ in range(2)]
                asked = asyncio.gather(*asking, return_exceptions=True)
                request = await replier.receive(IDLE_S)
                assert request is not None
                while (await admin.status())["services"]["s"]["waiting"] != 1:
                    await asyncio.sleep(0)
                request.reply(1)
            told = await asked
            assert sorted(str(type(one).__name__) for one in told) == ["NoReplier", "int"]
