from __future__ import annotations

import datetime as dt

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patterns.wire.errors import Untranslatable
from patterns.wire.messages import Codec
from zbroker.core.translate import needed, translate

M, J = Codec.MSGPACK, Codec.JSON
integers = st.integers(-(2**63), 2**64 - 1)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | st.text()
bodies = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.lists(bodies))
def test_what_both_codecs_can_say_survives_both_ways(values):
    there = translate(msgspec.msgpack.encode(values), M, J)
    assert msgspec.msgpack.decode(translate(there, J, M)) == values


def nested(value, depth):
    for _ in range(depth):
        value = [{"a": value}]
    return value


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"x", "[0]"),
        ({"a": [0, b""]}, "[0].a[1]"),
        (float("nan"), "[0]"),
        ([float("-inf")], "[0][0]"),
        ({"b": {1: 2}}, "[0].b"),
        (nested(float("nan"), 9), ".a[0].a"),
        (msgspec.msgpack.Ext(5, b"a"), "[0]"),
        (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "[0]"),
    ],
)
def test_what_json_cannot_express_is_refused_with_its_path(body, path):
    with pytest.raises(Untranslatable) as raised:
        translate(msgspec.msgpack.encode([body]), M, J)
    assert path in raised.value.detail


def test_deep_bodies_that_json_can_express_pass():
    body = nested(1.5, 12)
    assert msgspec.json.decode(translate(msgspec.msgpack.encode([body]), M, J)) == [body]


@pytest.mark.parametrize("payload", [b"\x91\xa1\xff", b"\x91\x81\xa1\xff\x01", b"\x91", b"\x91\xc1"])
def test_msgpack_that_is_none_is_refused(payload):
    with pytest.raises(Untranslatable):
        translate(payload, M, J)


@pytest.mark.parametrize(
    ("payload", "path"),
    [(b"[123456789012345678901234567890]", "[0]"), (b'[1,{"a":[0,-9223372036854775809]}]', "[1].a[1]")],
)
def test_integers_beyond_64_bits_are_refused_with_their_path(payload, path):
    with pytest.raises(Untranslatable) as raised:
        translate(payload, J, M)
    assert path in raised.value.detail


@pytest.mark.parametrize("payload", [b'["\xff"]', b"[1e999]", b'["\\ud800"]', b"[", b"[" * 5000 + b"]" * 5000])
def test_json_that_is_none_is_refused(payload):
    with pytest.raises(Untranslatable):
        translate(payload, J, M)


@given(st.binary())
def test_arbitrary_bytes_are_translated_or_refused(payload):
    for source, target in ((M, J), (J, M)):
        try:
            translate(payload, source, target)
        except Untranslatable:
            pass


def test_raw_is_never_translated():
    assert [needed(a, b) for a in Codec for b in Codec if Codec.RAW in (a, b)] == [False] * 5
    assert needed(M, J)
    assert not needed(J, J)


@pytest.mark.parametrize(
    ("payload", "source"),
    [(msgspec.msgpack.encode(["\0" * 1_048_000]), M), (b"[[" + b"1e1," * 262_140 + b"1]]", J)],
    ids=["U+0000 becomes six bytes", "1e1 becomes nine"],
)
def test_a_view_above_the_limit_of_a_body_is_refused(payload, source):
    with pytest.raises(Untranslatable, match=r"1 body of .* at most 1048578"):
        translate(payload, source, J if source is M else M)


def test_a_view_above_the_limit_of_a_batch_is_refused():
    with pytest.raises(Untranslatable, match=r"2 bodies of .* at most 1114112"):
        translate(msgspec.msgpack.encode(["\0" * 100_000] * 2), M, J)
