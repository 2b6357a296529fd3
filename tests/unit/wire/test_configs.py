"""What users may write into a configuration, and what they are told of what they may not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from patterns.wire.configs import GroupConfig, StreamConfig, changes, config_of, start_of, told
from patterns.wire.errors import BadArgument, BadName

GROUP = GroupConfig("orders", "billing", max_deliveries=3, dead_letter="failed", backoff_s=[1, 10])
STREAM = StreamConfig("orders", topics=["orders.>"], retention="work", bytes_max=1_000)


@pytest.mark.parametrize("config", [GROUP, STREAM, GroupConfig("a", "b"), StreamConfig("a")])
def test_what_a_verb_carries_is_the_configuration_again(config: Any) -> None:
    assert config_of(type(config), told(config)) == config.check()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("bytez", 1, "'bytez' is not a field of StreamConfig; there are name, topics"),
        ("bytes_max", 0, "1 to 9,007,199,254,740,991"),
        ("bytes_max", True, "Expected `int | null`"),
        ("messages_max", 2**63, "1 to 9,007,199,254,740,991"),
        ("age_max_s", float("inf"), "a number of seconds"),
        ("age_max_s", float("nan"), "a number of seconds"),
        ("age_max_s", -1, "a number of seconds"),
        ("dedup_ids_max", 10**9, "1 to 1,000,000"),
        ("retention", "forever", "Invalid enum value 'forever'"),
        ("overflow", "drop", "Invalid enum value 'drop'"),
        ("confirm_min", "maybe", "Invalid enum value 'maybe'"),
        ("topics", ["a.>"] * 1_025, "at most 1024"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_its_limit(field: str, value: Any, says: str) -> None:
    with pytest.raises(BadArgument) as caught:
        config_of(StreamConfig, {"name": "orders", field: value})
    assert says in caught.value.detail


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 256),
        ("name", "../orders"),
        ("stream", ".."),
        ("dead_letter", "a b"),
    ],
)
def test_a_name_that_breaks_a_rule_is_refused(field: str, value: str) -> None:
    with pytest.raises(BadName):
        config_of(GroupConfig, {"stream": "orders", "name": "billing", field: value})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"lease_s": 0.5}, "1 to"),
        ({"max_deliveries": 3}, "without dead_letter"),
        ({"dead_letter": "orders"}, "own stream"),
        ({"backoff_s": [-1]}, "a number of seconds"),
        ({"backoff_s": [1] * 65}, "at most 64"),
        ({"backoff_s": [100 * 365 * 86_400]}, "31,536,000"),
        ({"unsettled_max": 0}, "1 to 10,000,000"),
        ({"start": -1}, "0 to"),
        ({"start": "yesterday"}, "an aware datetime"),
        ({"start": "2026-01-01T00:00:00"}, "without a zone"),
    ],
)
def test_a_group_that_cannot_be_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadArgument) as caught:
        config_of(GroupConfig, {"stream": "orders", "name": "billing", **fields})
    assert says in caught.value.detail


def test_work_gives_up_nothing_by_age_or_unprocessed() -> None:
    for fields in ({"age_max_s": 1.0}, {"keep_unsettled": False}):
        with pytest.raises(BadArgument, match="'limits'"):
            config_of(StreamConfig, {"name": "orders", "retention": "work", **fields})


def test_a_start_is_a_word_an_offset_or_an_instant() -> None:
    instant = datetime(2026, 1, 1, tzinfo=UTC)
    assert [start_of(one) for one in ("first", "new", 7, instant, "2026-01-01T00:00:00Z")] == [
        "first", "new", 7, instant, instant,
    ]  # fmt: skip
    assert told(GroupConfig("orders", "billing", start=instant))["start"] == "2026-01-01T00:00:00+00:00"


def test_what_is_no_map_is_no_configuration() -> None:
    with pytest.raises(BadArgument, match="not a map"):
        config_of(StreamConfig, ["orders"])


def test_each_change_says_from_when_on_it_counts() -> None:
    found = {
        name: (before, after, text) for name, before, after, text in changes(GROUP, GroupConfig("orders", "billing"))
    }
    assert found.keys() == {"max_deliveries", "dead_letter", "backoff_s"}
    assert found["max_deliveries"] == (3, 0, "for deliveries that fail from now on")


@pytest.mark.parametrize("kind", [StreamConfig, GroupConfig])
def test_every_field_but_names_has_its_words_about_a_change(kind: Any) -> None:
    from msgspec.structs import fields

    from patterns.wire import configs

    words = configs._STREAM_CHANGES if kind is StreamConfig else configs._GROUP_CHANGES
    assert set(words) == {field.name for field in fields(kind)} - {"name", "stream"}
