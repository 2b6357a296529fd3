"""Identities, order and retries of producers; over the wire, since that is where they fail."""

from __future__ import annotations

from patterns.wire.messages import Credit, ErrorHeader, Goodbye, Ready, Resume, Role
from tests.unit.core.durable import Client, Durable


def _nonce(name: bytes) -> bytes:
    return name.ljust(16, b".")


def test_a_retry_is_stored_once_and_told_its_first_offset() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a", "b")
    producer.append("c")
    producer.append("a", "b", sequence=1, previous=0)
    rig.turn()
    assert rig.confirms(b"p") == [(1, [0, 2, 0], [1])]
    assert rig.streams.status(1_000, 0)["streams"]["s"]["messages"] == 3  # type: ignore[index]


def test_a_retry_before_the_original_is_on_disk_waits_for_it() -> None:
    rig = Durable()
    rig.producer().append("a")
    rig.turn(sync=False)
    rig.disconnect(b"p")
    ready = rig.hello(b"p2", Role.PRODUCER, nonce=_nonce(b"p"), resume=Resume(1, 1))
    assert isinstance(ready, Ready)
    again = Client(rig, b"p2", ready)
    again.append("a", sequence=1, previous=0)
    rig.turn(sync=False)
    assert rig.confirms(b"p2") == []
    rig.sync()
    assert rig.confirms(b"p2") == [(1, [0], [1])]


def test_a_resumed_session_is_told_only_of_what_it_sends_again() -> None:
    rig = Durable()
    rig.producer().append("a")
    rig.turn(sync=False)
    ready = rig.hello(b"p2", Role.PRODUCER, nonce=_nonce(b"p"), resume=Resume(1, 1))
    assert isinstance(ready, Ready)
    rig.sync()
    assert rig.confirms(b"p2") == []
    Client(rig, b"p2", ready).append("a", sequence=1, previous=0)
    rig.turn()
    assert rig.confirms(b"p2") == [(1, [0], [1])]


def test_a_gap_is_refused_and_does_not_count() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("b", sequence=2, previous=1)
    producer.append("a", sequence=1, previous=0)
    rig.turn()
    assert rig.errors(b"p") == ["SEQUENCE_GAP"]
    assert rig.confirms(b"p") == [(1, [0], [])]


def test_other_bytes_under_a_known_sequence_are_refused() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a")
    producer.append("b", sequence=1, previous=0)
    rig.turn()
    assert rig.errors(b"p") == ["SEQUENCE_REUSED"]


def test_a_next_life_repeats_nothing_of_the_one_before_and_that_one_is_told_why() -> None:
    rig = Durable()
    rig.producer(name="till").append("a")
    rig.turn()
    rig.producer(b"q", name="till").append("a", sequence=1, previous=0)
    rig.turn()
    assert rig.errors(b"q") == ["OUTCOME_UNKNOWN"]
    [error] = [message.header for message in rig.inbox[b"p"] if isinstance(message.header, ErrorHeader)]
    assert error.name == "FENCED"
    assert "'till' was started again elsewhere, as epoch 2" in error.detail


def test_what_is_older_than_the_last_64_is_refused_openly() -> None:
    rig = Durable()
    producer = rig.producer()
    for _ in range(65):
        producer.append("a")
    producer.append("a", sequence=2, previous=1)
    producer.append("a", sequence=1, previous=0)
    rig.turn()
    assert rig.errors(b"p") == ["OUTCOME_UNKNOWN"]
    [(_, offsets, duplicates)] = rig.confirms(b"p")
    assert (offsets[-1], duplicates) == (1, [2])


def test_a_batch_of_another_producer_is_unknown() -> None:
    rig = Durable()
    rig.producer().append("a", producer=77)
    rig.turn()
    assert rig.errors(b"p") == ["UNKNOWN_PRODUCER"]


def test_a_refused_batch_is_refused_again_with_the_same_error() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a", topic="a..b")
    producer.append("b")
    producer.append("a", topic="a..b", sequence=1, previous=0)
    rig.turn()
    assert rig.errors(b"p") == ["BAD_NAME", "BAD_NAME"]
    assert rig.confirms(b"p") == [(2, [0], [])]


def test_a_name_keeps_the_id_raises_the_epoch_and_fences_the_older_self() -> None:
    rig = Durable()
    old = rig.producer(b"p", name="billing")
    old.append("a")
    rig.turn()
    new = rig.producer(b"q", name="billing")
    assert (new.identity.id, new.identity.epoch, new.identity.sequence) == (old.identity.id, 2, 1)
    assert rig.errors(b"p") == ["FENCED"]
    new.append("b")
    rig.turn()
    assert rig.confirms(b"q") == [(2, [1], [])]


