"""What a subscriber is handed, message by message, made from batches at C speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import msgspec

from patterns.core.subscribe import Received
from patterns.wire.codec import BodyDecoder, decode, items_of
from patterns.wire.errors import ZbrokerError
from patterns.wire.messages import Codec


class Message(msgspec.Struct, gc=False):
    """One message of a topic.

    Attributes:
        topic: as published.
        body: decoded, and validated if `type=` was given.
        headers: str to str, or None.
        sequence: its number within the publisher's channel.
    """

    topic: str
    body: Any
    headers: dict[str, str] | None
    sequence: int


class BadMessage:
    """Stands for a Message whose body could not be decoded or validated: `body` raises, `error` tells."""

    def __init__(self, topic: str, error: ZbrokerError, headers: dict[str, str] | None, sequence: int) -> None:
        self.topic = topic
        self.error = error
        self.headers = headers
        self.sequence = sequence

    @property
    def body(self) -> Any:
        raise self.error


class Bodies:
    """Decodes the bodies of batches into a type; a whole batch at once where that works."""

    def __init__(self, type: Any = Any) -> None:
        self._one = BodyDecoder(type)
        self._whole = {
            Codec.MSGPACK: msgspec.msgpack.Decoder(list[type]).decode,
            Codec.JSON: msgspec.json.Decoder(list[type]).decode,
        }
        self._typed = type is not Any
        self.has_errors = False  # whether one may stand among the bodies of the last decode()

    def decode(self, codec: Codec, payload: bytes, count: int, sizes: list[int] | None) -> list[Any]:
        """The bodies; in the place of one that cannot be had stands its error.

        Raises:
            BadBody: the payload is no array of `count` items.
        """
        self.has_errors = False
        if codec is Codec.RAW:
            items = decode(codec, payload, count, sizes)
            if not self._typed:
                return items
            self.has_errors = True
            return [self.one(codec, item) for item in items]
        try:
            bodies: list[Any] = self._whole[codec](payload)
        except Exception:  # noqa: BLE001  the program's own type may raise anything; each body says what
            self.has_errors = True
            return [self.one(codec, item) for item in items_of(codec, payload, count, sizes)]
        if len(bodies) != count:
            return decode(codec, payload, count, sizes)
        return bodies

    def one(self, codec: Codec, item: Any) -> Any:
        """One body, or the error that stands for it."""
        try:
            return self._one.decode(codec, item)
        except ZbrokerError as error:
            return error


def messages_of(batch: Received, bodies: Bodies) -> Iterable[Message]:
    """The wanted messages of a batch, in order. Raises BadBody."""
    decoded = bodies.decode(batch.codec, batch.payload, batch.count, batch.sizes)
    topics: Iterable[str] = repeat(batch.topic) if batch.topics is None else batch.topics
    headers: Iterable[dict[str, str] | None] = repeat(None) if batch.headers is None else batch.headers
    messages = map(Message, topics, decoded, headers, range(batch.sequence, batch.sequence + batch.count))
    if batch.wanted is None and not bodies.has_errors:
        return messages
    return _selected(messages, batch.wanted)


def _selected(messages: Iterable[Message], wanted: list[int] | None) -> Iterator[Any]:
    kept = None if wanted is None else set(wanted)
    for index, message in enumerate(messages):
        if kept is not None and index not in kept:
            continue
        if isinstance(message.body, ZbrokerError):
            yield BadMessage(message.topic, message.body, message.headers, message.sequence)
        else:
            yield message
