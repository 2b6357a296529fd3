"""The Requester of the asyncio shell."""

from __future__ import annotations

from typing import Any

from patterns.aio.driver import AioDriver
from patterns.aio.role import AioRole
from patterns.roles.requester import RequesterRole


class Requester(RequesterRole[AioDriver], AioRole):
    """Asks services for replies; tasks of one loop may share it.

    Args:
        address: `tcp://`, `ipc://`, `inproc://` of repliers, or `zb://` of brokers; several with commas. None: ZBROKER_URL.
        codec: of request bodies; replies are decoded from whatever they come in.
        security: not built yet.

    Raises:
        BadAddress, BadArgument, NotInThisDeployment.
    """

    def __init__(self, address: str | None = None, *, codec: str = "msgpack", security: object = None) -> None:
        super().__init__(AioDriver, address, codec=codec, security=security)

    async def request(
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
        return await self._driver.drive(self._request(service, body, timeout_s, wait_s, idempotent, headers, type))
