"""The hand-written vectors of tests/vectors against patterns.wire."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patterns.wire.codec import check, decode
from patterns.wire.errors import BY_NUMBER, BadName, ProtocolError, ZbrokerError
from patterns.wire.frames import JSON, MSGPACK, Message, columns_of, pack, pack_columns, parse
from patterns.wire.identity import publisher_of
from patterns.wire.messages import KINDS, Codec
from patterns.wire.names import channel_of, channels_of, check_name, check_pattern, check_topic, matcher

FOLDER = Path(__file__).parents[1] / "vectors"
FORMS = {"msgpack": MSGPACK, "json": JSON}


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def frame_of(written: Any) -> bytes:
    if isinstance(written, dict):
        begin = "text" if "text" in written else "hex"
        rest = "".join(part["repeat"] * part["times"] for part in written["then"])
        return frame_of(f"{begin}:{written[begin]}") + rest.encode()
    notation, _, what = written.partition(":")
    return bytes.fromhex(what) if notation == "hex" else what.encode()


def frames_of(written: list[Any]) -> list[bytes]:
    return [frame_of(frame) for frame in written]


def named(name: str) -> Any:
    return pytest.mark.parametrize("vector", load(name), ids=lambda vector: vector["name"].replace(" ", "-"))


def plain(value: Any) -> Any:
    """As the vectors write it: bytes as base64, structs as maps with all their fields."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def judge(message: Message) -> tuple[Any, list[Any]]:
    """Columns and bodies, as a receiver at the door checks them."""
    header: Any = message.header
    if not hasattr(header, "codec") or not hasattr(header, "count"):
        return None, []
    columns = columns_of(message, header.count)
    if message.key and header.codec is not None:
        topics = columns.topics or [] if header.topic is None else [header.topic]
        if any(channel_of(topic) != message.key[0] for topic in topics):
            raise ProtocolError("a topic of another channel")
    sizes = columns.sizes or None
    check(header.codec, message.payload, header.count, sizes)
    return columns, decode(header.codec, message.payload, header.count, sizes)


def assert_means(message: Message, vector: dict[str, Any]) -> None:
    assert message.kind == vector["kind"].encode()
    assert message.key == frame_of(vector.get("key", "hex:"))
    said = {**vector["header"], **vector.get("defaults", {})}
    complete = {name: plain(getattr(message.header, name)) for name in said}
    assert complete == said
    if "bodies" in vector:
        columns, bodies = judge(message)
        assert plain(bodies) == vector["bodies"]
        assert msgspec.to_builtins(columns) == vector.get("columns", {})


@pytest.mark.parametrize("form", ["msgpack", "json"])
@named("valid.json")
def test_a_valid_vector_means_what_it_says(vector, form):
    message = parse(frames_of(vector[form]))
    assert message.form is FORMS[form]
    assert_means(message, vector)


@pytest.mark.parametrize("form", ["msgpack", "json"])
@named("valid.json")
def test_what_we_write_means_the_same(vector, form):
    message = parse(frames_of(vector[form]))
    columns = pack_columns(message.form.columns.decode(message.columns), message.form) if message.columns else b""
    frames = pack(message.header, columns=columns, payload=message.payload, key=message.key, form=message.form)
    assert_means(parse(frames), vector)


@named("spellings.json")
def test_an_unusual_spelling_is_understood(vector):
    assert_means(parse(frames_of(vector["frames"])), vector)


@named("invalid.json")
def test_an_invalid_vector_is_refused_with_its_number(vector):
    with pytest.raises(ZbrokerError) as caught:
        judge(parse(frames_of(vector["frames"])))
    assert caught.value.number == vector["number"]
    assert caught.value.name == vector["error"] == BY_NUMBER[vector["number"]].name


@named("invalid.json")
def test_the_place_of_a_fault_is_where_the_vector_says(vector):
    frames = frames_of(vector["frames"])
    if vector["where"] in ("frames", "header"):
        with pytest.raises(ZbrokerError):
            parse(frames)
    else:
        parse(frames)


def test_every_kind_has_a_valid_vector():
    assert {vector["kind"].encode() for vector in load("valid.json")} == set(KINDS)


def test_every_codec_has_a_valid_vector():
    codecs = {vector["header"].get("codec") for vector in load("valid.json")}
    assert codecs >= {codec.value for codec in Codec}


@pytest.mark.parametrize(
    ("group", "check_one"),
    [("names", lambda name: check_name(name, "stream")), ("topics", check_topic), ("patterns", check_pattern)],
)
def test_names_are_accepted_and_refused_as_listed(group, check_one):
    listed = load("names.json")[group]
    for name in listed["valid"]:
        assert check_one(name) == name
    for name in listed["invalid"]:
        with pytest.raises(BadName):
            check_one(name)


def test_channels_are_as_listed():
    listed = load("names.json")
    assert {topic: channel_of(topic) for topic in listed["channels"]} == listed["channels"]
    assert {pattern: channels_of(pattern) for pattern in listed["pattern_channels"]} == listed["pattern_channels"]


@pytest.mark.parametrize(("nonce", "publisher"), load("names.json")["publishers"].items())
def test_publishers_are_named_as_listed(nonce, publisher):
    assert publisher_of(bytes.fromhex(nonce)).hex() == publisher


@pytest.mark.parametrize(("pattern", "topic", "matches"), load("names.json")["matches"])
def test_patterns_match_as_listed(pattern, topic, matches):
    assert matcher([pattern])(topic) is matches
