"""The Requester: asks services for replies."""

from __future__ import annotations

from typing import Any

from patterns.core.request import Outcome, RequesterEngine
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.role import (
    D,
    MakeDriver,
    Role,
    check_headers,
    codec_of,
    jitter,
    new_nonce,
    refuse_security,
    resolve,
)
from patterns.wire.codec import BodyDecoder, encode_only
from patterns.wire.errors import BadAddress, BadArgument, TooLarge
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Columns
from patterns.wire.names import check_name

_SERVICES_REMEMBERED = 10_000
_GRACE_US = (
    1_000_000  # the engine gives each request its outcome by its deadline; this only guards against our own mistakes
)


class RequesterRole(Role[D]):
    """See patterns.sync.Requester."""

    def __init__(self, make: MakeDriver[D], address: str | None, *, codec: str, security: object) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if any(one.binds for one in addresses):
            raise BadAddress("a Requester connects; let the Replier bind")
        self._codec = codec_of(codec)
        self._engine = RequesterEngine(addresses, new_nonce(), self._codec, jitter)
        self._outcomes: dict[int, Outcome] = {}
        self._known: set[str] = set()  # names that were checked
        self._decoders: dict[Any, BodyDecoder] = {}
        self._driver = make(self._engine, SocketKind.DEALER, self._take, in_background=self._wants_keeper)
        self._driver.start()

    def _wants_keeper(self) -> bool:
        return not self._engine.is_ready and not self._engine.closed

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Outcome):
                self._outcomes[event.id] = event

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
        driver.check()
        if service not in self._known:
            self._remember(service)
        if not timeout_s > 0:
            raise BadArgument(f"timeout_s={timeout_s!r}: a request needs a number of seconds above 0")
        payload = encode_only(self._codec, body)
        if len(payload) > engine.sessions[0].limits.batch_bytes_max:
            raise TooLarge(f"request body of {len(payload)} bytes is above the limit of the other end")
        check_headers(headers)
        columns = pack_columns(Columns(headers=[headers]), MSGPACK) if headers else b""
        timeout_us = int(min(timeout_s, 1e8) * 1e6)
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
        return self._decoder(type).only(outcome.codec, outcome.payload)

    def _remember(self, service: str) -> None:
        check_name(service, "service")
        if len(self._known) >= _SERVICES_REMEMBERED:
            self._known.clear()
        self._known.add(service)

    def _decoder(self, type: Any) -> BodyDecoder:
        try:
            found = self._decoders.get(type)
        except TypeError:  # a type that cannot be hashed
            return BodyDecoder(type)
        if found is None:
            found = self._decoders[type] = BodyDecoder(type)
        return found
