"""A producer with a journal of its own, in the asyncio shell."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from patterns.aio import Consumer, Producer
from patterns.aio.producer import Receipt
from patterns.wire.errors import BufferFull, Unavailable
from tests.aio.loops import in_a_loop
from tests.processes import Broker
from zbroker.store import open_journal
from zbroker.store.os_disk import OsDisk

KEPT = Receipt(None)
NOBODY = "zb://127.0.0.1:1"


@in_a_loop
async def test_what_is_sent_without_a_broker_is_forwarded_by_a_later_program(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    async with Producer(NOBODY, "work", journal=open_journal(folder)) as out:
        assert await out.send(0, key="k") == KEPT
        assert list(await out.send_many([1, 2])) == [KEPT, KEPT]
        assert await out.post(3) == KEPT
        with pytest.raises(Unavailable):
            await out.flush(0.5)
        assert out.waiting == 4
    with Broker(tmp_path) as broker:
        async with Producer(broker.url, "work", journal=open_journal(folder)) as out:
            await out.send(4)
            await out.flush(30)
            assert out.waiting == 0
        async with Consumer(broker.url, "work", idle_timeout_s=10) as reader:
            assert [d.body async for d in reader] == [0, 1, 2, 3, 4]


@in_a_loop
async def test_the_loop_goes_on_while_the_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    begun = threading.Event()
    sync = OsDisk.fdatasync

    def wait(disk: OsDisk, handle: int) -> int:
        begun.set()
        assert goes_on.wait(30)
        return sync(disk, handle)

    async with Producer(NOBODY, "work", journal=open_journal(tmp_path / "outbox")) as out:
        monkeypatch.setattr(OsDisk, "fdatasync", wait)
        sending = asyncio.create_task(out.send(1))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        assert not sending.done()
        goes_on.set()
        assert await sending == KEPT


async def _fill(out: Producer) -> None:
    for _ in range(1_000):
        out.post(bytes(50_000))
        await asyncio.sleep(0)


@in_a_loop
async def test_a_post_without_room_raises_and_room_is_waited_for(tmp_path: Path) -> None:
    with Broker(tmp_path) as broker:
        broker.pause()
        journal = open_journal(tmp_path / "outbox", bytes_max=1 << 20)
        async with Producer(broker.url, "work", journal=journal, codec="raw") as out:
            with pytest.raises(BufferFull, match="bytes_max of open_journal"):
                await _fill(out)
            broker.resume()
            await out.room(30)
            assert await out.post(b"last") == KEPT
            await out.flush(30)
