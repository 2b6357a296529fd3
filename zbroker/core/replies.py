"""What the broker owes a single body: the check at the door, the codec and form of who reads it, and a bound on what waits."""

from __future__ import annotations

from typing import Final

import msgspec

from patterns.wire import codec
from patterns.wire.errors import BadBody, Overloaded, TooLarge
from patterns.wire.frames import Message, columns_of, pack, reform
from patterns.wire.limits import BODY_BYTES_MAX, REPLIES_HELD_BYTES_MAX
from patterns.wire.messages import Codec, Partial, Reply
from patterns.wire.server import Session
from zbroker.core.translate import Translate, needed

OUTBOX_BYTES_MAX: Final = REPLIES_HELD_BYTES_MAX
_ARRAY_BYTES: Final = 2  # what makes one body an array: "[]" in JSON, one byte in msgpack


def check_one_body(message: Message, used: Codec, count: int) -> None:
    """What we owe at the door for a single body."""
    if count != 1:
        raise BadBody(f"count {count}: a request and a reply hold one body")
    if len(message.payload) > BODY_BYTES_MAX + _ARRAY_BYTES:
        raise TooLarge(f"body of {len(message.payload)} bytes, at most {BODY_BYTES_MAX}")
    sizes: list[int] | None = None
    if message.columns:
        found = columns_of(message, 1).sizes
        sizes = None if found is msgspec.UNSET else found
    elif used is Codec.RAW:
        return  # any bytes are one
    codec.check(used, message.payload, 1, sizes)


def in_codec_of(session: Session, used: Codec, payload: bytes, translate: Translate) -> tuple[bytes, Codec]:
    """A payload as this client wants it, and the codec that it is in then."""
    if used is session.codec or not needed(used, session.codec):
        return payload, used
    return translate(payload, used, session.codec), session.codec


def overloaded(requester: Session, size: int) -> Overloaded:
    held = f"{requester.outbox_bytes} of at most {OUTBOX_BYTES_MAX} bytes wait for the requester's credit"
    return Overloaded(f"reply of {size} bytes dropped: {held}; grant credit as replies are read")


def for_requester(
    requester: Session, header: Reply | Partial, asked_id: int, message: Message, translate: Translate
) -> tuple[list[bytes], int]:
    """The frames of a REPLY or PARTIAL in the requester's form, codec and numbering; and the size that credit counts.

    Args:
        header: of the message; written over.
    """
    if header.count:
        payload, used = in_codec_of(requester, header.codec, message.payload, translate)
    else:
        payload, used = b"", header.codec
    header.id, header.codec = asked_id, used
    columns = reform(message.columns, message.form, requester.form) if message.columns else b""
    return pack(header, columns=columns, payload=payload, form=requester.form), len(columns) + len(payload)
