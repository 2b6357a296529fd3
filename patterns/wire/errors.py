"""The one tree of errors. Each has a number that also travels on the wire (SPEC.md 5.1) and a text that says what to do."""

from __future__ import annotations

import copy
from typing import ClassVar, Self


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

    def anew(self) -> Self:
        """The same error as if it had never been raised: without the frames of those who did, and what they hold.

        For who keeps an error where the garbage collector does not look (`gc=False`): an error that was raised there, and is
        kept by what stands in its own frames, would stay for ever.
        """
        return copy.copy(self)

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
    """The broker and this library have no version of the protocol in common. Asking again does not help: update the older one."""

    number, name = 101, "VERSION_UNSUPPORTED"


class FeatureUnsupported(SessionError):
    """The broker does not have what this program requires. Asking again does not help."""

    number, name = 102, "FEATURE_UNSUPPORTED"


class NoSession(SessionError):
    """The other end does not know this session, after a restart for example. The library says HELLO again by itself."""

    number, name, retryable = 103, "NO_SESSION", True


class UnknownCommand(SessionError):
    """The other end is older, and does not know a kind of message. Asking again does not help."""

    number, name = 104, "UNKNOWN_COMMAND"


class WrongRole(SessionError):
    """A session sent what its role may not. Asking again does not help."""

    number, name = 105, "WRONG_ROLE"


class Fenced(SessionError):
    """A younger Producer of the same name has taken over. This one is finished: let it end."""

    number, name = 106, "FENCED"


class UnknownProducer(SessionError):
    """The broker does not know the producer of a batch, and stored nothing of it."""

    number, name = 107, "UNKNOWN_PRODUCER"


class SequenceGap(SessionError):
    """A batch before this one was not taken. The library sends again from there by itself."""

    number, name, retryable = 108, "SEQUENCE_GAP", True


class SequenceReused(SessionError):
    """A batch differs from the one that was stored under its number; nothing of it is stored. A fault of the client."""

    number, name = 109, "SEQUENCE_REUSED"


class StaleLease(SessionError):
    """The message is not ours to settle any more, or cannot be proven to be; whoever has it now settles it. Asking again does not help."""

    number, name = 110, "STALE_LEASE"


class Unavailable(SessionError, ConnectionError):
    """Nobody answers there. Asking again may help; the library goes on trying by itself."""

    number, name, retryable = 111, "UNAVAILABLE", True


class Closed(SessionError):
    """close() was called on this object. Make another one."""

    number, name = 112, "CLOSED"


class Forked(SessionError):
    """This object belongs to the process that made it. Make another one after the fork."""

    number, name = 113, "FORKED"


class Insecure(SessionError):
    """What was asked for would be readable, or open to others, in the network. Asking again does not help."""

    number, name = 114, "INSECURE"


class BadName(NameOrPermissionError, ValueError):
    """A name, topic or pattern breaks a rule, which the text names. Asking again does not help."""

    number, name = 200, "BAD_NAME"


class BadAddress(NameOrPermissionError, ValueError):
    """An address breaks a rule, or is not for this role; the text says which. Asking again does not help."""

    number, name = 201, "BAD_ADDRESS"


class NoReplier(NameOrPermissionError):
    """Nobody offers the service, or who did has not begun with the request. Asking again is safe and may help."""

    number, name, retryable = 202, "NO_REPLIER", True


class NoSuchStream(NameOrPermissionError):
    """There is no such stream, and it may not be made by use. Asking again does not help."""

    number, name = 203, "NO_SUCH_STREAM"


class NoSuchGroup(NameOrPermissionError):
    """There is no such group, and it may not be made by use. Asking again does not help."""

    number, name = 204, "NO_SUCH_GROUP"


class AlreadyExists(NameOrPermissionError):
    """What should be made is there already. Asking again does not help."""

    number, name = 205, "ALREADY_EXISTS"


