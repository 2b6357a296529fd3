"""The Producer: appends messages to a stream, each stored once and confirmed when it is on disk.

post() itself stands in both shells: it is hot, and differs in what it does without room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, NoReturn

from patterns.core.client import Failed
from patterns.core.forward import ClusterChanged, Estranged, ForwardingEngine
from patterns.core.produce import Batch, Confirmed, ProducerEngine, batch_of, batches_of
from patterns.io.clock import clock
from patterns.io.links import SocketKind
from patterns.io.outbox import Outbox
from patterns.io.waiting import Steps, Wait
from patterns.roles.arguments import check_confirm, check_count, check_limits, delay_ms_of, topic_of
from patterns.roles.bodies import each_of, first_bad, until_bad
from patterns.roles.forwarding import Forwarding, check_journal
from patterns.roles.posting import PostedRole, Receipt, Receipts, SendManyError, receipt_of
from patterns.roles.role import (
    D,
    MakeDriver,
    Role,
    codec_of,
    deadline_of,
    jitter,
    new_nonce,
    raise_error,
    refuse_security,
    resolve,
)
from patterns.wire.attributes import check_attributes
from patterns.wire.codec import encode
from patterns.wire.errors import (
    BadBody,
    BufferFull,
    Closed,
    NotInThisDeployment,
    OutcomeUnknown,
    TimedOut,
    TooLarge,
    ZbrokerError,
)
from patterns.wire.limits import BATCH_BYTES_TARGET, BATCH_MESSAGES_MAX, INTEGER_MAX
from patterns.wire.names import check_name
from patterns.wire.words import counted

UNCONFIRMED_BYTES_MAX: Final = 16 * 1024 * 1024  # held for another try; 250 full batches
_MESSAGES_AT_FIRST: Final = 256  # of a batch, before the size of bodies is known
_MESSAGES_MAX: Final = 8_192

_log = logging.getLogger("zbroker.producer")


class Sending:
    """A send_many() under way: its batches so far, of which the first `done` are confirmed or refused."""

    __slots__ = ("batches", "done")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.done = 0


class ProducerRole(Role[D]):
    """See patterns.sync.Producer."""

    def __init__(
        self,
        make: MakeDriver[D],
        address: str | None,
        stream: str,
        *,
        codec: str,
        name: str,
        timeout_s: float,
        unconfirmed_bytes_max: int,
        journal: Outbox | None,
        confirm: str,
        security: object,
    ) -> None:
        refuse_security(security)
        addresses = resolve(address)
        if not addresses[0].brokered:
            raise NotInThisDeployment("a Producer needs a broker with a journal in this version: use a zb:// address")
        check_name(stream, "stream")
        if name != "":
            check_name(name, "producer")
        check_limits(timeout_s=timeout_s)
        check_count("unconfirmed_bytes_max", unconfirmed_bytes_max, INTEGER_MAX, "bytes")
        check_confirm(confirm, has_journal=journal is not None)
        self._codec = codec_of(codec)
        self._timeout_s = timeout_s
        self._bytes_max = unconfirmed_bytes_max
        if journal is None:
            self._engine = ProducerEngine(addresses, stream, new_nonce(), self._codec, jitter, name)
        else:
            check_journal(journal, name)
            sender = journal.begin(stream)
            self._engine = ForwardingEngine(addresses, stream, sender, self._codec, jitter, journal.last_number)
        self._engine.confirm = confirm
        self._left_out: list[
            ZbrokerError
        ] = []  # why bodies could not be posted; whoever asks their Posted hears it too
        self._posted: list[PostedRole] = []
        self._per_batch = _MESSAGES_AT_FIRST
        self._mean_bytes = BATCH_BYTES_TARGET // _MESSAGES_AT_FIRST
        self._is_full = False  # there was no room when the last full batch of posted messages left
        self._owners: dict[int, list[PostedRole]] = {}  # batches (by id) with Posted objects that have callbacks to run
        self._driver = make(
            self._engine,
            SocketKind.DEALER,
            self._take,
            before_turn=self._drain,
            in_background=self._wants_keeper,
        )
        self._forwarding: Forwarding | None = None
        self._start()
        if isinstance(self._engine, ForwardingEngine):
            assert journal is not None
            self._forwarding = Forwarding(journal, self._engine, self._driver, unconfirmed_bytes_max, self._tell)
            self._forwarding.start()

    def _wants_keeper(self) -> bool:
        engine = self._engine
        return not engine.closed and engine.error is None and (not engine.is_ready or engine.unconfirmed > 0)

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Failed):
                self._engine.shed(event.error)
                self._take(self._engine.events())
            elif isinstance(event, Confirmed):
                if self._forwarding is not None:
                    self._forwarding.confirmed(event.batches)
                    continue
                for batch in event.batches:
                    self._tell(batch)
            elif isinstance(event, Estranged | ClusterChanged) and self._forwarding is not None:
                self._forwarding.heard(event)

    def _tell(self, batch: Batch) -> None:
        """A batch is done: whoever posted what is in it may want to hear it."""
        for posted in self._owners.pop(id(batch), ()):
            if posted._callbacks:
                self._driver.defer(posted._run_callbacks)

    # -- one at a time -------------------------------------------------------------------------------------------

    def _send(
        self,
        body: Any,
        key: str | None,
        headers: dict[str, str] | None,
        topic: str | None,
        message_id: str | None,
        delay_s: float | None,
    ) -> Steps[Receipt]:
        driver, engine = self._driver, self._engine
        driver.check()
        delay_ms = 0 if delay_s is None else delay_ms_of(delay_s)
        part = encode(self._codec, [body], engine.sessions[0].limits.body_bytes_max)[0]
        if key is None and headers is None and message_id is None and topic is None and not delay_ms:
            batch = batch_of(self._codec, part)
        else:
            check_attributes(key, headers, message_id)
            batch = batch_of(
                self._codec,
                part,
                keys=[key],
                headers=[headers],
                ids=[message_id],
                topics=[topic_of(topic)],
                delays=[delay_ms],
            )
        if self._forwarding is not None:
            yield from self._until_room(self._forwarding)
        self._append([batch])
        try:
            wait = Wait(
                lambda: batch.done or engine.error is not None or driver.is_closed, deadline_of(self._timeout_s)
            )  # what _until() does, with half of its calls: one message is waited for most often
            in_time = yield wait
            if not batch.done:
                self._give_up(in_time, self._timeout_s, "the broker has not confirmed it")
        except ZbrokerError as error:
            if self._is_uncertain(batch, error):
                text = f"the message was sent and has no confirm, so it may be stored: {error.detail}"
                raise OutcomeUnknown(text) from error
            raise
        if batch.error is not None:
            raise batch.error
        return receipt_of(batch, 0)

    def _until_room(self, forwarding: Forwarding) -> Steps[None]:
        """Until the own disk takes more. Raises at once when it never will."""

        def may_go_on() -> bool:
            return forwarding.error is not None or self._has_room()

        yield from self._until(may_go_on, self._timeout_s, "the journal takes no more")
        if forwarding.error is not None:
            raise forwarding.error.anew()

    def _append(self, batches: list[Batch]) -> None:
        driver = self._driver
        with driver.lock:
            now = clock()
            if self._posted:
                self._drain(now)  # what was posted before goes before
            self._take_in(batches, now)

    def _take_in(self, batches: list[Batch], now: int) -> None:
        """Under the lock: to the broker, or to the own disk first."""
        if self._forwarding is not None:
            self._forwarding.append(batches)
        else:
            self._engine.append(batches, now)

    def _until(self, done: Callable[[], bool], timeout_s: float | None, what: str) -> Steps[None]:
        driver, engine = self._driver, self._engine
        in_time = yield Wait(lambda: done() or engine.error is not None or driver.is_closed, deadline_of(timeout_s))
        if not in_time or not done():
            self._give_up(in_time, timeout_s, what)

    def _give_up(self, in_time: bool, timeout_s: float | None, what: str) -> NoReturn:
        """Say why a wait has ended, in time, without what it was for."""
        engine = self._engine
        if in_time:
            raise_error(engine)
            raise Closed("this producer was closed")
        if self._forwarding is not None and (hindrance := self._forwarding.hindrance()) is not None:
            raise hindrance
        if engine.hindrance is not None:
            raise engine.hindrance
        if not engine.is_ready:
            raise engine.unavailable()
        raise TimedOut(f"{what} within {timeout_s} s; it may be stored nevertheless")

    def _is_uncertain(self, batch: Batch, error: ZbrokerError) -> bool:
        """Whether a message may be stored though send() raises; one that certainly is not is taken back for good."""
        with self._driver.lock:
            place = self._forwarding or self._engine
            return not place.withdraw(batch) and error.retryable

    # -- many ----------------------------------------------------------------------------------------------------

    def _send_many(self, bodies: Iterable[Any]) -> Steps[Receipts]:
        self._driver.check()
        source = each_of(bodies)
        sending = Sending()
        while chunk := self._driver.call_theirs(lambda: list(islice(source, self._per_batch))):
            yield from self._send_chunk(sending, chunk)
        return (yield from self._sent(sending))

    def _send_chunk(self, sending: Sending, chunk: list[Any]) -> Steps[None]:
        batches = sending.batches
        try:
            made = self._batches(chunk)
        except (BadBody, TooLarge):
            made = self._batches(until_bad(self._codec, chunk))
            self._append(made)
            raise (yield from self._stopped([*batches, *made], first_bad(self._codec, chunk))) from None
        batches.extend(made)
        if self._forwarding is not None:
            yield from self._until_room(self._forwarding)
        else:
            yield from self._until(self._has_room, self._timeout_s, "the broker takes no more")
        self._append(made)
        self._driver.burst()
        while sending.done < len(batches) and batches[sending.done].done:
            sending.done += 1
        if sending.done and batches[sending.done - 1].error is not None:
            raise (yield from self._stopped(batches, None))

    def _sent(self, sending: Sending) -> Steps[Receipts]:
        batches = sending.batches
        for batch in batches[sending.done :]:  # confirms come in order: each one is progress
            if not batch.done:
                yield from self._until(lambda batch=batch: batch.done, self._timeout_s, "some messages have no confirm")  # type: ignore[misc]
        if any(batch.error is not None for batch in batches):
            raise (yield from self._stopped(batches, None))
        return Receipts(batches)

    def _batches(self, bodies: Sequence[Any]) -> list[Batch]:
        parts = encode(self._codec, bodies, self._engine.sessions[0].limits.body_bytes_max) if bodies else []
        for part in parts:
            self._learn(part.count, len(part.payload))
        return [batch_of(self._codec, part) for part in parts]

    def _learn(self, count: int, size: int) -> None:
        self._mean_bytes = max(1, size // count)
        self._per_batch = min(max(1, BATCH_BYTES_TARGET // self._mean_bytes), _MESSAGES_MAX, BATCH_MESSAGES_MAX)

    def _stopped(self, batches: list[Batch], cause: ZbrokerError | None) -> Steps[SendManyError]:
        """What send_many() raises; what is under way is waited for, so that the receipts are true."""
        yield from self._until(
            lambda: all(batch.done for batch in batches), self._timeout_s, "some messages have no confirm"
        )
        good: list[Batch] = []
        for batch in batches:
            if batch.error is not None:
                cause = batch.error
                break
            good.append(batch)
        receipts = Receipts(good)
        assert cause is not None
        return SendManyError(cause, receipts, len(receipts))

    # -- posted --------------------------------------------------------------------------------------------------

    def _post_now(self) -> None:
        """A batch is full: send it from here."""
        driver = self._driver
        driver.check()
        driver.burst()
        self._is_full = not self._has_room()

    def _room(self, timeout_s: float | None) -> Steps[None]:
        self._driver.check()
        if not (yield Wait(self._may_go_on, deadline_of(timeout_s))):
            raise self._no_room()
        self._driver.check()
        self._is_full = False

    def _no_room(self) -> ZbrokerError:
        if self._forwarding is not None and (hindrance := self._forwarding.hindrance()) is not None:
            return hindrance
        cause = self._engine.hindrance
        why = f": {cause.detail}" if cause is not None else ""
        return BufferFull(
            f"{self._engine.unconfirmed_bytes} bytes wait for their confirm, at most {self._bytes_max}{why}"
        )

    def _has_room(self) -> bool:
        if self._forwarding is not None:
            return self._forwarding.hindrance() is None
        return self._engine.unconfirmed_bytes < self._bytes_max

    def _may_go_on(self) -> bool:
        if self._has_room() or self._driver.is_closed or self._engine.error is not None:
            return True
        return self._forwarding is not None and self._forwarding.error is not None

    def _drain(self, now: int) -> None:
        """Make batches of what was posted; other threads may go on posting."""
        if self._forwarding is not None:
            self._forwarding.pour(now)
        end = len(self._posted)
        if not end:
            return
        items = self._posted[:end]
        del self._posted[:end]
        error = self._engine.error
        if error is not None:
            for posted in items:
                self._leave_out(posted, error)
            return
        for begin in range(0, end, self._per_batch):
            self._drain_part(items[begin : begin + self._per_batch], now)

    def _drain_part(self, posted: list[PostedRole], now: int) -> None:
        try:
            batches = batches_of(
                self._codec,
                [one._body for one in posted],
                self._engine.sessions[0].limits.body_bytes_max,
                keys=[one._key for one in posted],
                headers=[one._headers for one in posted],
                ids=[one._message_id for one in posted],
                topics=[one._topic for one in posted],
                delays=[one._delay_ms for one in posted],
            )
        except (BadBody, TooLarge) as error:
            if len(posted) == 1:
                self._leave_out(posted[0], error)
            else:  # one by one, to keep the order and find the bad one
                for one in posted:
                    self._drain_part([one], now)
            return
        begin = 0
        for batch in batches:
            end = begin + batch.count
            self._learn(batch.count, batch.size)
            self._own(batch, posted[begin:end])
            self._take_in([batch], now)
            begin = end

    def _leave_out(self, posted: PostedRole, error: ZbrokerError) -> None:
        posted._error = error
        posted._body = posted._headers = None
        self._left_out.append(error)
        self._driver.defer(posted._run_callbacks)

    def _own(self, batch: Batch, posted: list[PostedRole]) -> None:
        for index, one in enumerate(posted):
            one._batch, one._index = batch, index
            one._body = one._headers = None  # whoever keeps the object needs no body
        self._owners[id(batch)] = posted

    def transaction(self) -> NoReturn:
        """Not built yet. Raises NotInThisDeployment."""
        raise NotInThisDeployment(
            "transaction() is not built in this version: send, then ack; consumers see some twice"
        )

    def _flush(self, timeout_s: float) -> Steps[None]:
        self._driver.check()
        yield from self._until(self._all_done, timeout_s, "not everything posted is confirmed")

    def _all_done(self) -> bool:
        if self._forwarding is not None:
            return not self._posted and not self._forwarding.messages
        return not self._posted and self._engine.unconfirmed == 0

    @property
    def unconfirmed_bytes(self) -> int:
        """Bytes that are under way."""
        return self._engine.unconfirmed_bytes

    @property
    def waiting(self) -> int:
        """With a journal: messages that the broker has neither confirmed nor refused. Else 0."""
        return 0 if self._forwarding is None else self._forwarding.messages

    @property
    def refused(self) -> int:
        """With a journal: messages that the broker has refused for good, and that `refused.jsonl` beside it holds. Else 0."""
        return 0 if self._forwarding is None else self._forwarding.refused_messages

    def _last(self, timeout_s: float) -> Steps[None]:
        """Wait for the confirms of what was posted; what has none by then is OutcomeUnknown."""
        if self._forwarding is not None:
            yield from self._forwarding.last(lambda: not self._posted, timeout_s)
            return
        driver, engine = self._driver, self._engine
        try:
            if engine.error is None:
                yield Wait(lambda: self._all_done() or engine.error is not None, deadline_of(timeout_s))
        finally:
            if self._left_out:
                left_out = counted(len(self._left_out), "posted message")
                _log.warning("%s left out; the first: %s", left_out, self._left_out[0])
            if not self._all_done() and not driver.is_closed:
                why = engine.error or engine.hindrance or (None if engine.is_ready else engine.unavailable())
                _log.warning(
                    "closed while %s had no confirm; %s",
                    counted(engine.unconfirmed, "batch", "batches"),
                    why or "what is in it may be stored",
                )
            if not driver.is_closed:
                driver.run(lambda now: engine.shed(OutcomeUnknown("the producer was closed before the confirm came")))
