"""Verbs about streams and groups: what they do, what survives, and what is refused with which words."""

from typing import Any

import pytest

from patterns.wire.messages import Codec, ErrorHeader, Joined, Result
from tests.unit.core.durable import SECOND, Durable
from zbroker.core.policy import Policy


@pytest.fixture
def rig() -> Durable:
    return Durable()


def _error(answer: Any) -> tuple[str, str]:
    assert isinstance(answer, ErrorHeader), answer
    assert answer.scope == "command"
    return answer.name, answer.detail


def _bodies(rig: Durable, peer: bytes = b"c") -> list[Any]:
    return [body for delivery in rig.deliveries(peer) for body in delivery.bodies]


# -- streams ------------------------------------------------------------------------------------------------------


def test_a_stream_is_made_as_it_is_told_and_keeps_that_over_a_restart(rig: Durable) -> None:
    config = {"name": "orders", "topics": ["orders.>"], "retention": "work", "dedup_s": 5.0}
    made = rig.ask("create_stream", config=config)
    assert (made["created"], made["changes"]) == (True, [])
    again = rig.crash()
    for one in (rig, again):
        shown = one.ask("show_stream", stream="orders")
        assert {name: shown["config"][name] for name in config} == config
        assert shown["config"]["confirm_min"] == "received"


def test_the_answer_waits_for_the_disk(rig: Durable) -> None:
    assert rig.ask("create_stream", sync=False, config={"name": "orders"}) is None
    rig.sync()
    assert rig.answered()["created"] is True


def test_making_what_is_there_as_it_is_changes_nothing(rig: Durable) -> None:
    config = {"name": "orders", "bytes_max": 1_000}
    rig.ask("create_stream", config=config)
    records = len(rig.records)
    answer = rig.ask("create_stream", config=config)
    assert (answer["created"], answer["changes"], len(rig.records)) == (False, [], records)


def test_a_change_must_be_asked_for_and_says_from_when_on_it_counts(rig: Durable) -> None:
    rig.ask("create_stream", config={"name": "orders"})
    name, detail = _error(rig.ask("create_stream", config={"name": "orders", "bytes_max": 1_000}))
    assert name == "ALREADY_EXISTS"
    assert "bytes_max is None, not 1000" in detail
    answer = rig.ask("create_stream", config={"name": "orders", "bytes_max": 1_000}, change=True)
    assert answer["changes"] == [
        {"field": "bytes_max", "before": None, "after": 1_000, "applies": "now, for what is stored too"}
    ]
    assert rig.crash().ask("show_stream", stream="orders")["config"]["bytes_max"] == 1_000


def test_a_dry_run_says_what_would_happen_and_does_nothing(rig: Durable) -> None:
    answer = rig.ask("create_stream", config={"name": "orders"}, dry_run=True)
    assert (answer["created"], answer["dry_run"]) == (True, True)
    assert rig.ask("list_streams") == {"streams": [], "count": 0}
    rig.ask("create_stream", config={"name": "orders"})
    answer = rig.ask("create_stream", config={"name": "orders", "messages_max": 7}, dry_run=True)
    assert [change["field"] for change in answer["changes"]] == ["messages_max"]
    assert rig.ask("show_stream", stream="orders")["config"]["messages_max"] is None


