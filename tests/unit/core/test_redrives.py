"""Verbs about dead letters: what is shown of them, and that they go back once, whole, and only where they came from."""

from __future__ import annotations

from typing import Any

import pytest

from patterns.wire.messages import Codec, Columns, ErrorHeader
from tests.unit.core.durable import SECOND, Durable, restarted
from zbroker.core import redrives
from zbroker.core.redrives import PREVIEW_MAX, SHOWN, preview


def _rig(*bodies: Any, group: str = "g", **options: Any) -> Durable:
    """With all of these rejected."""
    rig = Durable(**options)
    rig.ask("create_group", config={"stream": "s", "name": group, "dead_letter": "dead"})
    producer = rig.producer()
    for body in bodies:
        producer.append(body)
    rig.turn()
    rig.consumer(b"c", group=group, mode="batches", credit=10_000)
    for delivery in rig.deliveries(b"c"):
        rig.settle(b"c", delivery, "reject", reason=f"bad {delivery.bodies[0]}")
    rig.turn()
    return rig


def _bodies(rig: Durable, peer: bytes) -> list[Any]:
    return [body for delivery in rig.deliveries(peer) for body in delivery.bodies]


def _redriven(rig: Durable) -> Any:
    """What a redrive of all answers, in as many turns as it takes."""
    answer = rig.ask("redrive_dead", stream="dead")
    for _ in range(10):
        if answer is not None:
            break
        rig.turn()
        answer = rig.answered()
    return answer


def _error(answer: Any) -> tuple[str, str]:
    assert isinstance(answer, ErrorHeader), answer
    return answer.name, answer.detail


def test_a_list_says_where_letters_come_from_and_how_many_wait_on_both_sides() -> None:
    rig = _rig("a", "b", "c")
    rig.ask("redrive_dead", stream="dead", count=1)
    [row] = rig.ask("list_dead")["streams"]
    assert (row["stream"], row["letters"], row["pending"], row["redriven"]) == ("dead", 3, 2, 1)
    assert row["oldest_at"] == 1_700_000_000_000
    assert row["from"] == [{"stream": "s", "group": "g", "dead": 3, "doomed": 0}]


def test_a_stream_that_a_group_names_is_there_before_its_first_letter() -> None:
    rig = _rig()
    assert rig.ask("list_dead")["streams"][0]["letters"] == 0
    assert rig.ask("show_dead", stream="dead") == {"stream": "dead", "letters": [], "next": None, "pending": 0}
    assert rig.group("dead/redrive")["pending"] == 0


def test_what_is_shown_is_what_is_pending_with_why_whence_and_the_first_words() -> None:
    rig = _rig({"n": 1}, "x" * 1_000)
    rig.ask("redrive_dead", stream="dead", first=0, last=0)
    shown = rig.ask("show_dead", stream="dead")
    [row] = shown["letters"]
    assert (row["offset"], row["origin_offset"], row["stream"], row["group"]) == (1, 1, "s", "g")
    assert (row["reason"], row["attempts"], row["pending"]) == ("bad " + "x" * 1_000, 1, True)
    assert len(row["body"]) == PREVIEW_MAX
    first, second = rig.ask("show_dead", stream="dead", all=True)["letters"]
    assert (first["body"], first["pending"], second["offset"]) == ('{"n":1}', False, 1)


def test_pages_go_on_where_the_last_one_ended() -> None:
    rig = _rig(*range(50))
    seen: list[int] = []
    at: int | None = 0
    while at is not None:
        page = rig.ask("show_dead", stream="dead", first=at)
        assert len(page["letters"]) <= SHOWN
        seen += [row["offset"] for row in page["letters"]]
        at = page["next"]
    assert seen == list(range(50))


def test_old_letters_are_read_back_for_who_looks_at_them() -> None:
    rig = _rig(*range(5)).crash()
    rig.slow_disk = True
    assert rig.ask("show_dead", stream="dead") is None
    rig.answer(rig.reads[-1])
    rig.turn()
    assert [row["body"] for row in rig.answered()["letters"]] == ["0", "1", "2", "3", "4"]


def test_a_redrive_gives_them_to_the_group_that_rejected_them_and_to_no_other() -> None:
    rig = _rig("a", "b")
    rig.consumer(b"other", group="other", mode="batches")
    assert _bodies(rig, b"other") == ["a", "b"]
    answer = rig.ask("redrive_dead", stream="dead")
    assert (answer["redriven"], answer["pending"], answer["skipped"]) == (2, 0, 0)
    again = rig.deliveries(b"c")
    assert [(delivery.bodies, delivery.attempt) for delivery in again] == [(["a"], 1), (["b"], 1)]
    assert again[0].columns.headers == [{"zb-redriven": "1"}]
    assert _bodies(rig, b"other") == []
    rig.turn()
    for life in (rig, rig.crash(), restarted(rig, 2, with_checkpoint=True)):
        account = life.group("s/other")
        assert (account["accepted"], account["acked"], account["expired"], account["passed"]) == (2, 0, 0, 2)
        assert account["balanced"]
    assert rig.group("s/g")["accepted"] == 4


