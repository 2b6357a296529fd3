from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from patterns.wire import subscriptions as module
from patterns.wire.subscriptions import Subscriptions

tokens = st.sampled_from(["a", "b", "c"])
topics = st.lists(tokens, min_size=1, max_size=4).map(".".join)
wild = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3)
patterns = st.builds(lambda body, rest: ".".join([*body, ">"] if rest else body), wild, st.booleans())


def matches(pattern, topic):
    """The rule of SPEC.md 4, token by token."""
    if pattern == [">"]:
        return bool(topic)
    if not pattern or not topic:
        return pattern == topic
    return pattern[0] in ("*", topic[0]) and matches(pattern[1:], topic[1:])


@given(st.lists(st.tuples(patterns, st.integers(0, 3)), max_size=12), st.sets(st.integers(0, 11)), st.lists(topics))
def test_matching_is_the_rule_of_the_spec(held, removed, asked):
    subscriptions: Subscriptions[int] = Subscriptions()
    for pattern, subscriber in held:
        subscriptions.add(pattern, subscriber)
    for topic in asked:
        subscriptions.matching(topic)  # fills the cache that changes must void
    for place in removed:
        if place < len(held):
            subscriptions.remove(*held[place])
    left = [entry for place, entry in enumerate(held) if place not in removed]
    for topic in asked:
        expected = {who for pattern, who in left if matches(pattern.split("."), topic.split("."))}
        assert set(subscriptions.matching(topic)) == expected
        assert len(subscriptions.matching(topic)) == len(expected)


def test_removed_patterns_leave_nothing_behind():
    subscriptions: Subscriptions[int] = Subscriptions()
    for pattern in ("a.b.c", "a.*", "a.>", ">"):
        subscriptions.add(pattern, 1)
    for pattern in ("a.b.c", "a.*", "a.>", ">"):
        subscriptions.remove(pattern, 1)
    assert subscriptions._root.is_empty


def test_topics_with_the_same_subscribers_share_one_answer():
    subscriptions: Subscriptions[int] = Subscriptions()
    for who in range(10):
        subscriptions.add("a.>", who)
    assert subscriptions.matching("a.b") is subscriptions.matching("a.c") != ()


def test_what_is_remembered_is_bounded_by_topics_and_by_subscribers(monkeypatch):
    monkeypatch.setattr(module, "_TOPICS_CACHED", 10)
    monkeypatch.setattr(module, "_LISTENERS_CACHED", 8)
    subscriptions: Subscriptions[int] = Subscriptions()
    for who in range(4):
        subscriptions.add(f"a.{who}.>", who)
        subscriptions.add("all.*", who)
    for number in range(100):
        assert subscriptions.matching(f"all.{number}") == (0, 1, 2, 3)
        assert subscriptions.matching(f"a.{number % 4}.{number}") == (number % 4,)
        assert len(subscriptions._matched) <= 10
        assert sum(map(len, subscriptions._answers)) < 8 + 4


def test_a_long_pattern_costs_a_hundred_bytes_a_token_and_not_three_dicts():
    subscriptions: Subscriptions[int] = Subscriptions()
    tracemalloc.start()
    for number in range(100):
        subscriptions.add(".".join(["a", str(number), *["b"] * 120]), number)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 100 * 122 * 130
