from __future__ import annotations

import pytest

from patterns.core.client import Failed
from patterns.core.produce import Batch, Confirmed, ProducerEngine, batch_of, batches_of
from patterns.wire.codec import decode, encode
from patterns.wire.errors import BadBody, Fenced, OutcomeUnknown, StorageFull
from patterns.wire.frames import MSGPACK, columns_of
from patterns.wire.limits import COLUMNS_BYTES_TARGET, PRODUCER_BATCHES_REMEMBERED
from patterns.wire.messages import Append, Codec, Confirm, Credit, ErrorHeader, Hello, ProducerIdentity, Resume
from tests.unit.core_clients.wire import BROKER, NONCE, S, Wire, calm

ME = ProducerIdentity(9, 1, 0)


def wired():
    return Wire(ProducerEngine(BROKER, "orders", NONCE, Codec.MSGPACK, calm, name="till-7"))


@pytest.fixture
def wire():
    wire = wired()
    wire.greet(producer=ME)
    return wire


def append(wire, count=1):
    batches = [Batch(2, Codec.MSGPACK, b"\x92\x01\x02", b"") for _ in range(count)]
    wire.engine.append(batches, wire.now)
    wire.settle()
    return batches


def sequences(wire):
    return [header.sequence for header in wire.sent(Append)]


def refuse(wire, number, sequence, **more):
    wire.say(ErrorHeader(number=number, scope="append", id=sequence, **more))


def done(wire):
    return [batch for event in wire.heard(Confirmed) for batch in event.batches]


def test_batches_are_numbered_from_1_each_naming_the_one_before(wire):
    append(wire, 3)
    headers = wire.sent(Append)
    assert [(header.previous, header.sequence) for header in headers] == [(0, 1), (1, 2), (2, 3)]
    assert (headers[0].stream, headers[0].producer, headers[0].producer_epoch) == ("orders", 9, 1)


@pytest.mark.parametrize("offsets", [[], [100]])
def test_a_confirm_that_names_no_offset_is_no_receipt(wire, offsets):
    batches = append(wire, 2)
    wire.say(Confirm(2, offsets))
    assert [batch.done for batch in batches] == [True, True]
    assert isinstance(batches[1].error, OutcomeUnknown)


def test_a_known_producer_counts_on_from_what_was_accepted():
    wire = wired()
    wire.greet(producer=ProducerIdentity(9, 2, 41))
    append(wire)
    assert sequences(wire) == [42]


def test_nothing_is_sent_before_ready_names_the_producer():
    wire = wired()
    append(wire)
    wire.greet()
    wire.say(Credit(1_000, 1 << 20))
    assert sequences(wire) == []
    wire.back(producer=ME)
    assert sequences(wire) == [1]


def test_a_confirm_covers_everything_up_to_its_sequence(wire):
    batches = append(wire, 3)
    wire.say(Confirm(2, [100, 102]))
    assert done(wire) == batches[:2]
    assert [batch.offset for batch in batches] == [100, 102, -1]
    assert [batch.done for batch in batches] == [True, True, False]
    assert (wire.engine.unconfirmed, wire.engine.unconfirmed_bytes) == (1, 3)


def test_a_duplicate_is_marked(wire):
    batches = append(wire, 2)
    wire.say(Confirm(2, [100, 102], [1]))
    assert [batch.duplicate for batch in batches] == [True, False]


def test_a_confirm_that_comes_again_is_nothing(wire):
    append(wire, 1)
    wire.say(Confirm(1, [0]))
    wire.say(Confirm(1, []))
    assert len(done(wire)) == 1


def test_what_is_unconfirmed_is_sent_again_after_a_reconnect_unchanged(wire):
    append(wire, 3)
    before = wire.messages(Append)
    wire.say(Confirm(1, [0]))
    wire.sent(Hello)
    wire.back(producer=ProducerIdentity(9, 1, 2), resumed=True)
    assert wire.sent(Hello)[0].resume == Resume(7, 3)
    again = wire.messages(Append)
    assert [(message.header, message.payload) for message in again] == [
        (message.header, message.payload) for message in before[1:]
    ]


def test_a_new_producer_epoch_numbers_what_is_unconfirmed_anew(wire):
    batches = append(wire, 2)
    sequences(wire)
    wire.back(producer=ProducerIdentity(9, 2, 40))
    assert sequences(wire) == [41, 42]
    wire.say(Confirm(42, [0, 2]))
    assert done(wire) == batches


def test_a_sequence_gap_is_answered_once_by_sending_all_again_in_order(wire):
    append(wire, 4)
    wire.say(Confirm(1, [0]))
    sequences(wire)
    for sequence in (2, 3, 4):
        refuse(wire, 108, sequence, retryable=True)
    assert sequences(wire) == []
    wire.wait(10)
    assert sequences(wire) == [2, 3, 4]
    wire.wait(1_000)
    assert sequences(wire) == []