def test_the_answer_waits_for_the_disk() -> None:
    rig = _rig("a")
    assert rig.ask("redrive_dead", stream="dead", sync=False) is None
    rig.sync()
    assert rig.answered()["redriven"] == 1


def test_one_record_holds_both_the_message_and_that_it_was_sent_back() -> None:
    rig = _rig("a", "b", "c")
    before = len(rig.records)
    rig.ask("redrive_dead", stream="dead", count=2)
    for kept in range(before, len(rig.records) + 1):
        again = Durable(rig.records[:kept], epoch=2)
        redriven = again.group("dead/redrive")["acked"]
        assert again.stream("s")["messages"] == 3 + redriven
        assert again.group("dead/redrive")["balanced"]


def test_nothing_is_sent_back_twice_not_after_a_restart_either() -> None:
    rig = _rig(*range(10))
    assert rig.ask("redrive_dead", stream="dead", first=3, last=4)["redriven"] == 2
    again = rig.crash()
    assert _redriven(again)["redriven"] == 8
    assert _redriven(again)["redriven"] == 0
    assert again.stream("s")["messages"] == 20
    assert again.group("dead/redrive")["balanced"]


def test_letters_may_go_to_another_stream_for_all_its_groups() -> None:
    rig = _rig("a")
    rig.ask("create_stream", config={"name": "repaired"})
    assert rig.ask("redrive_dead", stream="dead", to="repaired")["redriven"] == 1
    rig.consumer(b"d", stream="repaired", group="any", mode="batches")
    assert _bodies(rig, b"d") == ["a"]


def test_letters_of_a_group_that_is_gone_stay_and_the_answer_says_so() -> None:
    rig = _rig("a")
    log = rig.streams._catalog.by_name["s"]
    del log.groups["g"]
    answer = rig.ask("redrive_dead", stream="dead")
    assert (answer["redriven"], answer["skipped"], answer["pending"]) == (0, 1, 1)
    assert answer["why"] == ["1 letter: stream 's' has no group 'g' any more"]


def test_what_a_producer_put_there_itself_is_no_dead_letter() -> None:
    rig = _rig("a")
    rig.producer(b"q").append("mine", stream="dead", columns=Columns(keys=["k"]))
    rig.turn()
    answer = rig.ask("redrive_dead", stream="dead")
    assert (answer["redriven"], answer["skipped"]) == (1, 1)
    assert "no dead letter" in answer["why"][0]


def test_a_full_disk_stops_it_with_what_was_done_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrives, "TURN_BYTES", 1)
    rig = _rig("a", "b", "c")
    assert rig.ask("redrive_dead", stream="dead") is None
    rig.streams.storage(full=True, failed=False)
    rig.turn()
    answer = rig.answered()
    assert 0 < answer["redriven"] < 3
    assert (answer["stopped"], answer["pending"]) == ("the broker's disk is full", 3 - answer["redriven"])
    name, detail = _error(rig.ask("redrive_dead", stream="dead"))
    assert (name, detail) == ("STORAGE_FULL", "the broker's disk is full")


def test_a_full_stream_stops_it_and_says_which_limit() -> None:
    rig = _rig("a", "b")
    rig.ask("create_stream", config={"name": "small", "retention": "work", "messages_max": 1})
    assert rig.ask("redrive_dead", stream="dead", to="small", count=1)["redriven"] == 1
    name, detail = _error(rig.ask("redrive_dead", stream="dead", to="small"))
    assert (name, "messages_max" in detail) == ("STREAM_FULL", True)
    assert rig.group("dead/redrive")["pending"] == 1


def test_a_member_of_redrive_that_comes_meanwhile_keeps_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrives, "TURN_BYTES", 1)
    rig = _rig("a", "b", "c", "d")
    assert rig.ask("redrive_dead", stream="dead") is None
    rig.consumer(b"fixer", stream="dead", group="redrive", mode="batches", credit=2)
    taken = [offset for delivery in rig.deliveries(b"fixer") for offset in delivery.offsets]
    for _ in range(10):
        rig.turn()
    assert rig.answered()["redriven"] == 4 - len(taken)
    assert rig.group("dead/redrive")["balanced"]


