"""Handlers under asyncio that end more than themselves: the request has its answer, and no offer stays without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from patterns.aio import Replier, Requester
from patterns.wire.errors import HandlerFailed, NoReplier
from tests.aio.loops import in_a_loop
from tests.sockets.places import Place


class Fatal(BaseException):
    """Not an Exception."""


async def _fragile(body: Any) -> Any:
    if body == "die":
        raise Fatal("for good")
    return body


@pytest.mark.parametrize("concurrency", [1, 3])
@in_a_loop
async def test_what_ends_the_server_is_told_to_the_requester_and_ends_the_offer(concurrency: int, place: Place) -> None:
    async with (
        Replier(place.bind, "fragile", _fragile, concurrency=concurrency) as replier,
        Requester(place.of(replier)) as asker,
    ):
        await replier.ready(30)
        server = asyncio.create_task(replier.serve_forever())
        with pytest.raises(HandlerFailed, match="Fatal: for good"):
            await asker.request("fragile", "die", timeout_s=30)
        with pytest.raises(Fatal):
            await server
        with pytest.raises(NoReplier):
            await asker.request("fragile", 1, timeout_s=30, wait_s=0.2)
        server = asyncio.create_task(replier.serve_forever())
        assert await asker.request("fragile", 2, timeout_s=30, wait_s=20) == 2
        await replier.close()
        await server


@pytest.mark.parametrize("concurrency", [1, 3])
@in_a_loop
async def test_a_handler_that_awaits_what_somebody_cancels_has_failed_and_the_service_goes_on(
    concurrency: int, place: Place
) -> None:
    async def handler(body: Any) -> Any:
        if body == "cancelled":
            waiting = asyncio.get_running_loop().create_future()
            waiting.cancel()
            await waiting
        return body

    async with (
        Replier(place.bind, "waits", handler, concurrency=concurrency) as replier,
        Requester(place.of(replier)) as asker,
    ):
        await replier.ready(30)
        server = asyncio.create_task(replier.serve_forever())
        with pytest.raises(HandlerFailed, match="what the handler awaited was cancelled"):
            await asker.request("waits", "cancelled", timeout_s=30)
        assert await asker.request("waits", 1, timeout_s=30) == 1
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server


def test_system_exit_ends_the_program_and_the_request_is_answered_first(place: Place) -> None:
    def leave(body: Any) -> Any:
        raise SystemExit(3)

    outcomes: list[BaseException] = []

    async def ask(address: str) -> None:
        async with Requester(address) as asker:
            try:
                await asker.request("leaves", 1, timeout_s=30)
            except BaseException as error:
                outcomes.append(error)
                raise

    async def both() -> None:
        async with Replier(place.bind, "leaves", leave) as replier:
            await replier.ready(30)
            asked = asyncio.create_task(asyncio.to_thread(asyncio.run, ask(place.of(replier))))
            try:
                await replier.serve_forever()
            finally:
                with pytest.raises(HandlerFailed):
                    await asked

    with pytest.raises(SystemExit):
        asyncio.run(both())
    assert [type(error) for error in outcomes] == [HandlerFailed]
