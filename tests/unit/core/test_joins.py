"""JOIN: readers that leave no trace, groups that are made, where either begins, and what is refused."""

from __future__ import annotations

import pytest

from patterns.wire.messages import Goodbye, Join, Leave, Role
from tests.unit.core.durable import SECOND, Durable


def test_a_reader_without_a_group_leaves_no_trace() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a")
    producer.append("b")
    rig.turn()
    rig.consumer(group="", start=1, mode="batches")
    [delivery] = rig.deliveries(b"c")
    assert (delivery.lease, delivery.bodies) == (0, ["b"])
    assert rig.streams.status(1_000, 0)["groups"] == {}


@pytest.mark.parametrize("start", ["first", "new", 0])
def test_a_reader_of_what_is_not_there_makes_nothing_and_gets_it_once_somebody_appends(start: str | int) -> None:
    rig = Durable()
    rig.consumer(group="", start=start, mode="batches")
    rig.pass_time(SECOND)
    assert rig.joined(b"c") == [0]
    assert rig.streams.status(1_000, 0)["stream_count"] == 0
    assert (rig.records, rig.written) == ([], [])
    rig.producer().append("a")
    rig.turn()
    assert [d.bodies for d in rig.deliveries(b"c")] == [["a"]]
    assert list(rig.streams.status(1_000, 0)["streams"]) == ["s"]  # type: ignore[call-overload]
    assert rig.crash().streams.status(1_000, 0)["stream_count"] == 1


def test_what_only_readers_awaited_is_forgotten_with_the_last_of_them() -> None:
    rig = Durable()
    catalog = rig.streams._catalog
    for reader in (b"leaves", b"ends", b"comes back", b"is lost"):
        rig.consumer(reader, group="")
    rig.consumer(b"asks too much", group="", start=9)
    assert rig.errors(b"asks too much") == ["BAD_ARGUMENT"]
    awaited = catalog.awaited("s")
    catalog.given_up(awaited)
    rig.send(b"leaves", Leave(id=7))
    rig.send(b"ends", Goodbye("done"))
    rig.resume(b"comes back", b"again", [])
    assert catalog.awaited("s") is awaited
    catalog.given_up(awaited)
    rig.disconnect(b"is lost")
    rig.pass_time(3 * SECOND)
    assert catalog.awaited("s") is not awaited


def test_a_group_of_what_a_reader_awaits_makes_it_for_both() -> None:
    rig = Durable()
    rig.consumer(b"reader", group="", mode="batches")
    rig.consumer(b"member", mode="batches")
    rig.producer().append("a")
    rig.turn()
    assert [d.bodies for d in rig.deliveries(b"reader") + rig.deliveries(b"member")] == [["a"], ["a"]]
    rig.send(b"reader", Leave(id=7))
    assert rig.errors(b"reader") == []


def test_start_new_of_a_group_skips_what_was_there() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("old")
    rig.turn()
    rig.consumer(start="new", mode="batches")
    assert rig.joined(b"c") == [1]
    producer.append("fresh")
    rig.turn()
    assert [d.bodies for d in rig.deliveries(b"c")] == [["fresh"]]


@pytest.mark.parametrize("group", ["", "g"])
@pytest.mark.parametrize(("seconds", "expected"), [(-9, 0), (0, 0), (1, 2), (2, 2), (3, 3), (4, 4), (9_999, 4)])
def test_start_time_is_the_first_message_of_then_or_later_also_after_a_restart(
    group: str, seconds: int, expected: int
) -> None:
    rig = Durable()
    producer = rig.producer()
    for bodies in ("ab", "c", "d"):  # at 0, 2 and 3 s
        producer.append(*bodies)
        rig.pass_time(SECOND * (2 if bodies == "ab" else 1))
    at = 1_700_000_000_000 + seconds * 1_000
    for life in (rig, rig.crash()):
        life.consumer(group=group and f"{group}{life.epoch}", start="time", published_at=at)
        assert life.joined(b"c") == [expected]


def test_a_group_that_is_refused_makes_no_stream() -> None:
    rig = Durable()
    for peer, join in (
        (b"a", Join(id=1, stream="s", group="g", start=9)),
        (b"b", Join(id=1, stream="s", group="a/b")),
        (b"c", Join(id=1, stream="s", group="g", start="time")),
        (b"d", Join(id=1, stream="s", group="g", published_at=7)),
    ):
        rig.hello(peer, Role.CONSUMER)
        rig.send(peer, join)
    rig.turn()
    refused = [rig.errors(peer) for peer in (b"a", b"b", b"c", b"d")]
    assert refused == [["BAD_ARGUMENT"], ["BAD_NAME"], ["BAD_ARGUMENT"], ["BAD_ARGUMENT"]]
    assert rig.streams.status(1_000, 0)["stream_count"] == 0
    assert rig.records == []


def test_joined_waits_for_the_group_to_be_on_disk() -> None:
    rig = Durable()
    rig.hello(b"c", Role.CONSUMER, credit_messages=1, credit_bytes=1_000)
    rig.send(b"c", Join(id=7, stream="s", group="g"))
    rig.turn(sync=False)
    assert rig.joined(b"c") == []
    rig.sync()
    assert rig.joined(b"c") == [0]


def test_bad_joins_are_refused_and_the_session_goes_on() -> None:
    rig = Durable()
    rig.hello(b"c", Role.CONSUMER)
    for join in (
        Join(id=1, stream="a/b"),
        Join(id=2, stream="s", mode="x"),
        Join(id=3, stream="s", start="later"),
        Join(id=4, stream="s", start=9),
        Join(id=5, stream="s"),
        Join(id=6, stream="s", group="other"),
        Leave(id=7),
        Leave(id=8),
    ):
        rig.send(b"c", join)
    rig.turn()
    expected = ["BAD_NAME", "BAD_ARGUMENT", "BAD_ARGUMENT", "BAD_ARGUMENT", "PROTOCOL_ERROR", "PROTOCOL_ERROR"]
    assert rig.errors(b"c") == expected
