"""The Requester of the sync shell."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from patterns.io.driver import Driver
from patterns.roles.parts import END, StreamedReplyRole
from patterns.roles.requester import RequesterRole
from patterns.sync.role import SyncRole


class StreamedReply(StreamedReplyRole[Driver]):
    """The parts of a reply, in order; from Requester.stream(). Iterate it: `for part in requester.stream(..)`.

    The loop ends when the replier has ended the reply, and raises what the reply ended with if that is an error, after the
    parts that came before it. Leaving it early, by break, close(), or letting go of it, tells the
    replier to stop; `with` leaves at a known moment, whoever still holds it. One thread at a time.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        part = self._take() if self._parts else self._requester._driver.drive(self._next())
        if part is END:
            raise StopIteration
        return part

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Requester(RequesterRole[Driver], SyncRole):
    """Asks services for replies; threads may share it.

    Args:
        address: `tcp://`, `ipc://`, `inproc://` of repliers, or `zb://` of brokers; several with commas. None: ZBROKER_URL.
        codec: of request bodies; replies are decoded from whatever they come in.
        type: what replies are validated as where request() says nothing else.
        security: not built yet.

    Raises:
        BadAddress, BadArgument, NotInThisDeployment.
    """

    def __init__(
        self, address: str | None = None, *, codec: str = "msgpack", type: Any = Any, security: object = None
    ) -> None:
        super().__init__(Driver, address, codec=codec, type=type, security=security)

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
            wait_s: how long to wait for a first replier of the service; at most nine tenths of timeout_s, so that NoReplier
                is told before the deadline.
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
        return self._driver.drive(self._request(service, body, timeout_s, wait_s, idempotent, headers, type))

    def stream(
        self,
        service: str,
        body: Any,
        *,
        timeout_s: float | None = None,
        part_timeout_s: float = 5.0,
        wait_s: float = 1.0,
        idempotent: bool = False,
        headers: dict[str, str] | None = None,
        type: Any = Any,
    ) -> StreamedReply:
        """Ask at once, and iterate over the parts of the reply. Whoever replies is a little ahead, and waits then.

        A service that replies once gives one part.

        Args:
            service: the name that repliers offer.
            body: what the codec can express.
            timeout_s: the deadline of the whole, as in request(); None: as long as parts come.
            part_timeout_s: how long to wait for each part, seconds.
            wait_s: how long to wait for a first replier of the service; at most nine tenths of timeout_s, so that NoReplier
                is told before the deadline.
            idempotent: it may be done twice; asked again when a replier or broker is lost before the first part came.
            headers: str to str.
            type: what each part is decoded into and validated as.

        Raises:
            BadArgument, BadName, BadBody, TooLarge: the request cannot be sent.

        While iterating:
            TimedOut: no part in part_timeout_s, or no end in timeout_s.
            ReplierLost, OutcomeUnknown: in the middle, too; what came before it was handed out.
            NoReplier, Overloaded, ShuttingDown, Unavailable, ApplicationError, HandlerFailed: as from request().
            ValidationFailed: a part is not of `type`.
        """
        return self._stream(StreamedReply, service, body, timeout_s, part_timeout_s, wait_s, idempotent, headers, type)
