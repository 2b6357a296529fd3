"""A streamed reply over links that break, with credit, cancelling and ends at any moment: what is taken is a prefix of what was sent.

The engines of a requester and a replier, with a broker's between them or without; the test plays the network and the clock.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.core.reply import PeerReplierEngine, ReplierEngine, RequestCancelled, Requested
from patterns.core.request import Outcome, PartReceived, RequesterEngine
from patterns.wire.address import parse_addresses
from patterns.wire.engine import Close, Open, Send
from patterns.wire.errors import ApplicationError, LoadError, ProtocolError
from patterns.wire.messages import Codec
from zbroker.core.broker import BrokerEngine

S = 1_000_000
WINDOW, WINDOW_BYTES = 3, 60
BROKER, PEER = parse_addresses("zb://a"), parse_addresses("tcp://a:1")


def calm() -> float:
    return 0.0


class Cable:
    """A client engine's connection to a serving engine: two queues, and a new routing id after each break."""

    def __init__(self, name: str, client: Any, server: Any) -> None:
        self.name, self.client, self.server = name, client, server
        self.up: deque[tuple[int, Any]] = deque()
        self.down: deque[Any] = deque()
        self.link = 0
        self.connections = 0

    @property
    def peer(self) -> bytes:
        return f"{self.name}{self.connections}".encode()

    def take(self, now: int) -> None:
        """What the client's engine wants."""
        for effect in self.client.effects():
            match effect:
                case Open(link=link):
                    self.link, self.connections = link, self.connections + 1
                    self.client.connected(link, now)
                    self.take(now)
                case Send(link=link, frames=frames):
                    self.up.append((link, frames))
                case Close():
                    self.hang_up(now)

    def hang_up(self, now: int) -> None:
        """The connection is gone, and what was on its way with it."""
        self.link = 0
        self.up.clear()
        self.down.clear()
        if isinstance(self.server, BrokerEngine):
            self.server.disconnected(0, self.peer, now)
        else:
            self.server.peer_gone(1, self.peer, now)


class Scene:
    """Everybody, and what they saw."""

    def __init__(self, brokered: bool, idempotent: bool, codec: Codec) -> None:
        self.now = 1 * S
        self.requester = RequesterEngine(BROKER if brokered else PEER, b"q" * 16, codec, calm)
        self.replier: Any
        if brokered:
            server: Any = BrokerEngine("c", self.now, epoch=7)
            self.replier = ReplierEngine(BROKER, ["rows"], b"r" * 16, Codec.MSGPACK, calm, concurrency=4)
            self.cables = [Cable("q", self.requester, server), Cable("r", self.replier, server)]
        else:
            server = self.replier = PeerReplierEngine(PEER[0], ["rows"], 7, Codec.MSGPACK)
            self.cables = [Cable("q", self.requester, server)]
        self.server = server
        self.sent: dict[int, int] = {}  # token -> how many parts
        self.over: set[int] = set()  # tokens of requests that are cancelled or answered
        self.received: list[int] = []
        self.outcomes: list[Outcome] = []
        self.taken = self.taken_bytes = self.received_bytes = 0
        self.left = False
        for engine in {id(one): one for one in (self.requester, self.replier)}.values():
            engine.start(self.now)
        self.settle()
        for _ in range(20):
            self.carry(0)
            self.carry(1)
        self.number = self.requester.request(
            "rows", codec, b"\x91\xc0" if codec is Codec.MSGPACK else b"[null]", b"", timeout_us=60 * S, wait_ms=60_000,
            idempotent=idempotent, parts=(WINDOW, WINDOW_BYTES), now=self.now,
        )  # fmt: skip
        self.settle()

    def settle(self) -> None:
        for cable in self.cables:
            cable.take(self.now)
        if isinstance(self.server, BrokerEngine):
            self.server.turn(self.now)
        for effect in self.server.effects():
            if isinstance(effect, Send):
                for cable in self.cables:
                    if effect.peer == cable.peer and cable.link:
                        cable.down.append(effect.frames)
        for event in self.requester.events():
            self.heard(event)
        for event in self.replier.events():
            if isinstance(event, Requested):
                assert event.takes_parts
                self.sent[event.token] = 0
            elif isinstance(event, RequestCancelled):
                self.over.add(event.token)

    def heard(self, event: object) -> None:
        if isinstance(event, PartReceived):
            decode = msgspec.msgpack.decode if event.codec is Codec.MSGPACK else msgspec.json.decode
            assert not self.outcomes
            self.received.append(decode(event.payload)[0])
            self.received_bytes += event.size
        elif isinstance(event, Outcome):
            self.outcomes.append(event)

    # -- what may happen -----------------------------------------------------------------------------------------

    def carry(self, which: int) -> None:
        """One message each way over a cable."""
        cable = self.cables[which % len(self.cables)]
        if cable.up:
            link, frames = cable.up.popleft()
            if link == cable.link:
                self.server.receive(0 if isinstance(self.server, BrokerEngine) else 1, cable.peer, frames, self.now)
        self.settle()
        if cable.down:
            cable.client.receive(cable.link, b"", cable.down.popleft(), self.now)
        self.settle()

    def part(self) -> None:
        for token in self.sent:
            if self.replier.has_room(token):
                payload = msgspec.msgpack.encode([self.sent[token]])
                self.replier.part(token, Codec.MSGPACK, payload, b"", self.now)
                self.sent[token] += 1
        self.settle()

    def end(self, error: bool) -> None:
        for token in [token for token in self.sent if token not in self.over]:
            self.over.add(token)
            if error:
                self.replier.fail(token, ApplicationError("enough"), self.now)
            else:
                self.replier.end(token, self.now)
        self.settle()

    def take(self) -> None:
        """The requester's user takes what there is."""
        self.taken, self.taken_bytes = len(self.received), self.received_bytes
        self.requester.widen(self.number, self.taken + WINDOW, self.taken_bytes + WINDOW_BYTES, self.now)
        self.settle()

    def leave(self) -> None:
        self.left = True
        self.requester.forget(self.number, self.now)
        self.settle()

    def lose(self, which: int) -> None:
        cable = self.cables[which % len(self.cables)]
        if cable.link:
            link = cable.link
            cable.hang_up(self.now)
            cable.client.disconnected(link, self.now)
            self.settle()

    def wait(self, ms: int) -> None:
        self.now += ms * 1_000
        for engine in {id(one): one for one in (self.requester, self.replier, self.server)}.values():
            engine.handle_timeout(self.now)
        self.settle()

    # -- what always holds ---------------------------------------------------------------------------------------

    def check(self) -> None:
        assert self.received == list(range(len(self.received))), "in order, none lost or doubled"
        assert len(self.received) <= max([0, *self.sent.values()])
        assert len(self.outcomes) <= 1
        assert not any(isinstance(outcome.error, ProtocolError | LoadError) for outcome in self.outcomes), (
            "who is at fault?"
        )
        assert len(self.received) - self.taken <= WINDOW, "the requester holds no more than its window"
        for sent in self.sent.values():
            assert sent <= self.taken + WINDOW, "the replier is no more than the window ahead"

    def finish(self) -> None:
        """Whoever was lost comes back, and goes on if it may; then let time pass: an outcome must have come."""
        for round in range(200):
            self.carry(0)
            self.carry(1)
            self.part()
            if not self.left:
                self.take()
            if round == 150:
                self.end(error=False)
            self.wait(20)
            self.check()
        for _ in range(70):
            self.wait(1_000)
            self.carry(0)
            self.carry(1)
            self.check()


