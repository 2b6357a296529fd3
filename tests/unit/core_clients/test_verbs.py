from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from patterns.core import verbs
from patterns.core.verbs import Verb
from patterns.wire.configs import GroupConfig, StreamConfig
from patterns.wire.errors import BadArgument, BadBody, BadName

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
NOON_MS = 1_769_860_800_000


def create(config, kind=StreamConfig, **more):
    return verbs.create(kind, config, **{"dry_run": False, "change": False, **more})


def test_a_configuration_travels_whole():
    name, arguments = create(StreamConfig("orders", retention="work", topics=["a.>"]), change=True)
    assert name == "create_stream"
    assert (arguments["dry_run"], arguments["change"]) == (False, True)
    told = arguments["config"]
    assert (told["name"], told["retention"], told["topics"], told["dedup_s"]) == ("orders", "work", ["a.>"], 120.0)


def test_an_instant_in_a_configuration_is_text():
    assert create(GroupConfig("s", "g", start=NOON), GroupConfig).arguments["config"]["start"] == NOON.isoformat()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("orders", "create_stream('orders'): a StreamConfig"),
        (None, "a StreamConfig"),
        (GroupConfig("s", "g"), "a StreamConfig"),
        (StreamConfig("s", topics="orders.>"), "topics"),
        (StreamConfig("s", retention="never"), "retention"),
        (StreamConfig("s", age_max_s=-1), "age_max_s=-1"),
        (StreamConfig("s", age_max_s=100 * 365 * 86_400.0), "1,000,000,000"),
        (StreamConfig("s", bytes_max="4G"), "bytes_max"),
        (StreamConfig("s", messages_max=True), "messages_max"),
        (StreamConfig("s", bytes_max=2**63), "bytes_max"),
        (StreamConfig("s", bytes_max=2**70), "bytes_max"),
    ],
)
def test_what_is_no_configuration_is_refused_before_anybody_is_asked(config, text):
    with pytest.raises(BadArgument) as refused:
        create(config)
    assert text in str(refused.value)


def test_a_configuration_that_no_header_holds_is_refused():
    create(StreamConfig("s", topics=[f"{'x' * 50}.{number}" for number in range(1_000)]))
    with pytest.raises(BadArgument, match=r"of 20\d,\d+ bytes, at most 64,512: use wildcards"):
        create(StreamConfig("s", topics=[f"{'x' * 200}.{number}" for number in range(1_000)]))


@pytest.mark.parametrize("name", ["", "x" * 256, "../etc", "a/b", "a\\b", ".", "..", "a b", "a\x00", "a>", "é" * 128])
def test_bad_names_are_refused(name):
    with pytest.raises(BadName):
        create(StreamConfig(name))
    for verb in ("show_stream", "delete_stream"):
        with pytest.raises(BadName, match="stream"):
            verbs.of_stream(verb, name)
    with pytest.raises(BadName, match="group"):
        verbs.of_group("show_group", "s", name)
    with pytest.raises(BadName, match="stream"):
        verbs.redrive_dead("s", None, name, None, None)


def test_the_longest_name_goes():
    assert verbs.of_group("show_group", "s" * 255, "é" * 127 + "x").arguments["group"].startswith("é")


def test_a_purge_says_how_far():
    assert verbs.purge_stream("s", None, None) == Verb("purge_stream", {"stream": "s"})
    assert verbs.purge_stream("s", 0, None).arguments == {"stream": "s", "keep": 0}
    assert verbs.purge_stream("s", None, 7).arguments == {"stream": "s", "before": 7}
    assert verbs.purge_stream("s", None, NOON).arguments == {"stream": "s", "published_before": NOON_MS}


@pytest.mark.parametrize(
    ("keep", "before"), [(1, 1), (-1, None), (None, -1), (True, None), (None, "now"), (2**53, None), (None, 2**53)]
)
def test_a_purge_of_nonsense_is_refused(keep, before):
    with pytest.raises(BadArgument, match=r"0 to 9,007,199,254,740,991|one of them"):
        verbs.purge_stream("s", keep, before)


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(BadArgument, match="without a zone"):
        verbs.purge_stream("s", None, datetime(2026, 1, 31))  # noqa: DTZ001
    with pytest.raises(BadArgument, match="without a zone"):
        verbs.reset_group("s", "g", datetime(2026, 1, 31))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (None, {}),
        ("new", {"start": "new"}),
        (7, {"start": 7}),
        (NOON, {"start": "time", "published_at": NOON_MS}),
        (NOON.isoformat(), {"start": "time", "published_at": NOON_MS}),
        (NOON.astimezone(timezone(timedelta(hours=9))), {"start": "time", "published_at": NOON_MS}),
        (NOON + timedelta(microseconds=1), {"start": "time", "published_at": NOON_MS + 1}),
        (datetime(1, 1, 2, tzinfo=UTC), {"start": "time", "published_at": 0}),
    ],
)
def test_a_reset_says_where_to_begin(start, told):
    assert verbs.reset_group("s", "g", start) == Verb("reset_group", {"stream": "s", "group": "g", **told})


@pytest.mark.parametrize("start", ["yesterday", -1, 2**53, True, 1.5])
def test_a_reset_to_nowhere_is_refused(start):
    with pytest.raises(BadArgument):
        verbs.reset_group("s", "g", start)


def test_dead_letters_are_shown_from_an_offset():
    assert verbs.show_dead("s", 0, None, False).arguments == {"stream": "s", "first": 0, "all": False}
    assert verbs.show_dead("s", 7, 5, True).arguments == {"stream": "s", "first": 7, "all": True, "count": 5}
    for first, count in ((-1, None), (0, 0), ("new", None), (0, True)):
        with pytest.raises(BadArgument):
            verbs.show_dead("s", first, count, False)


def test_a_redrive_says_what_and_where():
    assert verbs.redrive_dead("s", None, None, None, None).arguments == {"stream": "s"}
    told = verbs.redrive_dead("s", 10, "t", 0, 9).arguments
    assert told == {"stream": "s", "count": 10, "to": "t", "first": 0, "last": 9}
    for wrong in ((0, None, None, None), (None, None, 2, 1), (None, None, -1, None)):
        with pytest.raises(BadArgument):
            verbs.redrive_dead("s", *wrong)


def test_a_list_may_be_of_one_stream():
    assert verbs.list_of("list_groups") == Verb("list_groups", {})
    assert verbs.list_of("list_groups", "s") == Verb("list_groups", {"stream": "s"})
    with pytest.raises(BadName):
        verbs.list_of("list_groups", "")


@pytest.mark.parametrize("result", [{}, {"streams": {}}, {"streams": [1]}, {"streams": None, "count": 1}])
def test_a_result_that_is_no_list_is_refused(result):
    verb = verbs.list_of("list_streams")
    with pytest.raises(BadBody, match="list_streams has no list of streams"):
        verbs.rows_of(verb, result, "streams")


def test_a_list_says_how_many_rows_there_are():
    verb = verbs.list_of("list_streams")
    assert verbs.count_of(verb, {"count": 3}) == 3
    with pytest.raises(BadBody, match="no count"):
        verbs.count_of(verb, {"count": "3"})
