"""Administration (SPEC.md 10): one verb, one RESULT or ERROR."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientEngine, ClientSession, error_of
from patterns.wire.address import Address
from patterns.wire.errors import OutcomeUnknown, ZbrokerError
from patterns.wire.frames import Message
from patterns.wire.messages import Admin, Codec, ErrorHeader, Hello, Ready, Result, Resume, Role


class Answered(msgspec.Struct):
    """The one answer to a verb: an error, or a result still encoded."""

    id: int
    error: ZbrokerError | None
    codec: Codec = Codec.MSGPACK
    payload: bytes = b""


class AdminEngine(ClientEngine):
    """Sends verbs to a broker. A verb whose connection breaks before its answer is answered by OutcomeUnknown."""

    def __init__(self, addresses: Sequence[Address], nonce: bytes, jitter: Jitter) -> None:
        super().__init__(addresses, jitter)
        self._nonce = nonce
        self._ids = count(1)
        self._waiting: dict[int, Admin] = {}  # not sent: there is no session yet
        self._asked: dict[int, str] = {}  # sent, without an answer: the verb

    def _hello(self, session: ClientSession) -> Hello:
        resume = Resume(session.ready.epoch) if session.ready else None
        return Hello(role=Role.ADMIN, nonce=self._nonce, codec=Codec.MSGPACK, resume=resume)

    def ask(self, verb: str, arguments: dict[str, object], now: int) -> int:
        """Send a verb, now or as soon as there is a session; the id that its Answered will have."""
        number = next(self._ids)
        self._waiting[number] = Admin(number, verb, arguments)
        self._send_waiting(now)
        return number

    def forget(self, number: int) -> None:
        """The caller has left: no Answered follows."""
        self._waiting.pop(number, None)
        self._asked.pop(number, None)

    def _send_waiting(self, now: int) -> None:
        session = self.sessions[0]
        if not session.is_ready:
            return
        for number, header in self._waiting.items():
            session.send(header, now)
            self._asked[number] = header.verb
        self._waiting.clear()

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        self._send_waiting(now)

    def on_message(self, session: ClientSession, message: Message, now: int) -> None:
        match message.header:
            case Result(id=number, codec=codec) if number in self._asked:
                del self._asked[number]
                self.news.append(Answered(number, None, codec, message.payload))
            case ErrorHeader(scope="command", id=number) as header if number in self._asked:
                del self._asked[number]
                self.news.append(Answered(number, error_of(header)))
            case _:
                self.counters["unexpected"] += 1

    def on_lost(self, session: ClientSession, now: int) -> None:
        where = session.address
        for number, verb in self._asked.items():
            error = OutcomeUnknown(f"{verb}: the connection to the broker at {where} broke before it answered")
            self.news.append(Answered(number, error))
        self._asked.clear()
