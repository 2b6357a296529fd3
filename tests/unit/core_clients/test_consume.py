from __future__ import annotations

import pytest

from patterns.core.consume import ConsumerEngine, Delivered, LostOffsets, SettledEvent, TakesLong
from patterns.wire.errors import NoSuchStream, StaleLease
from patterns.wire.frames import MSGPACK, pack, pack_columns, parse
from patterns.wire.messages import (
    Codec,
    Columns,
    Credit,
    Deliver,
    ErrorHeader,
    Hello,
    Join,
    Joined,
    Leave,
    Lost,
    Resume,
    Settle,
    Settled,
)
from tests.unit.core_clients.wire import BROKER, MS, NONCE, S, Wire, calm

LEASE = (7 << 32) + 1


def wired(credit=1_000, processing_max_us=60 * S):
    engine = ConsumerEngine(
        BROKER, "orders", "billing", "first", NONCE, Codec.MSGPACK, calm,
        credit=credit, processing_max_us=processing_max_us,
    )  # fmt: skip
    return Wire(engine)


@pytest.fixture
def wire():
    wire = wired()
    wire.greet()
    wire.say(Joined(1, 0))
    return wire


def deliver(wire, lease=LEASE, offset=0, count=1, **more):
    header = Deliver(lease=lease, offset=offset, count=count, published_at=1, **more)
    wire.say(header, payload=bytes([0x90 + count]) + b"\x01" * count)


def settle(wire, first, last, action="ack", lease=LEASE, **more):
    wire.engine.settle(lease, first, last, action, **more)


def told(wire):
    wire.engine.tell(wire.now)
    wire.settle()
    return wire.sent(Settle)


def take(wire, count, after_ms):
    wire.now += after_ms * MS
    wire.engine.taken(count, count, wire.now)
    wire.settle()


def test_nothing_may_come_before_joined():
    wire = wired()
    wire.greet()
    (hello,) = wire.sent(Hello)
    assert (hello.credit_messages, hello.credit_bytes) == (0, 0)
    assert wire.sent(Join) == [Join(id=1, stream="orders", group="billing", start="first", mode="slices")]
    assert wire.sent(Credit) == []
    wire.say(Joined(1, 0))
    assert [credit.messages for credit in wire.sent(Credit)] == [1]


def test_credit_grows_with_the_pace_up_to_a_quarter_second_of_work(wire):
    granted = [credit.messages for credit in wire.sent(Credit)]
    windows = []
    for offset in range(12):
        deliver(wire, LEASE + offset, offset)
        take(wire, 1, 10)
        want(wire)
        granted += [credit.messages for credit in wire.sent(Credit)]
        windows.append(granted[-1] - (offset + 1))
    assert windows == [1, 2, 4, 8, 16, 25, 24, 23, 22, 21, 20, 25]  # three quarters of it, and then the whole


@pytest.mark.parametrize("window", [1, 2, 3, 4, 7, 8, 1_000])
def test_a_word_about_credit_is_spared_until_a_quarter_of_the_window_was_taken(window):
    wire = wired(credit=window)
    wire.engine.use("batches", wire.now)
    wire.greet()
    wire.say(Joined(1, 0))
    granted = [credit.messages for credit in wire.sent(Credit)]
    words = 0
    for offset in range(4 * window):
        assert granted[-1] - offset >= window - window // 4, "it never has less than three quarters"
        deliver(wire, 0, offset)
        take(wire, 1, 1)
        want(wire)
        heard = [credit.messages for credit in wire.sent(Credit)]
        granted += heard
        words += len(heard)
    assert words <= 4 * window // max(1, window // 4) + 1


def want(wire):
    wire.engine.wanted(wire.now)
    wire.settle()


