"""What travels with a message besides its body: key, headers, message id. Checked at the call that hands it over.

One message that cannot be written would take its whole batch along, and with it messages of others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from patterns.wire.errors import BadArgument, TooLarge
from patterns.wire.limits import ATTRIBUTES_BYTES_MAX, COLUMNS_BYTES_TARGET, DELAY_MS_MAX

_encode = msgspec.msgpack.Encoder().encode
_NAMES: Final = ("key", "headers", "message_id")


def check_headers(headers: dict[str, str] | None) -> None:
    """Raises BadArgument for what is not str to str; TooLarge."""
    if headers is not None:
        _check_size(_size_of_headers(headers))


def check_attributes(key: str | None, headers: dict[str, str] | None, message_id: str | None) -> None:
    """Raises BadArgument for a key or message id that is no str, and headers that are not str to str; TooLarge."""
    size = 0
    if key is not None:
        size += _size_of_text("key", key)
    if message_id is not None:
        size += _size_of_text("message_id", message_id)
    if headers is not None:
        size += _size_of_headers(headers)
    _check_size(size)


def check_delay(ms: int) -> None:
    """Raises BadArgument for a delay that no message may have."""
    if ms > DELAY_MS_MAX:
        raise BadArgument(f"a delay of {ms} ms, at most {DELAY_MS_MAX}, which are 365 days")


def pieces(begin: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Where to cut the messages from `begin` to `end` whose columns, of `size` bytes, are too large for one batch."""
    count = min(end - begin, size * 4 // (COLUMNS_BYTES_TARGET * 3) + 1)  # three quarters full: they differ in size
    step = (end - begin + count - 1) // count
    return ((at, min(at + step, end)) for at in range(begin, end, step))


def _size_of_text(name: str, value: Any) -> int:
    if not isinstance(value, str):
        hint = "; decode the bytes first" if isinstance(value, bytes | bytearray | memoryview) else ""
        raise BadArgument(f"{name}={_shown(value)}: a str{hint}")
    return _size(name, value)


def _size_of_headers(headers: Any) -> int:
    if not isinstance(headers, dict):
        raise BadArgument(f"headers={_shown(headers)}: a dict of str to str")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadArgument(f"header {_shown(name)}: {_shown(value)}; names and values are str")
    return _size("headers", headers)


def _size(name: str, value: Any) -> int:
    """Bytes as they travel, in our own form."""
    try:
        return len(_encode(value))
    except UnicodeEncodeError as error:
        raise BadArgument(
            f"{name}={_shown(value)}: no valid Unicode, UTF-8 cannot express it; {error.reason}"
        ) from error
    except TypeError as error:  # a subclass of str
        raise BadArgument(f"{name}={_shown(value)}: of plain str; {error}") from error


def _check_size(size: int) -> None:
    if size > ATTRIBUTES_BYTES_MAX:
        raise TooLarge(
            f"{', '.join(_NAMES)} of {size} bytes in one message, at most {ATTRIBUTES_BYTES_MAX} together; "
            "what is large belongs into the body"
        )


def _shown(value: object) -> str:
    """For an error's text: never the whole of something large."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
