"""Bodies are never bent: what JSON cannot express is base64."""

import base64
import math

import msgspec
import pytest

from patterns.wire.errors import BadBody
from zbroker.cli.bodies import as_bytes, codec_for, is_json, keyed, of_argument, parse, shown


@pytest.mark.parametrize("text", [b"1", b' {"a": [null, true]} ', b'"x"', b"123456789012345678901234567890"])
def test_json_travels_as_it_was_written(text: bytes) -> None:
    assert bytes(parse(text, raw=False)) == text


@pytest.mark.parametrize("text", ["hello", "", "{", "NaN", "'x'", "1 2", "\udcff"])
def test_what_is_no_json_is_refused_with_advice(text: str) -> None:
    with pytest.raises(BadBody, match="--raw"):
        of_argument(text, raw=False)


def test_a_long_body_is_not_repeated_whole() -> None:
    with pytest.raises(BadBody) as caught:
        parse(b"x" * 10_000, raw=False)
    assert len(str(caught.value)) < 300


def test_raw_arguments_are_the_bytes_of_the_shell() -> None:
    assert of_argument("a\udcff", raw=True) == b"a\xff"
    assert (codec_for(True), codec_for(False)) == ("raw", "json")


@pytest.mark.parametrize("value", [math.nan, math.inf, b"x", {1: 2}, [{"a": b""}], msgspec.msgpack.Ext(1, b"")])
def test_values_beyond_json_become_base64(value: object) -> None:
    assert not is_json(value)
    assert set(keyed(value, None, raw=False)) == {"body_base64"}


def test_bytes_are_shown_as_they_are_and_json_as_json() -> None:
    assert shown(b"\x00\xff", None, raw=False) == b"\x00\xff"
    assert shown({"a": 1}, None, raw=False) == b'{"a":1}'
    assert shown({"a": 1}, b"\x81\xa1a\x01", raw=True) == b"\x81\xa1a\x01"
    assert shown(math.nan, b"\xcb", raw=False) == b'{"body_base64":"yw=="}'


def test_base64_is_of_what_was_sent() -> None:
    assert keyed(b"abc", b"other", raw=False) == {"body_base64": base64.b64encode(b"abc").decode()}
    assert as_bytes({1: 2}, None) == msgspec.msgpack.encode({1: 2})


def test_a_body_that_is_nested_beyond_looking_becomes_base64() -> None:
    body: object = 1
    for _ in range(5_000):
        body = [body]
    encoded = b"\x91" * 5_000 + b"\x01"
    assert keyed(body, encoded, raw=False) == {"body_base64": base64.b64encode(encoded).decode()}
    assert b"body_base64" in shown(body, encoded, raw=False)
