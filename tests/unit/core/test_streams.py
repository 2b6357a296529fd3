"""Streams end to end: real frames through Sessions, a journal that is a list."""

from __future__ import annotations

import gc
from typing import Any

import msgspec
import pytest

from patterns.wire.errors import BadBody, CreditExceeded, ZbrokerError
from patterns.wire.limits import DELAY_MS_MAX
from patterns.wire.messages import Codec, Columns, Credit, Join, Lost, Ready, Resume, Role
from patterns.wire.records import Damage, LostRange, Record, RecordKind, encode_lost
from tests.unit.core.durable import JSON, SECOND, Durable
from zbroker.core import streams
from zbroker.core.policy import Policy


def test_a_message_is_confirmed_and_delivered_only_when_it_is_on_disk() -> None:
    rig = Durable()
    rig.consumer(mode="batches")
    rig.producer().append("a", "b")
    rig.turn(sync=False)
    assert rig.confirms(b"p") == []
    assert rig.deliveries(b"c") == []
    rig.sync()
    assert rig.confirms(b"p") == [(1, [0], [])]
    [delivery] = rig.deliveries(b"c")
    assert (delivery.bodies, delivery.offset, delivery.attempt) == (["a", "b"], 0, 1)


@pytest.mark.parametrize(("keeps", "first_offset"), [(1 << 20, 0), (0, 2)])
def test_status_tells_what_was_accepted_and_what_of_it_is_kept(keeps: int, first_offset: int) -> None:
    rig = Durable(policy=Policy(stream_bytes=keeps))
    rig.producer().append("a", "b")
    rig.turn()
    rig.turn()
    found = rig.stream()
    assert (found["messages"], found["bytes"], found["first_offset"]) == (2, 5, first_offset)
    assert (found["kept_bytes"] > 0) is (keeps > 0)


def test_what_is_settled_is_given_up_only_once_the_disk_knows_that_it_is() -> None:
    rig = Durable(policy=Policy(stream_bytes=0))
    rig.consumer(mode="batches")
    rig.producer().append("a", "b")
    rig.turn()
    [held] = rig.deliveries(b"c")
    rig.settle(b"c", held)
    for _ in range(3):
        rig.turn(sync=False)
    assert rig.forgotten == []
    rig.sync()
    assert [(first, last) for _stream, first, last in rig.forgotten] == [(0, 1)]


def test_one_confirm_a_turn_covers_all_batches_of_it() -> None:
    rig = Durable()
    producer = rig.producer()
    for body in "abc":
        producer.append(body)
    rig.turn()
    assert rig.confirms(b"p") == [(3, [0, 1, 2], [])]


def test_weaker_confirms_do_not_wait_for_the_disk() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a", confirm="received")
    producer.append("b", confirm="written")
    producer.append("c")
    rig.turn(sync=False)
    assert rig.confirms(b"p") == [(1, [0], [])]
    rig.streams.turn(rig.now)
    rig.sync()
    assert rig.confirms(b"p")[-1][0] == 3


def test_a_whole_batch_is_forwarded_as_it_came() -> None:
    rig = Durable()
    rig.consumer(mode="batches")
    rig.producer().append("a", "b", columns=Columns(keys=["x", None]), topic="t.u")
    rig.turn()
    [delivery] = rig.deliveries(b"c")
    assert delivery.columns.keys == ["x", None]
    assert delivery.header.topic == "t.u"
    assert delivery.payload == b"\x92\xa1a\xa1b"


def test_slices_never_exceed_the_credit() -> None:
    rig = Durable()
    rig.consumer(credit=2)
    rig.producer().append(*range(5), columns=Columns(keys=list("abcde")))
    rig.turn()
    [first] = rig.deliveries(b"c")
    assert first.bodies == [0, 1]
    rig.credit(b"c", 5)
    [second] = rig.deliveries(b"c")
    assert (second.bodies, second.offset, second.columns.keys) == ([2, 3, 4], 2, ["c", "d", "e"])


def test_raw_bodies_are_sliced_by_their_sizes() -> None:
    rig = Durable()
    rig.consumer(credit=1)
    rig.producer().append(b"one", b"three", codec=Codec.RAW)
    rig.turn()
    rig.credit(b"c", 2)
    assert [delivery.bodies for delivery in rig.deliveries(b"c")] == [[b"one"], [b"three"]]