def test_a_slow_handler_has_nothing_beside_what_it_has_begun_with(wire):
    wire.sent(Credit)
    for offset in range(3):
        deliver(wire, LEASE + offset, offset)
        take(wire, 1, 300)
        assert wire.sent(Credit) == []
        want(wire)
        assert [credit.messages for credit in wire.sent(Credit)] == [offset + 2]


@pytest.mark.parametrize("mode", ["slices", "batches"])
def test_with_a_ceiling_of_one_the_next_comes_when_the_last_is_settled(mode):
    wire = wired(credit=1)
    wire.engine.use(mode, wire.now)
    wire.greet()
    wire.say(Joined(1, 0))
    wire.sent(Credit)
    deliver(wire, count=1)
    take(wire, 1, 1)
    want(wire)
    assert wire.sent(Credit) == []
    settle(wire, 0, 0)
    told(wire)
    assert [credit.messages for credit in wire.sent(Credit)] == [2]
    deliver(wire, LEASE + 1, 1)
    take(wire, 1, 1)
    wire.engine.settle_surely(LEASE + 1, 1, 1, wire.now)
    wire.settle()
    assert [credit.messages for credit in wire.sent(Credit)] == [3]


def test_credit_never_exceeds_the_ceiling():
    wire = wired(credit=3)
    wire.greet()
    wire.say(Joined(1, 0))
    for offset in range(10):
        deliver(wire, LEASE + offset, offset)
        take(wire, 1, 0)
    assert wire.sent(Credit)[-1].messages == 10 + 3


def test_in_batches_the_ceiling_is_granted_at_once():
    wire = wired()
    wire.engine.use("batches", wire.now)
    wire.greet()
    wire.say(Joined(1, 0))
    assert wire.sent(Join)[0].mode == "batches"
    assert wire.sent(Credit)[0].messages == 1_000


def test_another_mode_joins_again(wire):
    wire.sent(Join)
    wire.engine.use("batches", wire.now)
    wire.settle()
    assert [join.mode for join in wire.sent(Join)] == ["batches"]


def test_what_waits_for_the_caller_is_not_granted_again(wire):
    take(wire, 0, 1)
    wire.sent(Credit)
    deliver(wire, count=2)
    wire.engine.taken(0, 0, wire.now)
    wire.settle()
    assert all(credit.messages <= 4 for credit in wire.sent(Credit))


def test_a_delivery_says_what_it_holds(wire):
    columns = pack_columns(Columns(offsets=[0, 5], keys=["k", None]), MSGPACK)
    header = Deliver(lease=LEASE, attempt=2, offset=100, count=2, published_at=1_700, topic="a")
    wire.say(header, columns=columns, payload=b"\x92\x01\x02")
    (found,) = wire.heard(Delivered)
    assert (found.lease, found.attempt, found.offset, found.offsets) == (LEASE, 2, 100, [0, 5])
    assert (found.columns.keys, found.topic, found.published_at) == (["k", None], "a", 1_700)


def test_a_delivery_that_cannot_be_read_is_counted_and_does_not_stop_the_rest(wire):
    wire.sent(Credit)
    wire.say(Deliver(lease=LEASE, offset=0, count=1, published_at=1), columns=b"\x01", payload=b"\x91\x01")
    assert wire.heard(Delivered) == []
    assert wire.engine.counters["malformed"] == 1
    assert [credit.messages for credit in wire.sent(Credit)] == [2]


def test_neighbouring_offsets_are_settled_as_one_range(wire):
    deliver(wire, count=6)
    for offset in (0, 1, 2, 4, 5):
        settle(wire, offset, offset)
    settle(wire, 3, 3, "nack", delay_ms=500)
    ack, nack = told(wire)
    assert (ack.action, ack.ranges) == ("ack", [(0, 2), (4, 5)])
    assert (nack.action, nack.ranges, nack.delay_ms) == ("nack", [(3, 3)], 500)
    assert not wire.engine.has_news


