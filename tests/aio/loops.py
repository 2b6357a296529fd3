"""Tests as coroutines, and cancelling at a chosen await. No test lives here."""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from patterns.aio import Replier

LIMIT_S = 60.0
IDLE_S = 20.0


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test in a loop of its own, with a limit."""

    @functools.wraps(test)
    def run(*arguments: Any, **more: Any) -> None:
        async def body() -> None:
            async with asyncio.timeout(LIMIT_S):
                await test(*arguments, **more)

        asyncio.run(body())

    return run


@asynccontextmanager
async def serving(address: str, service: str, handler: Callable[[Any], Any], **more: Any) -> AsyncIterator[Replier]:
    """A Replier whose handler runs in a task."""
    async with Replier(address, service, handler, **more) as replier:
        await replier.ready(10)
        task = asyncio.create_task(replier.serve_forever())
        yield replier
    await task  # serve_forever() ends on close()


@types.coroutine
def _cancelled_at(
    step: int, late: bool, coroutine: Coroutine[Any, Any, Any], waits: asyncio.Event
) -> Generator[Any, Any, Any]:
    suspensions, go_on, value = 0, coroutine.send, None
    task = asyncio.current_task()
    assert task is not None
    while True:
        try:
            waited_for = go_on(value)
        except StopIteration as stop:
            return stop.value
        suspensions += 1
        waits.set()
        if suspensions == step:
            if late and waited_for is not None:
                waited_for.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        try:
            value, go_on = (yield waited_for), coroutine.send
        except BaseException as error:  # noqa: BLE001  handed on
            value, go_on = error, coroutine.throw


class Attempt:
    """One try of the scenario, whose call is cancelled at one of its awaits.

    Args:
        step: the number of the await, from 1.
        late: cancel when what it waits for is there already, and the task has not seen it yet.

    Attributes:
        waits: set as soon as the call awaits anything.
    """

    def __init__(self, step: int, late: bool) -> None:
        self.name = f"{'late' if late else 'early'}-{step}"
        self._step = step
        self._late = late
        self.was_cancelled = False
        self.waits = asyncio.Event()

    async def __call__(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Its result; None when it was cancelled."""

        async def body() -> Any:
            return await _cancelled_at(self._step, self._late, coroutine, self.waits)

        task = asyncio.create_task(body())
        try:
            return await task
        except asyncio.CancelledError:
            assert task.cancelled()
            self.was_cancelled = True
            return None


def attempts() -> Iterator[Attempt]:
    """Cancel at each await in turn, early and late; ends after the tries that nothing was left to cancel in."""
    for late in (False, True):
        for step in count(1):
            attempt = Attempt(step, late)
            yield attempt
            if not attempt.was_cancelled:
                assert step > 1, "nothing was ever cancelled"
                break
