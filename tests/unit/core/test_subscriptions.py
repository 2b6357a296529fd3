from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from patterns.wire.names import matcher
from zbroker.core.subscriptions import Subscriptions

tokens = st.sampled_from(["a", "b", "c"])
topics = st.lists(tokens, min_size=1, max_size=4).map(".".join)
wild = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3)
patterns = st.builds(lambda body, rest: ".".join([*body, ">"] if rest else body), wild, st.booleans())


@given(st.lists(st.tuples(patterns, st.integers(0, 3)), max_size=12), st.sets(st.integers(0, 11)), st.lists(topics))
def test_matching_agrees_with_the_matcher_of_names(held, removed, asked):
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
        expected = {who for who in range(4) if matcher([p for p, w in left if w == who])(topic)}
        assert set(subscriptions.matching(topic)) == expected
        assert len(subscriptions.matching(topic)) == len(expected)


def test_removed_patterns_leave_nothing_behind():
    subscriptions: Subscriptions[int] = Subscriptions()
    for pattern in ("a.b.c", "a.*", "a.>", ">"):
        subscriptions.add(pattern, 1)
    for pattern in ("a.b.c", "a.*", "a.>", ">"):
        subscriptions.remove(pattern, 1)
    assert subscriptions._root.is_empty