def test_reasons_are_told_apart(wire):
    deliver(wire, count=2)
    settle(wire, 0, 0, "reject", reason="no such customer")
    settle(wire, 1, 1, "reject", reason="no such sku")
    assert [header.reason for header in told(wire)] == ["no such customer", "no such sku"]


def test_many_ranges_are_told_in_headers_that_a_broker_takes(wire):
    wire.say(Deliver(lease=LEASE, offset=2**52, count=20_002, published_at=1), payload=b"\xdc\x00\x00")
    for offset in range(2**52, 2**52 + 20_000, 2):
        settle(wire, offset, offset)
    wire.engine.tell(wire.now)
    frames = [effect.frames for effect in wire.engine.effects()]
    settled = [parse(frame).header.ranges for frame in frames]  # parse() refuses a header above 64 KiB
    assert sum(map(len, settled)) == 10_000


def test_a_lease_that_is_settled_whole_is_not_ours_any_more(wire):
    deliver(wire, count=2)
    settle(wire, 0, 1)
    told(wire)
    settle(wire, 0, 0)
    assert wire.engine.stale == 1
    assert told(wire) == []


def test_a_broken_connection_keeps_what_is_settled_and_resumes_its_leases(wire):
    deliver(wire)
    deliver(wire, LEASE + 1, 1)
    wire.disconnect()
    settle(wire, 0, 0)
    assert told(wire) == []
    wire.sent(Hello)
    wire.wait(200)
    wire.greet(resumed=True)
    assert wire.sent(Hello)[0].resume == Resume(7, 0, [LEASE, LEASE + 1])
    assert told(wire) == []
    wire.say(Joined(1, 0))
    assert [header.ranges for header in told(wire)] == [[(0, 0)]]


def test_without_resumption_the_leases_are_stale(wire):
    deliver(wire)
    wire.back(resumed=False)
    wire.say(Joined(1, 0))
    settle(wire, 0, 0)
    assert wire.engine.stale == 1
    assert told(wire) == []


def test_a_hello_that_names_many_leases_is_one_that_a_broker_takes(wire):
    for number in range(9_000):
        wire.engine.receive(wire.link, b"", *delivery(2**52 + number), wire.now)
    wire.settle()
    wire.sent(Hello)
    wire.back(resumed=True)
    assert len(wire.sent(Hello)[0].resume.leases) == 7_000


def delivery(lease):
    return [pack(Deliver(lease=lease, offset=0, count=1, published_at=1), payload=b"\x91\x01")]


def test_a_sure_ack_asks_for_an_answer_of_its_own(wire):
    deliver(wire, count=3)
    settle(wire, 1, 1, "nack")
    number = wire.engine.settle_surely(LEASE, 0, 0, wire.now)
    wire.settle()
    assert [(header.action, header.id) for header in wire.sent(Settle)] == [("nack", 0), ("ack", number)]
    wire.say(Settled(number, 0))
    assert wire.heard(SettledEvent) == [SettledEvent(number, 0)]


def test_a_sure_reject_says_why_and_is_answered(wire):
    deliver(wire)
    number = wire.engine.settle_surely(LEASE, 0, 0, wire.now, "reject", reason="torn")
    wire.settle()
    assert [(one.action, one.id, one.reason) for one in wire.sent(Settle)] == [("reject", number, "torn")]
    wire.disconnect()
    (event,) = wire.heard(SettledEvent)
    assert "the broker confirmed the reject; it may be rejected" in event.error.detail


def test_a_sure_ack_of_a_lease_that_is_gone_is_stale_at_once(wire):
    wire.engine.settle_surely(LEASE + 9, 0, 2, wire.now)
    wire.settle()
    (event,) = wire.heard(SettledEvent)
    assert event.stale == 3
    assert isinstance(event.error, StaleLease)
    assert "is not ours any more" in event.error.detail
    assert "delivered again" not in event.error.detail  # what was settled is not


