from __future__ import annotations

import msgspec
import pytest

from patterns.wire.errors import BadBody, TooLarge
from patterns.wire.frames import pack, parse
from patterns.wire.messages import Codec, Columns, Reply
from zbroker.core.replies import check_one_body


def message(payload, columns=b""):
    return parse(pack(Reply(id=1), columns=columns, payload=payload))


def test_one_body_of_the_codec_passes():
    check_one_body(message(b"\x91\x01"), Codec.MSGPACK, 1)
    check_one_body(message(b"[1]"), Codec.JSON, 1)
    sizes = msgspec.msgpack.encode(Columns(sizes=[3]))
    check_one_body(message(b"abc", sizes), Codec.RAW, 1)


@pytest.mark.parametrize(("payload", "count"), [(b"\x91\x01", 0), (b"\x92\x01\x02", 2), (b"\x92\x01\x02", 1), (b"", 1)])
def test_any_other_number_of_bodies_is_refused(payload, count):
    with pytest.raises(BadBody):
        check_one_body(message(payload), Codec.MSGPACK, count)


def test_a_body_above_the_limit_is_refused():
    with pytest.raises(TooLarge, match="at most 1048576"):
        check_one_body(message(bytes((1 << 20) + 3)), Codec.RAW, 1)
