"""The Requester: asks services for replies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ref

from patterns.core.request import Outcome, PartReceived, RequesterEngine
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.arguments import check_wait, no_time
from patterns.roles.parts import StreamedReplyRole
from patterns.roles.role import (
    D,
    MakeDriver,
    Role,
    codec_of,
    jitter,
    new_nonce,
    refuse_security,
    resolve,
)
from patterns.wire.attributes import check_headers
from patterns.wire.codec import BodyDecoder, encode_only, too_large
from patterns.wire.errors import BadAddress
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.limits import PART_BYTES_WINDOW, PARTS_WINDOW
from patterns.wire.messages import Columns
from patterns.wire.names import check_name

_S = TypeVar("_S", bound=StreamedReplyRole[Any])
_FOREVER_S = 1e8  # three years; a deadline that no program lives to see
_SERVICES_REMEMBERED = 10_000
_GRACE_US = (
    1_000_000  # the engine gives each request its outcome by its deadline; this only guards against our own mistakes
)


class RequesterRole(Role[D]):
    """See patterns.sync.Requester."""

    def __init__(self, make: MakeDriver[D], address: str | None, *, codec: str, type: Any, security: object) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if any(one.binds for one in addresses):
            raise BadAddress("a Requester connects; let the Replier bind")
        self._codec = codec_of(codec)
        self._engine = RequesterEngine(addresses, new_nonce(), self._codec, jitter)
        self._outcomes: dict[int, Outcome] = {}
        self._streams: dict[int, ref[StreamedReplyRole[D]]] = {}  # weak: who lets go of one, leaves it
        self._known: set[str] = set()  # names that were checked
        self._type = type
        self._decoders: dict[Any, BodyDecoder] = {}
        self._decoder(type)  # refuses what is none before there is anything to close
        self._driver = make(self._engine, SocketKind.DEALER, self._take, in_background=self._wants_keeper)
        self._start()

    def _wants_keeper(self) -> bool:
        return not self._engine.is_ready and not self._engine.closed

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Outcome):
                self._outcomes[event.id] = event
                if self._streams:
                    self._hand_on(event)
            elif isinstance(event, PartReceived):
                self._hand_on(event)

    def _hand_on(self, event: Outcome | PartReceived) -> None:
        """To the streamed reply that it belongs to, if anybody still holds that."""
        held = self._streams.get(event.id)
        stream = held() if held is not None else None
        if stream is None:
            return
        if isinstance(event, Outcome):
            stream._outcome = self._outcomes.pop(event.id)
        else:
            stream._parts.append(event)

    def _request(
        self,
        service: str,
        body: Any,
        timeout_s: float,
        wait_s: float,
        idempotent: bool,
        headers: dict[str, str] | None,
        type: Any,
    ) -> Steps[Any]:
        driver, engine, outcomes = self._driver, self._engine, self._outcomes
        payload, columns = self._written(service, body, timeout_s, wait_s, headers)
        decoder = self._decoder(type)
        timeout_us = int(min(timeout_s, _FOREVER_S) * 1e6)
        wait_ms = int(min(wait_s, timeout_s) * 1_000)
        with driver.lock:
            now = clock()
            number = engine.request(
                service,
                self._codec,
                payload,
                columns,
                timeout_us=timeout_us,
                wait_ms=wait_ms,
                idempotent=idempotent,
                now=now,
            )
        try:
            yield Wait(
                lambda: number in outcomes or driver.is_closed or engine.error is not None, now + timeout_us + _GRACE_US
            )
        except BaseException:  # Ctrl-C or cancelled while waiting: the replier is told that nobody waits
            driver.run(lambda then: engine.forget(number, then))
            outcomes.pop(number, None)
            raise
        if number not in outcomes:
            driver.check()
        outcome = outcomes.pop(number)
        if outcome.error is not None:
            raise outcome.error
        return decoder.only(outcome.codec, outcome.payload)

    def _written(
        self, service: str, body: Any, timeout_s: float, wait_s: float, headers: dict[str, str] | None
    ) -> tuple[bytes, bytes]:
        """Payload and columns of a request that passed every check of ours."""
        self._driver.check()
        if not isinstance(service, str) or service not in self._known:
            self._remember(service)
        check_wait(timeout_s, wait_s)
        payload = encode_only(self._codec, body)
        if len(payload) > self._engine.sessions[0].limits.batch_bytes_max:
            raise too_large(len(payload), self._codec, self._engine.sessions[0].limits.batch_bytes_max)
        if headers is None:
            return payload, b""
        check_headers(headers)
        return payload, pack_columns(Columns(headers=[headers]), MSGPACK) if headers else b""

    def _stream(
        self,
        kind: Callable[[RequesterRole[D], str, int, BodyDecoder, int], _S],
        service: str,
        body: Any,
        timeout_s: float | None,
        part_timeout_s: float,
        wait_s: float,
        idempotent: bool,
        headers: dict[str, str] | None,
        type: Any,
    ) -> _S:
        """Ask at once; what comes is waited for by whoever takes it."""
        limit_s = _FOREVER_S if timeout_s is None else timeout_s
        if not isinstance(part_timeout_s, int | float) or not part_timeout_s > 0:
            raise no_time("part_timeout_s", part_timeout_s)
        payload, columns = self._written(service, body, limit_s, wait_s, headers)
        timeout_us = int(min(limit_s, _FOREVER_S) * 1e6)
        decoder = self._decoder(type)
        made: list[_S] = []

        def ask(now: int) -> None:
            number = self._engine.request(
                service,
                self._codec,
                payload,
                columns,
                timeout_us=timeout_us,
                wait_ms=int(min(wait_s, limit_s) * 1_000),
                idempotent=idempotent,
                parts=(PARTS_WINDOW, PART_BYTES_WINDOW),
                now=now,
            )
            made.append(kind(self, service, number, decoder, int(min(part_timeout_s, _FOREVER_S) * 1e6)))
            self._streams[number] = ref(made[0])

        self._driver.run(ask)
        return made[0]

    def _leave_stream(self, number: int) -> None:
        """Nobody takes it any more."""
        driver, engine = self._driver, self._engine
        if not driver.is_closed and not driver.forked:
            driver.run(lambda now: engine.forget(number, now))
        self._streams.pop(number, None)
        self._outcomes.pop(number, None)

    def _remember(self, service: str) -> None:
        check_name(service, "service")
        if len(self._known) >= _SERVICES_REMEMBERED:
            self._known.clear()
        self._known.add(service)

    def _decoder(self, type: Any) -> BodyDecoder:
        """Of one call's type; without one, of all calls'."""
        type = self._type if type is Any else type
        try:
            found = self._decoders.get(type)
        except TypeError:  # a type that cannot be hashed
            return BodyDecoder(type)
        if found is None:
            found = self._decoders[type] = BodyDecoder(type)
        return found