def test_a_refusal_that_may_pass_keeps_order_and_waits_as_long_as_it_says(wire):
    append(wire, 2)
    sequences(wire)
    refuse(wire, 501, 1, retryable=True, retry_after_ms=250)
    refuse(wire, 108, 2, retryable=True)
    assert isinstance(wire.engine.hindrance, StorageFull)
    append(wire, 1)
    wire.wait(249)
    assert sequences(wire) == []
    wire.wait(1)
    assert sequences(wire) == [1, 2, 3]
    wire.say(Confirm(3, [0, 2, 4]))
    assert wire.engine.hindrance is None


def test_a_refusal_that_would_hold_a_producer_up_for_ever_does_so_for_a_minute(wire):
    append(wire)
    sequences(wire)
    refuse(wire, 501, 1, retryable=True, retry_after_ms=(1 << 53) - 1)
    assert wire.engine.role_timeout() == wire.now + 60 * S


def test_a_batch_refused_behind_one_that_is_confirmed_later_is_told_then(wire):
    append(wire, 2)
    refuse(wire, 500, 2, detail="the disk failed")
    assert done(wire) == []
    wire.say(Confirm(1, [70], []))
    first, second = done(wire)
    assert (first.offset, second.error.number) == (70, 500)
    assert wire.engine.unconfirmed == 0


def test_a_refusal_of_an_earlier_copy_says_nothing_of_the_one_that_was_sent_after_it(wire):
    batches = append(wire, 3)
    refuse(wire, 501, 1, retryable=True, retry_after_ms=250)
    wire.wait(250)  # all three are sent again, and the answers to their first copies are still under way
    for sequence in (2, 3):
        refuse(wire, 108, sequence, retryable=True)
    assert sequences(wire) == [1, 2, 3, 1, 2, 3]
    assert not any(wire.engine.withdraw(batch) for batch in batches)  # they may be on the disk by now
    wire.say(Confirm(1, [70], []))
    wire.say(Confirm(3, [72, 74], []))
    assert [batch.offset for batch in done(wire)] == [70, 72, 74]


def test_a_refusal_for_good_takes_no_offset_and_holds_up_nobody(wire):
    batches = append(wire, 3)
    refuse(wire, 300, 2)
    assert done(wire) == []
    wire.say(Confirm(3, [100, 102]))
    assert done(wire) == batches
    assert [batch.offset for batch in batches] == [100, -1, 102]
    assert [type(batch.error) for batch in batches] == [type(None), BadBody, type(None)]
    assert wire.engine.unconfirmed_bytes == 0


def test_a_refusal_of_the_oldest_is_told_at_once(wire):
    batches = append(wire, 2)
    refuse(wire, 300, 1)
    assert done(wire) == batches[:1]


def test_credit_holds_batches_back_in_order(wire):
    wire = wired()
    wire.greet(producer=ME, messages=2)
    append(wire, 3)
    assert sequences(wire) == [1]
    wire.say(Credit(6, 1 << 20))
    assert sequences(wire) == [2, 3]


def test_a_fenced_producer_has_failed(wire):
    append(wire)
    wire.say(ErrorHeader(number=106))
    assert isinstance(wire.heard(Failed)[0].error, Fenced)


def test_what_is_shed_has_an_unknown_outcome(wire):
    batches = append(wire, 2)
    wire.disconnect()
    batches += append(wire, 1)
    wire.engine.shed(OutcomeUnknown("closed"))
    wire.settle()
    assert done(wire) == batches
    assert {type(batch.error) for batch in batches} == {OutcomeUnknown}
    assert (wire.engine.unconfirmed, wire.engine.unconfirmed_bytes) == (0, 0)


def test_a_batch_has_only_the_columns_that_say_something():
    (part,) = encode(Codec.RAW, [b"a", b"bc"])
    batch = batch_of(Codec.RAW, part, keys=["k", None], headers=[None, None], ids=[None, None], topics=["t", "t"])
    wire = wired()
    wire.greet(producer=ME)
    wire.engine.append([batch], wire.now)
    wire.settle()
    (message,) = wire.messages(Append)
    columns = columns_of(message, 2)
    assert (columns.keys, columns.sizes, message.header.topic) == (["k", None], [1, 2], "t")
    assert not columns.headers
    assert not columns.ids


def test_a_batch_of_plain_bodies_has_no_columns():
    (part,) = encode(Codec.MSGPACK, [1, 2])
    assert batch_of(Codec.MSGPACK, part, keys=[None, None]).columns == b""
    assert MSGPACK.name == "msgpack"


def test_what_a_full_disk_kept_out_can_be_withdrawn_and_the_rest_keeps_its_order(wire):
    first, second, third = append(wire, 3)
    wire.sent(Append)
    refuse(wire, 501, 1, name="STORAGE_FULL", retryable=True, retry_after_ms=500)
    for sequence in (2, 3):
        refuse(wire, 108, sequence, name="SEQUENCE_GAP", retryable=True)
    assert isinstance(wire.engine.hindrance, StorageFull)
    assert wire.engine.withdraw(first)
    wire.wait(600)
    assert [(header.previous, header.sequence) for header in wire.sent(Append)] == [(0, 2), (2, 3)]
    wire.say(Confirm(3, [0, 2]))
    assert [batch.offset for batch in (first, second, third)] == [-1, 0, 2]


