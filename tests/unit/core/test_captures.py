"""Live messages that a stream stores: which, in which order, and what holds their publishers back."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.wire import codec
from patterns.wire.configs import StreamConfig, told
from patterns.wire.frames import MSGPACK, Message, pack_columns
from patterns.wire.limits import CREDIT_BYTES, CREDIT_MESSAGES
from patterns.wire.messages import Codec, Columns, Publish, Role
from tests.unit.core.durable import SECOND, Durable
from zbroker.core.captures import UNPACED_BYTES_MAX

_BODY = b"\x91\xa1x"


class Live:
    """A publisher at a broker's captures."""

    def __init__(self, *topics: str, stream: str = "s") -> None:
        self.rig = Durable()
        self.captures: Any = self.rig.streams._captures
        self.rig.hello(b"pub", Role.ADMIN)
        self.configure(*topics, stream=stream)

    def configure(self, *topics: str, stream: str = "s") -> None:
        self.rig.ask("create_stream", config=told(StreamConfig(stream, topics=list(topics))), change=True)

    def publish(self, *topics: str, bodies: list[Any] | None = None, session: Any = None, origin: Any = None) -> None:
        encoded = codec.encode(Codec.MSGPACK, bodies or list(topics))[0]
        distinct = list(dict.fromkeys(topics))
        columns = Columns(topics=distinct, topic=[distinct.index(one) for one in topics], delays=[5] * len(topics))
        header = Publish(publisher=bytes(16), sequence=0, count=len(topics))
        packed = pack_columns(columns, MSGPACK)
        message = Message(b"P", b"\0", header, packed, encoded.payload, MSGPACK, 0, [])
        self.captures.take(session, message, columns, distinct, self.rig.now, origin)

    def stored(self, stream: str = "s") -> list[Any]:
        peer = f"reader{self.rig.asked}{stream}".encode()
        self.rig.consumer(peer, stream=stream, group="", start="first")
        return [body for one in self.rig.deliveries(peer) for body in one.bodies]


def test_only_what_matches_is_stored_in_order() -> None:
    live = Live("a.>", "b")
    live.publish("a.1", "c", "b", "a.2", "a")
    live.rig.turn()
    assert live.stored() == ["a.1", "b", "a.2"]


def test_every_stream_that_matches_stores_and_no_other() -> None:
    live = Live("a.*")
    live.configure("a.1", stream="t")
    live.publish("a.1", "a.2")
    live.rig.turn()
    assert live.stored() == ["a.1", "a.2"]
    assert live.stored("t") == ["a.1"]


def test_what_a_producer_stored_in_the_stream_is_not_stored_there_again() -> None:
    live = Live("a")
    live.publish("a", origin=live.rig.streams._catalog.by_name["s"])
    live.rig.turn()
    assert live.stored() == []


def test_topics_that_are_taken_back_are_not_stored_any_more() -> None:
    live = Live("a")
    live.configure("b")
    live.publish("a", "b")
    live.rig.turn()
    assert live.stored() == ["b"]


def test_a_deleted_stream_stores_nothing() -> None:
    live = Live("a")
    live.rig.ask("delete_stream", stream="s")
    live.publish("a")
    assert not live.captures


def test_topics_are_known_after_a_restart() -> None:
    live = Live("a")
    live.rig = Durable(live.rig.records, epoch=2)
    live.captures = live.rig.streams._captures
    live.publish("a")
    live.rig.turn()
    assert live.stored() == ["a"]


def test_a_publisher_has_less_credit_until_it_is_on_disk() -> None:
    live = Live("a")
    session = next(iter(live.rig.sessions))
    live.publish("a", bodies=["x" * 100_000], session=session)
    assert live.captures.window(session)[1] <= CREDIT_BYTES - 100_000
    live.rig.turn()
    assert live.captures.window(session)[1] == CREDIT_BYTES


@pytest.mark.parametrize("is_full", [True, False])
def test_a_publisher_does_not_wait_for_a_disk_that_takes_nothing(is_full: bool) -> None:
    live = Live("a")
    session = next(iter(live.rig.sessions))
    while live.captures.window(session)[1]:
        live.publish("a", bodies=["x" * 1_000_000], session=session)
    live.rig.turn(sync=False)
    live.rig.streams.storage(full=is_full, failed=not is_full)
    assert live.captures.window(session) == (CREDIT_MESSAGES, CREDIT_BYTES)
    live.publish("a", session=session)
    assert live.rig.sessions.counters["capture_dropped"] == 1
    assert live.captures.window(session) == (CREDIT_MESSAGES, CREDIT_BYTES)


@pytest.mark.parametrize("is_full", [True, False])
def test_what_cannot_be_stored_is_dropped_counted_and_warned_of(is_full: bool) -> None:
    live = Live("a")
    warnings: list[tuple[str, str]] = []
    live.captures.warn = lambda key, text: warnings.append((key, text))
    live.rig.streams.storage(full=is_full, failed=False)
    for _ in range(UNPACED_BYTES_MAX // 1_000_000 + 1):
        live.publish("a", bodies=["x" * 1_000_000])
    assert live.rig.sessions.counters["capture_dropped"] == (9 if is_full else 1)
    assert len(warnings) == 1
    live.rig.streams.storage(full=False, failed=False)
    live.rig.turn()
    live.publish("a")
    live.rig.pass_time(11 * SECOND)
    assert warnings[-1] == ("capture", "")


def test_a_warning_lasts_while_one_stream_drops_and_others_store() -> None:
    live = Live("a")
    live.rig.ask("create_stream", config=told(StreamConfig("t", topics=["a"], retention="work", messages_max=1)))
    warnings: list[tuple[str, str]] = []
    live.captures.warn = lambda key, text: warnings.append((key, text))
    for _ in range(5):
        live.publish("a")
        live.rig.pass_time(8 * SECOND)
    assert live.rig.sessions.counters["capture_dropped"] == 4
    assert [key for key, text in warnings] == ["capture"]
