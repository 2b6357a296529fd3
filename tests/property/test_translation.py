"""SPEC.md 3.1, a test per row, both ways: lossless, or UNTRANSLATABLE with the exact path; and anything at all as payload."""

from __future__ import annotations

import datetime as dt
import json
import math
import struct
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.wire.codec import check, decode, encode, encode_body, items_of
from patterns.wire.errors import BadBody, TooLarge, Untranslatable
from patterns.wire.limits import BODY_DEPTH_MAX
from patterns.wire.messages import Codec
from zbroker.core.translate import translate

M, J = Codec.MSGPACK, Codec.JSON
LARGE = 1_000_000
MANY = 250_000
pack, dump = msgspec.msgpack.encode, msgspec.json.encode
unpack, load = msgspec.msgpack.decode, msgspec.json.decode
Ext = msgspec.msgpack.Ext

integers = st.integers(-(2**63), 2**64 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"))
scalars = st.none() | st.booleans() | integers | finite | texts
bodies = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=12)
steps = st.lists(st.integers(0, 3) | st.sampled_from(["order", "größe", "a b", 'qu"ote', "", "x.y", "\n"]), max_size=12)


def placed(value: Any, path: list[int | str]) -> tuple[list[Any], str]:
    """A batch with a value at a path, good values around it, and the path as it is written."""
    written = ""
    for step in reversed(path):
        if isinstance(step, int):
            value, written = [*[1.5, "a", None, True][:step], value], f"[{step}]{written}"
        else:
            shown = f".{step}" if step.isidentifier() else f"[{json.dumps(step)}]"
            value, written = {"first": -0.0, step: value}, shown + written
    return [{"good": [1]}, value], f"[1]{written}"


