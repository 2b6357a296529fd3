"""The one tree of errors. Each has a number that also travels on the wire (SPEC.md 5.1) and a text that says what to do."""

from __future__ import annotations

from typing import ClassVar


class ZbrokerError(Exception):
    """Any error of zbroker; catch this to catch them all.

    Attributes:
        number: stable; its hundreds are the class.
        name: as on the wire, UPPER_CASE.
        detail: what happened, to which name, with which limit, and what to do.
        code: an application's own code ("no_such_sku"); empty for errors of zbroker.
        retryable: the same call may succeed later.
        retry_after_ms: not before; 0 when nothing is known.
        part: which part of a message is at fault, where one number covers several; for counters, not on the wire.
    """

    number: ClassVar[int] = 0
    name: ClassVar[str] = "ERROR"
    part: ClassVar[str] = ""
    retryable: bool = False

    def __init__(
        self, detail: str = "", *, code: str = "", retryable: bool | None = None, retry_after_ms: int = 0
    ) -> None:
        super().__init__(detail or self.name)
        self.detail = detail
        self.code = code
        self.retry_after_ms = retry_after_ms
        if retryable is not None:
            self.retryable = retryable

    @property
    def counted_as(self) -> str:
        """Under which name `status` counts it: ours alone, never a peer's words, so there are only so many."""
        return f"{self.name}.{self.part}" if self.part else self.name


class SessionError(ZbrokerError):
    """Class 1xx: the session or the protocol."""

    number = 199


class NameOrPermissionError(ZbrokerError):
    """Class 2xx: a name, an address or a permission."""

    number = 299


class ContentError(ZbrokerError):
    """Class 3xx: what a message holds."""

    number = 399


class LoadError(ZbrokerError):
    """Class 4xx: too much at the moment."""

    number = 499
    retryable = True


class StorageError(ZbrokerError):
    """Class 5xx: the disk."""

    number = 599


class OutcomeError(ZbrokerError):
    """Class 6xx: whether it happened is not known."""

    number = 699


class RemoteError(ZbrokerError):
    """Class 7xx: the application at the other end."""

    number = 799


class ProtocolError(SessionError):
    """Frames that SPEC.md does not allow; see Local- and RemoteProtocolError for who caused it."""

    number, name = 100, "PROTOCOL_ERROR"


class LocalProtocolError(ProtocolError):
    """We did what SPEC.md does not allow: a mistake in this library or in its caller."""


class RemoteProtocolError(ProtocolError):
    """The peer did what SPEC.md does not allow."""


class BadFrames(RemoteProtocolError):
    """Frames that are no message of ours: their number, or frame 1."""

    part = "frames"


class BadHeader(RemoteProtocolError):
    """A header that is not one of its kind."""

    part = "header"


class BadColumns(RemoteProtocolError):
    """Columns that are none, or not as long as their batch."""

    part = "columns"


class BadSize(RemoteProtocolError):
    """A header or columns above their limit."""

    part = "size"


class VersionUnsupported(SessionError):
    number, name = 101, "VERSION_UNSUPPORTED"


class FeatureUnsupported(SessionError):
    number, name = 102, "FEATURE_UNSUPPORTED"


class NoSession(SessionError):
    number, name, retryable = 103, "NO_SESSION", True


class UnknownCommand(SessionError):
    number, name = 104, "UNKNOWN_COMMAND"


class WrongRole(SessionError):
    number, name = 105, "WRONG_ROLE"


class Fenced(SessionError):
    number, name = 106, "FENCED"


class UnknownProducer(SessionError):
    number, name = 107, "UNKNOWN_PRODUCER"


class SequenceGap(SessionError):
    number, name, retryable = 108, "SEQUENCE_GAP", True


class SequenceReused(SessionError):
    number, name = 109, "SEQUENCE_REUSED"


class StaleLease(SessionError):
    number, name = 110, "STALE_LEASE"


