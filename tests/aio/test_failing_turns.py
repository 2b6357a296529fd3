"""A turn that raises what none may, in a callback of the loop: whoever waits is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from patterns.aio import Producer
from patterns.wire.errors import LocalProtocolError
from tests.aio.loops import IDLE_S, in_a_loop
from tests.processes import Broker


def boom(*_: object) -> Any:
    raise RuntimeError("boom")


@in_a_loop
async def test_who_waits_is_told(broker: Broker) -> None:
    async with Producer(broker.url, "s") as producer:
        await producer.send(1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(producer._engine, "append", boom)
            posted = producer.post(2)
            while producer._engine.error is None:
                await asyncio.sleep(0)
            for call in (posted.result(IDLE_S), producer.send(3), producer.flush()):
                with pytest.raises(LocalProtocolError, match=r"this Producer has failed, .* RuntimeError: boom"):
                    await call
            with pytest.raises(LocalProtocolError):
                producer.post(4)
