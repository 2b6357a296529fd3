"""Lines to import: what is a message, and what is said of what is none. Whole ways out and in are in tests/sockets."""

import pytest

from patterns.wire.errors import BadBody
from patterns.wire.messages import Codec
from zbroker.processes.transfer import Exported, imported


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"thesis", "not a message"),
        (b'{"body": 1}', "no `stream`"),
        (b'{"stream": "s"}', "neither `body`"),
        (b'{"stream": "s", "codec": "raw", "body": 1}', "no `body_base64`"),
        (b'{"stream": "s", "body_base64": "?"}', "not a message"),
        (b'{"stream": "s", "body_base64": "AA=="}', "not an array"),
        (
            b'{"stream": "s", "body": "caf\xe9"}',
            "utf-8",
        ),  # what is kept as it is written is not looked into by decoding
        (b'{"stream": "s", "body": 1, "published_at": -1}', "published_at"),
        (b'{"stream": "s", "body": 1, "published_at": 253402300800000}', "published_at"),  # the year 10000
        (b'{"stream": "s", "body": 1, "headers": {"a": 1}}', "headers"),
        (b'{"stream": "s", "body": 1, "codec": "xml"}', "codec"),
    ],
)
def test_what_is_no_message_is_told_with_its_reason(line: bytes, word: str) -> None:
    with pytest.raises(BadBody, match=word):
        imported(line, None, 7)


def test_json_is_kept_as_it_is_written_and_raw_as_bytes() -> None:
    text = b'{"stream": "s", "body": [1.0, 123456789012345678901234567890], "offset": 5}'
    assert imported(text, None, 7) == Exported("s", 0, 7, Codec.JSON, b"[1.0, 123456789012345678901234567890]")
    text = b'{"stream": "s", "body_base64": "AP8=", "codec": "raw", "published_at": 3, "key": "k"}'
    assert imported(text, "other", 7) == Exported("other", 0, 3, Codec.RAW, b"\x00\xff", key="k")


def test_msgpack_is_encoded_again() -> None:
    assert imported(b'{"stream": "s", "body": {"a": 1}, "codec": "msgpack"}', None, 7).body == b"\x81\xa1a\x01"
