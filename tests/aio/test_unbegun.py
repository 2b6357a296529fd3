"""A handler's task that has not had its first step: whatever ends it then, the request is answered and its slot comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from patterns.aio import Replier, Requester
from patterns.core.requested import RequestCancelled
from patterns.wire.errors import Cancelled
from tests.aio.loops import IDLE_S, in_a_loop
from tests.sockets.places import Place

_SLOTS = 2


def _at_each_task(call: Callable[[asyncio.Task[Any]], object]) -> None:
    """Call between the making of a handler's task and its first step, as a turn of the loop may come in between."""

    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **more)
        if coroutine.__qualname__ == "Replier._serve":
            call(task)
        return task

    asyncio.get_running_loop().set_task_factory(make)  # type: ignore[arg-type]


async def _all_slots_answer(asker: Requester) -> None:
    asyncio.get_running_loop().set_task_factory(None)
    asked = [asker.request("echo", number, timeout_s=IDLE_S) for number in range(3 * _SLOTS)]
    assert await asyncio.gather(*asked) == list(range(3 * _SLOTS))


@in_a_loop
async def test_a_request_that_is_cancelled_before_its_task_runs_is_answered_and_never_begun(place: Place) -> None:
    begun: list[int] = []

    def handler(body: int) -> int:
        begun.append(body)
        return body

    async with Replier(place.bind, "echo", handler, concurrency=_SLOTS) as replier:
        await replier.ready(IDLE_S)
        serving = asyncio.create_task(replier.serve_forever())
        async with Requester(place.of(replier)) as asker:
            _at_each_task(lambda _: replier._take([RequestCancelled(token) for token in replier._in_hand]))
            for number in range(2 * _SLOTS):
                with pytest.raises(Cancelled):
                    await asker.request("echo", number, timeout_s=IDLE_S)
            assert not begun
            await _all_slots_answer(asker)
    await serving


@in_a_loop
async def test_a_request_whose_task_is_cancelled_before_it_runs_is_answered(place: Place) -> None:
    async with Replier(place.bind, "echo", lambda body: body, concurrency=_SLOTS) as replier:
        await replier.ready(IDLE_S)
        serving = asyncio.create_task(replier.serve_forever())
        async with Requester(place.of(replier)) as asker:
            _at_each_task(lambda task: task.cancel())  # as a program does that cancels all tasks that it finds
            for number in range(2 * _SLOTS):
                with pytest.raises(Cancelled, match="before it began"):
                    await asker.request("echo", number, timeout_s=IDLE_S)
            await _all_slots_answer(asker)
    await serving