def test_a_json_consumer_gets_json_headers_columns_and_bodies() -> None:
    rig = Durable()
    rig.consumer(mode="batches", form=JSON, codec=Codec.JSON)
    rig.producer().append({"n": 1}, columns=Columns(keys=["k"]))
    rig.turn()
    [delivery] = rig.deliveries(b"c")
    assert delivery.form is JSON
    assert (delivery.header.codec, delivery.payload, delivery.columns.keys) == (Codec.JSON, b'[{"n":1}]', ["k"])


def test_what_json_cannot_express_is_delivered_as_it_is_and_labelled() -> None:
    rig = Durable()
    rig.consumer(mode="batches", form=JSON, codec=Codec.JSON)
    rig.producer().append({1: b"\xff"})
    rig.turn()
    [delivery] = rig.deliveries(b"c")
    assert delivery.header.codec is Codec.MSGPACK


def test_a_json_producer_may_retry_as_msgpack_stored_it() -> None:
    rig = Durable()
    producer = rig.producer(form=JSON)
    columns = Columns(keys=["k"])
    producer.append("a", columns=columns, codec=Codec.JSON, form=JSON)
    producer.append("a", columns=columns, codec=Codec.JSON, form=JSON, sequence=1, previous=0)
    rig.turn()
    assert rig.confirms(b"p") == [(1, [0, 0], [1])]


def test_two_groups_each_get_everything_and_members_of_one_share() -> None:
    rig = Durable()
    for peer, group in ((b"c1", "g"), (b"c2", "g"), (b"d", "h")):
        rig.consumer(peer, group=group, mode="batches")
    producer = rig.producer()
    for body in range(4):
        producer.append(body)
    rig.turn()
    shared = [[d.offset for d in rig.deliveries(peer)] for peer in (b"c1", b"c2")]
    assert shared == [[0, 2], [1, 3]]
    assert [d.offset for d in rig.deliveries(b"d")] == [0, 1, 2, 3]


def test_a_stalled_consumer_blocks_nobody_and_holds_nothing() -> None:
    rig = Durable()
    rig.consumer(b"stalled", credit=0)
    rig.consumer(b"busy", mode="batches")
    rig.producer().append("a")
    rig.turn()
    assert rig.deliveries(b"stalled") == []
    assert [d.bodies for d in rig.deliveries(b"busy")] == [["a"]]
    assert rig.streams.next_timeout() == rig.now + 10_000  # the journal learns lazily; nothing else is due


def test_roles_may_not_do_each_others_work() -> None:
    rig = Durable()
    rig.hello(b"x", Role.CONSUMER)
    ready = rig.producer()
    ready.peer = b"x"
    ready.append("a")
    rig.send(b"p", Join(id=1, stream="s"))
    rig.turn()
    assert rig.errors(b"x") == ["WRONG_ROLE"]
    assert rig.errors(b"p") == ["WRONG_ROLE"]


def test_a_batch_beyond_the_credit_ends_the_session() -> None:
    rig = Durable()
    producer = rig.producer()
    [session] = rig.sessions
    session.into.messages_max = 1
    producer.append("a", "b")
    producer.append("c")
    rig.turn()
    assert rig.errors(b"p") == [CreditExceeded.name]
    assert len(rig.sessions) == 0


def test_credit_comes_back_only_after_persistence() -> None:
    rig = Durable()
    producer = rig.producer()
    for _ in range(4):
        producer.append(b"x" * 900_000)
    rig.turn(sync=False)
    assert rig.take(b"p", Credit) == []
    rig.sync()
    [grant] = rig.take(b"p", Credit)
    assert grant.bytes == 4 * 900_006 + (4 << 20)


def test_bad_bodies_are_refused_at_the_door_and_do_not_hold_up_what_follows() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a", count=2)
    producer.append("a", payload=b"\x91\xc1")
    producer.append("a", columns=Columns(keys=["a", "b"]))
    producer.append("a", topic="a..b")
    producer.append("a", stream="*")
    producer.append("a", codec=Codec.JSON, payload=b'["\xff"]')
    producer.append("a", confirm="maybe")
    producer.append("a", columns=Columns(offsets=[3]))
    producer.append("a", columns=Columns(delays=[DELAY_MS_MAX + 1]))
    producer.append("good")
    rig.turn()
    assert rig.errors(b"p") == [
        "BAD_BODY", "BAD_BODY", "PROTOCOL_ERROR", "BAD_NAME", "BAD_NAME", "BAD_BODY", "BAD_ARGUMENT",
        "BAD_ARGUMENT", "BAD_ARGUMENT",
    ]  # fmt: skip
    assert rig.confirms(b"p") == [(10, [0], [])]


