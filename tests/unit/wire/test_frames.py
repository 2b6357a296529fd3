from __future__ import annotations

import pytest

from patterns.wire.errors import RemoteProtocolError, UnknownCommand
from patterns.wire.frames import JSON, MSGPACK, columns_of, kind_of, pack, pack_columns, parse, reform
from patterns.wire.limits import COLUMNS_BYTES_MAX, HEADER_BYTES_MAX
from patterns.wire.messages import Cancel, Codec, Columns, Echo, Offer, Ping, Publish

NONCE = bytes(range(16))


def publish(count=2, form=MSGPACK, **columns):
    header = Publish(publisher=NONCE, sequence=0, count=count, codec=Codec.RAW, topic="a")
    packed = pack_columns(Columns(**columns), form)
    return parse(pack(header, columns=packed, payload=b"ab", key=b"\x03", form=form))


def test_trailing_empty_frames_are_left_out():
    assert pack(Cancel(5)) == [b"ZB1X", b"\x81\xa2id\x05"]
    assert len(pack(Cancel(5), columns=b"\x80")) == 3
    assert pack(Cancel(5), payload=b"p")[2:] == [b"", b"p"]


def test_the_key_follows_the_kind_in_frame_1():
    assert pack(Echo(NONCE), key=NONCE)[0] == b"ZB1e" + NONCE


@pytest.mark.parametrize("form", [MSGPACK, JSON], ids=["msgpack", "json"])
def test_the_first_byte_of_a_header_tells_its_form(form):
    assert parse(pack(Ping(7), form=form)).form is form


@pytest.mark.parametrize("frames", [[], [b"ZB1X"], [b"ZB1X", b"\x80", b"", b"", b""]])
def test_a_message_has_two_to_four_frames(frames):
    with pytest.raises(RemoteProtocolError, match="two to four"):
        parse(frames)


def test_an_unknown_kind_is_told_from_a_malformed_one():
    with pytest.raises(UnknownCommand, match="kind b'z'"):
        parse([b"ZB1z", b"\x80"])


@pytest.mark.parametrize("first", [b"", b"ZB", b"ZB1", b"XB1X", b"ZB1Xx", b"ZB1P", b"ZB1P12"])
def test_frame_1_is_exact(first):
    with pytest.raises(RemoteProtocolError):
        parse([first, b"\x81\xa2id\x05"])


def test_a_header_above_64_kib_is_refused_before_it_is_decoded():
    padded = b'{"id":5' + b" " * (HEADER_BYTES_MAX - 8) + b"}"
    assert parse([b"ZB1X", padded]).header == Cancel(5)
    with pytest.raises(RemoteProtocolError, match="65537"):
        parse([b"ZB1X", padded + b" "])


def test_columns_above_1_mib_are_refused_before_they_are_decoded():
    with pytest.raises(RemoteProtocolError, match="columns of 1048577"):
        parse([b"ZB1X", b"\x81\xa2id\x05", bytes(COLUMNS_BYTES_MAX + 1)])


@pytest.mark.parametrize(("arrays", "fits"), [(31, True), (32, False)])
@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_a_header_is_at_most_32_deep_in_fields_that_nobody_knows_too(form, arrays, fits):
    msgpack = b"\x82\xa2id\x05\xa1x" + b"\x91" * (arrays - 1) + b"\x90"
    header = msgpack if form == "msgpack" else b'{"id":5,"x":' + b"[" * arrays + b"]" * arrays + b"}"
    if fits:
        assert parse([b"ZB1X", header]).header == Cancel(5)
        return
    with pytest.raises(RemoteProtocolError, match="deeper than 32"):
        parse([b"ZB1X", header])


def test_a_wide_header_is_not_a_deep_one():
    assert parse([b"ZB1X", b'{"id":5,"x":[' + b"[]," * 100 + b"1]}"]).header == Cancel(5)
    assert parse(pack(Offer(1, "\u0910" * 80))).header == Offer(1, "\u0910" * 80)  # bytes that look like maps


def test_no_columns_frame_is_no_columns():
    message = parse(pack(Cancel(5)))
    assert columns_of(message, 9) == Columns()


@pytest.mark.parametrize("form", [MSGPACK, JSON], ids=["msgpack", "json"])
@pytest.mark.parametrize("name", ["sizes", "keys", "headers", "ids", "delays", "offsets", "published"])
def test_every_column_is_as_long_as_the_batch(name, form):
    values = [None] if name in ("keys", "headers", "ids") else [1]
    message = publish(form=form, **{name: values * 2})
    assert getattr(columns_of(message, 2), name) == values * 2
    with pytest.raises(RemoteProtocolError, match=f"column '{name}' has 2 items, the batch 3"):
        columns_of(message, 3)


def test_a_topic_index_beyond_the_topics_is_refused():
    assert columns_of(publish(topics=["a", "b"], topic=[1, 0]), 2).topic == [1, 0]
    with pytest.raises(RemoteProtocolError, match="points at 2"):
        columns_of(publish(topics=["a", "b"], topic=[1, 2]), 2)


@pytest.mark.parametrize("columns", [{"topics": ["a"]}, {"topic": [0, 0]}])
def test_topics_and_topic_come_together(columns):
    with pytest.raises(RemoteProtocolError, match="together"):
        columns_of(publish(**columns), 2)


def test_columns_in_another_form_than_the_header_are_refused():
    frames = pack(Cancel(5), columns=pack_columns(Columns(keys=["k"]), JSON))
    with pytest.raises(RemoteProtocolError):
        columns_of(parse(frames), 1)


def test_reform_keeps_what_columns_say():
    columns = Columns(keys=["k", None], headers=[{"a": "b"}, None])
    there = reform(pack_columns(columns, MSGPACK), MSGPACK, JSON)
    assert reform(there, JSON, MSGPACK) == pack_columns(columns, MSGPACK)
    assert reform(b"", JSON, MSGPACK) == b""


def test_the_kind_of_a_header_is_its_byte():
    assert kind_of(Ping) == b"I"
