"""What a stream captures against what a subscriber with its patterns hears: the same messages, in the same order, whoever publishes what."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.sync import Admin, Consumer, Producer, Publisher, StreamConfig, Subscriber
from tests.processes import LONG
from zbroker.testing.memory import MemoryBroker

SOON_S = 30.0
NOT_S = 0.01  # what should not come
_FIRST = st.sampled_from(["a", "a", "b"])  # a channel each: so batches have several topics
_TOPICS = st.builds(lambda *tokens: ".".join(filter(None, tokens)), _FIRST, *[st.sampled_from(["", "a", "b"])] * 2)
_PATTERNS = st.builds(
    lambda tokens, end: ".".join([*tokens, *end]),
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2),
    st.sampled_from([(), (), (">",)]),
) | st.just(">")
_PUBLISHERS = ("msgpack", "json", "stored")  # two codecs; and a producer, whose messages are told once they are stored
_PUBLISHED = st.tuples(
    st.sampled_from(_PUBLISHERS), st.lists(st.tuples(_TOPICS, st.booleans()), min_size=1, max_size=12)
)
Said = tuple[str | None, Any, dict[str, str] | None]


def _matches(pattern: str, topic: str) -> bool:
    wanted, tokens = pattern.split("."), topic.split(".")
    if wanted[-1] == ">" and len(tokens) >= len(wanted):
        wanted, tokens = wanted[:-1], tokens[: len(wanted) - 1]
    return len(wanted) == len(tokens) and all(one in ("*", token) for one, token in zip(wanted, tokens, strict=True))


def _publish(role: Publisher | Producer, messages: list[tuple[str, bool]], number: int) -> None:
    for more, (topic, has_headers) in enumerate(messages):
        headers = {"n": str(number + more)} if has_headers else None
        if isinstance(role, Publisher):
            role.publish(topic, number + more, headers)
        else:
            role.post(number + more, topic=topic, headers=headers)
    role.flush()


def _stored(url: str, count: int) -> list[Said]:
    with Consumer(url, "captured", start="first") as reader:
        return [(one.topic, one.body, one.headers) for one in islice(reader, count)]


@given(st.lists(_PATTERNS, min_size=1, max_size=3), st.lists(_PUBLISHED, min_size=1, max_size=8))
@settings(max_examples=1_000 if LONG else 40, deadline=None)
def test_a_stream_stores_what_a_subscriber_hears(
    patterns: list[str], published: list[tuple[str, list[tuple[str, bool]]]]
) -> None:
    with MemoryBroker() as broker, ExitStack() as stack:
        url, number = broker.url, 0
        admin = stack.enter_context(Admin(url))
        admin.create_stream(StreamConfig("captured", topics=patterns))
        subscriber = stack.enter_context(Subscriber(url, *patterns))
        subscriber.ready(SOON_S)
        roles: dict[str, Publisher | Producer] = {"stored": stack.enter_context(Producer(url, "other"))}
        roles |= {codec: stack.enter_context(Publisher(url, codec=codec)) for codec in _PUBLISHERS[:2]}
        for who, messages in published:
            _publish(roles[who], messages, number)
            number += len(messages)
        count = admin.show_stream("captured")["messages"]
        topics = [topic for _, messages in published for topic, _ in messages]
        assert count == sum(any(_matches(pattern, topic) for pattern in patterns) for topic in topics)
        heard = [subscriber.receive(SOON_S) for _ in range(count)]
        assert subscriber.receive(NOT_S) is None
        assert [(one.topic, one.body, one.headers) for one in heard if one is not None] == _stored(url, count)
        assert subscriber.lost == 0
        broker.check()