def test_what_may_be_stored_cannot_be_withdrawn(wire):
    [batch] = append(wire)
    assert not wire.engine.withdraw(batch)
    wire.disconnect()
    assert not wire.engine.withdraw(batch)


def test_another_cluster_gets_only_what_was_never_sent_to_the_first(wire):
    [sent] = append(wire)
    wire.sent(Append)
    wire.disconnect()
    [unsent] = append(wire)
    wire.back(producer=ProducerIdentity(3, 1, 0), cluster="elsewhere")
    assert isinstance(sent.error, OutcomeUnknown)
    assert [batch is sent for batch in done(wire)] == [True]
    assert len(wire.sent(Append)) == 1
    assert not unsent.done


@pytest.mark.parametrize("codec", [Codec.MSGPACK, Codec.RAW])
def test_batches_are_closed_before_their_columns_are_too_large(codec):
    bodies = [str(at).encode() for at in range(3_000)]
    headers = [{"n": str(at), "a": "v" * (at % 5 * 800)} for at in range(3_000)]  # 5 MB in all
    keys = [None if at % 3 else str(at) for at in range(3_000)]
    batches = batches_of(
        codec,
        bodies,
        1 << 20,
        keys=keys,
        headers=headers,
        ids=[None] * 3_000,
        topics=[None] * 3_000,
        delays=[7] * 3_000,
    )
    assert max(len(batch.columns) for batch in batches) <= COLUMNS_BYTES_TARGET
    assert len(batches) < 100
    columns = [MSGPACK.columns.decode(batch.columns) for batch in batches]
    assert [one for c in columns for one in c.headers] == headers
    assert [one for c in columns for one in (c.keys or [])] == keys
    found = [
        body
        for b, c in zip(batches, columns, strict=True)
        for body in decode(codec, b.payload, b.count, c.sizes or None)
    ]
    assert found == bodies


def test_columns_count_as_unconfirmed_bytes(wire):
    batch = Batch(1, Codec.MSGPACK, b"\x91\x01", b"c" * 100)
    wire.engine.append([batch], wire.now)
    assert wire.engine.unconfirmed_bytes == 102
    wire.say(Confirm(1, [0]))
    assert wire.engine.unconfirmed_bytes == 0


def test_no_more_is_under_way_than_the_broker_remembers():
    wire = wired()
    wire.greet(producer=ME, messages=1_000)
    append(wire, PRODUCER_BATCHES_REMEMBERED + 2)
    assert sequences(wire)[-1] == PRODUCER_BATCHES_REMEMBERED
    wire.say(Confirm(1, [0]))
    assert sequences(wire) == [PRODUCER_BATCHES_REMEMBERED + 1]


def test_what_was_sent_in_a_session_before_and_waits_for_credit_now_cannot_be_withdrawn(wire):
    [batch] = append(wire)
    wire.back(producer=ME, resumed=True, messages=0)
    assert not wire.engine.withdraw(batch)
    assert wire.engine.unconfirmed == 1


def test_one_topic_of_all_is_in_the_header_and_several_are_in_columns():
    def made(*topics):
        count = len(topics)
        nothing = [None] * count
        return batches_of(
            Codec.MSGPACK, list(range(count)), 1 << 20,
            keys=nothing, headers=nothing, ids=nothing, topics=list(topics), delays=[0] * count,
        )  # fmt: skip

    (same,) = made("a.b", "a.b")
    assert (same.topic, same.columns) == ("a.b", b"")
    (mixed,) = made("a.b", "c", "a.b")
    columns = MSGPACK.columns.decode(mixed.columns)
    assert (mixed.topic, columns.topics, columns.topic) == (None, ["a.b", "c"], [0, 1, 0])
    parted = made("a", "b", None, None, "c")
    assert [(batch.count, batch.topic) for batch in parted] == [(2, None), (2, None), (1, "c")]


def test_messages_that_were_stored_under_their_id_before_have_the_receipts_of_the_first_ones(wire):
    batch = Batch(6, Codec.MSGPACK, b"\x96\x01\x02\x03\x04\x05\x06", b"")
    wire.engine.append([batch], wire.now)
    wire.settle()
    wire.say(Confirm(0, [], [], [(1, 1, 7, 2)]))  # what one CONFIRM does not hold comes before it
    assert not batch.done
    wire.say(Confirm(1, [100], [], [(1, 5, 3, 1)]))
    found = [batch.receipt(place) for place in range(6)]
    assert found == [(100, False), (7, True), (8, True), (101, False), (102, False), (3, True)]


def test_how_safe_a_batch_is_to_be_is_asked_for(wire):
    wire.engine.confirm = "written"
    append(wire)
    assert [header.confirm for header in wire.sent(Append)] == ["written"]
