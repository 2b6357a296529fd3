"""SIGTERM to a broker: what repliers work on is finished, and requesters turn to the next address by themselves."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import patterns.aio as aio
from patterns.sync import Admin, Requester
from patterns.wire.errors import OutcomeUnknown, ShuttingDown
from tests.processes import Broker, until
from tests.sockets.places import serving


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[tuple[Broker, Broker]]:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    patient = "--drain-s", "60"  # a busy machine must not make it give up
    with Broker(folders[0], *patient, durable=False) as first, Broker(folders[1], durable=False) as second:
        yield first, second


class Gate:
    """A handler that answers with its name, and holds a request for `wait` until it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self, body: Any) -> Any:
        if body == "wait":
            self.begun.set()
            assert self.may_end.wait(30)
        return self.name


def answers(url: str) -> Any:
    """What a request by sync and one by aio get there."""

    async def ask() -> Any:
        async with aio.Requester(url) as requester:
            return await requester.request("work", "go", timeout_s=30)

    with Requester(url) as requester:
        return requester.request("work", "go", timeout_s=30), asyncio.run(ask())


@pytest.mark.parametrize("flavour", ["sync", "aio"])
def test_a_request_under_way_is_finished_and_new_ones_go_to_the_next_address(
    brokers: tuple[Broker, Broker], flavour: str
) -> None:
    first, second = brokers
    gate, other = Gate("first"), Gate("second")
    url = f"{first.url},{second.url}"
    outcomes: dict[str, Any] = {}
    with serving(first.url, "work", gate), serving(second.url, "work", other):

        def sync() -> None:
            with Requester(url) as slow, Requester(url) as quick:
                assert quick.request("work", "go", timeout_s=30) == "first"
                thread = threading.Thread(
                    target=lambda: outcomes.update(slow=slow.request("work", "wait", timeout_s=30))
                )
                thread.start()
                drain()
                outcomes.update(quick=quick.request("work", "go", timeout_s=30))
                gate.may_end.set()
                thread.join(30)

        async def awaited() -> None:
            async with aio.Requester(url) as slow, aio.Requester(url) as quick:
                assert await quick.request("work", "go", timeout_s=30) == "first"
                task = asyncio.create_task(slow.request("work", "wait", timeout_s=30))
                await asyncio.to_thread(drain)
                outcomes.update(quick=await quick.request("work", "go", timeout_s=30))
                gate.may_end.set()
                outcomes.update(slow=await task)

        def drain() -> None:
            assert gate.begun.wait(30)
            first.process.signal(signal.SIGTERM)
            until(lambda: "draining" in first.process.errors)

        sync() if flavour == "sync" else asyncio.run(awaited())
        assert outcomes == {"quick": "second", "slow": "first"}
        assert first.process.wait() == 0
        assert "requests_left=0" in first.process.errors


def test_with_one_address_a_draining_broker_is_a_retryable_error(brokers: tuple[Broker, Broker]) -> None:
    first, _ = brokers
    gate = Gate("first")
    with serving(first.url, "work", gate), Requester(first.url) as slow, Requester(first.url) as quick:
        quick.request("work", "go", timeout_s=30)
        thread = threading.Thread(target=lambda: slow.request("work", "wait", timeout_s=30))
        thread.start()
        assert gate.begun.wait(30)
        first.process.signal(signal.SIGTERM)
        until(lambda: "draining" in first.process.errors)
        with pytest.raises(ShuttingDown) as caught:
            quick.request("work", "go", timeout_s=30)
        assert (caught.value.retryable, caught.value.retry_after_ms) == (True, 1_000)
        gate.may_end.set()
        thread.join(30)


def test_a_second_signal_ends_it_at_once(brokers: tuple[Broker, Broker]) -> None:
    first, _ = brokers
    gate = Gate("first")
    with serving(first.url, "work", gate), Requester(first.url) as slow:

        def ask() -> None:
            with pytest.raises(OutcomeUnknown):
                slow.request("work", "wait", timeout_s=30)

        thread = threading.Thread(target=ask)
        thread.start()
        assert gate.begun.wait(30)
        first.process.signal(signal.SIGTERM)
        until(lambda: "draining" in first.process.errors)
        first.process.signal(signal.SIGTERM)
        assert first.process.wait() == 128 + signal.SIGTERM
        gate.may_end.set()
        thread.join(30)


def test_whoever_comes_to_a_draining_broker_is_sent_on(brokers: tuple[Broker, Broker]) -> None:
    first, second = brokers
    gate, other = Gate("first"), Gate("second")
    with serving(first.url, "work", gate), serving(second.url, "work", other), Requester(first.url) as slow:
        thread = threading.Thread(target=lambda: slow.request("work", "wait", timeout_s=30))
        thread.start()
        assert gate.begun.wait(30)
        first.process.signal(signal.SIGTERM)
        until(lambda: "draining" in first.process.errors)
        assert answers(f"{first.url},{second.url}") == ("second", "second")
        with Admin(second.url) as admin:
            assert admin.status()["sessions"]["total"] >= 1
        gate.may_end.set()
        thread.join(30)


def test_the_patience_of_a_draining_broker_is_a_setting(tmp_path: Path) -> None:
    with Broker(tmp_path, "--drain-s", "0", durable=False) as broker:
        gate = Gate("only")
        with serving(broker.url, "work", gate), Requester(broker.url) as slow:

            def ask() -> None:
                with pytest.raises(OutcomeUnknown):
                    slow.request("work", "wait", timeout_s=30)

            thread = threading.Thread(target=ask)
            thread.start()
            assert gate.begun.wait(30)
            assert broker.terminate() == 0
            assert "drained requests_left=1" in broker.process.errors
            thread.join(30)
            gate.may_end.set()