def test_what_died_twice_counts_how_often_it_was_sent_back() -> None:
    rig = _rig("a")
    for count in ("1", "2"):
        rig.ask("redrive_dead", stream="dead")
        [delivery] = rig.deliveries(b"c")
        assert delivery.columns.headers == [{"zb-redriven": count}]
        rig.settle(b"c", delivery, "reject")
        rig.turn()


def test_letters_that_a_member_of_redrive_has_taken_are_left_to_it() -> None:
    rig = _rig("a", "b")
    rig.consumer(b"fixer", stream="dead", group="redrive", mode="slices", credit=1)
    [delivery] = rig.deliveries(b"fixer")
    assert rig.ask("redrive_dead", stream="dead")["redriven"] == 1
    rig.settle(b"fixer", delivery)
    rig.pass_time(SECOND)
    group = rig.group("dead/redrive")
    assert (group["acked"], group["pending"], group["balanced"]) == (2, 0, True)


def test_damaged_letters_are_passed_over_and_counted() -> None:
    rig = _rig("a", "b").crash()
    dead = rig.streams._catalog.by_name["dead"].id
    rig.damaged = {next(record.index for record in rig.records if record.count and record.stream_id == dead)}
    answer = _redriven(rig)
    assert (answer["redriven"], answer["pending"]) == (1, 0)
    assert rig.group("dead/redrive")["lost"] == 1


@pytest.mark.parametrize(
    ("arguments", "name", "words"),
    [
        ({"stream": "nope"}, "NO_SUCH_STREAM", "there is no stream 'nope'"),
        ({"stream": "s"}, "BAD_ARGUMENT", "has had no dead letters"),
        ({"stream": "dead", "to": "dead"}, "BAD_ARGUMENT", "that is where they are"),
        ({"stream": "dead", "to": "nope"}, "NO_SUCH_STREAM", "to send them to"),
        ({"stream": "dead", "to": "a/b"}, "BAD_NAME", "a/b"),
        ({"stream": "dead", "first": 5, "last": 4}, "BAD_ARGUMENT", "first 5 is above last 4"),
        ({"stream": "dead", "first": -1}, "BAD_ARGUMENT", "redrive_dead"),
        ({"stream": "dead", "all": True}, "BAD_ARGUMENT", "all"),
    ],
)
def test_a_redrive_that_cannot_be_is_refused_with_why(arguments: dict[str, Any], name: str, words: str) -> None:
    found = _error(_rig("a").ask("redrive_dead", **arguments))
    assert found[0] == name
    assert words in found[1]


def test_the_group_that_knows_what_was_sent_back_stays_while_letters_come() -> None:
    rig = _rig("a", "b")
    assert rig.ask("redrive_dead", stream="dead", count=1)["redriven"] == 1
    name, detail = _error(rig.ask("delete_group", stream="dead", group="redrive"))
    assert (name, "`zbroker stream purge`" in detail) == ("BAD_ARGUMENT", True)
    assert _redriven(rig)["redriven"] == 1
    rig.ask("delete_group", stream="s", group="g")
    assert rig.ask("delete_group", stream="dead", group="redrive")["deleted"] is True


def test_a_group_that_knows_what_was_sent_back_is_never_idle() -> None:
    rig = Durable()
    rig.ask("create_group", config={"stream": "dead", "name": "redrive", "idle_expiry_s": 1})
    rig.ask("create_group", config={"stream": "s", "name": "g", "dead_letter": "dead"})
    rig.ask("create_group", config={"stream": "s", "name": "other", "idle_expiry_s": 1})
    for _ in range(5):
        rig.pass_time(2 * SECOND)
    assert [row["name"] for row in rig.ask("list_groups")["groups"]] == ["redrive", "g"]


def test_the_number_of_rows_is_bounded() -> None:
    name, detail = _error(_rig("a").ask("show_dead", stream="dead", count=501))
    assert (name, "1 to 500" in detail) == ("BAD_ARGUMENT", True)


@pytest.mark.parametrize(
    ("codec", "item", "text"),
    [
        (Codec.JSON, b'{"a": 1}', '{"a": 1}'),
        (Codec.MSGPACK, b"\x81\xa1a\x01", '{"a":1}'),
        (Codec.MSGPACK, b"\x81\x01\xc4\x01\x00", '{"1":"AA=="}'),
        (Codec.MSGPACK, b"\xd4\x05\x00", "ext"),
        (Codec.MSGPACK, b"\xc1", "(1 bytes that are no msgpack)"),
        (Codec.MSGPACK, b"\xa1\xff", "(2 bytes that are no msgpack)"),
        (Codec.RAW, b"plain", "plain"),
        (Codec.RAW, b"\x00\xff", "b'\\x00\\xff'"),
    ],
)
def test_the_first_words_of_any_body_can_be_shown(codec: Codec, item: bytes, text: str) -> None:
    assert text.lower() in preview(codec, item).lower()
