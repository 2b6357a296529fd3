"""Whatever a peer sends, a client's engine counts it and goes on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.core.consume import ConsumerEngine
from patterns.core.produce import Batch, ProducerEngine
from patterns.core.publish import PeerPublisherEngine, PublisherEngine
from patterns.core.reply import PeerReplierEngine, ReplierEngine
from patterns.core.request import RequesterEngine
from patterns.core.subscribe import PeerSubscriberEngine, SubscriberEngine
from patterns.wire.frames import MSGPACK, pack
from patterns.wire.messages import Codec
from tests.property.test_wire import KEYS, any_frames, headers_by_kind
from tests.unit.core_clients.wire import BROKER, NONCE, PEER, PEERS, S, calm, ready

RAW = Codec.MSGPACK
ENGINES = {
    "requester": lambda: RequesterEngine(BROKER, NONCE, RAW, calm),
    "requester of peers": lambda: RequesterEngine(PEERS, NONCE, RAW, calm),
    "replier": lambda: ReplierEngine(BROKER, ["price"], NONCE, RAW, calm),
    "bound replier": lambda: PeerReplierEngine(PEER[0], ["price"], 7, RAW),
    "publisher": lambda: PublisherEngine(BROKER, NONCE, RAW, calm),
    "bound publisher": lambda: PeerPublisherEngine(PEER[0], NONCE, RAW),
    "subscriber": lambda: SubscriberEngine(BROKER, ["a.>"], NONCE, RAW, calm),
    "direct subscriber": lambda: PeerSubscriberEngine(PEERS, ["a.>"], NONCE),
    "producer": lambda: ProducerEngine(BROKER, "s", NONCE, RAW, calm),
    "consumer": lambda: ConsumerEngine(
        BROKER, "s", "g", "first", NONCE, RAW, calm, credit=10, processing_max_us=60 * S
    ),
}  # fmt: skip

valid_frames = st.sampled_from(sorted(headers_by_kind)).flatmap(
    lambda kind: st.builds(
        lambda header, columns, payload: pack(
            header, key=bytes(KEYS.get(kind, 0)), columns=columns, payload=payload, form=MSGPACK
        ),
        headers_by_kind[kind],
        st.sampled_from([b"", b"\x80", b"\x01", b"\x81\xa4keys\x91\xc0", b"\x81\xa5sizes\x91\x01"]),
        st.sampled_from([b"", b"\x91\x01", b"\x90", b"x"]),
    )
)
steps = st.lists(
    st.tuples(st.just("frames"), st.sampled_from([1, 2]), any_frames.filter(bool) | valid_frames | valid_frames)
    | st.tuples(
        st.sampled_from(["connected", "disconnected", "unreachable", "ready", "use"]),
        st.sampled_from([1, 2]),
        st.none(),
    )
    | st.tuples(st.just("time"), st.just(1), st.integers(0, 3_000_000)),
    max_size=25,
)


def use(engine, now):
    """What a program does meanwhile."""
    if isinstance(engine, RequesterEngine):
        engine.request("price", RAW, b"\x91\x01", b"", timeout_us=1 * S, now=now, idempotent=now % 2 == 0)
    elif isinstance(engine, ProducerEngine):
        engine.append([Batch(1, RAW, b"\x91\x01", b"")], now)
    elif isinstance(engine, ConsumerEngine):
        engine.taken(1, 1, now)
        engine.settle(1, 0, 0, "ack")
        engine.tell(now)


@pytest.mark.parametrize("name", ENGINES)
@given(steps=steps)
@settings(max_examples=60, deadline=None)
def test_no_frames_make_an_engine_raise(name, steps):
    engine, now = ENGINES[name](), 1 * S
    engine.start(now)
    first = max((effect.link for effect in engine.effects()), default=1)
    for what, link, detail in steps:
        newest = max([first, *(session.link for session in getattr(engine, "sessions", ()))])
        at = newest if link == 1 else link
        if what == "frames":
            engine.receive(at, b"p", detail, now)
        elif what == "ready":
            engine.receive(at, b"p", pack(ready(services=["price"])), now)
        elif what == "time":
            now += detail
            engine.handle_timeout(now)
        elif what == "use":
            use(engine, now)
        else:
            getattr(engine, what)(at, now)
        engine.effects()
        engine.next_timeout()
