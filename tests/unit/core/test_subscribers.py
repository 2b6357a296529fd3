from __future__ import annotations

import pytest

from patterns.wire.messages import Credit, ErrorHeader, Lost, Overflow, Publish
from tests.unit.core.serving import JSON, MSGPACK, Bench
from zbroker.core import subscribers

BODY = b"x" * 1_000
MORE = Credit(10_000, 1 << 30)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(subscribers, "OUTBOX_BYTES_MAX", 5_000)
    return Bench()


def slow(bench, overflow, pattern="n.>", **more):
    """A subscriber that takes one batch, and the others only when it says so."""
    subscriber = bench.client("subscriber", messages=1, overflow=Overflow(overflow), **more)
    subscriber.subscribe(pattern)
    return subscriber


def published(bench, count, publisher=None, first=0):
    publisher = publisher or bench.client("publisher")
    for number in range(first, first + count):
        publisher.publish(["n.x"], sequence=number, body=BODY)
    return publisher


def story(subscriber):
    """What it was told, in order: sequences of batches, and totals of losses."""
    wanted = {Publish: lambda header: header.sequence, Lost: lambda header: (header.messages, header.upstream)}
    headers = [message.header for message in subscriber.inbox]
    return [wanted[type(header)](header) for header in headers if type(header) in wanted]


@pytest.mark.parametrize("form", [MSGPACK, JSON])
def test_drop_newest_keeps_what_waits_and_says_at_its_end_what_is_missing(bench, form):
    subscriber = slow(bench, "drop_newest", form=form)
    publisher = published(bench, 20)
    subscriber.send(MORE)
    published(bench, 1, publisher, 20)
    *kept, lost, last = story(subscriber)
    assert kept == list(range(len(kept)))
    assert (lost, last) == ((20 - len(kept), 0), 20)


@pytest.mark.parametrize("form", [MSGPACK, JSON])
def test_drop_oldest_says_at_the_beginning_what_is_missing_and_keeps_the_newest(bench, form):
    subscriber = slow(bench, "drop_oldest", form=form)
    published(bench, 20)
    subscriber.send(MORE)
    first, lost, *kept = story(subscriber)
    assert first == 0
    assert kept == list(range(20 - len(kept), 20))
    assert lost == (19 - len(kept), 0)


def test_drop_oldest_holds_no_more_than_drop_newest(bench):
    kept = []
    for overflow in ("drop_newest", "drop_oldest"):
        subscriber = slow(bench, overflow)
        published(bench, 50)
        session = bench.engine._sessions.at((0, subscriber.peer))
        assert session.outbox_bytes < 5_000 + 1_200
        kept.append(len(session.outbox))
    assert max(kept) - min(kept) <= 1


def test_a_gap_that_waits_is_told_where_it_was_though_older_batches_are_dropped(bench):
    subscriber = slow(bench, "drop_oldest")
    publisher = published(bench, 4)
    published(bench, 2, publisher, 10)
    published(bench, 2, publisher, 12)
    subscriber.send(MORE)
    assert story(subscriber) == [0, (3, 0), (0, 6), 10, 11, 12, 13]


def test_a_gap_whose_neighbours_are_dropped_is_still_told(bench):
    subscriber = slow(bench, "drop_oldest")
    publisher = published(bench, 4)
    published(bench, 20, publisher, 10)
    subscriber.send(MORE)
    first, lost, *kept = story(subscriber)
    assert (first, lost, kept[-1]) == (0, (3 + 20 - len(kept), 6), 29)


def test_drop_oldest_counts_what_matched_when_it_was_published(bench):
    subscriber = slow(bench, "drop_oldest", "n.x")
    publisher = bench.client("publisher")
    for number in range(20):
        publisher.publish(["n.x", "n.y"], sequence=2 * number, body=BODY)
    subscriber.send(MORE)
    assert len(subscriber.messages(Publish)) + subscriber.take(Lost)[-1].messages == 20


def test_disconnect_counts_what_waits_and_ends_the_session_with_an_error_that_says_why(bench):
    subscriber, other = slow(bench, "disconnect"), slow(bench, "drop_newest")
    publisher = published(bench, 8)
    assert story(subscriber) == [0, (6, 0)]
    (error,) = subscriber.take(ErrorHeader)
    assert (error.name, error.scope, error.retryable) == ("SLOW_SUBSCRIBER", "session", False)
    assert "5000 bytes" in error.detail
    published(bench, 5, publisher, 8)
    assert story(subscriber) == [0, (6, 0)]
    assert bench.engine.status(bench.now)["subscriptions"] == {"n.>": 1}
    assert other.messages(Publish)


def test_what_each_policy_drops_is_counted(bench):
    for overflow in Overflow:
        slow(bench, overflow)
    published(bench, 20)
    for subscriber in bench.clients.values():
        subscriber.send(MORE)
    lost = sum(client.take(Lost)[-1].messages for client in bench.clients.values() if client.messages(Lost))
    assert bench.engine.status(bench.now)["counters"]["live_dropped"] == lost > 30
