"""The Consumer: takes messages from a stream."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime, timedelta
from typing import Any, Final

from patterns.core.consume import ConsumerEngine, Delivered, LostOffsets, SettledEvent, TakesLong
from patterns.core.message import Bodies
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.waiting import Steps, Wait
from patterns.roles.arguments import check_count, check_limits, check_processing
from patterns.roles.lending import EPOCH, Batch
from patterns.roles.role import (
    D,
    MakeDriver,
    Role,
    codec_of,
    deadline_of,
    jitter,
    new_nonce,
    raise_error,
    raise_if_never_there,
    refuse_security,
    resolve,
)
from patterns.wire.errors import (
    BadArgument,
    BadBody,
    LocalProtocolError,
    NotInThisDeployment,
    StaleLease,
    TimedOut,
    ZbrokerError,
)
from patterns.wire.limits import INTEGER_MAX
from patterns.wire.messages import Codec
from patterns.wire.names import check_name

_CONFIRM_TIMEOUT_S: Final = 10.0


class ConsumerRole(Role[D]):
    """See patterns.sync.Consumer."""

    def __init__(
        self,
        make: MakeDriver[D],
        address: str | None,
        stream: str,
        *,
        group: str | None,
        start: str | int | datetime,
        credit: int,
        codec: str,
        type: Any,
        idle_timeout_s: float | None,
        processing_max_s: float | None,
        security: object,
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if not addresses[0].brokered:
            raise NotInThisDeployment("a Consumer needs a broker with a journal in this version: use a zb:// address")
        check_name(stream, "stream")
        if group is not None:
            check_name(group, "group")
        check_count("credit", credit, 1_000_000, "messages")
        if processing_max_s is not None:
            check_processing(processing_max_s)
        check_limits(idle_timeout_s=idle_timeout_s)
        self.lost_offsets: list[tuple[int, int]] = []  # what damage on the broker's disk took, as ranges
        begins, published_at = _start(start)
        self._bodies = Bodies(type)
        self._idle_timeout_s = idle_timeout_s
        self._engine = ConsumerEngine(
            addresses,
            stream,
            group or "",
            begins,
            new_nonce(),
            codec_of(codec),
            jitter,
            credit=credit,
            processing_max_us=None if processing_max_s is None else int(processing_max_s * 1e6),
            published_at=published_at,
        )
        self._delivered: deque[Delivered] = deque()
        self._settled: list[tuple[int, int, int, str, int, str]] = []
        self._answers: dict[int, SettledEvent] = {}
        self._confirms: set[int] = set()  # numbers of answers that somebody waits for
        self._asking = 0  # callers that wait for a message, and so compute nothing
        self._thread = 0  # the one that iterates and makes turns itself; 0: none does
        self._driver = make(
            self._engine,
            SocketKind.DEALER,
            self._take,
            before_turn=self._drain,
            in_background=self._wants_keeper,
        )
        self._start()

    def _wants_keeper(self) -> bool:
        return self._engine.needs_driver

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Delivered):
                self._delivered.append(event)
            elif isinstance(event, SettledEvent) and event.id in self._confirms:
                self._answers[event.id] = event
            elif isinstance(event, LostOffsets):
                self.lost_offsets.append((event.first, event.last))
            elif isinstance(event, TakesLong):
                self._give_back(clock())

    def _give_back(self, now: int) -> None:
        """A handler has had its time: an attempt counts for what it was given, and not for what only waited for it."""
        engine = self._engine
        if engine.is_overdue(now):
            self._release_all()
            self._drain(now)
            engine.give_back(now, leaves=not self._asking)
            self._driver.kick()  # what that says is sent by the next turn

    def _drain(self, now: int) -> None:
        """Tell what was settled since the last turn."""
        end = len(self._settled)
        if end:
            settled = self._settled[:end]
            del self._settled[:end]
            for lease, first, last, action, delay_ms, reason in settled:
                self._engine.settle(lease, first, last, action, delay_ms=delay_ms, reason=reason)
        if self._engine.has_news:
            self._engine.tell(now)

    @property
    def stale(self) -> int:
        """Settles that came too late: the messages were somebody else's by then."""
        return self._engine.stale

    # -- taking --------------------------------------------------------------------------------------------------

    def _begin(self, mode: str) -> None:
        """What is to be taken: "slices" for messages one by one, "batches" as they were stored."""
        if not self._driver.is_over():
            self._driver.run(lambda now: self._engine.use(mode, now))

    def _next_batch(self, mode: str, timeout_s: float | None) -> Steps[Batch | None]:
        """The next one; None when none came in time, or after close()."""
        driver, delivered, engine = self._driver, self._delivered, self._engine
        if driver.forked:  # what waits here is the parent's, as is the lock
            driver.check()
        while True:
            if not delivered:
                if driver.is_over():
                    return None
                with driver.lock:  # where it is decided whether somebody computes for too long
                    self._asking += 1
                    engine.wanted(clock())
                try:
                    found = yield Wait(self._has_news, deadline_of(timeout_s))
                finally:
                    self._asking -= 1
                if not found:
                    raise_if_never_there(engine)
                    return None
                continue
            event = self._first_delivered()
            if event is None or not engine.holds(event.lease):
                continue  # the connection broke while it waited here: by now it is another member's, or comes again
            with driver.lock:
                engine.taken(event.count, event.size, clock())
            if mode == "slices" or not delivered:
                driver.run()
            try:
                batch = Batch(self, event)
                if mode == "slices":
                    batch.bodies  # noqa: B018  what cannot be decoded is refused here, not in the caller's loop
            except BadBody:
                engine.counters["malformed"] += 1
                continue
            return batch

    def _first_delivered(self) -> Delivered | None:
        """Taken from those that wait; None when the keeper has just given them back."""
        try:
            return self._delivered.popleft()
        except IndexError:
            return None

    def _has_news(self) -> bool:
        return bool(self._delivered) or self._driver.is_closed or self._engine.closed or self._engine.error is not None

    def _ready(self, timeout_s: float) -> Steps[None]:
        self._driver.check()
        engine = self._engine
        if engine.is_out:
            self._driver.run(engine.come_back)
        if not (yield Wait(lambda: engine.joined or engine.error is not None, deadline_of(timeout_s), True)):
            self._driver.check()
            raise engine.unavailable()
        raise_error(engine)

    def _decode(self, codec: Codec, payload: bytes, count: int, sizes: list[int] | None) -> list[Any]:
        return self._bodies.decode(codec, payload, count, sizes)

    # -- settling ------------------------------------------------------------------------------------------------

    def _settle(self, lease: int, first: int, last: int, action: str, *, delay_ms: int = 0, reason: str = "") -> None:
        """Note it; the next turn tells. The iterating thread makes that turn itself when it asks for more."""
        driver = self._driver
        if driver.forked or driver.is_closed or lease <= self._engine.given_back_to:  # without a group both are 0
            self._check_settles(lease, first, last)
        self._settled.append((lease, first, last, action, delay_ms, reason))
        if threading.get_ident() != self._thread and not driver.kicked:
            driver.check()
            driver.kick()

    def _release(self, lease: int, first: int, last: int) -> None:
        """Note that nobody was given it; who calls drains what is noted."""
        self._settled.append((lease, first, last, "release", 0, ""))

    def _check_settles(self, lease: int, first: int, last: int) -> None:
        self._driver.check()
        if not self._engine.group:
            raise LocalProtocolError(
                f"this Consumer reads stream {self._engine.stream!r} without a group, so nothing is lent to it and "
                "there is nothing to settle; give it group=, or leave out ack(), nack(), reject() and extend()"
            )
        if lease <= self._engine.given_back_to:
            self._engine.stale += last - first + 1
            raise StaleLease(
                f"{self._engine.place(first)} was given back for another member: nothing was taken or settled here for "
                f"processing_max_s={self._engine.processing_max_s} s; raise that, or extend() before it is over"
            )

    def _failed(self) -> None:
        """An attempt counts for what the caller was given and has not settled; what only waited for it is released."""
        driver, engine = self._driver, self._engine
        if driver.is_closed or driver.forked or engine.error is not None or not engine.group:
            return
        try:
            self._release_all()
            driver.run(self._give_up)
        except ZbrokerError:
            return  # it has just ended; and the caller shall see its own exception

    def _give_up(self, now: int) -> None:
        self._drain(now)
        self._engine.give_up(now)

    def _release_all(self) -> None:
        while (event := self._first_delivered()) is not None:
            Batch(self, event)._release()
        self._release_waiting()

    def _release_waiting(self) -> None:
        """Release what iteration has taken and not given yet; only the shell knows."""

    def _settle_surely(self, lease: int, offset: int, action: str, reason: str) -> Steps[None]:
        driver, engine, answers = self._driver, self._engine, self._answers
        self._check_settles(lease, offset, offset)
        with driver.lock:
            self._drain(clock())
            number = engine.settle_surely(lease, offset, offset, clock(), action, reason=reason)
            self._confirms.add(number)
        try:
            yield Wait(lambda: number in answers or driver.is_closed, deadline_of(_CONFIRM_TIMEOUT_S))
        finally:
            self._confirms.discard(number)
            answer = answers.pop(number, None)
        if answer is None:
            driver.check()
            raise TimedOut(
                f"{engine.place(offset)}: the broker has not confirmed the {action} within {_CONFIRM_TIMEOUT_S} s"
            )
        if answer.error is not None or answer.stale:
            raise answer.error or StaleLease(
                f"{engine.place(offset)} was not ours any more, so this {action} changes nothing: its lease ran out or was given "
                "back, and the group delivers it again, or has"
            )


def _start(start: str | int | datetime) -> tuple[str | int, int | None]:
    """What JOIN says of it: `start`, and of an instant `published_at`, in ms since 1970; a part of one counts as whole."""
    if isinstance(start, datetime):
        if start.utcoffset() is None:
            raise BadArgument(f"start={start!r}: a time without a zone; datetime.now(timezone.utc) has one")
        return "time", max(0, -((EPOCH - start) // timedelta(milliseconds=1)))
    if start in ("first", "new"):
        return start, None
    if isinstance(start, bool) or not isinstance(start, int) or not 0 <= start <= INTEGER_MAX:
        raise BadArgument(f"start={start!r}: 'first', 'new', an offset, or an aware datetime")
    return start, None
