"""What send_many() is given: an iterable of bodies, of which one may be bad."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from patterns.wire.codec import encode_body
from patterns.wire.errors import BadArgument, BadBody, TooLarge, ZbrokerError
from patterns.wire.messages import Codec


def each_of(bodies: object) -> Iterator[Any]:
    """An iterator over bodies. Raises BadArgument for what is one body, of which the parts would be stored."""
    if isinstance(bodies, str | bytes | bytearray | memoryview | Mapping):
        kind = type(bodies).__name__
        raise BadArgument(f"send_many() of one {kind}, which is one body: use send(body), or send_many([body, ..])")
    try:
        return iter(bodies)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:
        raise BadArgument(f"send_many() of one {type(bodies).__name__}: an iterable of bodies; {error}") from error


def until_bad(codec: Codec, bodies: list[Any]) -> list[Any]:
    """Those before the first that cannot be written."""
    good = []
    for body in bodies:
        try:
            encode_body(codec, body)
        except (BadBody, TooLarge):
            break
        good.append(body)
    return good


def first_bad(codec: Codec, bodies: list[Any]) -> ZbrokerError:
    """Why the first of them cannot be written."""
    for body in bodies:
        try:
            encode_body(codec, body)
        except (BadBody, TooLarge) as error:
            return error
    raise AssertionError("one of them was refused a moment ago")
