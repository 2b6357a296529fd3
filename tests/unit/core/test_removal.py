"""What leaves for good: by age and number, at the bounds of work and quotas, by purge and deletion; and what stays over a restart."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.wire.messages import Columns, ErrorHeader
from patterns.wire.records import RecordKind
from tests.unit.core.durable import SECOND, Durable
from zbroker.core.checkpoint import STATE, cut
from zbroker.core.events import GroupExpired
from zbroker.core.policy import Policy

HOUR = 3_600 * SECOND


@pytest.fixture
def rig() -> Durable:
    return Durable()


def _post(rig: Durable, *bodies: object, stream: str = "s", peer: bytes = b"p") -> None:
    """Each a batch of its own."""
    producer = rig.producers[peer] if peer in rig.producers else rig.producer(peer)
    rig.producers[peer] = producer
    for body in bodies:
        producer.append(body, stream=stream)
    rig.turn()
    rig.confirms(peer)


def _settle_down(rig: Durable) -> None:
    """Give it time for what can wait."""
    for _ in range(5):
        rig.pass_time(20_000)


def _balanced(rig: Durable, name: str = "s/g") -> dict[str, Any]:
    found = rig.group(name)
    assert found["balanced"], found
    return found


def _configure(rig: Durable, **fields: object) -> None:
    found = rig.ask("create_stream", config={"name": "s", **fields}, change=True)
    assert isinstance(found, dict), found


# -- limits -------------------------------------------------------------------------------------------------------


def test_a_number_of_messages_is_kept_exactly(rig: Durable) -> None:
    _configure(rig, messages_max=5)
    rig.producer().append(*range(8))
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 3
    assert [(first, last) for _, first, last in rig.forgotten] == [(0, 2)]


def test_what_is_older_than_its_age_goes_when_that_has_come_and_not_before(rig: Durable) -> None:
    _configure(rig, age_max_s=10)
    _post(rig, "a")
    rig.pass_time(4 * SECOND)
    _post(rig, "b")
    rig.pass_time(5 * SECOND)
    assert rig.stream()["first_offset"] == 0
    due = rig.streams.next_timeout()
    assert due is not None
    assert rig.now < due <= rig.now + SECOND + 1_000
    rig.pass_time(due - rig.now)
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 1
    rig.pass_time(4 * SECOND)
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 2
    assert rig.streams.next_timeout() is None


def test_what_a_group_has_not_settled_stays_however_old_it_is(rig: Durable) -> None:
    _configure(rig, age_max_s=10)
    rig.consumer(mode="batches")
    _post(rig, "a", "b")
    first, second = rig.deliveries(b"c")
    rig.settle(b"c", second)
    rig.pass_time(20 * SECOND)
    _settle_down(rig)
    assert [span[1:] for span in rig.forgotten] == [(1, 1)]
    rig.settle(b"c", first)
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 2


def test_without_keep_unsettled_it_goes_and_is_expired_and_its_lease_is_stale(rig: Durable) -> None:
    rig.ask("create_stream", config={"name": "s", "messages_max": 2, "keep_unsettled": False})
    rig.consumer(mode="batches", credit=2)
    _post(rig, *"abcde")
    held = rig.deliveries(b"c")
    _settle_down(rig)
    found = _balanced(rig)
    assert (found["expired"], found["pending"], found["leased"]) == (3, 2, 0)
    rig.settle(b"c", held[0], id=9)
    _settle_down(rig)
    assert rig.settled(b"c") == [(9, 1)]
    assert [record.kind for record in rig.records if record.kind == RecordKind.OPS]
    assert rig.crash().group()["expired"] == 3


def test_that_some_expired_is_on_disk_before_the_journal_forgets_it(rig: Durable) -> None:
    rig.ask("create_stream", config={"name": "s", "messages_max": 1, "keep_unsettled": False})
    rig.consumer(credit=0)
    _post(rig, "a", "b")
    rig.turn(sync=False)
    rig.turn(sync=False)
    assert rig.group()["expired"] == 1
    assert rig.forgotten == []
    rig.sync()
    _settle_down(rig)
    assert [span[1:] for span in rig.forgotten] == [(0, 0)]


def test_with_keep_unsettled_taken_back_what_had_to_stay_goes(rig: Durable) -> None:
    _configure(rig, messages_max=1)
    rig.consumer(credit=0)
    _post(rig, "a", "b", "c")
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 0
    _configure(rig, messages_max=1, keep_unsettled=False)
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 2
    assert _balanced(rig)["expired"] == 2


# -- clocks -------------------------------------------------------------------------------------------------------


class _Jumping(Durable):
    """Its wall clock goes `ahead_ms` too far."""

    def __init__(self) -> None:
        self.ahead_ms = 0
        super().__init__()
        self.streams._wall_ms = self.streams._intake._stamp = (  # type: ignore[method-assign]
            lambda now: 1_700_000_000_000 + now // 1_000 + self.ahead_ms
        )


def test_a_clock_that_jumps_deletes_nothing_until_it_is_back() -> None:
    rig, warnings = _Jumping(), []
    rig.streams.listen(lambda key, text: warnings.append((key, text)), lambda event: None)
    _configure(rig, age_max_s=7_200)
    _post(rig, "a")
    for ahead_ms in (30 * 86_400_000, -30 * 86_400_000):
        rig.ahead_ms = ahead_ms
        _settle_down(rig)
        assert rig.stream()["first_offset"] == 0
        assert warnings[-1][0] == "clock"
        assert "720.0 hours" in warnings[-1][1]
        rig.ahead_ms = 0
        _settle_down(rig)
        assert warnings[-1] == ("clock", "")
    rig.pass_time(7_200 * SECOND)
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 1


def test_a_clock_that_is_set_right_by_less_is_believed() -> None:
    rig = _Jumping()
    _configure(rig, age_max_s=1_800)
    _post(rig, "a")
    rig.ahead_ms = 3_599_000
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 1


# -- work ---------------------------------------------------------------------------------------------------------


def test_of_a_work_queue_goes_what_every_group_has_settled_and_without_a_group_nothing(rig: Durable) -> None:
    _configure(rig, retention="work")
    _post(rig, "a", "b")
    _settle_down(rig)
    assert rig.forgotten == []
    for name in ("g", "h"):
        rig.consumer(name.encode(), group=name, mode="batches")
    for name in ("g", "h"):
        assert rig.forgotten == []
        for delivery in rig.deliveries(name.encode()):
            rig.settle(name.encode(), delivery)
        _settle_down(rig)
    assert rig.stream()["first_offset"] == 2


def test_at_its_bound_a_work_queue_refuses_and_says_when_to_come_back(rig: Durable) -> None:
    _configure(rig, retention="work", messages_max=3)
    rig.consumer(mode="batches")
    _post(rig, "a", "b", "c")
    rig.producers[b"p"].append("d")
    _settle_down(rig)
    [error] = rig.take(b"p", ErrorHeader)
    assert (error.name, error.scope, error.id, error.retryable) == ("STREAM_FULL", "append", 4, True)
    assert 100 <= error.retry_after_ms <= 5_000
    assert "'s' keeps 3 messages, messages_max is 3" in error.detail
    rig.settle(b"c", rig.deliveries(b"c")[1])
    _settle_down(rig)
    rig.producers[b"p"].append("d", sequence=4, previous=3)
    rig.turn()
    assert rig.confirms(b"p") == [(4, [3], [])]


def test_quotas_refuse_by_stream_and_by_folder() -> None:
    rig = Durable(policy=Policy(stream_quota_bytes=200, folder_quota_bytes=600))
    rig.consumer(credit=0)
    _post(rig, "a" * 200)
    rig.producers[b"p"].append("b")
    rig.turn()
    [error] = rig.take(b"p", ErrorHeader)
    assert "quota_bytes is 200" in error.detail
    _post(rig, "c" * 500, stream="t", peer=b"q")
    rig.producer(b"r").append("d", stream="u")
    rig.turn()
    [error] = rig.take(b"r", ErrorHeader)
    assert "folder_quota_bytes is 600" in error.detail


def test_what_need_not_be_kept_goes_before_a_quota_refuses_anybody() -> None:
    rig = Durable(policy=Policy(stream_quota_bytes=4_000))
    for number in range(100):
        _post(rig, "x" * 100 + str(number))
        _settle_down(rig)
        assert rig.errors(b"p") == []
    assert rig.stream()["kept_bytes"] <= 3_500


# -- purge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "first"), [({}, 10), ({"keep": 3}, 7), ({"keep": 0}, 10), ({"keep": 99}, 0), ({"before": 4}, 4)]
)
def test_a_purge_takes_the_oldest_as_far_as_it_says(rig: Durable, how: dict[str, int], first: int) -> None:
    rig.producer().append(*range(6))
    rig.turn()
    _post(rig, *range(6, 10), peer=b"q")
    found = rig.ask("purge_stream", stream="s", **how)
    assert (found["purged"], found["below"], found["next"]) == (first, first, 10)
    assert rig.stream()["first_offset"] == first
    reader = rig.consumer(b"r", group="")
    assert [offset for delivery in rig.deliveries(reader) for offset in delivery.offsets] == list(range(first, 10))
    again = rig.crash()
    assert again.stream()["first_offset"] == first
    reader = again.consumer(b"r", group="")
    assert [offset for delivery in again.deliveries(reader) for offset in delivery.offsets] == list(range(first, 10))


@pytest.mark.parametrize("group", ["", "g"])
def test_who_stands_before_what_is_purged_goes_on_behind_it_though_its_batch_stays(rig: Durable, group: str) -> None:
    rig.producer().append(*range(6))
    rig.turn()
    reader = rig.consumer(b"r", group=group, credit=2)
    assert [offset for delivery in rig.deliveries(reader) for offset in delivery.offsets] == [0, 1]
    rig.ask("purge_stream", stream="s", before=4)
    if group:
        rig.ask("reset_group", stream="s", group=group, start=1)
    _settle_down(rig)
    rig.credit(reader, 1_000)
    _settle_down(rig)
    assert [offset for delivery in rig.deliveries(reader) for offset in delivery.offsets] == [4, 5]
    if group:
        assert _balanced(rig)["expired"] == 3


def test_a_purge_goes_up_to_an_instant(rig: Durable) -> None:
    _post(rig, "a", "b")
    rig.pass_time(5 * SECOND)
    _post(rig, "c")
    found = rig.ask("purge_stream", stream="s", published_before=1_700_000_000_000 + 5_000)
    assert (found["purged"], found["below"]) == (2, 2)


def test_what_a_purge_is_told_must_make_sense(rig: Durable) -> None:
    _post(rig, "a")
    assert "say one of them" in rig.ask("purge_stream", stream="s", keep=1, before=1).detail
    assert "beyond the next offset 1" in rig.ask("purge_stream", stream="s", before=2).detail
    assert rig.ask("purge_stream", stream="t").name == "NO_SUCH_STREAM"


def test_what_is_purged_expires_in_groups_wherever_it_was(rig: Durable) -> None:
    rig.ask("create_group", config={"stream": "s", "name": "g", "dead_letter": "dead"})
    rig.consumer(mode="batches", credit=6)
    _post(rig, *range(6))
    held = rig.deliveries(b"c")
    rig.settle(b"c", held[0])  # settled; 1 is lent; 2 comes back; 3 is delayed
    rig.settle(b"c", held[2], "nack", delay_ms=1_000)
    rig.settle(b"c", held[3], "nack", delay_ms=60_000)
    _settle_down(rig)
    _post(rig, *range(6, 9))  # nobody has begun with these
    rig.pass_time(2 * SECOND)
    rig.ask("purge_stream", stream="s", before=8)
    found = _balanced(rig)
    assert (found["acked"], found["expired"], found["pending"], found["leased"]) == (1, 7, 1, 0)
    assert found["delayed"] <= 1
    rig.settle(b"c", held[1], id=7)
    rig.credit(b"c", 100)
    _settle_down(rig)
    assert rig.settled(b"c") == [(7, 1)]
    assert [delivery.offset for delivery in rig.deliveries(b"c")] == [8]
    rig.pass_time(120 * SECOND)
    _settle_down(rig)
    assert rig.deliveries(b"c") == [] or _balanced(rig)["pending"] == 1
    again = rig.crash()
    found = _balanced(again)
    assert (found["acked"], found["expired"], found["pending"]) == (1, 7, 1)


def test_a_purge_takes_what_a_reset_group_was_lent_though_all_others_were_done_with_it(rig: Durable) -> None:
    _configure(rig, retention="work")
    rig.consumer(mode="batches")
    rig.producer().append(*range(5))
    _settle_down(rig)
    [lent] = rig.deliveries(b"c")
    rig.settle(b"c", lent, ranges=[(1, 2), (4, 4)])
    _settle_down(rig)
    rig.ask("reset_group", stream="s", group="g", start="first")
    _settle_down(rig)
    [again] = rig.deliveries(b"c")
    assert again.offsets == list(range(5))  # the batch is there
    rig.settle(b"c", again, ranges=[(0, 0), (3, 3)])
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 5
    assert rig.ask("purge_stream", sync=False, stream="s", before=4) is None  # what expired is not on disk yet
    rig.sync()
    assert rig.answered()["purged"] == 0
    rig.settle(b"c", again, ranges=[(1, 2), (4, 4)], id=7)
    _settle_down(rig)
    assert rig.settled(b"c") == [(7, 2)]
    found = _balanced(rig)
    assert (found["acked"], found["expired"], found["pending"]) == (3, 2, 0)
    assert (_balanced(rig.crash())["acked"], _balanced(rig.crash())["expired"]) == (3, 2)


def test_after_a_restart_what_waits_and_is_purged_is_not_delivered(rig: Durable) -> None:
    rig.consumer(mode="batches")
    _post(rig, *range(6))
    rig.turn()
    for pause in (0, 3 * SECOND):  # while members may claim theirs, and after that
        again = rig.crash()
        again.pass_time(pause)
        again.ask("purge_stream", stream="s", before=4)
        again.pass_time(3 * SECOND)
        again.consumer(mode="batches")
        _settle_down(again)
        assert [delivery.offset for delivery in again.deliveries(b"c")] == [4, 5]
        assert _balanced(again)["expired"] == 4


def test_an_ack_before_a_purge_counts_as_one_after_a_restart_too(rig: Durable) -> None:
    rig.consumer(mode="batches")
    _post(rig, "a", "b")
    held = rig.deliveries(b"c")
    rig.settle(b"c", held[0], id=1)
    rig.ask("purge_stream", stream="s")
    assert rig.settled(b"c") == [(1, 0)]
    for one in (rig, rig.crash()):
        found = _balanced(one)
        assert (found["acked"], found["expired"]) == (1, 1)


def test_a_reject_that_waits_for_its_dead_letter_is_answered_when_that_is_purged(rig: Durable) -> None:
    rig.ask("create_group", config={"stream": "s", "name": "g", "dead_letter": "dead"})
    rig.consumer(mode="batches")
    _post(rig, "a")
    [held] = rig.deliveries(b"c")
    rig.streams.storage(full=True, failed=False)
    rig.settle(b"c", held, "reject", reason="no", id=5)
    _settle_down(rig)
    assert rig.settled(b"c") == []
    rig.ask("purge_stream", stream="s")
    _settle_down(rig)
    assert rig.settled(b"c") == [(5, 0)]
    assert (_balanced(rig)["expired"], _balanced(rig)["doomed"]) == (1, 0)


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("purge_stream", {"stream": "s"}),
        ("create_group", {"config": {"stream": "s", "name": "g"}, "change": True}),
        ("reset_group", {"stream": "s", "group": "g", "start": "new"}),
        ("delete_group", {"stream": "s", "group": "g"}),
    ],
)
def test_a_reject_whose_dead_letter_is_not_to_come_is_answered_when_that_is_on_disk(
    rig: Durable, verb: str, arguments: dict[str, object]
) -> None:
    rig.ask("create_group", config={"stream": "s", "name": "g", "dead_letter": "dead"})
    rig.consumer(mode="batches")
    _post(rig, "a")
    [held] = rig.deliveries(b"c")
    rig.settle(b"c", held, "reject", reason="no", id=5)
    rig.ask(verb, sync=False, **arguments)
    for _ in range(3):
        rig.turn(sync=False)
    assert rig.settled(b"c") == []
    rig.sync()
    _settle_down(rig)
    assert rig.settled(b"c") == [(5, 0)]


def test_the_journal_forgets_what_is_purged_once_that_is_on_disk_and_hears_it_again_after_a_restart(
    rig: Durable,
) -> None:
    _post(rig, "a", "b")
    rig.ask("purge_stream", stream="s", sync=False)
    assert rig.forgotten == []
    rig.sync()
    assert [span[1:] for span in rig.forgotten] == [(0, 1)]
    again = rig.crash()
    _settle_down(again)
    assert [span[1:] for span in again.forgotten] == [(0, 1)]


# -- delete -------------------------------------------------------------------------------------------------------


def test_a_deleted_stream_is_gone_with_its_groups_and_its_name_is_free(rig: Durable) -> None:
    rig.consumer()
    rig.consumer(b"r", group="")
    _post(rig, "a", "b")
    found = rig.ask("delete_stream", stream="s")
    assert (found["deleted"], found["messages"], found["groups"]) == (True, 2, 1)
    for peer in (b"c", b"r"):
        [error] = rig.take(peer, ErrorHeader)
        assert (error.name, error.scope, error.id) == ("NO_SUCH_STREAM", "stream", 1)
    assert rig.names() == []
    assert rig.crash().names() == []
    _post(rig, "new")
    for one in (rig, rig.crash()):
        assert (one.stream()["messages"], one.stream()["next_offset"]) == (1, 1)
        assert one.deliveries(one.consumer(b"x"))[0].bodies == ["new"]


def test_batches_under_way_are_confirmed_or_make_the_stream_anew(rig: Durable) -> None:
    producer = rig.producer()
    producer.append("a")
    rig.turn(sync=False)
    rig.ask("delete_stream", stream="s", sync=False)
    producer.append("b")
    rig.turn()
    assert rig.confirms(b"p") == [(2, [0, 0], [])]
    producer.append("a", sequence=1, previous=0)
    rig.turn()
    assert rig.confirms(b"p") == [(1, [0], [1])]
    for one in (rig, rig.crash()):
        assert one.names() == ["s"]
        assert one.stream()["next_offset"] == 1


def test_a_join_that_waits_for_the_disk_hears_once_that_its_stream_is_deleted(rig: Durable) -> None:
    from patterns.wire.messages import Join, Joined, Role

    rig.hello(b"c", Role.CONSUMER, credit_messages=9, credit_bytes=99)
    rig.send(b"c", Join(id=4, stream="s", group="g"))
    rig.turn(sync=False)
    rig.ask("delete_stream", stream="s", sync=False)
    _settle_down(rig)
    assert rig.errors(b"c") == ["NO_SUCH_STREAM"]
    assert rig.take(b"c", Joined) == []
    rig.send(b"c", Join(id=5, stream="s", group="g"))
    _settle_down(rig)
    assert rig.joined(b"c") == [0]


def test_the_journal_is_told_again_of_deleted_streams(rig: Durable) -> None:
    for stream in "stu":
        _post(rig, "a", stream=stream, peer=stream.encode())
    for stream in "st":
        rig.ask("delete_stream", stream=stream)
    again = rig.crash()
    _settle_down(again)
    assert [span[1:] for span in again.forgotten] == [(0, 0), (0, 0)]
    assert again.names() == ["u"]


def test_a_deleted_group_frees_what_it_was_owed_and_tells_its_members(rig: Durable) -> None:
    _configure(rig, retention="work")
    rig.consumer(b"c", mode="batches")
    rig.consumer(b"d", group="h", credit=0)
    _post(rig, "a")
    rig.settle(b"c", rig.deliveries(b"c")[0])
    _settle_down(rig)
    assert rig.forgotten == []
    found = rig.ask("delete_group", stream="s", group="h")
    assert (found["deleted"], found["pending"]) == (True, 1)
    [error] = rig.take(b"d", ErrorHeader)
    assert (error.name, error.scope, error.id) == ("NO_SUCH_GROUP", "stream", 1)
    _settle_down(rig)
    assert rig.stream()["first_offset"] == 1
    assert rig.crash().stream()["groups"] == 1
    assert rig.ask("delete_group", stream="s", group="h").name == "NO_SUCH_GROUP"


def test_a_settle_of_what_was_deleted_is_stale_and_a_member_may_join_anew(rig: Durable) -> None:
    rig.consumer(mode="batches")
    _post(rig, "a")
    [held] = rig.deliveries(b"c")
    rig.ask("delete_group", stream="s", group="g")
    rig.settle(b"c", held, id=3)
    rig.turn()
    assert rig.settled(b"c") == [(3, 1)]
    rig.take(b"c", ErrorHeader)
    from patterns.wire.messages import Join

    rig.send(b"c", Join(id=2, stream="s", group="g", mode="batches"))
    _settle_down(rig)
    assert [(delivery.offset, delivery.attempt) for delivery in rig.deliveries(b"c")] == [(0, 1)]


# -- idle groups --------------------------------------------------------------------------------------------------


def test_a_group_without_members_for_long_is_deleted_and_people_hear_of_it(rig: Durable) -> None:
    events: list[object] = []
    rig.streams.listen(lambda key, text: None, events.append)
    rig.ask("create_group", config={"stream": "s", "name": "g", "idle_expiry_s": 60})
    rig.ask("create_group", config={"stream": "s", "name": "stays"})
    rig.consumer()
    rig.pass_time(200 * SECOND)
    assert rig.stream()["groups"] == 2, "it has a member"
    rig.disconnect(b"c")
    rig.pass_time(10 * SECOND)
    for _ in range(5):
        rig.pass_time(9 * SECOND)
    assert rig.stream()["groups"] == 2
    for _ in range(5):
        rig.pass_time(9 * SECOND)
    assert rig.stream()["groups"] == 1
    assert events == [GroupExpired("s", "g", 60.0)]
    assert rig.crash().stream()["groups"] == 1


def test_the_time_counts_anew_in_each_life(rig: Durable) -> None:
    rig.ask("create_group", config={"stream": "s", "name": "g", "idle_expiry_s": 60})
    for _ in range(5):
        rig.pass_time(10 * SECOND)
    again = rig.crash()
    for _ in range(5):
        again.pass_time(10 * SECOND)
    assert again.stream()["groups"] == 1
    for _ in range(3):
        again.pass_time(10 * SECOND)
    assert again.stream()["groups"] == 0


def test_groups_made_by_first_use_are_deleted_as_the_setting_says() -> None:
    rig = Durable(policy=Policy(group_idle_s=60))
    rig.ask("create_group", config={"stream": "s", "name": "made"})
    rig.consumer()
    assert rig.ask("show_group", stream="s", group="g")["config"]["idle_expiry_s"] == 60
    rig.disconnect(b"c")
    for _ in range(15):
        rig.pass_time(6 * SECOND)
    assert [row["name"] for row in rig.ask("list_groups", stream="s")["groups"]] == ["made"]


# -- checkpoints --------------------------------------------------------------------------------------------------


def _checkpoint(rig: Durable) -> tuple[list[tuple[bytes, int]], int]:
    """Chunks, and the index from which on the journal is read after them."""
    first = rig.streams._recorder.last_index + 1
    return list(cut(rig.streams._catalog, rig.streams._intake.producers, [], 1)), first


def _restored(rig: Durable, chunks: list[tuple[bytes, int]], begins: int) -> Durable:
    """The next life, from a checkpoint and the records from this index on."""
    again = Durable()
    assert again.streams.restore(chunk for chunk, segment in chunks if segment == STATE)
    assert all(again.streams.index(chunk) for chunk, segment in chunks if segment != STATE)
    for record in rig.records:
        if record.index >= begins:
            again.streams.recover(record, rig.position(record))
    again.streams.opened(9, rig.records[-1].index + 1, 0)
    return again


def test_a_checkpoint_and_what_follows_are_as_good_as_all_records() -> None:
    rig = Durable()
    for stream in "stu":
        rig.consumer(stream.encode(), stream=stream, mode="batches")
        _post(rig, *range(5), stream=stream, peer=b"p" + stream.encode())
    rig.ask("purge_stream", stream="s", before=2)
    rig.ask("delete_stream", stream="t")
    rig.ask("delete_group", stream="u", group="g")
    chunks, first = _checkpoint(rig)
    rig.ask("purge_stream", stream="u", before=3)
    _post(rig, "new", stream="t", peer=b"pt")
    rig.ask("delete_stream", stream="s")
    for begins in (first, 1):  # what a checkpoint knows may be read again
        again = _restored(rig, chunks, begins)
        whole = rig.crash()
        assert again.names() == whole.names() == ["t", "u"]
        for name in "tu":
            shown = [one.stream(name) for one in (again, whole)]
            assert [{**row, "batches": 0, "kept_bytes": 0} for row in shown] == [
                {**shown[0], "batches": 0, "kept_bytes": 0}
            ] * 2
        assert again.streams._catalog.deleted == whole.streams._catalog.deleted


def test_a_stream_may_be_deleted_while_a_checkpoint_is_cut(rig: Durable) -> None:
    for stream in "st":
        _post(rig, "a", stream=stream, peer=stream.encode())
    pieces = cut(rig.streams._catalog, rig.streams._intake.producers, [], 1)
    first = next(pieces)
    rig.ask("delete_stream", stream="s")
    assert [first, *pieces]


def test_delays_of_what_expired_wake_nothing(rig: Durable) -> None:
    rig.consumer(mode="batches")
    rig.producer().append("a", "b", columns=Columns(delays=[5_000, 5_000]))
    rig.turn()
    assert rig.group()["delayed"] == 2
    rig.ask("purge_stream", stream="s", before=1)
    rig.pass_time(6 * SECOND)
    _settle_down(rig)
    assert [delivery.offset for delivery in rig.deliveries(b"c")] == [1]
    assert _balanced(rig)["expired"] == 1


def _full_work() -> Durable:
    """Four messages in a stream of work that takes four."""
    rig = Durable()
    rig.ask("create_stream", config={"name": "s", "retention": "work", "messages_max": 4})
    rig.ask("create_group", config={"stream": "s", "name": "g"})
    rig.producer().append(*range(4))
    rig.turn()
    return rig


def test_a_reset_makes_room_where_the_older_account_was_all_that_kept_messages() -> None:
    rig = _full_work()
    rig.ask("reset_group", stream="s", group="g", start="new")
    for _ in range(3):
        rig.pass_time(1_000)
    assert rig.stream()["first_offset"] == 4


def test_what_damage_took_behind_the_last_message_takes_no_room() -> None:
    rig = _full_work()
    rig.streams._catalog.by_name["s"].lose(4, 5_003)
    peer = rig.consumer()
    for delivery in rig.deliveries(peer):
        rig.settle(peer, delivery)
    rig.turn()
    producer = rig.producer(b"p2")
    producer.append("more")
    rig.turn()
    assert rig.confirms(b"p2") == [(1, [5_004], [])]