def test_a_fenced_producer_that_comes_back_is_told_so() -> None:
    rig = Durable()
    rig.producer(b"p", name="billing")
    rig.producer(b"q", name="billing")
    rig.turn()
    for life in (rig, rig.crash()):
        answer = life.hello(b"p3", Role.PRODUCER, nonce=_nonce(b"p"), name="billing", resume=Resume(1, 0))
        assert isinstance(answer, ErrorHeader)
        assert answer.name == "FENCED"


def test_a_fenced_epoch_never_stores() -> None:
    rig = Durable()
    rig.producer(b"p", name="billing")
    new = rig.producer(b"q", name="billing")
    new.append("late", producer_epoch=1)
    rig.turn()
    assert rig.errors(b"q") == ["FENCED"]
    assert "s" not in rig.streams.status(1_000, 0)["streams"]  # type: ignore[operator]


def test_identity_order_and_retries_survive_a_restart() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a")
    producer.append("b")
    rig.turn()
    producer.append("lost")
    again = rig.crash()
    ready = again.hello(b"p", Role.PRODUCER, resume=Resume(1, 3))
    assert isinstance(ready, Ready)
    back = Client(again, b"p", ready)
    assert (ready.resumed, back.identity.id, back.sequence) == (True, producer.identity.id, 2)
    back.append("b", sequence=2, previous=1)
    back.append("lost", sequence=3, previous=2)
    again.turn()
    assert again.confirms(b"p") == [(2, [1], [2]), (3, [2], [])]


def test_a_resume_that_nobody_knows_gets_a_new_identity() -> None:
    rig = Durable(epoch=3)
    ready = rig.hello(b"p", Role.PRODUCER, resume=Resume(1, 9))
    assert isinstance(ready, Ready)
    assert ready.producer is not None
    assert (ready.resumed, ready.producer.sequence, ready.producer.id >> 32) == (False, 0, 3)


def test_a_producer_that_stored_nothing_leaves_nothing() -> None:
    rig = Durable()
    for number in range(10):
        rig.producer(b"p%d" % number)
        rig.disconnect(b"p%d" % number)
    rig.turn()
    assert (rig.streams.status(1_000, 0)["producers"], rig.records) == (0, [])


def test_unread_refusals_end_the_session_before_one_is_swallowed() -> None:
    rig = Durable()
    producer = rig.producer()
    for _ in range(1_100):
        producer.append("a", sequence=9, previous=8)
    rig.turn()
    assert rig.errors(b"p")[-1] == "SEQUENCE_GAP"
    assert len(rig.sessions) == 0


def test_unsynced_bytes_stay_within_the_window_however_the_disk_lags() -> None:
    rig = Durable()
    producer = rig.producer()
    [session] = rig.sessions
    for _ in range(40):
        while session.into.is_open:
            producer.append(b"x" * 500_000)
        rig.streams.turn(rig.now)
        rig._carry_out()
        half = rig.written[: len(rig.written) // 2 + 1]
        rig.records += half
        del rig.written[: len(half)]
        rig.streams.persisted(half[-1].index, rig.now)
        rig._carry_out()
        unsynced = sum(len(record.payload) for record in rig.written)
        assert unsynced + session.into.bytes_max - session.into.bytes_used <= (4 << 20)
    assert rig.take(b"p", Credit)


def test_an_unnamed_producer_that_says_goodbye_leaves_nothing_behind() -> None:
    rig = Durable()
    rig.producer().append("a")
    rig.turn()
    rig.send(b"p", Goodbye())
    assert rig.streams.status(1_000, 0)["producers"] == 0
    rig.producer(b"q", name="bookkeeper").append("b")
    rig.turn()
    rig.send(b"q", Goodbye())
    rig.producer(b"r").append("c")
    rig.turn()
    rig.disconnect(b"r")
    assert rig.streams.status(1_000, 0)["producers"] == 2  # one has a name, the other may come back


def test_an_unnamed_producer_that_said_goodbye_does_not_come_back_with_a_restart() -> None:
    rig = Durable()
    for number in range(5):
        name = b"p%d" % number
        rig.producer(name, nonce=_nonce(name)).append("a")
        rig.turn()
        rig.send(name, Goodbye())
    rig = rig.crash()
    assert rig.streams.status(1_000, 0)["producers"] == 1  # who left last: no record after it had to be written
    ready = rig.hello(b"p4", Role.PRODUCER, nonce=_nonce(b"p4"), resume=Resume(1, 1))
    assert isinstance(ready, Ready)
    assert ready.resumed
