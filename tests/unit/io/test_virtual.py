"""Ends in memory as a driver sees them; what a broker does with them is tests/unit/testing/test_memory.py."""

import os
import select
from collections.abc import Iterator
from typing import Any

import pytest

from patterns.io import virtual
from patterns.io.virtual import End, Ends, Notice
from patterns.wire.address import parse_addresses
from patterns.wire.engine import Unreachable
from patterns.wire.errors import Unavailable


class Engine:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.news: list[Any] = []

    def connected(self, link: int, now: int) -> None:
        self.heard.append("connected")

    def disconnected(self, link: int, now: int) -> None:
        self.heard.append("disconnected")

    def unreachable(self, link: int, now: int, why: Unreachable) -> None:
        self.heard.append(why)

    def receive(self, link: int, peer: bytes, frames: list[bytes], now: int) -> None:
        self.heard.append(frames)


class Exchange:
    """Connects whoever comes."""

    def __init__(self) -> None:
        self.ends: list[End] = []
        self.received: list[list[bytes]] = []

    def connect(self, end: End) -> None:
        self.ends.append(end)
        end.tell(Notice.CONNECTED)

    def receive(self, end: End, frames: list[bytes]) -> None:
        self.received.append(frames)

    def disconnect(self, end: End) -> None:
        self.ends.remove(end)


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    found = Exchange()
    virtual.register("here", found)
    yield found
    virtual.unregister("here")


def rings(end: End) -> bool:
    return bool(select.select([end.fd], [], [], 0)[0])


def test_an_end_is_told_that_it_is_connected_and_rings_for_it(exchange: Exchange) -> None:
    engine = Engine()
    watched: list[int] = []
    ends = Ends(engine, watched.append, watched.remove)
    ends.open(1, "memory://here")
    (end,) = exchange.ends
    assert watched == [end.fd]
    assert rings(end)
    ends.hear(0)
    assert not rings(end)
    assert engine.heard == ["connected"]
    ends.close_all()
    assert (watched, exchange.ends) == ([], [])


def test_messages_come_in_order_and_a_turn_ends_with_news(exchange: Exchange) -> None:
    engine = Engine()
    ends = Ends(engine, id, id)
    ends.open(1, "memory://here")
    for number in range(3):
        exchange.ends[0].put([bytes([number])])
    engine.news.append("news")
    assert ends.receive(0) == 1
    engine.news.clear()
    assert (ends.receive(0), ends.is_readable) == (2, True)
    ends.hear(0)
    assert (engine.heard, ends.is_readable) == ([[b"\0"], [b"\1"], [b"\2"], "connected"], False)
    ends.close_all()


def test_what_is_sent_is_there_as_bytes(exchange: Exchange) -> None:
    ends = Ends(Engine(), id, id)
    ends.open(1, "memory://here")
    ends.send(1, [b"head", memoryview(b"payload")])  # type: ignore[list-item]
    ends.send(2, [b"to a link that was given up"])
    assert exchange.received == [[b"head", b"payload"]]
    assert type(exchange.received[0][1]) is bytes
    ends.close_all()


def test_what_was_under_way_is_lost_with_the_connection(exchange: Exchange) -> None:
    engine = Engine()
    ends = Ends(engine, id, id)
    ends.open(1, "memory://here")
    exchange.ends[0].put([b"late"])
    exchange.ends[0].tell(Notice.DISCONNECTED)
    ends.hear(0)
    assert ends.receive(0) == 0
    assert engine.heard == ["connected", "disconnected"]
    ends.close_all()


def test_a_thousand_bells_fill_no_pipe_and_one_look_hears_them(exchange: Exchange) -> None:
    ends = Ends(Engine(), id, id)
    ends.open(1, "memory://here")
    end = exchange.ends[0]
    for _ in range(100_000):
        end.put([b""])
    ends.hear(0)
    assert not rings(end)
    ends.close_all()


def test_a_name_that_is_gone_is_unreachable() -> None:
    engine = Engine()
    ends = Ends(engine, id, id)
    ends.open(1, "memory://gone")
    ends.send(1, [b"into the void"])
    ends.hear(0)
    assert engine.heard == [Unreachable.NOBODY]
    ends.close_all()


def test_a_bell_after_the_end_reaches_nobody(exchange: Exchange) -> None:
    ends = Ends(Engine(), id, id)
    ends.open(1, "memory://here")
    end = exchange.ends[0]
    ends.close(1)
    reader, writer = os.pipe()  # perhaps with the same number
    end.put([b""])
    assert not select.select([reader], [], [], 0)[0]
    os.close(reader)
    os.close(writer)


def test_only_names_that_somebody_has_pass(exchange: Exchange) -> None:
    virtual.check(parse_addresses("memory://here"))
    virtual.check(parse_addresses("tcp://127.0.0.1:1"))
    with pytest.raises(Unavailable, match="memory://gone"):
        virtual.check(parse_addresses("memory://here,memory://gone"))
    with pytest.raises(ValueError, match="in use"):
        virtual.register("here", Exchange())
