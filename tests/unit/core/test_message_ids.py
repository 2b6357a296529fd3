"""The window of message ids: what is in it, what leaves it, and what a restart knows of it."""

from __future__ import annotations

import pytest

from patterns.wire.configs import StreamConfig
from patterns.wire.messages import Columns, Confirm, Ready, Resume, Role
from tests.unit.core.durable import SECOND, Client, Durable, restarted
from zbroker.core.message_ids import MessageIds, others, runs_of

_CONFIG = StreamConfig("s", dedup_s=10, dedup_ids_max=3)


def test_an_id_is_known_until_its_time_is_over() -> None:
    window = MessageIds()
    window.note(["a"], [7], 1_000, _CONFIG)
    assert window.repeats(["a", "b"], 8, _CONFIG, 10_999) == [(0, 7)]
    assert window.repeats(["a"], 8, _CONFIG, 11_000) == []


def test_the_oldest_ids_leave_when_there_are_too_many() -> None:
    window = MessageIds()
    window.note(["a", "b", "c", "d"], range(4), 1_000, _CONFIG)
    assert len(window) == 3
    assert window.repeats(["a", "b"], 4, _CONFIG, 1_000) == [(1, 1)]


def test_an_id_twice_in_a_batch_is_stored_once() -> None:
    assert MessageIds().repeats(["a", None, "a", "b"], 5, _CONFIG, 0) == [(2, 5)]


def test_an_empty_id_is_none() -> None:
    window, ids = MessageIds(), ["", "a", ""]
    assert window.repeats(ids, 0, _CONFIG, 1_000) == []
    window.note(ids, range(3), 1_000, _CONFIG)
    assert window.repeats(["", "a"], 3, _CONFIG, 1_000) == [(1, 1)]
    again = MessageIds()
    again.recover(ids, range(3), 1_000, _CONFIG)
    again.opened(_CONFIG, 1_000, [])
    assert len(again) == 1


def test_without_a_window_nothing_is_known() -> None:
    window = MessageIds()
    config = StreamConfig("s", dedup_s=0)
    window.note(["a"], [0], 1_000, config)
    assert window.repeats(["a"], 1, config, 1_000) == []


def test_a_checkpoint_and_older_records_give_the_same_window() -> None:
    window = MessageIds()
    for place, message_id in enumerate("abcd"):
        window.note([message_id], [place], 1_000 + place, _CONFIG)
    restored = MessageIds()
    for part in window.pieces():
        restored.restore(*part)
    for place, message_id in enumerate("abcd"):
        restored.recover([message_id], [place], 1_000 + place, _CONFIG)
    restored.opened(_CONFIG, 1_003, [])
    assert list(restored.pieces()) == list(window.pieces())


def test_what_damage_took_is_not_known() -> None:
    window = MessageIds()
    window.recover(["a", "b"], [0, 1], 1_000, _CONFIG)
    window.opened(_CONFIG, 1_000, [(0, 0)])
    assert window.repeats(["a", "b"], 2, _CONFIG, 1_000) == [(1, 1)]


def test_runs_and_their_others() -> None:
    repeats = [(1, 10), (2, 11), (3, 20)]
    assert runs_of(repeats) == [(1, 10, 2), (3, 20, 1)]
    assert others(repeats, 6) == [slice(0, 1), slice(4, 6)]


# -- through the door -------------------------------------------------------------------------------------------------


def test_what_is_known_of_a_batch_is_not_stored_again() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append(*"ab", columns=Columns(ids=["1", "2"]))
    producer.append(*"xbya", columns=Columns(ids=["3", "2", None, "1"]))
    rig.turn()
    confirms = rig.take(b"p", Confirm)
    assert [(one.sequence, one.offsets, one.exceptions) for one in confirms] == [
        (2, [0, 2], [(2, 1, 1, 1), (2, 3, 0, 1)])
    ]
    consumer = rig.consumer(start="first")
    assert [body for one in rig.deliveries(consumer) for body in one.bodies] == ["a", "b", "x", "y"]


def test_a_retry_of_a_partly_known_batch_is_told_the_same_over_a_restart() -> None:
    rig = Durable()
    producer = rig.producer(name="n")
    producer.append("a", columns=Columns(ids=["1"]))
    producer.append(*"ba", columns=Columns(ids=["2", "1"]))
    rig.turn()
    (before,) = rig.take(b"p", Confirm)
    again = Durable(rig.records, epoch=2, now=SECOND)
    ready = again.hello(b"p", Role.PRODUCER, name="n", resume=Resume(1, 2))
    assert isinstance(ready, Ready)
    other = Client(again, b"p", ready)
    other.append(*"ba", columns=Columns(ids=["2", "1"]), sequence=2, previous=1)
    again.turn()
    (after,) = again.take(b"p", Confirm)
    assert (after.offsets, after.exceptions) == (before.offsets[1:], before.exceptions)
    assert after.duplicates == [2]


def test_a_batch_of_which_all_is_known_is_confirmed_once_its_number_is_on_disk() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append(*"ab", columns=Columns(ids=["1", "2"]))
    rig.turn()
    assert [(one.offsets, one.duplicates) for one in rig.take(b"p", Confirm)] == [([0], [])]
    producer.append(*"ab", columns=Columns(ids=["1", "2"]))
    rig.turn(sync=False)
    assert rig.take(b"p", Confirm) == []
    rig.sync()
    rig.turn()
    assert [(one.offsets, one.duplicates) for one in rig.take(b"p", Confirm)] == [([0], [2])]


@pytest.mark.parametrize("with_checkpoint", [False, True])
def test_a_batch_of_which_all_was_known_is_not_stored_after_a_restart_and_its_window(with_checkpoint: bool) -> None:
    rig = Durable()
    producer = rig.producer(name="n")
    producer.append("a", columns=Columns(ids=["1"]))
    producer.append("a", columns=Columns(ids=["1"]))
    rig.turn()
    again = restarted(rig, 2, with_checkpoint=with_checkpoint)
    again.pass_time(121 * SECOND)
    ready = again.hello(b"p", Role.PRODUCER, name="n", resume=Resume(1, 2))
    assert isinstance(ready, Ready)
    assert ready.producer is not None
    assert ready.producer.sequence == 2
    Client(again, b"p", ready).append("a", columns=Columns(ids=["1"]), sequence=2, previous=1)
    again.turn()
    assert [(one.offsets, one.duplicates) for one in again.take(b"p", Confirm)] == [([0], [2])]
    assert again.stream()["messages"] == 1


def test_another_producer_after_a_restart_finds_the_ids() -> None:
    rig = Durable()
    rig.producer().append("a", columns=Columns(ids=["1"]))
    rig.turn()
    again = Durable(rig.records, epoch=2, now=SECOND)
    again.producer(b"q").append("a", columns=Columns(ids=["1"]))
    again.turn()
    assert [(one.offsets, one.duplicates) for one in again.take(b"q", Confirm)] == [([0], [1])]


def test_an_id_is_new_again_after_its_window() -> None:
    rig = Durable()
    producer = rig.producer()
    producer.append("a", columns=Columns(ids=["1"]))
    rig.turn()
    rig.pass_time(121 * SECOND)
    producer.append("a", columns=Columns(ids=["1"]))
    rig.turn()
    assert [one.offsets for one in rig.take(b"p", Confirm)] == [[0], [1]]
