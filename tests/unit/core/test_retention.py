"""What a stream gives up, and what it may not."""

from __future__ import annotations

import random

from patterns.wire.configs import StreamConfig
from patterns.wire.records import Position
from patterns.wire.settled import Range
from zbroker.core.groups import Group
from zbroker.core.log import StreamLog
from zbroker.core.policy import Policy
from zbroker.core.retention import STEP, Retention

SIZE = 100


def _stream(batches: int, count: int = 10) -> StreamLog:
    log = StreamLog(1, "s")
    _extend(log, batches, count)
    return log


def _extend(log: StreamLog, batches: int, count: int = 10) -> None:
    for _ in range(batches):
        number = log.append(log.last_index + 1, count, SIZE, 0)
        log.place(number, Position(1, number * SIZE, SIZE))
    log.durable_next = log.next_offset


def _group(log: StreamLog, name: str = "g", start: int = 0) -> Group:
    group = log.groups[name] = Group(len(log.groups) + 1, log.id, name, start)
    return group


def _settle(group: Group, first: int, last: int) -> None:
    group.acked += group.settled.add(first, last)


def _given_up(retention: Retention, log: StreamLog) -> list[Range]:
    """All that it gives up, in as many steps as that takes."""
    retention.touch(log)
    found: list[Range] = []
    for _ in range(10_000):
        if not retention.has_more:
            return found
        found += [(first, last) for _, first, last in retention.sweep()]
    raise AssertionError("it never ends")


def test_within_its_bytes_a_stream_gives_up_nothing() -> None:
    log = _stream(10)
    assert _given_up(Retention(Policy(stream_bytes=10 * SIZE)), log) == []
    assert log.first_offset == 0


def test_beyond_them_the_oldest_go_when_no_group_is_owed_anything() -> None:
    log = _stream(10)
    retention = Retention(Policy(stream_bytes=4 * SIZE))
    assert _given_up(retention, log) == [(0, 59)]
    assert retention.kept_bytes(log) == 4 * SIZE
    assert (log.messages, retention.kept_messages(log)) == (100, 40)
    assert log.first_offset == 60


def test_what_one_of_two_groups_has_not_settled_stays_however_much_it_is() -> None:
    log = _stream(10)
    retention = Retention(Policy(stream_bytes=0))
    _settle(_group(log, "fast"), 0, 99)
    slow = _group(log, "slow")
    assert _given_up(retention, log) == []
    _settle(slow, 0, 29)
    assert _given_up(retention, log) == [(0, 29)]
    _settle(slow, 30, 99)
    assert _given_up(retention, log) == [(30, 99)]