def same(one: Any, other: Any) -> bool:
    """Equal in type too, and -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


def assert_lossless(batch: list[Any]) -> None:
    there = translate(pack(batch), M, J)
    assert same(load(there), batch)
    assert same(unpack(translate(there, J, M)), batch)
    assert same(unpack(translate(dump(batch), J, M)), batch)
    assert same(load(encode(J, batch)[0].payload), batch)


def assert_refused(payload: bytes, source: Codec, path: str, reason: str, **options: Any) -> None:
    with pytest.raises(Untranslatable) as raised:
        translate(payload, source, J if source is M else M, **options)
    assert raised.value.detail.startswith(f"{path} in a ")
    assert reason in raised.value.detail


def assert_not_json(value: Any, path: list[int | str], reason: str) -> None:
    """Refused by the broker in msgpack, and by our own encoder in JSON; with the same path."""
    batch, written = placed(value, path)
    assert_refused(pack(batch), M, written, reason)
    with pytest.raises(BadBody) as raised:
        encode(J, batch)
    assert raised.value.detail.startswith(f"{written} cannot be written as json")


@given(st.lists(st.none() | st.booleans()))
def test_nil_and_bool(batch):
    assert_lossless(batch)


@given(st.lists(integers))
def test_integers_of_64_bits_beyond_2_53_too(batch):
    assert_lossless(batch)


@given(st.integers(2**64, 2**400) | st.integers(-(2**400), -(2**63) - 1), steps)
def test_integers_beyond_64_bits(value, path):
    batch, written = placed(value, path)
    assert_refused(dump(batch), J, written, "integer beyond 64 bits")
    assert load(encode(J, batch)[0].payload) == batch


@given(steps, st.integers(4_301, 9_000))
def test_integers_of_more_digits_than_python_reads(path, digits):
    batch, written = placed("here", path)
    assert_refused(dump(batch).replace(b'"here"', b"9" * digits), J, written, "integer beyond 64 bits")


@given(st.lists(finite))
def test_floats_stay_floats_and_minus_0_stays_minus_0(batch):
    assert_lossless([*batch, -0.0, 1.0, 5e-324, 1.7976931348623157e308])


@given(st.sampled_from([math.nan, math.inf, -math.inf]), steps)
def test_nan_and_infinities(value, path):
    assert_not_json(value, path, "finite numbers only")


@given(st.sampled_from([b"1e999", b"-1e309", b"1" + b"0" * 400 + b".5"]), steps)
def test_numbers_beyond_a_double(number, path):
    batch, written = placed("here", path)
    assert_refused(dump(batch).replace(b'"here"', number), J, written, "number beyond a double")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_32_keeps_its_value(value):
    there = translate(b"\x91\xca" + struct.pack(">f", value), M, J)
    assert same(unpack(translate(there, J, M)), [value])


@given(st.lists(texts))
def test_strings_and_u_0000(batch):
    assert_lossless([*batch, "\0", "\x7f\u2028", "\U0001f600"])


@given(st.binary(min_size=1, max_size=20).filter(lambda data: not is_utf_8(data)), steps)
def test_strings_that_are_not_utf_8_in_msgpack(data, path):
    batch, written = placed("a-mark-to-replace", path)
    bad = b"\xd9" + bytes([len(data)]) + data
    assert_refused(pack(batch).replace(pack("a-mark-to-replace"), bad), M, written, "not UTF-8")


def is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.characters(categories=["Cs"]), steps)
def test_lone_surrogates(surrogate, path):
    batch, written = placed("here", path)
    text = json.dumps(surrogate).encode()
    assert_refused(dump(batch).replace(b'"here"', text), J, written, "lone surrogate")
    with pytest.raises(BadBody):
        encode(J, [surrogate])


@given(st.binary(max_size=20), steps)
def test_bytes(value, path):
    assert_not_json(value, path, "bytes")


@given(st.lists(bodies, max_size=4))
def test_arrays_and_maps_with_string_keys(batch):
    assert_lossless(batch)


@given(st.integers() | finite | st.binary() | st.none() | st.booleans() | st.tuples(st.integers()), steps)
def test_maps_with_other_keys(key, path):
    try:
        batch, _ = placed({key: 1}, path)
        payload = pack(batch)
    except OverflowError:
        return
    _, written = placed(None, path)
    with pytest.raises(Untranslatable) as raised:
        translate(payload, M, J)
    assert raised.value.detail.startswith(written)
    assert "keys are strings in JSON" in raised.value.detail
    with pytest.raises(BadBody):
        encode(J, batch)


@given(texts, scalars, scalars, steps)
def test_duplicate_keys(key, first, last, path):
    batch, written = placed("a-mark-to-replace", path)
    twice = b"\x82" + pack(key) + pack(first) + pack(key) + pack(last)
    packed = pack(batch).replace(pack("a-mark-to-replace"), twice)
    text = b"{%b:%b,%b:%b}" % (dump(key), dump(first), dump(key), dump(last))
    dumped = dump(batch).replace(b'"a-mark-to-replace"', text)
    wanted, _ = placed({key: last}, path)
    assert same(load(translate(packed, M, J)), wanted)
    assert same(unpack(translate(dumped, J, M)), wanted)
    assert_refused(packed, M, written, "twice", strict=True)
    assert_refused(dumped, J, written, "twice", strict=True)


@given(st.lists(bodies, max_size=4))
def test_strict_refuses_nothing_else(batch):
    spaced = json.dumps(batch).encode()
    assert translate(spaced, J, M, strict=True) == pack(batch)
    assert translate(pack(batch), M, J, strict=True) == dump(batch)


@given(st.datetimes(timezones=st.just(dt.UTC)), steps)
def test_timestamps(value, path):
    batch, written = placed(value, path)
    assert_refused(pack(batch), M, written, "timestamp")


@given(st.integers(-128, 127), st.binary(max_size=20), steps)
def test_extension_types(code, data, path):
    batch, written = placed(Ext(code, data), path)
    assert_refused(pack(batch), M, written, "timestamp" if code == -1 else f"extension type {code}")


@given(st.integers(1, BODY_DEPTH_MAX), st.sampled_from([b"[%b]", b'{"a":%b}']))
def test_depth_within_the_limit(depth, level):
    text = b"1"
    for _ in range(depth):
        text = level.replace(b"%b", text)
    assert_lossless([load(text)])


@given(st.integers(BODY_DEPTH_MAX + 1, 4_000), st.booleans())
@settings(deadline=None)
def test_depth_beyond_the_limit(depth, is_map):
    text = b'{"a":' * depth + b"1" + b"}" * depth if is_map else b"[" * depth + b"]" * depth
    packed = b"\x91" + (b"\x81\xa1a" * depth + b"\x01" if is_map else b"\x91" * (depth - 1) + b"\x90")
    for source, payload in ((J, b"[%b]" % text), (M, packed)):
        with pytest.raises(Untranslatable, match="nested deeper than 128 levels"):
            translate(payload, source, J if source is M else M)


def outcome(payload: bytes, codec: Codec) -> str:
    """Everything that a receiver does with a payload; nothing but our own errors comes out."""
    found = []
    for name, act in (
        ("check", lambda: check(codec, payload, 1, None)),
        ("items_of", lambda: items_of(codec, payload, 1, None)),
        ("decode", lambda: decode(codec, payload, 1, None)),
        ("translate", lambda: codec is Codec.RAW or translate(payload, codec, J if codec is M else M)),
    ):
        try:
            act()
            found.append(name)
        except (BadBody, TooLarge, Untranslatable) as error:
            found.extend(["too long"] * (len(error.detail.encode()) > LARGE // 60))  # an ERROR's header holds 64 KiB
    return " ".join(found)


pieces = st.lists(
    st.binary(max_size=6)
    | st.sampled_from([b"\x91", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff", b"[", b'{"a":', b"]", b"}", b"1e9", b'"\\ud8'])
    | scalars.map(pack)
    | scalars.map(dump),
    max_size=8,
).map(b"".join)


@given(pieces, st.sampled_from(list(Codec)))
@settings(max_examples=500)
def test_arbitrary_bytes_are_handled_or_refused(payload, codec):
    for one in (payload, b"[%b]" % payload if codec is J else b"\x91" + payload):
        assert "too long" not in outcome(one, codec)


BOMBS = {
    "arrays": (M, b"\x91" * LARGE),
    "maps": (M, b"\x91" + b"\x81\xa1a" * (LARGE // 3)),
    "keys": (M, b"\x91" + b"\x81" * LARGE),
    "closed arrays": (M, b"\x91" * (LARGE - 1) + b"\x90"),
    "JSON arrays": (J, b"[" * LARGE),
    "JSON maps": (J, b"[" + b'{"a":' * (LARGE // 5)),
    "closed JSON arrays": (J, b"[" * (LARGE // 2) + b"]" * (LARGE // 2)),
    "JSON strings": (J, b'["' + b"\\u0000" * (LARGE // 6)),
    "digits": (J, b"[" + b"9" * LARGE + b"]"),
    "a late NaN": (M, b"\x91\xdd" + MANY.to_bytes(4, "big") + b"\x01" * (MANY - 1) + pack(math.nan)),
    "late bad UTF-8": (M, b"\x91\xdd" + MANY.to_bytes(4, "big") + b"\x01" * (MANY - 1) + b"\xa1\xff"),
    "wide and deep": (M, (b"\x91" + b"\x99" + b"\x01" * 8) * (LARGE // 10)),
    "empty maps": (M, b"\x91\xdd" + LARGE.to_bytes(4, "big") + b"\x80" * LARGE),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_bounded_time_and_memory(name):
    codec, payload = BOMBS[name]
    begin = time.process_time()
    outcome(payload, codec)
    assert time.process_time() - begin < 5  # it takes 0.4 s; and a bomb that goes off takes minutes
    tracemalloc.start()
    try:
        outcome(payload, codec)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20  # a million empty maps are 73 MB of Python
    finally:
        tracemalloc.stop()


ANNOUNCED = [b"\xdd", b"\xdb", b"\xc6", b"\xdf", b"\xc9"]


@pytest.mark.parametrize("head", ANNOUNCED, ids=bytes.hex)
@pytest.mark.parametrize("before", [b"", b"\x91", b"\x91\x81\xa1a", b"\x91\x81"], ids=bytes.hex)
def test_announced_gigabytes_are_not_allocated(head, before):
    payload = before + head + b"\xff\xff\xff\xff" + b"\x01\x02"
    tracemalloc.start()
    try:
        assert outcome(payload, M) == ""
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(BadBody):
        check(M, payload, 1, None)


def test_a_late_fault_of_a_large_body_is_named_by_its_body():
    assert_refused(BOMBS["late bad UTF-8"][1], M, "[0]", "behind the first 100000")


@given(st.sampled_from([{"x": b""}, {1: 2}, math.nan, [memoryview(b"a")], {"a": bytearray()}]))
def test_one_body_is_refused_by_the_encoder_as_a_batch_is(body):
    with pytest.raises(BadBody, match=f"body of type {type(body).__name__}"):
        encode_body(J, body)
