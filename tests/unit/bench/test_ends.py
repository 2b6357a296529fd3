"""Feeds, tallies and series without sockets: what is sent when, and what is made of what came."""

from __future__ import annotations

import pytest

from zbroker.bench.ends import asking
from zbroker.bench.ends import feed as feeds
from zbroker.bench.ends import tally as tallies
from zbroker.bench.ends.asking import Asking
from zbroker.bench.ends.bodies import END, STAMP, filling, raw_bodies
from zbroker.bench.ends.feed import FixedRate
from zbroker.bench.ends.tally import Expected, LatencyTally, PlainTally, SortingTally
from zbroker.bench.ends.window import window_of


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def monotonic_ns(self) -> int:
        return self.now

    perf_counter_ns = monotonic_ns

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(feeds, "time", clock)
    monkeypatch.setattr(tallies, "time", clock)
    monkeypatch.setattr(asking, "time", clock)
    return clock


class NoWindow:
    """Stands in for a receiver's window."""

    def __init__(self, address: str, who: int) -> None:
        self.told: list[int] = []

    def tell(self, received: int) -> None:
        self.told.append(received)

    def close(self) -> None: ...


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> Expected:
    monkeypatch.setattr(tallies, "ReceiverWindow", NoWindow)
    return Expected(body="raw", size=100, windows=[""])


def test_a_fixed_rate_sends_what_is_due_with_the_time_that_was_meant(clock: Clock) -> None:
    feed = FixedRate(5_000, 16, None, 0.01)
    begin = clock.now
    sent = []
    while (part := feed.next()) is not None:
        sent += [STAMP.unpack_from(body) for body in part]
        feed.wait()
    assert [number for _, number in sent] == list(range(50))
    assert [at - begin for at, _ in sent[::5]] == [tick * 1_000_000 for tick in range(10)]


def test_a_sender_that_was_held_up_sends_the_overdue_with_the_times_that_were_meant(clock: Clock) -> None:
    feed = FixedRate(1_000, 16, None, 1.0)
    begin = clock.now
    feed.next()
    clock.sleep(0.5)
    assert not feed.must_wait
    part = feed.next()
    assert part is not None
    assert STAMP.unpack_from(part[0])[0] - begin == 1_000_000


def test_a_rate_that_cannot_be_kept_ends_after_twice_the_time(clock: Clock) -> None:
    feed = FixedRate(1_000, 16, None, 1.0)
    clock.sleep(2.1)
    assert feed.next() is None


def test_a_slow_rate_sends_one_at_a_time(clock: Clock) -> None:
    feed = FixedRate(10, 16, None, 1.0)
    count = 0
    while (part := feed.next()) is not None:
        assert len(part) == 1
        count += 1
        feed.wait()
    assert count == 10


def test_latency_counts_from_the_intended_time(clock: Clock, expected: Expected) -> None:
    tally = LatencyTally(expected)
    tail = filling(100)
    for number in range(100):
        late_us = 1_000 if number == 50 else 10
        assert not tally.note(STAMP.pack(clock.now - late_us * 1_000, number) + tail)
        clock.sleep(0.001)
    assert tally.note(END)
    said = tally.said()
    assert (said["received"], said["damaged"]) == (100, 0)
    assert (said["p50_us"], said["p99_us"], said["max_us"]) == (10, 10, 1_000)


def test_a_stamped_body_out_of_order_or_changed_is_damaged(clock: Clock, expected: Expected) -> None:
    tally = LatencyTally(expected)
    for number, tail in ((0, filling(100)), (0, filling(100)), (1, b"x" * 84), (2, filling(100))):
        tally.note(STAMP.pack(clock.now, number) + tail)
    assert tally.said()["damaged"] == 2


def test_a_plain_tally_takes_a_part_after_its_first_and_ends_with_the_stream(expected: Expected) -> None:
    tally = PlainTally(expected)
    pool = raw_bodies(100)
    every = window_of(100)[1]
    assert tally.wanted == 1
    tally.add(pool[:1])
    assert tally.wanted == every - 1
    tally.add([*pool[1 : every - 1], b"another"])
    tally.add([END])
    assert tally.ended
    assert (tally.said()["received"], tally.said()["damaged"]) == (every, 1)


def test_a_plain_tally_ends_with_silence(expected: Expected) -> None:
    tally = PlainTally(expected)
    tally.add([])
    assert tally.ended


def test_bodies_of_several_senders_are_sorted_before_they_are_compared(expected: Expected) -> None:
    tally = SortingTally(Expected(body="raw", size=100, windows=["", ""]))
    one, other = raw_bodies(100, 0), raw_bodies(100, 1)
    tally.add([one[0], other[0], one[1], b"probe\1", one[2], other[2]])
    assert not tally.ended
    tally.add([END])
    tally.add([END])
    assert tally.ended
    assert (tally.said()["received"], tally.said()["damaged"]) == (5, 1)  # the second of the other was skipped


def test_operations_at_a_fixed_rate_are_timed_from_when_they_should_have_begun(clock: Clock) -> None:
    """The first takes as long as ten periods: those behind it count their wait. Closed loops would have forgotten that."""
    took = [0.05, *[0.001] * 19]

    def ask(body: bytes) -> bytes:
        clock.sleep(took.pop(0))
        return body

    said = Asking(size=16, seconds=0.1, warm_up_s=0.0, rate=200).each(ask)
    assert (said["received"], said["damaged"]) == (20, 0)
    assert said["max_us"] == 50_000
    assert said["p50_us"] == pytest.approx(11_000, abs=4_000)
    assert took == []


def test_operations_one_after_the_other_are_timed_from_their_beginning(clock: Clock) -> None:
    def ask(body: bytes) -> bytes:
        clock.sleep(0.01)
        return body

    said = Asking(size=16, seconds=0.1, warm_up_s=0.05).each(ask)
    assert said["p50_us"] == said["max_us"] == 10_000
    assert said["rate"] == pytest.approx(100)