def test_a_sure_ack_whose_answer_is_lost_is_told(wire):
    deliver(wire)
    number = wire.engine.settle_surely(LEASE, 0, 0, wire.now)
    wire.disconnect()
    (event,) = wire.heard(SettledEvent)
    assert (event.id, type(event.error)) == (number, StaleLease)
    assert "it may be acked" in event.error.detail


def test_a_sure_ack_without_a_broker_is_told_when_one_is_back(wire):
    deliver(wire)
    wire.disconnect()
    wire.engine.settle_surely(LEASE, 0, 0, wire.now)
    wire.settle()
    (event,) = wire.heard(SettledEvent)
    assert "if we still hold it when one is back, it is acked" in event.error.detail


def test_stale_settles_are_counted(wire):
    wire.say(Settled(1, 3))
    wire.say(ErrorHeader(number=110, scope="lease", id=LEASE))
    assert wire.engine.stale == 4


def test_a_handler_that_computes_keeps_its_leases(wire):
    deliver(wire)
    take(wire, 1, 0)
    for _ in range(3):
        for _ in range(5):  # the broker is heard of all the while
            wire.wait(2_000)
            wire.say(Joined(1, 0))
        assert [(header.lease, header.action) for header in wire.sent(Settle)] == [(LEASE, "extend")]


def overdue(*, taken=1, leaves=True):
    """A member whose handler has had its 8 seconds, with two leases, of which it was given so many."""
    wire = wired(processing_max_us=8 * S)
    wire.greet()
    wire.say(Joined(1, 0))
    deliver(wire)
    deliver(wire, LEASE + 1, 1)
    take(wire, taken, 0)
    wire.sent(Settle)
    for _ in range(4):
        wire.wait(2_000)
        wire.say(Joined(1, 0))
    assert wire.heard(TakesLong)
    assert wire.engine.is_overdue(wire.now)
    if taken == 1:
        settle(wire, 1, 1, "release", LEASE + 1)
        wire.engine.tell(wire.now)
    wire.engine.give_back(wire.now, leaves=leaves)
    wire.settle()
    return wire


def test_who_computes_for_too_long_gives_back_what_it_was_given_and_leaves():
    wire = overdue()
    assert [(one.lease, one.action) for one in wire.sent(Settle)] == [(LEASE + 1, "release"), (LEASE, "nack")]
    assert wire.sent(Leave) == [Leave(id=1)]
    assert wire.engine.given_back_to == LEASE


def test_who_waits_for_more_gives_back_and_stays():
    wire = overdue(taken=2, leaves=False)
    assert {one.action for one in wire.sent(Settle)} == {"nack"}
    assert wire.sent(Leave) == []
    assert (wire.engine.joined, wire.engine.given_back_to) == (True, LEASE + 1)


def test_what_crosses_the_leave_is_nobodys_and_who_comes_back_joins_again():
    wire = overdue()
    deliver(wire, LEASE + 2, 2)
    assert wire.heard(Delivered)[2:] == []
    wire.sent(Join)
    wire.engine.come_back(wire.now)
    wire.settle()
    assert len(wire.sent(Join)) == 1
    wire.say(Joined(1, 0))
    deliver(wire, LEASE + 3, 3)
    assert [one.lease for one in wire.heard(Delivered)] == [LEASE + 3]


def test_who_is_out_stays_out_when_the_connection_breaks():
    wire = overdue()
    wire.sent(Join)
    wire.back(resumed=True)
    assert wire.sent(Join) == []
    wire.engine.come_back(wire.now)
    wire.settle()
    assert len(wire.sent(Join)) == 1


def test_what_a_handler_has_settled_meanwhile_counts_before_it_is_given_back():
    wire = wired(processing_max_us=8 * S)
    wire.greet()
    wire.say(Joined(1, 0))
    deliver(wire, count=2)
    take(wire, 2, 0)
    wire.wait(8_000)
    settle(wire, 0, 0)
    wire.engine.tell(wire.now)
    assert not wire.engine.is_overdue(wire.now)


