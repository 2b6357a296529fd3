"""The Requester of the sync shell."""

from __future__ import annotations

from typing import Any

from patterns.core.request import Outcome, RequesterEngine
from patterns.io.clock import clock
from patterns.io.driver import Driver
from patterns.io.links import SocketKind
from patterns.sync.role import Role, codec_of, jitter, new_nonce, refuse_security, resolve
from patterns.wire.codec import BodyDecoder, encode_only
from patterns.wire.errors import BadAddress, BadArgument, TooLarge
from patterns.wire.frames import MSGPACK, pack_columns
from patterns.wire.messages import Columns
from patterns.wire.names import check_name

_SERVICES_REMEMBERED = 10_000
_GRACE_US = (
    1_000_000  # the engine gives each request its outcome by its deadline; this only guards against our own mistakes
)


class Requester(Role):
    """Asks services for replies; threads may share it.

    Args:
        address: `tcp://`, `ipc://`, `inproc://` of repliers, or `zb://` of brokers; several with commas. None: ZBROKER_URL.
        codec: of request bodies; replies are decoded from whatever they come in.
        security: not built yet.

    Raises:
        BadAddress, BadArgument, NotInThisDeployment.
    """

    def __init__(self, address: str | None = None, *, codec: str = "msgpack", security: object = None) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if any(one.binds for one in addresses):
            raise BadAddress("a Requester connects; let the Replier bind")
        self._codec = codec_of(codec)
        self._engine = RequesterEngine(addresses, new_nonce(), self._codec, jitter)
        self._outcomes: dict[int, Outcome] = {}
        self._known: set[str] = set()  # names that were checked
        self._decoders: dict[Any, BodyDecoder] = {}
        self._driver = Driver(self._engine, SocketKind.DEALER, self._take, in_background=self._wants_keeper)
        self._driver.start()

    def _wants_keeper(self) -> bool:
        return not self._engine.is_ready and not self._engine.closed

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Outcome):
                self._outcomes[event.id] = event

    def request(
        self,
        service: str,
        body: Any,
        *,
        timeout_s: float = 5.0,
        wait_s: float = 1.0,
        idempotent: bool = False,
        headers: dict[str, str] | None = None,
        type: Any = Any,
    ) -> Any:
        """Ask and wait for the one outcome.

        Args:
            service: the name that repliers offer.
            body: what the codec can express.
            timeout_s: the deadline of the whole, seconds.
            wait_s: how long to wait for a first replier of the service.
            idempotent: it may be done twice; then a lost replier or broker leads to another try, not to an error.
            headers: str to str.
            type: what the reply is decoded into and validated as.

        Returns:
            The reply's body.

        Raises:
            TimedOut: no outcome in time.
            NoReplier, ReplierLost, OutcomeUnknown, Overloaded, ShuttingDown: see their texts.
            ApplicationError, HandlerFailed: the replier's own answer; `.code` and `.detail` are its words.
            ValidationFailed: the reply is not of `type`.
            BadName, BadBody, TooLarge: the request cannot be sent.
            Unavailable: nobody to connect to.
        """
        driver = self._driver
        driver.check()
        if service not in self._known:
            self._remember(service)
        if not timeout_s > 0:
            raise BadArgument(f"timeout_s={timeout_s!r}: a request needs a number of seconds above 0")
        payload = encode_only(self._codec, body)
        if len(payload) > self._engine.sessions[0].limits.batch_bytes_max:
            raise TooLarge(f"request body of {len(payload)} bytes is above the limit of the other end")
        columns = pack_columns(Columns(headers=[headers]), MSGPACK) if headers else b""
        outcome = self._ask(service, payload, columns, timeout_s, wait_s, idempotent)
        if outcome.error is not None:
            raise outcome.error
        return self._decoder(type).only(outcome.codec, outcome.payload)

    def _ask(
        self, service: str, payload: bytes, columns: bytes, timeout_s: float, wait_s: float, idempotent: bool
    ) -> Outcome:
        driver, engine, outcomes = self._driver, self._engine, self._outcomes
        timeout_us = int(min(timeout_s, 1e8) * 1e6)
        with driver.lock:
            now = clock()
            number = engine.request(
                service,
                self._codec,
                payload,
                columns,
                timeout_us=timeout_us,
                wait_ms=int(min(wait_s, timeout_s) * 1_000),
                idempotent=idempotent,
                now=now,
            )
        try:
            driver.wait(
                lambda: number in outcomes or driver.is_closed or engine.error is not None, now + timeout_us + _GRACE_US
            )
        except BaseException:  # Ctrl-C while waiting: the replier is told that nobody waits
            driver.run(lambda then: engine.forget(number, then))
            outcomes.pop(number, None)
            raise
        if number not in outcomes:
            driver.check()
        return outcomes.pop(number)

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