@pytest.mark.parametrize(
    ("verb", "arguments", "name", "says"),
    [
        ("explode", {}, "BAD_ARGUMENT", "create_group, create_stream"),
        ("create_stream", {"config": {"name": "a", "colour": "red"}}, "BAD_ARGUMENT", "'colour' is not a field"),
        ("create_stream", {"config": {"name": "a"}, "hurry": True}, "BAD_ARGUMENT", "hurry"),
        ("create_stream", {}, "BAD_ARGUMENT", "config"),
        ("create_stream", {"config": {"name": "../a"}}, "BAD_NAME", "'/'"),
        ("create_stream", {"config": {"name": ""}}, "BAD_NAME", "1 to 255"),
        ("create_stream", {"config": {"name": "a" * 256}}, "BAD_NAME", "256 bytes"),
        ("show_stream", {"stream": "nope"}, "NO_SUCH_STREAM", "'nope'"),
        ("show_group", {"stream": "nope", "group": "g"}, "NO_SUCH_STREAM", "'nope'"),
        ("reset_group", {"stream": "s", "group": "nope"}, "NO_SUCH_GROUP", "it has none"),
        (
            "create_group",
            {"config": {"stream": "s", "name": "g", "start": 7}},
            "BAD_ARGUMENT",
            "beyond the next offset",
        ),
        ("create_group", {"config": {"stream": "s", "name": "g", "dead_letter": "s"}}, "BAD_ARGUMENT", "own stream"),
    ],
)
def test_what_cannot_be_is_refused_with_words(rig: Durable, verb: str, arguments: Any, name: str, says: str) -> None:
    rig.ask("create_stream", config={"name": "s"})
    found, detail = _error(rig.ask(verb, **arguments))
    assert (found, says in detail) == (name, True), detail
    assert rig.ask("list_groups")["count"] == 0


def test_a_failed_disk_takes_no_verb_that_writes(rig: Durable) -> None:
    rig.ask("create_stream", config={"name": "s"})
    rig.streams.storage(full=False, failed=True)
    assert _error(rig.ask("create_stream", config={"name": "t"}))[0] == "STORAGE_FAILED"
    assert rig.ask("show_stream", stream="s")["name"] == "s"


def test_long_lists_come_in_pages(rig: Durable) -> None:
    for number in range(505):
        rig.ask("create_stream", config={"name": f"s{number}"})
    first, second = rig.ask("list_streams"), rig.ask("list_streams", skip=500)
    assert (first["count"], len(first["streams"]), len(second["streams"])) == (505, 500, 5)
    assert second["streams"][-1]["name"] == "s504"


# -- groups -------------------------------------------------------------------------------------------------------


def test_a_group_is_made_as_it_is_told_with_its_stream_and_keeps_that(rig: Durable) -> None:
    config = {"stream": "orders", "name": "billing", "lease_s": 5.0, "max_deliveries": 3, "dead_letter": "failed"}
    assert rig.ask("create_group", config=config)["created"] is True
    for one in (rig, rig.crash()):
        shown = one.ask("show_group", stream="orders", group="billing")
        assert {name: shown["config"][name] for name in config} == config


def test_dead_letters_do_not_go_round_in_a_circle(rig: Durable) -> None:
    rig.ask("create_group", config={"stream": "a", "name": "g", "dead_letter": "b"})
    rig.ask("create_group", config={"stream": "b", "name": "g", "dead_letter": "c"})
    name, detail = _error(rig.ask("create_group", config={"stream": "c", "name": "g", "dead_letter": "a"}))
    assert (name, "back to stream 'c'" in detail) == ("BAD_ARGUMENT", True)


def test_a_paused_group_is_lent_nothing_until_it_is_resumed_also_over_a_restart(rig: Durable) -> None:
    rig.producer().append("a", "b")
    rig.ask("create_group", config={"stream": "s", "name": "g"})
    rig.ask("pause_group", stream="s", group="g")
    peer = rig.consumer()
    assert rig.deliveries(peer) == []
    rig = rig.crash()
    peer = rig.consumer()
    assert (rig.deliveries(peer), rig.group()["paused"]) == ([], True)
    assert rig.ask("resume_group", stream="s", group="g")["was"] is True
    rig.turn()
    assert _bodies(rig) == ["a", "b"]