def test_of_a_batch_that_is_owed_in_part_the_rest_goes_and_its_bytes_count_until_they_are_cut_out() -> None:
    log = _stream(3)
    group = _group(log)
    _settle(group, 0, 14)
    retention = Retention(Policy(stream_bytes=0))
    assert _given_up(retention, log) == [(0, 14)]
    assert retention.kept_bytes(log) == 2 * SIZE
    log.give_up(0, 14)
    assert [log.is_gone(number) for number in range(3)] == [True, False, False]
    retention.resized(log, *log.move(10, Position(1, 0, SIZE // 2, 1)))
    assert retention.kept_bytes(log) == SIZE * 3 // 2
    _settle(group, 15, 19)
    assert _given_up(retention, log) == [(10, 19)]
    assert retention.kept_bytes(log) == SIZE


def test_one_message_that_is_owed_does_not_keep_those_behind_it() -> None:
    log = _stream(10)
    group = _group(log)
    _settle(group, 1, 99)
    retention = Retention(Policy(stream_bytes=0))
    assert _given_up(retention, log) == [(1, 99)]
    assert log.first_offset == 0
    _settle(group, 0, 0)
    assert _given_up(retention, log) == [(0, 9)]
    assert log.first_offset == 100


def test_a_group_is_owed_nothing_below_its_start() -> None:
    log = _stream(10)
    _group(log, start=50)
    assert _given_up(Retention(Policy(stream_bytes=0)), log) == [(0, 49)]


def test_what_is_not_durable_or_has_no_place_yet_is_not_given_up() -> None:
    log = _stream(5)
    log.durable_next = 30
    log.append(99, 10, SIZE, 0)
    assert _given_up(Retention(Policy(stream_bytes=0)), log) == [(0, 29)]


def test_work_is_done_in_bounded_pieces() -> None:
    log = _stream(5 * STEP, count=1)
    retention = Retention(Policy(stream_bytes=0))
    retention.touch(log)
    pieces = []
    while retention.has_more:
        pieces.append(sum(last - first + 1 for _, first, last in retention.sweep()))
    assert max(pieces) <= STEP
    assert sum(pieces) == 5 * STEP


def test_after_a_restart_the_journal_is_told_again_of_what_was_given_up() -> None:
    log = _stream(5)
    group = _group(log)
    _settle(group, 0, 14)
    assert _given_up(Retention(Policy(stream_bytes=0)), log) == [(0, 14)]
    again = _stream(5)
    again.given_up.add(0, 14)
    retention = Retention(Policy(stream_bytes=1 << 40))
    assert _given_up(retention, again) == [(0, 14)]
    assert retention.kept_bytes(again) == 4 * SIZE


def test_where_something_was_damaged_what_has_no_batch_and_was_not_given_up_is_lost() -> None:
    log = _stream(1)
    log.next_offset = 40
    _extend(log, 1)
    log.next_offset = 60
    log.given_up.add(10, 19)
    log.lose_gaps()
    assert log.lost == [(20, 39), (50, 59)]


def test_what_is_gone_at_the_beginning_is_forgotten_and_numbers_go_on() -> None:
    log = _stream(10_000, count=2)
    log.give_up(0, 17_999)
    assert (log.batches, log.stored, log.first_offset) == (10_000, 1_000, 18_000)
    number = log.find(18_001)
    assert (number, log.base(number), log.end(number)) == (9_000, 18_000, 18_002)
    assert log.position(number) == Position(1, 9_000 * SIZE, SIZE)
    assert log.is_gone(8_999)
    assert log.position(8_999).size == log.size(0) == 0
    assert log.find(5) == 9_000
    assert log.span(1, 2) == (9_000, 10_000)
    assert [block.count for block in log.blocks(0, 10_000)] == [1_000] * 6
    _extend(log, 1, count=2)
    assert (log.batches, log.base(10_000)) == (10_001, 20_000)
    log.give_up(18_000, 20_001)
    assert (log.stored, log.next_offset) == (1_001, 20_002), "few are not worth the move"


def test_whatever_the_order_of_events_nothing_owed_is_given_up_and_in_the_end_no_more_is_kept_than_allowed() -> None:
    for seed in range(200):
        dice = random.Random(seed)
        log, retention, gone = _stream(0), Retention(Policy(stream_bytes=dice.choice([0, 5 * SIZE, 50 * SIZE]))), set()
        groups = [_group(log, str(number)) for number in range(dice.randint(0, 3))]
        for _ in range(60):
            if dice.random() < 0.5:
                _extend(log, dice.randint(1, 8), dice.randint(1, 5))
            elif groups and log.next_offset:
                first = dice.randrange(log.next_offset)
                _settle(dice.choice(groups), first, min(log.next_offset - 1, first + dice.randint(0, 40)))
            retention.touch(log)
            for _, first, last in retention.sweep():
                taken = set(range(first, last + 1))
                assert all(offset in group.settled for group in groups for offset in taken), f"seed {seed}"
                gone |= taken
        for group in groups:
            _settle(group, 0, max(0, log.next_offset - 1))
        _given_up(retention, log)
        assert retention.kept_bytes(log) <= retention._policy.stream_bytes, f"seed {seed}"


def test_far_from_its_bounds_a_stream_is_not_looked_at_for_each_batch_and_at_them_it_is() -> None:
    log = _stream(1)
    retention = Retention(Policy(stream_bytes=3 * SIZE))
    assert _given_up(retention, log) == []
    seen: list[bool] = []
    for number in range(1, 5):
        _extend(log, 1)
        retention.placed(log, number)
        retention.touch(log)
        seen.append(retention.has_more)
    assert seen == [False, False, True, True]
    assert _given_up(retention, log) == [(0, 19)]


def test_what_counts_from_now_on_is_looked_at_though_nothing_was_added() -> None:
    log = _stream(10)
    retention = Retention(Policy(stream_bytes=100 * SIZE))
    assert _given_up(retention, log) == []
    log.config = StreamConfig("s", messages_max=30)
    retention.configured(log)
    assert retention.has_more
    assert _given_up(retention, log) == [(0, 69)]
