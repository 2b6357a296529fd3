"""Whatever frames peers send, the engine answers or counts, and goes on."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.wire.engine import Send
from patterns.wire.frames import KINDS, parse
from patterns.wire.messages import Hello, Role
from tests.unit.core.serving import Bench

small = st.integers(0, 3)
integers = small | st.sampled_from([2**53 - 1, 2**53, 2**63, 2**64 - 1, -1])
text = st.sampled_from(
    ["price", "orders.eu", "orders.>", "*", "", "a b", "x" * 300, "msgpack", "json", "raw", "request"]
)
values = st.recursive(
    integers | text | st.booleans() | st.none() | st.binary(max_size=16) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
fields = sorted({field.encode_name for header in KINDS.values() for field in msgspec.structs.fields(header)})
headers = st.dictionaries(st.sampled_from(fields), values, max_size=14).map(msgspec.msgpack.encode)


def plausible(kind: bytes) -> st.SearchStrategy[bytes]:
    """A header with every required field there, most often of the right type."""
    by_type = {int: integers, str: text, bool: st.booleans(), bytes: st.just(bytes(16)) | st.binary(max_size=20)}
    required = {
        field.encode_name: by_type.get(field.type, values | small | text)
        for field in msgspec.structs.fields(KINDS[kind])
    }
    return st.fixed_dictionaries({}, optional=required).map(msgspec.msgpack.encode)


kinds = st.sampled_from(sorted(KINDS))
payloads = st.sampled_from([b"", b"\x91\x01", b"[1]", b"\x92\x01\x02", b"xx", b"\xc1"])
columns = st.sampled_from([b"", b"{}", b"\x80"]) | st.dictionaries(
    st.sampled_from(["sizes", "topics", "topic", "keys", "headers"]), values, max_size=3
).map(msgspec.msgpack.encode)
messages = kinds.flatmap(
    lambda kind: st.tuples(
        st.sampled_from([b"ZB1" + kind, b"ZB1" + kind + b"\x20", b"ZB1" + kind + bytes(16)]),
        headers | plausible(kind),
        columns,
        payloads,
    ).map(list)
)
garbage = st.lists(st.binary(max_size=30), max_size=6)
roles = st.sampled_from([role.value for role in Role])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(roles, messages | garbage, st.booleans()), max_size=12))
def test_arbitrary_frames_never_raise_and_every_answer_is_well_formed(script):
    bench = Bench()
    peers = {role.value: bench.client(role.value) for role in Role}
    for role, frames, pause in script:
        bench.engine.receive(0, peers[role].peer, frames, bench.now)
        bench.settle()
        if pause:
            bench.wait(500)
    bench.engine.turn(bench.now)
    for effect in bench.engine.effects():
        if isinstance(effect, Send):
            parse(effect.frames)
    msgspec.msgpack.encode(bench.engine.status(bench.now))


@settings(max_examples=100, deadline=None)
@given(st.lists(messages | garbage, max_size=8))
def test_arbitrary_frames_leave_a_working_broker(script):
    bench = Bench()
    for number, frames in enumerate(script):
        bench.engine.receive(0, bytes([number]), frames, bench.now)
    replier, requester = bench.client("replier"), bench.client("requester")
    replier.offer()
    requester.request(1)
    assert any(type(message.header) is not Hello for message in replier.inbox)