def test_who_asks_for_what_another_has_just_done_is_answered_once_that_is_on_disk(rig: Durable) -> None:
    config = {"stream": "s", "name": "g"}
    for verb, arguments in (
        ("create_stream", {"config": {"name": "s"}}),
        ("create_group", {"config": config}),
        ("pause_group", {"stream": "s", "group": "g"}),
    ):
        assert rig.ask(verb, sync=False, **arguments) is None
        assert rig.ask(verb, sync=False, **arguments) is None
        rig.sync()
        assert len(rig.take(b"admin", Result)) == 2


def test_a_reset_group_begins_anew_and_its_members_go_on(rig: Durable) -> None:
    rig.producer().append("a", "b", "c")
    peer = rig.consumer()
    (first,) = rig.deliveries(peer)
    rig.settle(peer, first, ranges=[(0, 1)])
    rig.turn()
    answer = rig.ask("reset_group", stream="s", group="g", start=1)
    assert (answer["start"], answer["next"]) == (1, 3)
    rig.turn()
    assert _bodies(rig) == ["b", "c"]
    rig.settle(peer, first, ranges=[(2, 2)])
    rig.turn()
    assert rig.errors(peer) == ["STALE_LEASE"]
    account = rig.group()
    assert (account["accepted"], account["acked"], account["pending"], account["balanced"]) == (2, 0, 2, True)
    assert rig.crash().group()["start"] == 1


def test_a_reset_is_not_given_to_members_before_it_is_on_disk(rig: Durable) -> None:
    rig.producer().append("a")
    peer = rig.consumer()
    rig.settle(peer, rig.deliveries(peer)[0])
    rig.turn()
    assert rig.ask("reset_group", sync=False, stream="s", group="g", start="first") is None
    rig.turn(sync=False)
    assert rig.deliveries(peer) == []
    rig.sync()
    assert _bodies(rig) == ["a"]


def test_a_reset_group_forgets_what_was_to_wait_for_its_time(rig: Durable) -> None:
    """The timer of the older account is still there."""
    rig.producer().append("a")
    peer = rig.consumer()
    [held] = rig.deliveries(peer)
    rig.settle(peer, held, "nack", delay_ms=5_000)
    rig.ask("reset_group", stream="s", group="g", start="first")
    rig.turn()
    assert [delivery.attempt for delivery in rig.deliveries(peer)] == [1]
    rig.pass_time(6 * SECOND)
    assert rig.deliveries(peer) == []
    assert rig.group()["balanced"]


def test_a_reset_keeps_the_configuration_and_takes_its_start_from_there(rig: Durable) -> None:
    rig.producer().append("a", "b")
    rig.ask("create_group", config={"stream": "s", "name": "g", "start": "new", "lease_s": 7.0})
    assert rig.ask("reset_group", stream="s", group="g")["start"] == 2
    assert rig.crash().ask("show_group", stream="s", group="g")["config"]["lease_s"] == 7.0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"start": "later"}, "'first', 'new', 'time'"),
        ({"start": "time"}, "go together"),
        ({"start": "new", "published_at": 7}, "go together"),
        ({"start": 3}, "beyond the next offset 2"),
    ],
)
def test_a_reset_to_where_no_group_can_begin_is_refused(rig: Durable, asked: dict[str, Any], says: str) -> None:
    rig.producer().append("a", "b")
    rig.ask("create_group", config={"stream": "s", "name": "g"})
    name, detail = _error(rig.ask("reset_group", stream="s", group="g", **asked))
    assert (name, says in detail) == ("BAD_ARGUMENT", True), detail


def test_who_holds_the_oldest_message_and_since_when_it_waits_is_shown(rig: Durable) -> None:
    rig.producer().append("a", "b")
    peer = rig.consumer(name="worker-1")
    rig.settle(peer, rig.deliveries(peer)[0], ranges=[(0, 0)])
    rig.pass_time(3 * SECOND)
    shown = rig.ask("show_group", stream="s", group="g")
    oldest = shown["oldest"]
    assert (oldest["offset"], oldest["holder"]["name"], oldest["holder"]["attempt"]) == (1, "worker-1", 1)
    assert oldest["age_s"] >= 3
    assert shown["lag_s"] >= 3
    assert [row["name"] for row in shown["member_rows"]] == ["worker-1"]