def test_what_was_refused_is_kept_without_the_frames_that_refused_it_and_what_they_hold() -> None:
    rig = Durable()
    producer = rig.producer()
    before = {id(one) for one in gc.get_objects() if isinstance(one, ZbrokerError)}
    producer.append("a", payload=b"\x91\xc1")
    rig.turn()
    gc.collect()
    kept = [one for one in gc.get_objects() if isinstance(one, ZbrokerError) and id(one) not in before]
    assert [type(one) for one in kept] == [BadBody], "it is told again"
    assert (kept[0].__traceback__, kept[0].__context__, kept[0].__cause__) == (None, None, None)


def test_a_full_disk_refuses_with_retry_after_and_takes_the_same_batch_later() -> None:
    rig = Durable()
    producer = rig.producer()
    rig.streams.storage(full=True, failed=False)
    producer.append("a")
    rig.turn()
    assert rig.errors(b"p") == ["STORAGE_FULL"]
    rig.streams.storage(full=False, failed=False)
    producer.append("a", sequence=1, previous=0)
    rig.turn()
    assert rig.confirms(b"p") == [(1, [0], [])]


def test_a_failed_disk_stops_confirms_and_appends_but_not_deliveries() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a")
    rig.turn()
    producer.append("b")
    rig.turn(sync=False)
    rig.confirms(b"p")
    rig.streams.storage(full=False, failed=True)
    rig.sync()
    producer.append("c")
    rig.consumer(group="", mode="batches")
    assert rig.confirms(b"p") == []
    assert rig.errors(b"p") == ["STORAGE_FAILED"]
    assert [d.bodies for d in rig.deliveries(b"c")] == [["a"]]


def test_batches_beyond_the_cache_are_read_back_in_order() -> None:
    rig = Durable(tail_bytes=4_096)
    producer = rig.producer()
    for number in range(30):
        producer.append(number, "x" * 1_000)
        rig.turn()
    rig.consumer(mode="batches")
    assert rig.reads
    assert [d.bodies[0] for d in rig.deliveries(b"c")] == list(range(30))


def test_a_damaged_batch_is_passed_over_counted_and_told() -> None:
    rig = Durable()
    producer = rig.producer()
    for body in "abc":
        producer.append(body)
    rig.turn()
    again = rig.crash()
    again.damaged.add(next(r.index for r in rig.records if r.base_offset == 1))
    again.consumer(mode="batches")
    assert [d.bodies for d in again.deliveries(b"c")] == [["a"], ["c"]]
    assert [(lost.first, lost.last) for lost in again.take(b"c", Lost)] == [(1, 1)]
    assert again.group()["lost"] == 1
    assert again.group()["balanced"]


def _lost(index: int, **damage: object) -> Record:
    fields = {
        "first_index": 3,
        "last_index": 3,
        "segment": 1,
        "offset": 0,
        "lost_bytes": 0,
        "ranges": [],
        "reason": "body",
    }
    return Record(index, int(RecordKind.LOST), payload=encode_lost([Damage(**{**fields, **damage})]))  # type: ignore[arg-type]


def test_a_lost_record_counts_for_groups_and_is_told_to_members() -> None:
    rig = Durable()
    rig.consumer(mode="batches", credit=0)
    producer = rig.producer()
    for body in "abc":
        producer.append(body)
    rig.turn()
    victim = next(r for r in rig.records if r.base_offset == 1)
    lost = LostRange(victim.index, victim.kind, victim.stream_id, 1, 1)
    records = [r for r in rig.records if r is not victim]
    records.append(_lost(rig.records[-1].index + 1, ranges=[lost]))
    again = Durable(records, 2)
    again.consumer(mode="batches")
    assert [(gone.first, gone.last) for gone in again.take(b"c", Lost)] == [(1, 1)]
    assert [d.offset for d in again.deliveries(b"c")] == [0, 2]
    assert (again.group()["lost"], again.group()["balanced"]) == (1, True)


def test_an_unreadable_hole_at_the_end_jumps_offsets_so_that_none_is_used_twice() -> None:
    rig = Durable()
    rig.producer().append("a")
    rig.turn()
    last = rig.records[-1].index
    hole = _lost(last + 2, first_index=last + 1, last_index=last + 1, lost_bytes=100, reason="header")
    again = Durable([*rig.records, hole], 2)
    again.producer(b"q").append("b")
    again.turn()
    assert again.confirms(b"q") == [(1, [101], [])]
    again.consumer(group="", mode="batches")
    assert [d.offset for d in again.deliveries(b"c")] == [0, 101]
    third = again.crash()
    assert third.streams.status(1_000, third.now)["streams"]["s"]["next_offset"] == 102  # type: ignore[index]


