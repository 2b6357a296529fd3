from __future__ import annotations

import pytest

from patterns.wire.portable import Fault
from zbroker.core.diagnosis import of_json, of_msgpack


@pytest.mark.parametrize(
    ("payload", "path", "reason"),
    [
        ("91 a1 ff", "[0]", "string that is not UTF-8"),
        ("92 01 81 a1 61 d9 02 c3 28", "[1].a", "string that is not UTF-8"),
        ("91 81 a1 ff 01", "[0][key 0]", "string that is not UTF-8"),
        ("91 81 90 01", "[0][key 0]", "key of type array, and keys are strings in JSON"),
        ("91 82 a1 61 01 07 01", "[0][key 1]", "key of type int, and keys are strings in JSON"),
        ("91 c7 03 ff 00 00 00", "[0]", "timestamp (extension -1); send a string or a number instead"),
        ("91 d4 05 00", "[0]", "extension type 5"),
        ("91 c4 01 00", "[0]", "bytes; use msgpack, or write base64 yourself"),
        ("91 ca 7f c0 00 00", "[0]", "nan, and JSON has finite numbers only"),
        ("91 cb ff f0 00 00 00 00 00 00", "[0]", "-inf, and JSON has finite numbers only"),
        ("92 01 c1", "[1]", "byte 0xc1, which is not msgpack"),
        ("92 01", "[1]", "msgpack that ends too early"),
        ("91 dd ff ff ff ff", "[0][0]", "msgpack that ends too early"),
    ],
)
def test_a_fault_in_msgpack_is_named(payload, path, reason):
    assert of_msgpack(bytes.fromhex(payload)) == Fault(path, reason)


def test_every_kind_of_msgpack_value_is_stepped_over():
    values = [
        "00",
        "ff",
        "c0",
        "c2",
        "c3",
        "cc ff",
        "cd ffff",
        "ce ffffffff",
        "cf ffffffffffffffff",
        "d0 ff",
        "d1 ffff",
    ]
    values += ["d2 ffffffff", "d3 ffffffffffffffff", "ca 3f800000", "cb 3ff0000000000000", "a1 61", "d9 01 61"]
    values += ["da 0001 61", "db 00000001 61", "91 01", "dc 0001 01", "dd 00000001 01", "81 a161 01", "de 0001 a161 01"]
    values += ["df 00000001 a161 01", "80", "90", "a0"]
    payload = b"\xdc" + (len(values) + 1).to_bytes(2, "big") + b"".join(map(bytes.fromhex, values))
    assert of_msgpack(payload + b"\x01") is None
    assert of_msgpack(payload + b"\xc1") == Fault(f"[{len(values)}]", "byte 0xc1, which is not msgpack")


@pytest.mark.parametrize(
    ("payload", "path", "reason"),
    [
        (b'[1,{"a":["\\udc00"]}]', "[1].a[0]", "string with a lone surrogate"),
        (b'[{"\\ud800":1}]', '[0]["\\ud800"]', "key that is no Unicode text"),
        (b"[[1e999]]", "[0][0]", "number beyond a double"),
        (b"[18446744073709551616]", "[0]", "integer beyond 64 bits"),
        (b"[-%b]" % (b"9" * 5000), "[0]", "integer beyond 64 bits"),
        (b"[NaN]", "[0]", "nan, and JSON has finite numbers only"),
        (b"[" * 100_000, "", "nested deeper than 128 levels"),
    ],
)
def test_a_fault_in_json_is_named(payload, path, reason):
    assert of_json(payload) == Fault(path, reason)


@pytest.mark.parametrize("payload", [b"[1,]", b"[", b'["\xff"]', b"{}", "[1]".encode("utf-16"), b"[1]"])
def test_what_has_no_fault_or_is_no_json_has_no_path(payload):
    assert of_json(payload) is None


def test_the_same_key_twice_is_a_fault_when_strict():
    assert of_json(b'[{"a":{"k":1,"k":1}}]') is None
    assert of_json(b'[{"a":{"k":1,"k":1}}]', strict=True) == Fault("[0].a", 'the key "k" twice')
    payload = bytes.fromhex("91 81 a161 82 a16b 01 a16b 01")
    assert of_msgpack(payload) is None
    assert of_msgpack(payload, strict=True) == Fault("[0].a", 'the key "k" twice')


def test_the_search_in_msgpack_ends_after_100_000_values():
    body = b"\xdd" + (200_000).to_bytes(4, "big") + b"\x01" * 199_999 + b"\xc1"
    assert of_msgpack(b"\x91" + body) == Fault("[0]", "a value behind the first 100000 of the batch")