class NotPermitted(NameOrPermissionError):
    """This client may not do that. Asking again does not help."""

    number, name = 206, "NOT_PERMITTED"


class NotInThisDeployment(NameOrPermissionError):
    """It is not built, or not there in this deployment, peer to peer for example. Asking again does not help."""

    number, name = 207, "NOT_IN_THIS_DEPLOYMENT"


class BadBody(ContentError, ValueError):
    """The codec cannot express the body, or the bytes are not of their codec. Asking again does not help."""

    number, name = 300, "BAD_BODY"


class TooLarge(ContentError, ValueError):
    """A body, or what travels with it, is above its limit, which the text names. Asking again does not help."""

    number, name = 301, "TOO_LARGE"


class Untranslatable(ContentError, ValueError):
    """The other codec cannot express the body; the text has the path of the value. Asking again does not help."""

    number, name = 302, "UNTRANSLATABLE"


class ValidationFailed(ContentError, ValueError):
    """The body is not of the wanted type; the text has the path of the value. Asking again does not help."""

    number, name = 303, "VALIDATION_FAILED"


class BadArgument(ContentError, ValueError):
    """An argument is of the wrong type or out of range. Asking again does not help: the call must be mended."""

    number, name = 304, "BAD_ARGUMENT"


class Overloaded(LoadError):
    """The other end has no room at the moment, and took nothing. Asking again later helps."""

    number, name = 400, "OVERLOADED"


class BufferFull(LoadError):
    """This Producer has no room, and did not take the message. Posting again helps, when confirms have come."""

    number, name = 401, "BUFFER_FULL"


class CreditExceeded(LoadError):
    """A peer sent more than it was allowed, and its session ended. A fault of the client."""

    number, name, retryable = 402, "CREDIT_EXCEEDED", False


class ShuttingDown(LoadError):
    """The other end is leaving, and took nothing. Asking again helps, elsewhere or after `retry_after_ms`."""

    number, name = 403, "SHUTTING_DOWN"


class SlowSubscriber(LoadError):
    """overflow="disconnect", and the subscriber took too slowly: its session ended. Make another one."""

    number, name, retryable = 404, "SLOW_SUBSCRIBER", False


class StreamFull(LoadError):
    """A stream, or all of a broker's together, keeps as much as it may, and did not take the message; the text says which limit.

    Asking again helps when consumers have made room, or somebody has: `retry_after_ms` says when to look. A Producer does so by itself.
    """

    number, name = 405, "STREAM_FULL"


class StorageFailed(StorageError):
    """The broker's disk has failed; nothing is stored until somebody looks after it. Asking again does not help."""

    number, name = 500, "STORAGE_FAILED"


class StorageFull(StorageError):
    """The broker's disk is full, and the message is not stored. Asking again helps when there is room."""

    number, name, retryable = 501, "STORAGE_FULL", True


class Damaged(StorageError):
    """What was stored is rotten on disk; the text says which range. Asking again does not help."""

    number, name = 502, "DAMAGED"


class OutcomeUnknown(OutcomeError):
    """It may have happened, or not: the connection broke on the way. Ask again if it may happen twice."""

    number, name = 600, "OUTCOME_UNKNOWN"


class ReplierLost(OutcomeError):
    """The replier was lost after it was given the request, which may have been done. Ask again if it may be done twice."""

    number, name = 601, "REPLIER_LOST"


class TimedOut(OutcomeError, TimeoutError):
    """No outcome in time; it may have happened, or happen yet. Ask again if it may happen twice."""

    number, name = 602, "TIMED_OUT"


class Cancelled(OutcomeError):
    """Nobody waits for this reply any more."""

    number, name = 603, "CANCELLED"


class ApplicationError(RemoteError):
    """The replier answered with an error of its own: `code` and `detail` are its words."""

    number, name = 700, "APPLICATION_ERROR"


class HandlerFailed(RemoteError):
    """The replier's handler raised what it did not foresee; the text names the exception."""

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
