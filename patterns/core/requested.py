"""What a replier's engine says of requests, and the book that a bound one keeps of those without an outcome."""

from __future__ import annotations

from typing import Final

import msgspec

from patterns.wire.frames import Message, columns_of
from patterns.wire.messages import Codec, Request
from patterns.wire.server import Session

_MS: Final = 1_000


class Requested(msgspec.Struct, gc=False):
    """A request to answer.

    Attributes:
        token: names it towards reply() and fail().
        deadline: on the engine's clock.
        takes_parts: whether part() and end() may be used.
    """

    token: int
    service: str
    codec: Codec
    payload: bytes
    headers: dict[str, str] | None
    deadline: int
    takes_parts: bool = False


class RequestCancelled(msgspec.Struct, gc=False):
    """Nobody waits for this request's answer any more."""

    token: int


def requested(token: int, header: Request, message: Message, now: int) -> Requested:
    """The event for a REQUEST. Raises ProtocolError: its columns cannot be read."""
    headers = columns_of(message, 1).headers if message.columns else None
    first = headers[0] if isinstance(headers, list) else None
    deadline = now + header.timeout_ms * _MS
    return Requested(
        token, header.service, header.codec, message.payload, first, deadline, header.credit_messages > 0
    )  # fmt: skip


class Asked(msgspec.Struct, gc=False):
    """A request of one of our sessions, under that session's own number; size: as credit counts it."""

    session: Session
    number: int
    size: int
    takes_parts: bool


class Book:
    """The open requests of all sessions: by token, and by session and number. No question costs more than its answer."""

    def __init__(self) -> None:
        self._asked: dict[int, Asked] = {}
        self._tokens: dict[Session, dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, token: int) -> Asked:
        return self._asked[token]

    def get(self, token: int) -> Asked | None:
        return self._asked.get(token)

    def add(self, token: int, asked: Asked) -> None:
        """A request whose number is not in use."""
        self._asked[token] = asked
        self._tokens.setdefault(asked.session, {})[asked.number] = token

    def pop(self, token: int) -> Asked | None:
        """It has its outcome; None: it had."""
        asked = self._asked.pop(token, None)
        if asked is not None:
            tokens = self._tokens[asked.session]
            del tokens[asked.number]
            if not tokens:
                del self._tokens[asked.session]
        return asked

    def token(self, session: Session, number: int) -> int:
        """Of a request that is open; 0: of none."""
        return self._tokens.get(session, {}).get(number, 0)

    def tokens(self, session: Session) -> list[int]:
        """Of all that a session has open."""
        return list(self._tokens.get(session, {}).values())
