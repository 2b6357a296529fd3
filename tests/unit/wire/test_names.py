from __future__ import annotations

import re
import zlib

import pytest

from patterns.wire.errors import BadName
from patterns.wire.names import channel_of, channels_of, check_meant, check_name, check_pattern, check_topic, matcher


@pytest.mark.parametrize("letter", list(" \t\n\x00\x7f\x85\xa0\u2028\u3000/\\*>"))
def test_a_name_refuses_white_space_control_characters_and_separators(letter):
    with pytest.raises(BadName, match="stream name"):
        check_name(f"a{letter}b", "stream")


@pytest.mark.parametrize(("size", "good"), [(0, False), (1, True), (255, True), (256, False)])
def test_a_name_has_1_to_255_bytes(size, good):
    name = "n" * size
    if good:
        assert check_name(name, "group") == check_topic(name) == check_pattern(name) == name
        return
    for check in (lambda text: check_name(text, "group"), check_topic, check_pattern):
        with pytest.raises(BadName, match="bytes"):
            check(name)


def test_bytes_are_counted_and_not_letters():
    with pytest.raises(BadName, match="256 bytes"):
        check_name("ä" * 128, "stream")


def test_a_lone_surrogate_is_no_name():
    with pytest.raises(BadName, match="not valid Unicode"):
        check_topic("a\ud800")


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_is_no_way_out_of_a_folder(name):
    with pytest.raises(BadName):
        check_name(name, "stream")


def test_a_topic_may_hold_a_slash_where_a_name_may_not():
    assert check_topic("a/b") == "a/b"


@pytest.mark.parametrize("pattern", ["a.>.b", "a*", "a.*b", ">>", "a..b", ".", ">."])
def test_a_wildcard_is_a_whole_token_and_the_rest_only_last(pattern):
    with pytest.raises(BadName):
        check_pattern(pattern)


def test_a_channel_is_the_crc_of_the_first_token():
    assert channel_of("orders.eu") == channel_of("orders") == zlib.crc32(b"orders") % 64


def test_a_pattern_with_a_wildcard_first_listens_to_all_channels():
    assert channels_of("*.eu") is channels_of(">") is None
    assert channels_of("orders.*") == channel_of("orders")


def test_no_pattern_matches_nothing():
    assert not matcher([])("a")


def test_one_of_several_patterns_is_enough():
    matches = matcher(["a", "b.*"])
    assert [matches(topic) for topic in ("a", "b.c", "b", "c")] == [True, True, False, False]


def test_letters_that_mean_something_in_expressions_stand_for_themselves():
    assert matcher(["a+(b"])("a+(b")
    assert not matcher(["a+"])("aa")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("#", ">"),
        ("orders.#", "orders.>"),
        ("orders/#", "orders.>"),
        ("+.eu", "*.eu"),
        ("a/+/b", "a.*.b"),
        ("+.#", "*.>"),
    ],
)
def test_wildcards_of_mqtt_and_amqp_are_refused_with_ours(written, meant):
    assert check_pattern(written) == written  # on the wire they are tokens like any other
    with pytest.raises(BadName, match=f"did you mean {re.escape(repr(meant))}"):
        check_meant(written)


def test_what_has_no_pattern_of_ours_is_refused_without_a_hint():
    with pytest.raises(BadName, match="any number of tokens"):
        check_meant("#.created")
    with pytest.raises(BadName, match="'>' is everything"):
        check_meant("")


@pytest.mark.parametrize("pattern", ["c#", "lang.c++", "a/b", "*.>", "orders.*"])
def test_other_patterns_are_meant_as_they_stand(pattern):
    assert check_meant(pattern) == pattern