STEPS = {
    "carry 0": lambda scene: scene.carry(0),
    "carry 1": lambda scene: scene.carry(1),
    "part": Scene.part,
    "take": Scene.take,
    "end": lambda scene: scene.end(error=False),
    "fail": lambda scene: scene.end(error=True),
    "leave": Scene.leave,
    "lose 0": lambda scene: scene.lose(0),
    "lose 1": lambda scene: scene.lose(1),
    "wait": lambda scene: scene.wait(150),
}
OFTEN = ["carry 0", "carry 1", "part", "take"]


@given(
    brokered=st.booleans(),
    idempotent=st.booleans(),
    codec=st.sampled_from([Codec.MSGPACK, Codec.JSON]),
    seed=st.integers(0, 1 << 32),
    rare=st.lists(
        st.tuples(st.integers(0, 120), st.sampled_from([step for step in STEPS if step not in OFTEN])), max_size=4
    ),
)
@settings(max_examples=150, deadline=None)
def test_what_is_taken_is_a_prefix_of_what_was_sent_and_there_is_one_outcome(
    brokered: bool, idempotent: bool, codec: Codec, seed: int, rare: list[tuple[int, str]]
) -> None:
    scene, chance = Scene(brokered, idempotent, codec), random.Random(seed)
    for number in range(120):
        for _at, step in (one for one in rare if one[0] == number):
            STEPS[step](scene)
            scene.check()
        STEPS[chance.choice(OFTEN)](scene)
        scene.check()
    scene.finish()
    assert len(scene.outcomes) == (0 if scene.left and not scene.outcomes else 1)
    if scene.outcomes and scene.outcomes[0].error is None:
        assert len(scene.received) in scene.sent.values(), "an end without an error comes after all of it"
    assert scene.requester.outstanding == 0
    if brokered:
        assert scene.server.status(scene.now)["services"].get("rows", {}).get("waiting", 0) == 0


def test_a_stream_that_nothing_disturbs_arrives_whole() -> None:
    for brokered in (True, False):
        scene = Scene(brokered, False, Codec.MSGPACK)
        while max([0, *scene.sent.values()]) < 50:
            for step in OFTEN:
                STEPS[step](scene)
        scene.end(error=False)
        for _ in range(20):
            for step in OFTEN:
                STEPS[step](scene)
        assert scene.received == list(range(len(scene.received)))
        assert len(scene.received) >= 50
        assert [outcome.error for outcome in scene.outcomes] == [None]
