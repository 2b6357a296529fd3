from __future__ import annotations

import msgspec
import pytest

from patterns.wire.codec import BodyDecoder, check, decode, encode, encode_body, items_of, join
from patterns.wire.errors import BadBody, TooLarge, ValidationFailed
from patterns.wire.limits import BATCH_BYTES_MAX, BATCH_BYTES_TARGET, BATCH_MESSAGES_MAX, BODY_BYTES_MAX
from patterns.wire.messages import Codec

ALL = pytest.mark.parametrize("codec", list(Codec))


def bodies(codec: Codec, *texts: str):
    return [text.encode() for text in texts] if codec is Codec.RAW else list(texts)


@ALL
def test_a_small_batch_is_one_payload(codec):
    (part,) = encode(codec, bodies(codec, "a", "", "bc"))
    assert part.count == 3
    assert decode(codec, part.payload, 3, part.sizes) == bodies(codec, "a", "", "bc")


@ALL
def test_sizes_stand_only_beside_several_raw_bodies(codec):
    assert encode(codec, bodies(codec, "abc"))[0].sizes is None
    assert encode(codec, bodies(codec, "a", "bc"))[0].sizes == ([1, 2] if codec is Codec.RAW else None)


@ALL
def test_a_large_batch_is_split_near_the_target_in_order(codec):
    many = bodies(codec, *[f"{number:01000}" for number in range(300)])
    parts = encode(codec, many)
    assert len(parts) >= 4
    assert max(len(part.payload) for part in parts) <= BATCH_BYTES_TARGET + 100
    assert [body for part in parts for body in decode(codec, part.payload, part.count, part.sizes)] == many


@ALL
def test_more_messages_than_a_batch_holds_are_split(codec):
    many = bodies(codec, *[""] * (BATCH_MESSAGES_MAX + 1))
    assert [part.count for part in encode(codec, many)][-1] >= 1
    assert max(part.count for part in encode(codec, many)) <= BATCH_MESSAGES_MAX


@ALL
def test_one_large_body_is_a_batch_of_its_own(codec):
    many = bodies(codec, "a", "x" * (BODY_BYTES_MAX - 10), "b")
    assert [part.count for part in encode(codec, many)] == [1, 1, 1]


@ALL
@pytest.mark.parametrize("limit", [100, BODY_BYTES_MAX])
def test_a_body_above_the_limit_is_refused_however_small_the_limit_is(codec, limit):
    encode(codec, bodies(codec, *["x" * 40] * 50), limit)
    with pytest.raises(TooLarge, match=f"at most {limit}"):
        encode(codec, bodies(codec, "a", "x" * (limit + 1)), limit)


@pytest.mark.parametrize(("codec", "body"), [(Codec.MSGPACK, 2**70), (Codec.JSON, object()), (Codec.RAW, "text")])
def test_a_body_that_the_codec_cannot_express_is_refused(codec, body):
    with pytest.raises(BadBody):
        encode(codec, [body])
    with pytest.raises(BadBody, match=f"body of type {type(body).__name__}"):
        encode_body(codec, body)


@ALL
def test_one_body_is_an_item_of_the_payload(codec):
    (body,) = bodies(codec, "abc")
    payload = join(codec, [encode_body(codec, body)])
    assert decode(codec, payload, 1, None) == [body]
    with pytest.raises(TooLarge):
        encode_body(codec, bodies(codec, "x" * (BODY_BYTES_MAX + 1))[0])


@ALL
def test_items_joined_again_are_the_payload(codec):
    (part,) = encode(codec, bodies(codec, "a", "bc", ""))
    assert join(codec, items_of(codec, part.payload, 3, part.sizes)) == part.payload


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x80", b"\x92\x01", b"\x91\x01\x01", b"\xc1"])
def test_a_msgpack_payload_is_one_array(payload):
    with pytest.raises(BadBody):
        check(Codec.MSGPACK, payload, 1, None)


@pytest.mark.parametrize("payload", [b"", b"1", b"{}", b"[1", b"[1]x", b'["\xff"]', b'{"a":"\xff"}'])
def test_a_json_payload_is_one_array_in_utf_8(payload):
    with pytest.raises(BadBody):
        check(Codec.JSON, payload, 1, None)