class Unavailable(SessionError, ConnectionError):
    number, name, retryable = 111, "UNAVAILABLE", True


class Closed(SessionError):
    number, name = 112, "CLOSED"


class Forked(SessionError):
    number, name = 113, "FORKED"


class Insecure(SessionError):
    number, name = 114, "INSECURE"


class BadName(NameOrPermissionError, ValueError):
    number, name = 200, "BAD_NAME"


class BadAddress(NameOrPermissionError, ValueError):
    number, name = 201, "BAD_ADDRESS"


class NoReplier(NameOrPermissionError):
    number, name, retryable = 202, "NO_REPLIER", True


class NoSuchStream(NameOrPermissionError):
    number, name = 203, "NO_SUCH_STREAM"


class NoSuchGroup(NameOrPermissionError):
    number, name = 204, "NO_SUCH_GROUP"


class AlreadyExists(NameOrPermissionError):
    number, name = 205, "ALREADY_EXISTS"


class NotPermitted(NameOrPermissionError):
    number, name = 206, "NOT_PERMITTED"


class NotInThisDeployment(NameOrPermissionError):
    number, name = 207, "NOT_IN_THIS_DEPLOYMENT"


class BadBody(ContentError, ValueError):
    number, name = 300, "BAD_BODY"


class TooLarge(ContentError, ValueError):
    number, name = 301, "TOO_LARGE"


class Untranslatable(ContentError, ValueError):
    number, name = 302, "UNTRANSLATABLE"


class ValidationFailed(ContentError, ValueError):
    number, name = 303, "VALIDATION_FAILED"


class BadArgument(ContentError, ValueError):
    number, name = 304, "BAD_ARGUMENT"


class Overloaded(LoadError):
    number, name = 400, "OVERLOADED"


class BufferFull(LoadError):
    number, name = 401, "BUFFER_FULL"


class CreditExceeded(LoadError):
    number, name, retryable = 402, "CREDIT_EXCEEDED", False


class ShuttingDown(LoadError):
    number, name = 403, "SHUTTING_DOWN"


class SlowSubscriber(LoadError):
    number, name, retryable = 404, "SLOW_SUBSCRIBER", False


class StorageFailed(StorageError):
    number, name = 500, "STORAGE_FAILED"


class StorageFull(StorageError):
    number, name, retryable = 501, "STORAGE_FULL", True


class Damaged(StorageError):
    number, name = 502, "DAMAGED"


class OutcomeUnknown(OutcomeError):
    number, name = 600, "OUTCOME_UNKNOWN"


class ReplierLost(OutcomeError):
    number, name = 601, "REPLIER_LOST"


class TimedOut(OutcomeError, TimeoutError):
    number, name = 602, "TIMED_OUT"


class Cancelled(OutcomeError):
    number, name = 603, "CANCELLED"


class ApplicationError(RemoteError):
    number, name = 700, "APPLICATION_ERROR"


class HandlerFailed(RemoteError):
    number, name = 701, "HANDLER_FAILED"


def _leaves(root: type[ZbrokerError]) -> dict[int, type[ZbrokerError]]:
    """Every numbered error under `root`; those without a number of their own share their parent's."""
    found: dict[int, type[ZbrokerError]] = {}
    for child in root.__subclasses__():
        if "number" in vars(child):
            found[child.number] = child
        found = {**_leaves(child), **found}
    return found


BY_NUMBER: dict[int, type[ZbrokerError]] = _leaves(ZbrokerError)


def from_wire(
    number: int, detail: str, *, code: str = "", retryable: bool = False, retry_after_ms: int = 0
) -> ZbrokerError:
    """The error of a number that came over the wire; an unknown number is handled by its class (SPEC.md 5.1)."""
    kind = BY_NUMBER.get(number) or BY_NUMBER.get(number // 100 * 100 + 99) or ZbrokerError
    return kind(detail, code=code, retryable=retryable, retry_after_ms=retry_after_ms)
