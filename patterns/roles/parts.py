"""A streamed reply as the requester takes it: part by part, with credit for those ahead of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic

from patterns.core.request import Outcome, PartReceived
from patterns.io.clock import clock
from patterns.io.waiting import Steps, Wait
from patterns.roles.role import D
from patterns.wire.codec import BodyDecoder
from patterns.wire.errors import Closed, TimedOut, ZbrokerError
from patterns.wire.limits import PART_BYTES_WINDOW, PARTS_WINDOW

if TYPE_CHECKING:
    from patterns.roles.requester import RequesterRole

END: Final = object()  # instead of a part; None is one


class StreamedReplyRole(Generic[D]):
    """See patterns.sync.StreamedReply."""

    def __init__(
        self, requester: RequesterRole[D], service: str, number: int, decoder: BodyDecoder, part_timeout_us: int
    ) -> None:
        self._requester = requester
        self._service = service
        self._number = number
        self._decoder = decoder
        self._part_timeout_us = part_timeout_us
        self._parts: deque[PartReceived] = deque()
        self._outcome: Outcome | None = None
        self._is_over = False
        self._taken = 0
        self._taken_bytes = 0
        self._granted = (PARTS_WINDOW, PART_BYTES_WINDOW)

    def _has_news(self) -> bool:
        requester = self._requester
        return (
            bool(self._parts)
            or self._outcome is not None
            or requester._driver.is_closed
            or requester._engine.error is not None
        )

    def _next(self) -> Steps[Any]:
        """The next part, or END. Raises the outcome, if that is an error, once the parts before it are taken."""
        if self._is_over:
            return END
        if not self._parts and self._outcome is None:
            try:
                came = yield Wait(self._has_news, clock() + self._part_timeout_us)
            except BaseException:  # Ctrl-C or cancelled while waiting: the replier is told that nobody waits
                self.close()
                raise
            if not came:
                self.close()
                raise self._too_late()
        return self._take()

    def _take(self) -> Any:
        """What is there already."""
        outcome = (
            self._outcome
        )  # looked at before the parts: another thread may put the last part and the outcome there
        try:
            if self._parts:
                part = self._parts.popleft()
                self._took(part.size)
                return self._decoder.only(part.codec, part.payload)
            return self._last(outcome)
        except BaseException:
            self.close()
            raise

    def _last(self, outcome: Outcome | None) -> Any:
        """What the outcome says."""
        if outcome is None:
            self._requester._driver.check()  # closed, or refused for good
            raise Closed("the requester was closed")
        self._over()
        if outcome.error is not None:
            raise outcome.error
        return self._decoder.only(outcome.codec, outcome.payload) if outcome.has_body else END

    def _took(self, size: int) -> None:
        """Let more come before what was granted is used up."""
        self._taken += 1
        self._taken_bytes += size
        messages, size_max = self._granted
        half_taken = messages - self._taken <= PARTS_WINDOW // 2
        if self._outcome is None and (half_taken or size_max - self._taken_bytes <= PART_BYTES_WINDOW // 2):
            messages, size_max = self._granted = (self._taken + PARTS_WINDOW, self._taken_bytes + PART_BYTES_WINDOW)
            requester, number = self._requester, self._number
            requester._driver.run(lambda now: requester._engine.widen(number, messages, size_max, now))

    def _too_late(self) -> ZbrokerError:
        engine, seconds = self._requester._engine, self._part_timeout_us / 1e6
        if not self._taken and not engine.is_ready:
            return engine.unavailable()
        before = f"{self._taken} parts" if self._taken else "none"
        return TimedOut(f"streamed reply of {self._service!r}: no part within {seconds:g} s; {before} came before")

    def close(self) -> None:
        """Leave a reply that has not ended: the replier is told to stop. Never waits; more than once is fine."""
        if not self._is_over:
            self._over()
            self._requester._leave_stream(self._number)

    def _over(self) -> None:
        self._is_over = True
        self._parts.clear()
        self._requester._streams.pop(self._number, None)

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):  # left by break, by an exception, or never begun
            self._is_over = True
            requester, number = self._requester, self._number
            requester._driver.abandon(lambda: requester._leave_stream(number))