# -- made by first use, or not ------------------------------------------------------------------------------------


def test_without_auto_create_unknown_names_are_refused_with_what_to_do() -> None:
    rig = Durable(policy=Policy(auto_create=False))
    producer = rig.producer()
    producer.append("a")
    rig.turn()
    assert rig.errors(b"p") == ["NO_SUCH_STREAM"]
    for group in ("g", ""):
        peer = rig.consumer(b"c" + group.encode(), group=group)
        assert rig.errors(peer) == ["NO_SUCH_STREAM"]
    rig.ask("create_stream", config={"name": "s"})
    peer = rig.consumer(b"d")
    assert rig.errors(peer) == ["NO_SUCH_GROUP"]
    producer.append("b")
    rig.turn()
    assert rig.confirms(b"p") == [(2, [0], [])]
    assert rig.deliveries(rig.consumer(b"reader", group=""))[0].bodies == ["b"]


def test_results_come_in_the_form_of_who_asks(rig: Durable) -> None:
    from patterns.wire.messages import Role

    rig.hello(b"admin", Role.ADMIN, codec=Codec.JSON)
    assert rig.ask("list_streams") == {"streams": [], "count": 0}


# -- what the configuration of a group does -----------------------------------------------------------------------


def test_an_exclusive_group_gives_to_one_member_and_another_one_takes_over(rig: Durable) -> None:
    rig.ask("create_group", config={"stream": "s", "name": "g", "exclusive": True})
    first, second = rig.consumer(b"c1"), rig.consumer(b"c2")
    producer = rig.producer()
    for body in "abcd":
        producer.append(body)
        rig.turn()
    assert (_bodies(rig, first), _bodies(rig, second)) == (["a", "b", "c", "d"], [])
    rig.disconnect(first)
    rig.pass_time(3 * SECOND)
    assert _bodies(rig, second) == ["a", "b", "c", "d"]


def test_a_group_that_is_exclusive_no_more_gives_to_all(rig: Durable) -> None:
    config = {"stream": "s", "name": "g", "exclusive": True}
    rig.ask("create_group", config=config)
    first, second = rig.consumer(b"c1", credit=1), rig.consumer(b"c2", credit=1)
    rig.producer().append("a", "b")
    rig.turn()
    assert (_bodies(rig, first), _bodies(rig, second)) == (["a"], [])
    rig.ask("create_group", config={**config, "exclusive": False}, change=True)
    rig.turn()
    assert _bodies(rig, second) == ["b"]


def test_a_lease_lasts_as_long_as_its_group_says(rig: Durable) -> None:
    rig.ask("create_group", config={"stream": "s", "name": "g", "lease_s": 5.0})
    rig.producer().append("a")
    peer = rig.consumer()
    assert len(rig.deliveries(peer)) == 1
    rig.pass_time(4 * SECOND)
    assert rig.deliveries(peer) == []
    rig.pass_time(2 * SECOND)
    assert [delivery.attempt for delivery in rig.deliveries(peer)] == [2]


def test_members_hear_of_the_times_of_their_group_when_they_join_and_when_they_change(rig: Durable) -> None:
    config = {"stream": "s", "name": "g", "lease_s": 5.0, "processing_max_s": 60.0}
    rig.ask("create_group", config=config)
    peer = rig.consumer()
    (joined,) = rig.take(peer, Joined)
    assert (joined.id, joined.lease_ms, joined.processing_max_ms) == (1, 5_000, 60_000)
    rig.ask("create_group", config={**config, "lease_s": 9.0}, change=True)
    (joined,) = rig.take(peer, Joined)
    assert (joined.id, joined.lease_ms) == (0, 9_000)
