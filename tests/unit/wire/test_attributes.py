"""What may travel with a message, and what its caller is told otherwise."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
import pytest

from patterns.wire.attributes import check_attributes, check_headers, pieces
from patterns.wire.errors import BadArgument, TooLarge
from patterns.wire.limits import ATTRIBUTES_BYTES_MAX, COLUMNS_BYTES_TARGET


class Plain(str):
    __slots__ = ()


class Region(enum.StrEnum):
    EU = "eu"


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ((5, None, None), r"key=5: a str$"),
        ((b"k", None, None), r"key=b'k': a str; decode the bytes first"),
        ((None, None, 5), r"message_id=5: a str$"),
        ((None, [("a", "b")], None), r"headers=\[\('a', 'b'\)\]: a dict of str to str"),
        ((None, {"a": 1}, None), r"header 'a': 1; names and values are str"),
        ((None, {1: "a"}, None), r"header 1: 'a'; names"),
        (("\ud800", None, None), r"key='\\ud800': no valid Unicode"),
        ((None, {"a": "\ud800"}, None), r"headers=\{'a': '\\ud800'\}: no valid Unicode"),
        ((None, {"\ud800": "a"}, None), r"no valid Unicode"),
        ((None, None, "\udfff"), r"message_id='\\udfff': no valid Unicode"),
        ((Plain("a"), None, None), r"key='a': of plain str"),
    ],
)
def test_what_cannot_travel_is_refused(attributes: tuple[Any, Any, Any], text: str) -> None:
    with pytest.raises(BadArgument, match=text):
        check_attributes(*attributes)


def test_what_can_travel_passes() -> None:
    check_attributes(None, None, None)
    check_attributes("", {}, "")
    check_attributes("\0ß\U0001f600", {"a": "b", "": ""}, "m" * 300)
    check_attributes(Region.EU, {Region.EU: Region.EU}, None)
    check_headers(None)


def test_the_limit_is_of_all_that_travels_with_one_message() -> None:
    half = "k" * (ATTRIBUTES_BYTES_MAX // 2 - 16)
    check_attributes(half, None, half)
    check_headers({"a": half + half})
    for attributes in ((half, {"a": half}, "x" * 32), (half * 3, None, None), (None, None, half * 3)):
        with pytest.raises(TooLarge, match=f"at most {ATTRIBUTES_BYTES_MAX}"):
            check_attributes(*attributes)
    with pytest.raises(TooLarge):
        check_headers({"a": half * 3})


def test_a_text_names_no_more_than_the_beginning_of_something_large() -> None:
    with pytest.raises(BadArgument) as refused:
        check_attributes("\ud800" * 100_000, None, None)
    assert len(str(refused.value)) < 300


def test_one_message_always_fits_a_batch() -> None:
    assert ATTRIBUTES_BYTES_MAX + 1_024 <= COLUMNS_BYTES_TARGET
    assert len(msgspec.json.encode({"a": "\0" * COLUMNS_BYTES_TARGET})) <= 1 << 20


@pytest.mark.parametrize(
    ("count", "size"), [(2, COLUMNS_BYTES_TARGET + 1), (640, 640_000), (7, 10 * 65_536), (3, 1 << 30)]
)
def test_pieces_cover_every_message_once_and_are_smaller_than_the_whole(count: int, size: int) -> None:
    cut = list(pieces(5, 5 + count, size))
    assert [at for begin, end in cut for at in range(begin, end)] == list(range(5, 5 + count))
    assert len(cut) > 1
