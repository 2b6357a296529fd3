"""The verbs of an Admin over real sockets, in both shells: what they change, what they show, and what they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

import patterns.aio
from patterns.sync import Admin, Consumer, GroupConfig, Producer, StreamConfig
from patterns.wire.errors import AlreadyExists, BadArgument, BadName, NoSuchGroup, NoSuchStream
from tests.processes import Broker, until

Ask = Callable[..., Any]
NUMBERS = count()
STRANGE = ["", "x" * 256, "é" * 128, "../../etc/passwd", "/etc", "a/b", "a\\b", ".", "..", "a b", "a\nb", "a>", "*"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("admin")) as running:
        yield running


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest, broker: Broker) -> Ask:
    """Calls a verb by name."""

    def in_sync(verb: str, *arguments: Any, **more: Any) -> Any:
        with Admin(broker.url, timeout_s=30) as admin:
            return getattr(admin, verb)(*arguments, **more)

    async def in_aio(verb: str, *arguments: Any, **more: Any) -> Any:
        async with patterns.aio.Admin(broker.url, timeout_s=30) as admin:
            return await getattr(admin, verb)(*arguments, **more)

    if request.param == "sync":
        return in_sync
    return lambda *arguments, **more: asyncio.run(in_aio(*arguments, **more))


@pytest.fixture
def name() -> str:
    """Of a stream that is not there yet."""
    return f"stream-{next(NUMBERS)}"


def test_a_stream_is_made_once_and_shown(ask: Ask, name: str) -> None:
    config = StreamConfig(name, messages_max=10, confirm_min="durable")
    assert ask("create_stream", config, dry_run=True)["created"] is True
    assert name not in [row["name"] for row in ask("list_streams")]
    assert ask("create_stream", config) == {"name": name, "created": True, "changes": [], "dry_run": False}
    assert ask("create_stream", config)["created"] is False
    shown = ask("show_stream", name)
    assert StreamConfig(**shown["config"]) == config
    assert (shown["messages"], shown["published_first"]) == (0, None)
    assert name in [row["name"] for row in ask("list_streams")]


def test_a_change_is_asked_for_and_says_from_when_on_it_counts(ask: Ask, name: str) -> None:
    ask("create_stream", StreamConfig(name))
    other = StreamConfig(name, confirm_min="durable", age_max_s=60.0)
    with pytest.raises(AlreadyExists, match=r"confirm_min is 'received', not 'durable'.*change=True"):
        ask("create_stream", other)
    foreseen = ask("create_stream", other, dry_run=True)["changes"]
    assert ask("show_stream", name)["config"]["age_max_s"] is None
    changes = ask("create_stream", other, change=True)["changes"]
    assert changes == foreseen
    assert [(one["field"], one["before"], one["after"]) for one in changes] == [
        ("age_max_s", None, 60.0),
        ("confirm_min", "received", "durable"),
    ]
    assert all(one["applies"] for one in changes)


def test_what_an_admin_made_outlives_a_kill(tmp_path_factory: pytest.TempPathFactory) -> None:
    stream = StreamConfig("orders", topics=["orders.>"], retention="work", quota_bytes=2**30)
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    group = GroupConfig("orders", "billing", start=noon, max_deliveries=3, dead_letter="dead", backoff_s=[1.0, 5.5])
    with Broker(tmp_path_factory.mktemp("killed")) as broker:
        with Admin(broker.url, timeout_s=30) as admin:
            admin.create_stream(stream)
            admin.create_group(group)
            admin.pause_group("orders", "billing")
        broker.restart()
        with Admin(broker.url, timeout_s=30) as admin:
            assert StreamConfig(**admin.show_stream("orders")["config"]) == stream
            shown = admin.show_group("orders", "billing")
    assert shown["paused"] is True
    assert GroupConfig(**{**shown["config"], "start": noon}) == group


def test_a_group_is_made_shown_and_listed(ask: Ask, name: str) -> None:
    assert ask("create_group", GroupConfig(name, "g", exclusive=True, max_deliveries=2, dead_letter="dead"))["created"]
    assert ask("show_group", name, "g")["config"]["exclusive"] is True
    assert [(row["stream"], row["name"]) for row in ask("list_groups", name)] == [(name, "g")]
    assert (name, "g") in [(row["stream"], row["name"]) for row in ask("list_groups")]


def test_a_paused_group_gets_nothing_until_it_is_resumed(broker: Broker, ask: Ask, name: str) -> None:
    ask("create_group", GroupConfig(name, "g"))
    assert ask("pause_group", name, "g") == {"stream": name, "name": "g", "paused": True, "was": False}
    with Producer(broker.url, name) as producer, Consumer(broker.url, name, group="g") as consumer:
        consumer.ready(30)
        producer.send(1)
        assert consumer.receive(0.3) is None
        assert ask("resume_group", name, "g")["was"] is True
        delivery = consumer.receive(30)
        assert delivery is not None
        delivery.ack(confirm=True)
    assert ask("show_group", name, "g")["pending"] == 0


def test_a_reset_begins_again_where_it_is_told(broker: Broker, ask: Ask, name: str) -> None:
    with Producer(broker.url, name) as producer:
        receipts = producer.send_many(range(10))
    with Consumer(broker.url, name, group="g", idle_timeout_s=0.5) as consumer:
        for delivery in consumer:
            delivery.ack()
    until(lambda: ask("show_group", name, "g")["pending"] == 0)
    assert ask("reset_group", name, "g", 7)["start"] == 7
    with Consumer(broker.url, name, group="g") as consumer:
        first = consumer.receive(30)
        assert first is not None
        assert (first.offset, first.attempt) == (7, 1)
    assert ask("reset_group", name, "g", "new")["start"] == receipts[-1].offset + 1
    assert ask("reset_group", name, "g", datetime.now(UTC) - timedelta(days=1))["start"] == 0
    assert ask("reset_group", name, "g", datetime.now(UTC) + timedelta(days=36_500))["start"] == 10
    assert ask("reset_group", name, "g")["start"] == 0  # as it is configured
    account = ask("show_group", name, "g")
    assert (account["accepted"], account["acked"], account["pending"]) == (10, 0, 10)
    with pytest.raises(BadArgument, match="beyond the next offset 10"):
        ask("reset_group", name, "g", 11)


def test_a_purge_takes_the_oldest_and_its_groups_say_so(broker: Broker, ask: Ask, name: str) -> None:
    with Producer(broker.url, name) as producer:
        producer.send_many(range(10))
    ask("create_group", GroupConfig(name, "g"))
    assert ask("purge_stream", name, keep=7) == {"stream": name, "purged": 3, "below": 3, "next": 10}
    assert ask("purge_stream", name, before=5)["purged"] == 2
    assert ask("purge_stream", name, before=datetime.now(UTC) - timedelta(days=1))["purged"] == 0
    with pytest.raises(BadArgument, match="beyond the next offset 10"):
        ask("purge_stream", name, before=11)
    account = ask("show_group", name, "g")
    assert (account["accepted"], account["expired"], account["pending"]) == (10, 5, 5)
    assert ask("purge_stream", name)["below"] == 10
    assert ask("show_stream", name)["published_first"] is None


def test_who_was_in_a_stream_that_is_deleted_is_told(broker: Broker, ask: Ask, name: str) -> None:
    with Producer(broker.url, name) as producer:
        producer.send(1)
    with Consumer(broker.url, name) as reader, Consumer(broker.url, name, group="g") as member:
        for consumer in (reader, member):
            assert consumer.receive(30) is not None
        assert ask("delete_stream", name) == {"stream": name, "deleted": True, "messages": 1, "groups": 1}
        for consumer in (reader, member):
            with pytest.raises(NoSuchStream, match="was deleted"):
                consumer.receive(30)
    with pytest.raises(NoSuchStream):
        ask("delete_stream", name)


def test_who_was_in_a_group_that_is_deleted_is_told(broker: Broker, ask: Ask, name: str) -> None:
    with Producer(broker.url, name) as producer:
        producer.send(1)
    with Consumer(broker.url, name, group="g") as member:
        assert member.receive(30) is not None
        assert ask("delete_group", name, "g")["pending"] == 1
        with pytest.raises(NoSuchGroup, match="was deleted"):
            member.receive(30)
    assert ask("list_groups", name) == []


def test_who_holds_the_oldest_message_is_told(broker: Broker, ask: Ask, name: str) -> None:
    with Producer(broker.url, name) as producer:
        producer.send("held")
    with Consumer(broker.url, name, group="g") as consumer:
        held = consumer.receive(30)
        assert held is not None
        oldest = ask("show_group", name, "g")["oldest"]
    assert (oldest["offset"], oldest["holder"]["attempt"]) == (0, 1)
    assert len(oldest["holder"]["session"]) == 32
    assert oldest["published_at"] == round(held.published_at.timestamp() * 1_000)


@pytest.mark.parametrize("strange", STRANGE)
def test_no_strange_name_makes_anything(ask: Ask, strange: str) -> None:
    before = [row["name"] for row in ask("list_streams")]
    for verb, *arguments in (
        ("create_stream", StreamConfig(strange)),
        ("create_group", GroupConfig("s", strange)),
        ("create_group", GroupConfig(strange, "g")),
        ("show_stream", strange),
        ("pause_group", strange, "g"),
        ("reset_group", "s", strange, "first"),
        ("list_groups", strange),
    ):
        with pytest.raises(BadName):
            ask(verb, *arguments)
    assert [row["name"] for row in ask("list_streams")] == before


def test_the_longest_names_go(ask: Ask, name: str) -> None:
    stream, group = name.ljust(255, "x"), "é" * 127
    assert ask("create_group", GroupConfig(stream, group))["created"] is True
    assert ask("show_group", stream, group)["name"] == group


def test_unknown_names_are_told(ask: Ask, name: str) -> None:
    with pytest.raises(NoSuchStream, match="nosuch"):
        ask("show_stream", "nosuch")
    with pytest.raises(NoSuchStream):
        ask("list_groups", "nosuch")
    ask("create_stream", StreamConfig(name))
    for verb in ("show_group", "reset_group", "pause_group", "resume_group"):
        with pytest.raises(NoSuchGroup, match="nosuch"):
            ask(verb, name, "nosuch")


@pytest.mark.parametrize(
    ("field", "value"),
    [("age_max_s", -1), ("age_max_s", 100 * 365.25 * 86_400), ("bytes_max", 2**63), ("dedup_s", -0.1), ("dedup_ids_max", 0)],
)  # fmt: skip
def test_values_out_of_range_are_refused_with_the_range(ask: Ask, field: str, value: float) -> None:
    with pytest.raises(BadArgument, match=rf"{field}={value}.*: a .* to "):
        ask("create_stream", StreamConfig("bounds", **{field: value}))
    with pytest.raises(NoSuchStream):
        ask("show_stream", "bounds")


@pytest.mark.parametrize(
    ("field", "value"),
    [("lease_s", 0), ("backoff_s", [-1.0]), ("backoff_s", [100 * 365.25 * 86_400]), ("unsettled_max", 2**63), ("max_deliveries", -1)],
)  # fmt: skip
def test_times_and_counts_of_a_group_are_bounded(ask: Ask, field: str, value: Any) -> None:
    with pytest.raises(BadArgument, match=field):
        ask("create_group", GroupConfig("bounds", "g", **{field: value}))
    with pytest.raises(NoSuchStream):
        ask("show_stream", "bounds")


def test_a_list_of_more_than_one_message_holds_comes_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Broker(tmp_path_factory.mktemp("many")) as broker, Admin(broker.url, timeout_s=60) as admin:
        for number in range(1_100):
            admin.create_group(GroupConfig("busy", f"{'g' * 200}-{number}"))
        rows = admin.list_groups("busy")
        assert [row["name"][201:] for row in rows] == [str(number) for number in range(1_100)]
        assert admin.show_stream("busy")["groups"] == 1_100
