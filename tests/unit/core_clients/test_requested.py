from __future__ import annotations

from typing import Any

from patterns.core.requested import Asked, Book
from patterns.wire.frames import MSGPACK
from patterns.wire.messages import Hello, Role
from patterns.wire.server import Session
from patterns.wire.session import Credit


def session(nonce: bytes = b"n") -> Any:
    return Session((1, nonce), Hello(role=Role.REQUESTER, nonce=nonce * 16), MSGPACK, Credit(), 0)


def test_a_request_is_found_by_its_token_and_by_its_session_and_number():
    book, one, two = Book(), session(), session()
    for token, asked in ((1, Asked(one, 5, 10, False)), (2, Asked(two, 5, 20, False)), (3, Asked(two, 6, 30, True))):
        book.add(token, asked)
    assert (book.token(one, 5), book.token(two, 5), book.token(one, 6)) == (1, 2, 0)
    assert (book.tokens(one), book.tokens(two)) == ([1], [2, 3])
    assert book[3].takes_parts
    assert book.get(4) is None


def test_a_request_that_is_over_leaves_nothing_behind():
    book, one = Book(), session()
    book.add(1, Asked(one, 5, 10, False))
    assert book.pop(1).number == 5
    assert book.pop(1) is None
    assert (len(book), book.token(one, 5), book.tokens(one), book._tokens) == (0, 0, [], {})
