"""What a slow subscriber gets and what it is told to have lost, against a model: whatever is published, granted, subscribed."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.wire.identity import publisher_of
from patterns.wire.messages import Credit, ErrorHeader, Lost, Overflow, Publish, Unsubscribe
from patterns.wire.names import channel_of, channels_of, matcher
from tests.unit.core.serving import JSON, MSGPACK, Bench, Client
from zbroker.core import subscribers

TOPICS = ["n.a", "n.b", "n.c.d"], ["other.a", "other.b"]
PATTERNS = ["n.*", "n.>", "n.a", "other.>", "*.b", ">"]

publishes = st.tuples(
    st.just("publish"), st.integers(0, 1), st.sampled_from([0, 1]), st.lists(st.integers(0, 2), min_size=1, max_size=4),
    st.integers(50, 300), st.sampled_from([0, 0, 0, 3]),
)  # fmt: skip
credits = st.tuples(st.just("credit"), st.integers(1, 12), st.integers(100, 1_500))
changes = st.tuples(st.just("patterns"), st.sampled_from(PATTERNS))
actions = st.lists(st.one_of(*[publishes] * 8, credits, changes), min_size=15, max_size=60)


class Model:
    """Every message that was published, and what a subscriber must be told at each of its batches."""

    def __init__(self, bench: Bench, subscriber: Client, pattern: str) -> None:
        self.bench, self.subscriber = bench, subscriber
        self.publishers = [bench.client("publisher"), bench.client("publisher")]
        self.sequences: dict[tuple[int, int], int] = {}
        self.batches: list[tuple[bytes, int, int, int, int]] = []  # publisher, channel, sequence, matched, gaps so far
        self.gaps = 0
        self.held: dict[int, str] = {}
        self.granted = [0, 0]
        self.patterns(pattern)

    def patterns(self, pattern: str) -> None:
        """Subscribe to it, or, when it is there, unsubscribe."""
        for number, held in self.held.items():
            if held == pattern:
                self.subscriber.send(Unsubscribe(number))
                del self.held[number]
                return
        number = 1 + max(self.held, default=0)
        self.held[number] = pattern
        self.subscriber.subscribe(pattern, number)

    def credit(self, messages: int, size: int) -> None:
        self.granted = [self.granted[0] + messages, self.granted[1] + size]
        self.subscriber.send(Credit(*self.granted))

    def publish(self, who: int, family: int, chosen: list[int], size: int, gap: int) -> None:
        topics = [TOPICS[family][place % len(TOPICS[family])] for place in chosen]
        channel, publisher = channel_of(topics[0]), self.publishers[who]
        sequence = self.sequences.get((who, channel), 0) + gap
        self.sequences[who, channel] = sequence + len(topics)
        listened = {channels_of(pattern) for pattern in self.held.values()}
        self.gaps += gap if {channel, None} & listened else 0
        matched = sum(map(matcher(self.held.values()), topics))
        self.batches.append((publisher_of(publisher.nonce), channel, sequence, matched, self.gaps))
        publisher.publish(topics, sequence=sequence, body=b"x" * size)

    def told(self) -> tuple[int, int, int]:
        """Messages received, lost, missing upstream; on the way each LOST must be in its place."""
        dropped, at = 0, 0
        received = lost = upstream = 0
        for message in self.subscriber.inbox:
            header: Any = message.header
            if isinstance(header, Lost):
                lost, upstream = max(lost, header.messages), max(upstream, header.upstream)
            elif isinstance(header, Publish):
                place = (header.publisher, message.key[0], header.sequence)
                while self.batches[at][:3] != place:  # in order: what is passed over here was dropped
                    dropped += self.batches[at][3]
                    at += 1
                assert (lost, upstream) == (dropped, self.batches[at][4]), f"the account in front of batch {at}"
                received += self.batches[at][3]
                at += 1
        return received, lost, upstream


@given(st.sampled_from(Overflow), st.sampled_from([MSGPACK, JSON]), st.sampled_from(PATTERNS), actions)
@settings(max_examples=100, deadline=None)
def test_received_and_lost_are_what_was_published_and_each_loss_stands_in_its_place(policy, form, pattern, todo):
    before, subscribers.OUTBOX_BYTES_MAX = subscribers.OUTBOX_BYTES_MAX, 1_500
    try:
        bench = Bench()
        subscriber = bench.client("subscriber", form=form, messages=0, size=0, overflow=policy)
        model = Model(bench, subscriber, pattern)
        bench.client("subscriber", messages=0).subscribe("n.a")  # so that not every topic has the same listeners
        for verb, *arguments in todo:
            getattr(model, verb)(*arguments)
            if any(header.number == 404 for header in (m.header for m in subscriber.messages(ErrorHeader))):
                assert policy is Overflow.DISCONNECT
                break
        model.credit(1_000_000, 1 << 30)
        received, lost, upstream = model.told()
        assert received + lost == sum(batch[3] for batch in model.batches)
        assert upstream == model.gaps
    finally:
        subscribers.OUTBOX_BYTES_MAX = before
