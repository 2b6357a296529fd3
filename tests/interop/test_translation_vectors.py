"""The hand-written vectors of tests/vectors/translation.json against the broker's translation and the door."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from patterns.wire.codec import check
from patterns.wire.errors import BY_NUMBER, Untranslatable
from patterns.wire.messages import Codec
from zbroker.core.translate import translate

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "translation.json").read_text(encoding="utf-8"))
M, J = Codec.MSGPACK, Codec.JSON


def payload_of(written: str) -> bytes:
    notation, _, what = written.partition(":")
    return bytes.fromhex(what) if notation == "hex" else what.encode()


def vectors(group: str) -> Any:
    return pytest.mark.parametrize("vector", VECTORS[group], ids=lambda vector: vector["name"].replace(" ", "-"))


def assert_same_json(one: bytes, other: bytes) -> None:
    """By the standard library, which took no part in it; repr tells 1 from 1.0, and -0.0 from 0.0."""
    assert repr(json.loads(one)) == repr(json.loads(other))


@vectors("same")
def test_a_batch_is_the_same_in_both_codecs(vector):
    packed, text = payload_of(vector["msgpack"]), payload_of(vector["json"])
    only = vector.get("only")
    if only != "to_msgpack":
        assert_same_json(translate(packed, M, J), text)
    if only != "to_json":
        assert translate(text, J, M) == packed


@vectors("same")
def test_a_translation_translates_back_into_itself(vector):
    text = translate(payload_of(vector["msgpack"]), M, J)
    assert translate(translate(text, J, M), M, J) == text


@vectors("refused")
def test_what_cannot_be_translated_is_refused_with_its_path(vector):
    source = Codec(vector["codec"])
    target = J if source is M else M
    payload = payload_of(vector["payload"])
    with pytest.raises(Untranslatable) as raised:
        translate(payload, source, target, strict=vector.get("strict", False))
    assert raised.value.detail.partition(" in a ")[0] == vector["path"]
    if vector.get("strict"):
        assert translate(payload, source, target) == payload_of(vector[target.value])


@vectors("refused")
def test_the_door_refuses_what_is_no_payload_at_all(vector):
    codec, payload = vector["codec"], payload_of(vector["payload"])
    door = pytest.raises(BY_NUMBER[vector["door"]]) if "door" in vector else contextlib.nullcontext()
    with door:
        check(Codec(codec), payload, count_of(codec, payload), None)


def count_of(codec: str, payload: bytes) -> int:
    """As many as the array announces; the vectors hold fewer than 16."""
    return payload[0] & 0x0F if codec == "msgpack" else len(json.loads(payload))
