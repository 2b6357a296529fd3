from __future__ import annotations

import msgspec
import pytest

from patterns.core.message import Bodies, messages_of
from patterns.core.subscribe import Received
from patterns.wire.errors import BadBody, ValidationFailed
from patterns.wire.messages import Codec


def batch(*bodies, wanted=None, codec=Codec.MSGPACK, topics=None, headers=None, count=None):
    encode = msgspec.msgpack.encode if codec is Codec.MSGPACK else msgspec.json.encode
    payload, sizes = (
        (b"".join(bodies), [len(body) for body in bodies]) if codec is Codec.RAW else (encode(bodies), None)
    )
    return Received(bytes(16), 5, count or len(bodies), codec, payload, sizes, "t", topics, headers, wanted)


@pytest.mark.parametrize("codec", list(Codec))
def test_messages_come_in_order_with_their_sequences(codec):
    found = list(
        messages_of(batch(b"a", b"bc", codec=codec) if codec is Codec.RAW else batch(1, 2, codec=codec), Bodies())
    )
    assert [message.sequence for message in found] == [5, 6]
    assert [message.body for message in found] == ([b"a", b"bc"] if codec is Codec.RAW else [1, 2])


def test_only_wanted_messages_are_handed_over():
    found = list(messages_of(batch(1, 2, 3, wanted=[0, 2], topics=["a", "b", "c"]), Bodies()))
    assert [(message.topic, message.body, message.sequence) for message in found] == [("a", 1, 5), ("c", 3, 7)]


def test_a_body_that_is_not_of_the_type_raises_where_it_is_looked_at():
    good, bad = messages_of(batch(1, "x", headers=[None, {"h": "1"}]), Bodies(int))
    assert good.body == 1
    assert (bad.sequence, bad.headers) == (6, {"h": "1"})
    assert isinstance(bad.error, ValidationFailed)
    with pytest.raises(ValidationFailed):
        _ = bad.body


def test_a_body_whose_type_raises_by_itself_stands_for_no_other():
    class Known(msgspec.Struct):
        sku: int

        def __post_init__(self):
            {7: "seven"}[self.sku]

    good, bad = messages_of(batch({"sku": 7}, {"sku": 8}), Bodies(Known))
    assert good.body.sku == 7
    with pytest.raises(ValidationFailed, match="KeyError: 8"):
        _ = bad.body


def test_a_payload_of_another_count_is_refused_whole():
    with pytest.raises(BadBody):
        messages_of(batch(1, 2, count=3), Bodies())


def test_typed_raw_bodies_are_converted_one_by_one():
    good, bad = (
        messages_of(batch(b"1", b"2", codec=Codec.RAW), Bodies(bytes)),
        messages_of(batch(b"1", codec=Codec.RAW), Bodies(int)),
    )
    assert [message.body for message in good] == [b"1", b"2"]
    assert [type(message.error) for message in bad] == [ValidationFailed]