@pytest.mark.parametrize("sizes", [None, [1], [1, 1], [1, 3], [1, 1, 1]])
def test_raw_sizes_are_one_for_each_body_and_add_up(sizes):
    check(Codec.RAW, b"abc", 2, [1, 2])
    with pytest.raises(BadBody):
        check(Codec.RAW, b"abc", 2, sizes)
    with pytest.raises(BadBody):
        items_of(Codec.RAW, b"abc", 2, sizes)


@pytest.mark.parametrize("count", [0, BATCH_MESSAGES_MAX + 1])
def test_a_batch_holds_1_to_65536_messages(count):
    payload = msgspec.msgpack.encode([None] * count)
    with pytest.raises(BadBody, match="1 to 65536"):
        check(Codec.MSGPACK, payload, count, None)


def test_several_bodies_stay_below_a_batchs_bytes():
    check(Codec.RAW, bytes(BATCH_BYTES_MAX), 2, [0, BATCH_BYTES_MAX])
    with pytest.raises(TooLarge):
        check(Codec.RAW, bytes(BATCH_BYTES_MAX + 1), 2, [0, BATCH_BYTES_MAX + 1])


@pytest.mark.parametrize("codec", [Codec.MSGPACK, Codec.JSON])
def test_another_number_of_items_than_the_header_says_is_refused(codec):
    (part,) = encode(codec, [1, 2])
    for count in (1, 3):
        with pytest.raises(BadBody, match="2 bodies"):
            items_of(codec, part.payload, count, None)
        with pytest.raises(BadBody, match=f"{count} bodies"):
            decode(codec, part.payload, count, None)


def test_a_typed_body_that_does_not_fit_says_where():
    decoder = BodyDecoder(dict[str, int])
    assert decoder.decode(Codec.JSON, b'{"a":1}') == {"a": 1}
    with pytest.raises(ValidationFailed, match=r"\$\[\.\.\.\]"):
        decoder.decode(Codec.JSON, b'{"a":"x"}')
    with pytest.raises(BadBody):
        decoder.decode(Codec.MSGPACK, b"\xc1")


def test_what_the_code_of_a_type_raises_is_that_the_body_is_not_of_it():
    class Known(msgspec.Struct):
        sku: int

        def __post_init__(self):
            {7: "seven"}[self.sku]

    decoder, (bad,) = BodyDecoder(Known), encode(Codec.JSON, [{"sku": 8}])
    assert decoder.only(Codec.JSON, b'[{"sku":7}]').sku == 7
    with pytest.raises(ValidationFailed, match="body is no Known: its own code raises KeyError: 8"):
        decoder.only(Codec.JSON, bad.payload)


def test_a_raw_body_is_itself():
    assert BodyDecoder().decode(Codec.RAW, b"\xff") == b"\xff"
    with pytest.raises(ValidationFailed):
        BodyDecoder(int).decode(Codec.RAW, b"\xff")


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_arrays_of_every_head_size_are_counted(count):
    check(Codec.MSGPACK, msgspec.msgpack.encode([1] * count), count, None)


@pytest.mark.parametrize(
    "payload", [b"", b"\x90", b"\x92\x01", b"\x91\x01\x01", b"\x80", b"\x91\xc1", b"\xc0", b"\xdc\x00", b"\x91" * 5_000]
)
def test_what_is_not_one_msgpack_array_of_the_count_is_refused(payload):
    with pytest.raises(BadBody):
        check(Codec.MSGPACK, payload, 1, None)


def test_a_count_of_none_or_too_many_is_refused():
    for count in (0, 65_537):
        with pytest.raises(BadBody):
            check(Codec.MSGPACK, msgspec.msgpack.encode([1] * count), count, None)


@pytest.mark.parametrize("codec", [Codec.JSON, Codec.MSGPACK])
def test_a_body_that_grew_above_the_limit_by_its_encoding_says_how_large_it_is(codec):
    size = BODY_BYTES_MAX + (2 if codec is Codec.JSON else 5)
    with pytest.raises(TooLarge, match=f"body of {size} bytes, encoded as {codec.value}; at most {BODY_BYTES_MAX}"):
        encode(codec, ["x" * BODY_BYTES_MAX])


def test_a_raw_view_is_as_long_as_its_bytes():
    """len() of a view counts its items, which may be wider."""
    wide = memoryview(b"12345678").cast("I")
    [one] = encode(Codec.RAW, [wide, b"9"])
    assert (one.count, one.payload, one.sizes) == (2, b"123456789", [8, 1])
