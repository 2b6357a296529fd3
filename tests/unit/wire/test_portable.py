from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import uuid

import msgspec
import pytest

from patterns.wire.errors import BadBody
from patterns.wire.limits import BODY_DEPTH_MAX
from patterns.wire.portable import Fault, Stand, fault_in, json_of, step


class Colour(enum.StrEnum):
    RED = "red"


class Order(msgspec.Struct):
    price: float
    photo: bytes | None = None


@dataclasses.dataclass
class Line:
    count: int


MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("body", "written"),
    [
        ({"a": [1, 2.0, -0.0, None, True, "x"]}, b'{"a":[1,2.0,-0.0,null,true,"x"]}'),
        (MOMENT, b'"2026-01-02T03:04:05Z"'),
        ({MOMENT.date(): 1}, b'{"2026-01-02":1}'),
        (uuid.UUID(int=3), b'"00000000-0000-0000-0000-000000000003"'),
        (decimal.Decimal("1.50"), b'"1.50"'),
        ((1, [2]), b"[1,[2]]"),
        ({Colour.RED: Colour.RED}, b'{"red":"red"}'),
        (Order(1.5), b'{"price":1.5,"photo":null}'),
        (Line(3), b'{"count":3}'),
        (2**70, b"1180591620717411303424"),
        (msgspec.Raw(b'{"1.0":1.0}'), b'{"1.0":1.0}'),
        ({"a": msgspec.Raw(b"1.0"), "at": MOMENT.date()}, b'{"a":1.0,"at":"2026-01-02"}'),
    ],
    ids=repr,
)
def test_what_python_users_expect_of_json_is_written(body, written):
    assert json_of([body]) == b"[%b]" % written


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"photo": b"x"}, "[1].photo"),
        ({"photo": bytearray(b"x")}, "[1].photo"),
        ({"photo": memoryview(b"x")}, "[1].photo"),
        (Order(math.nan), "[1].price"),
        (Order(1.0, b"x"), "[1].photo"),
        ({"at": MOMENT, "ratio": math.inf}, "[1].ratio"),
        ({"a": ({1: 2},)}, "[1].a[0][1]"),
        ({b"k": 1}, "[1][b'k']"),
        (msgspec.msgpack.Ext(1, b""), ""),
        ("\ud800", ""),
    ],
    ids=repr,
)
def test_what_json_would_lose_is_refused_with_its_path(body, path):
    with pytest.raises(BadBody) as raised:
        json_of([0, body])
    assert raised.value.detail.startswith(f"{path} cannot be written" if path else "a body cannot be written")


def test_a_refusal_of_bytes_says_what_to_do_instead():
    with pytest.raises(BadBody, match="use msgpack, or write base64 yourself"):
        json_of([b""])


def test_bodies_that_hold_themselves_are_refused():
    body: list[object] = []
    body.append(body)
    with pytest.raises(BadBody):
        json_of([body])


@pytest.mark.parametrize(
    ("key", "written"),
    [("order", ".order"), ("größe", ".größe"), ("a b", '["a b"]'), ("", '[""]'), ("\ud800", '["\\ud800"]'), (1, "[1]")],
)
def test_a_step_can_be_shown_anywhere(key, written):
    assert step(key) == written
    written.encode()


def test_a_long_key_is_cut():
    assert step("k" * 1000) == "." + "k" * 64


def test_the_path_is_the_one_of_the_first_fault():
    bodies = [0, 1, 2, {"order": {"lines": [{"price": math.nan}, {"price": b""}]}}]
    assert fault_in(bodies) == Fault("[3].order.lines[0].price", "nan, and JSON has finite numbers only")


def test_integers_beyond_64_bits_are_a_fault_on_demand():
    assert fault_in([2**64]) is None
    assert fault_in([2**64 - 1, -(2**63)], integers_64=True) is None
    assert fault_in([-(2**63) - 1], integers_64=True) == Fault("[0]", "integer beyond 64 bits")
    assert fault_in([[0] * 9 + [2**64]], integers_64=True) == Fault("[0][9]", "integer beyond 64 bits")


def test_a_stand_in_brings_its_own_reason():
    assert fault_in([[Stand("odd")]]) == Fault("[0][0]", "odd")


@pytest.mark.parametrize("width", [1, 8])
def test_depth_is_counted_by_body(width):
    def nested(depth):
        value = [1.5] * width
        for _ in range(depth - 1):
            value = [0] * (width - 1) + [value]
        return value

    assert fault_in([nested(BODY_DEPTH_MAX)]) is None
    found = fault_in([nested(BODY_DEPTH_MAX + 1)])
    assert found == Fault("[0]" + f"[{width - 1}]" * BODY_DEPTH_MAX, "nested deeper than 128 levels")


def test_a_fault_deep_in_wide_arrays_is_found():
    value = [0.5] * 9 + [math.inf]
    for _ in range(20):
        value = [0] * 9 + [value]
    assert fault_in([value]) == Fault("[0]" + "[9]" * 21, "inf, and JSON has finite numbers only")