def test_without_leases_nothing_is_extended(wire):
    deliver(wire, lease=0)
    take(wire, 1, 0)
    assert wire.engine.role_timeout() is None


def test_offsets_that_damage_took_are_told(wire):
    wire.say(Lost(first=100, last=163))
    assert wire.heard(LostOffsets) == [LostOffsets(100, 163)]


def test_a_stream_that_is_not_there_is_the_engines_error(wire):
    wire.say(ErrorHeader(number=203, scope="stream", id=1))
    assert isinstance(wire.engine.error, NoSuchStream)


def test_a_lease_outlives_one_restart_of_the_broker_and_not_two(wire):
    deliver(wire)
    for epoch in (8, 9):
        wire.back(epoch=epoch)
        wire.say(Joined(1, 0))
    settle(wire, 0, 0)
    assert told(wire) == []
    assert wire.engine.stale == 1


def test_leases_of_another_cluster_have_numbers_of_their_own(wire):
    deliver(wire, lease=LEASE + 9)
    wire.engine.give_back(wire.now, leaves=False)
    deliver(wire, lease=LEASE + 10)
    assert wire.engine.given_back_to == LEASE + 9
    wire.back(epoch=3, cluster="elsewhere")
    wire.say(Joined(1, 0))
    settle(wire, 0, 0, lease=LEASE + 10)
    assert told(wire)[1:] == []  # the nack of what was given back
    deliver(wire, lease=LEASE + 10)
    settle(wire, 0, 0, lease=LEASE + 10)
    assert told(wire) == []  # that is a late ack of the first one
    event = wire.heard(Delivered)[-1]
    assert (event.token, event.lease > wire.engine.given_back_to) == (LEASE + 10, True)
    settle(wire, 0, 0, lease=event.lease)
    assert [(one.lease, one.action) for one in told(wire)] == [(LEASE + 10, "ack")]


def test_a_reader_begins_anew_at_another_cluster():
    engine = ConsumerEngine(BROKER, "orders", "", 3, NONCE, Codec.MSGPACK, calm, credit=10, processing_max_us=S)
    wire = Wire(engine)
    wire.greet(cluster="here")
    wire.say(Joined(1, 3))
    deliver(wire, lease=0, offset=3)
    wire.back(cluster="here")
    wire.back(cluster="elsewhere")
    assert [join.start for join in wire.sent(Join)] == [3, 4, 3]


def test_what_was_held_before_a_restart_is_not_given_back_for_it_can_only_be_acked(wire):
    deliver(wire)
    wire.back(epoch=8)
    wire.say(Joined(1, 0))
    deliver(wire, lease=LEASE + 1, offset=1)
    wire.engine.give_up(wire.now)
    wire.settle()
    assert [(one.lease, one.action) for one in wire.sent(Settle)] == [(LEASE + 1, "nack")]


def test_the_times_of_the_group_hold_where_the_user_says_nothing():
    wire = wired(processing_max_us=None)
    wire.greet()
    assert wire.engine.processing_max_s == 3_600
    wire.say(Joined(1, 0, lease_ms=5_000, processing_max_ms=90_000))
    assert wire.engine.processing_max_s == 90
    wire.say(Joined(0, 0, lease_ms=5_000, processing_max_ms=0))
    assert wire.engine.processing_max_s == 3_600


def test_what_the_user_says_of_his_handler_goes_before_the_group():
    wire = wired(processing_max_us=7 * S)
    wire.greet()
    wire.say(Joined(1, 0, lease_ms=5_000, processing_max_ms=90_000))
    assert wire.engine.processing_max_s == 7


def test_news_of_times_is_no_answer_to_a_join():
    wire = wired()
    wire.greet()
    wire.say(Joined(0, 0, lease_ms=5_000))
    assert not wire.engine.joined