def test_nothing_in_a_journal_stops_the_broker() -> None:
    junk = [Record(n, kind, 9, 0, 1, b"\xc1", b"\xc1") for n, kind in enumerate((1, 2, 4, 7), start=1)]
    rig = Durable(junk)
    assert rig.streams.status(1_000, rig.now)["anomalies"] == 4


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (RecordKind.CATALOG, b"\x92\xa6stream\xa1\xff"),
        (RecordKind.OPS, b"\x91\x94\xa1\xff\x01\x02\x03"),
        (RecordKind.OPS, msgspec.msgpack.encode([["acked", 1, 2, [[5]]]])),
        (RecordKind.OPS, msgspec.msgpack.encode([["acked", 1, 2, [[5, 4]]]])),
        (RecordKind.OPS, msgspec.msgpack.encode([["attempts", 1, 2, [[1, 2]]]])),
        (RecordKind.OPS, msgspec.msgpack.encode([["delivered", 1, 2, 1 << 60]])),
        (RecordKind.LOST, b"\x91" * 100_000),
    ],
)
def test_a_record_that_says_what_nobody_writes_is_an_anomaly(kind: RecordKind, payload: bytes) -> None:
    known = [["stream", "s"], ["group", 1, "g", 0]]
    records = [
        Record(n, RecordKind.CATALOG, 0, 0, 0, b"", msgspec.msgpack.encode(one)) for n, one in enumerate(known, 1)
    ]
    rig = Durable([*records, Record(3, kind, 0, 0, 0, b"", payload)])
    assert rig.streams.status(1_000, rig.now)["anomalies"] == 1


def test_published_at_never_falls_within_a_stream() -> None:
    rig = Durable()
    rig.consumer(mode="batches")
    producer = rig.producer()
    producer.append("a")
    rig.turn()
    rig.now = -SECOND
    producer.append("b")
    rig.turn()
    first, second = rig.deliveries(b"c")
    assert first.header.published_at <= second.header.published_at


def test_operations_alone_reach_the_journal_lazily() -> None:
    rig = Durable()
    rig.consumer(mode="batches")
    rig.producer().append("a")
    rig.turn()
    kinds = [record.kind for record in rig.records]
    assert RecordKind.OPS not in kinds
    due = rig.streams.next_timeout()
    assert due is not None
    rig.pass_time(due - rig.now + 10_000)
    assert rig.records[-1].kind == RecordKind.OPS


def test_a_resumed_consumer_keeps_its_join_and_gets_fresh_credit() -> None:
    rig = Durable()
    rig.consumer(mode="batches", credit=1)
    producer = rig.producer()
    producer.append("a")
    rig.turn()
    [held] = rig.deliveries(b"c")
    rig.disconnect(b"c")
    producer.append("b")
    rig.turn()
    ready = rig.resume(b"c", b"c2", [held.lease])
    rig.turn()
    assert ready.resumed
    assert [d.bodies for d in rig.deliveries(b"c2")] == [["b"]]


def test_an_unnamed_producer_is_known_after_a_restart() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a")
    rig.turn()
    again = rig.crash()
    ready = again.hello(b"p2", Role.PRODUCER, nonce=b"p".ljust(16, b"."), resume=Resume(1, 1))
    assert isinstance(ready, Ready)
    assert ready.resumed
    assert ready.producer == producer.identity.__class__(producer.identity.id, 1, 1)


def test_operations_that_the_journal_does_not_take_are_merged_instead_of_piling_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "OPERATIONS_AHEAD", 3)
    rig = Durable()
    rig.consumer(credit=100)
    producer = rig.producer()
    for number in range(20):
        producer.append(number)
    rig.turn()
    before, settled = len(rig.written), 0
    for _ in range(40):
        for delivery in rig.deliveries(b"c"):
            rig.settle(b"c", delivery)
            settled += 1
        rig.turn(sync=False)
    assert settled == 20, "who works goes on"
    assert len(rig.written) - before <= 3
    assert rig.streams.next_timeout() is None or rig.streams.next_timeout() > rig.now, "nobody spins for it"
    for _ in range(3):
        rig.turn()
    assert rig.crash().group()["pending"] == 0
