"""Store and forward: what a Producer with a journal of its own does between its callers, its disk and its engine.

A thread of its own has the disk, for both shells: it writes what callers hand over, all that came meanwhile with one sync, and
reads back what the engine has room for. It touches neither the engine nor the driver's lock; pour() does, wherever the driver turns.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from patterns.core.forward import ClusterChanged, Estranged, ForwardingEngine, batch_of_parcel
from patterns.core.produce import Batch
from patterns.io.clock import clock
from patterns.io.outbox import Outbox
from patterns.io.waiting import Steps, Wait
from patterns.roles.role import RoleDriver, deadline_of
from patterns.wire.errors import BadArgument, BufferFull, Closed, StorageFailed, StorageFull, ZbrokerError
from patterns.wire.messages import Codec
from patterns.wire.parcel import Parcel, Sender, Unsendable
from patterns.wire.words import counted, described

_KEPT_AT_ONCE_BYTES: Final = 1 << 20  # what one sync covers is everybody's latency
_HELD_BYTES_MAX: Final = 4 << 20  # of batches that the engine holds; the rest is read when there is room again
_IDLE_S: Final = 1.0  # so often it looks whether its driver is still there
_AGAIN_US: Final = 1_000_000  # after a want of space: somebody has to make some

_log = logging.getLogger("zbroker.producer")


class _Settled(msgspec.Struct):
    """A batch that the broker has, or has refused."""

    number: int
    count: int
    error: ZbrokerError | None


class Forwarding:
    """One Producer's journal at work.

    Args:
        queue_bytes_max: of batches that callers have handed over and that are not on the disk yet.
        told: called with each batch that is on the disk, or that the disk refused; under the driver's lock.

    Attributes:
        messages: of callers and of the disk that the broker has neither confirmed nor refused; changed under the driver's lock.
        error: why nothing can be stored any more.
        is_over: the journal is closed.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: ForwardingEngine,
        driver: RoleDriver,
        queue_bytes_max: int,
        told: Callable[[Batch], None],
    ) -> None:
        self._outbox = outbox
        self._engine = engine
        self._driver = driver
        self._queue_bytes_max = queue_bytes_max
        self._told = told
        self._changed = threading.Condition()
        self._queue: deque[Batch] = deque()
        self._queue_bytes = 0  # of those, and of those in _unsafe
        self._unsafe: deque[tuple[Parcel, Batch]] = deque()  # taken, and not on the disk yet
        self._settled: deque[_Settled] = deque()
        self._again_at = 0  # when it looks again for what there was no space for, or no file handle
        self._poured: deque[Batch] = deque()  # on the disk or refused by it: for those who wait for that
        self._sendable: deque[Batch] = deque()  # for the engine
        self._sender: Sender | None = None  # a new identity for the engine
        self._is_estranged = self._stopping = False
        self.messages = outbox.waiting_messages
        self.error: ZbrokerError | None = None
        self.is_over = False
        self._thread = threading.Thread(target=self._run, name="zbroker-outbox", daemon=True)

    def start(self) -> None:
        """Let the thread begin; without it, whoever calls turn() is the one thread of the journal."""
        for lost in self._outbox.damage:
            _log.error(
                "the disk has damaged the journal in %s, the rest is forwarded; lost: %s", self._outbox.folder, lost
            )
        self._thread.start()

    # -- for the role, under the driver's lock ---------------------------------------------------------------------

    def append(self, batches: list[Batch]) -> None:
        """Keep these, in order."""
        self.messages += sum(batch.count for batch in batches)
        with self._changed:
            for batch in batches:
                self._queue_bytes += batch.size
                if self.error is None:
                    self._queue.append(batch)
            self._changed.notify()
            refused = [] if self.error is None else batches
        for batch in refused:
            self._refuse(batch)

    def withdraw(self, batch: Batch) -> bool:
        """Take a batch back for good if nobody has begun to write it; whether that was so."""
        with self._changed:
            if batch not in self._queue:
                return False
            self._queue.remove(batch)
            self._queue_bytes -= batch.size
        self.messages -= batch.count
        return True

    def confirmed(self, batches: list[Batch]) -> None:
        """The broker has these, or has refused them."""
        self.messages -= sum(batch.count for batch in batches)
        with self._changed:
            for batch in batches:
                self._settled.append(_Settled(batch.sequence, batch.count, batch.error))
            self._changed.notify()

    def heard(self, event: Estranged | ClusterChanged) -> None:
        """What the engine met that people should know."""
        if isinstance(event, ClusterChanged):
            again = f"{counted(event.batches, 'batch', 'batches')} without a confirm from the one before are sent to it"
            _log.warning("the broker belongs to another cluster, %s: %s", event.cluster, again)
            return
        _log.error(
            "the journal in %s is a copy from another time, or was used under another one: %s. It goes on under a new name, and some "
            "messages may be stored twice",
            self._outbox.folder,
            event.detail,
        )
        with self._changed:
            self._is_estranged = True
            self._changed.notify()

    def pour(self, now: int) -> None:
        """Hand on what the thread has done."""
        if not (self._poured or self._sendable or self._sender is not None):
            return
        while self._poured:
            batch = self._poured.popleft()
            if batch.error is not None:
                self.messages -= batch.count
            batch.done = True
            self._told(batch)
        self._engine.last_number = self._outbox.safe
        sender, self._sender = self._sender, None
        if sender is not None:
            self._engine.renew(sender, now)
        sendable: list[Batch] = []
        while self._sendable:
            sendable.append(self._sendable.popleft())
        if sendable:
            self._engine.append(sendable, now)

    def hindrance(self) -> ZbrokerError | None:
        """Why nothing can be taken at present, or for ever."""
        if self.error is not None or self._outbox.trouble is not None:
            return self.error or self._outbox.trouble
        used, bytes_max = self._outbox.used_bytes, self._outbox.bytes_max
        if used + self._queue_bytes >= bytes_max:
            refused = counted(self._outbox.refused_messages, "message")
            return BufferFull(
                f"the journal in {self._outbox.folder} holds {used} bytes that wait for the broker, at most {bytes_max} "
                f"(bytes_max of open_journal); {refused} in its refused.jsonl count too"
            )
        if self._queue_bytes >= self._queue_bytes_max:
            return BufferFull(
                f"{self._queue_bytes} bytes wait for the disk of the journal in {self._outbox.folder}, at most {self._queue_bytes_max}"
            )
        return None

    @property
    def refused_messages(self) -> int:
        """In the folder's refused.jsonl."""
        return self._outbox.refused_messages

    @property
    def is_kept(self) -> bool:
        """Whether all that was handed over is on the disk, or refused by it."""
        return not self._queue_bytes and not self._poured

    def stop(self) -> None:
        """Write what is there, close the journal; is_over tells when."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def last(self, has_none_left: Callable[[], bool], timeout_s: float) -> Steps[None]:
        """Wait until all is on the own disk, and forwarded if the broker is there; the rest is for the next life.

        Args:
            has_none_left: whether the role has handed over all that it was given.
        """
        engine, deadline = self._engine, deadline_of(timeout_s)
        try:
            yield Wait(lambda: has_none_left() and self.is_kept, deadline)
            if engine.error is None and self.error is None:
                yield Wait(lambda: not self.messages or engine.error is not None or self._is_away(), deadline)
        finally:
            self.stop()
        yield Wait(lambda: self.is_over, deadline)
        if self.messages:
            left = counted(self.messages, "message")
            _log.info("closed; the journal in %s keeps %s for the next Producer", self._outbox.folder, left)

    def _is_away(self) -> bool:
        """Whether a try to reach the broker has failed since it was last there."""
        return not self._engine.is_ready and self._engine.detail != ""

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not (self._stopping or self._driver.is_closed) or (self._queue and self._outbox.trouble is None):
                self.turn(clock())
                self._rest(clock())
            self._settle(clock())
            self._give_up(self._outbox.trouble or Closed("the producer was closed"))
        except ZbrokerError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  the top of a thread: who sends must not wait for a dead one
            _log.exception("the thread of the journal in %s has failed", self._outbox.folder)
            self._fail(StorageFailed(f"the journal in {self._outbox.folder}: {described(error)}"))
        try:
            self._outbox.close()
        except ZbrokerError as error:
            self.error = self.error or error
            _log.error("the journal in %s could not be closed: %s", self._outbox.folder, error)
        self.is_over = True
        self._call()

    def _fail(self, error: ZbrokerError) -> None:
        _log.error("nothing is stored any more, and what has no receipt may be there after a restart: %s", error)
        self._give_up(error)

    def _give_up(self, error: ZbrokerError) -> None:
        """For ever: what is not on the disk for certain is refused, and all that follows."""
        with self._changed:
            self.error = error
            left = [batch for _, batch in self._unsafe] + list(self._queue)
            self._unsafe.clear()
            self._queue.clear()
        for batch in left:
            self._refuse(batch)

    def _refuse(self, batch: Batch) -> None:
        assert self.error is not None
        batch.error = self.error.anew()
        self._pour(batch)

    def turn(self, now: int) -> None:
        """Write, give back, read what there is to write, give back and read. Raises StorageFailed."""
        self._settle(now)
        fresh = self._keep(now)
        self._outbox.tend(now)
        if self._unsafe:
            fresh += self._safe()
        if self._is_estranged and now >= self._again_at:
            self._renew(now)
        self._hand_out(fresh, now)
        if self._poured or self._sendable or self._sender is not None:
            self._call()

    def _call(self) -> None:
        """Have somebody turn, who pours."""
        self._driver.abandon(self._look)

    def _look(self) -> None:
        if not self._driver.is_closed and not self._driver.forked:
            self._driver.run()

    def _rest(self, now: int) -> None:
        """Until there is something to do."""
        outbox = self._outbox
        with self._changed:
            if self._has_work(now):
                return
            due, left_s = outbox.next_timeout(), _IDLE_S
            if due is not None:
                left_s = min(left_s, max(0.0, (due - now) / 1e6))
            if left_s:
                self._changed.wait(left_s)

    def _has_work(self, now: int) -> bool:
        if self._stopping or (now >= self._again_at and (self._is_estranged or self._settled)):
            return True
        return bool(self._queue and self._outbox.trouble is None) or self._may_hand_out(now)

    def _may_hand_out(self, now: int) -> bool:
        return self._engine.unconfirmed_bytes < _HELD_BYTES_MAX and self._outbox.has_more and now >= self._again_at

    def _settle(self, now: int) -> None:
        """What the broker has, need not be forwarded any more; what it has refused goes where people find it."""
        settled, outbox = self._settled, self._outbox
        while settled and now >= self._again_at:
            one = settled[0]
            if one.error is not None:
                try:
                    outbox.refuse(one.number, one.error)
                except StorageFull as error:
                    _log.warning("refused messages wait for space: %s", error)
                    self._again_at = now + _AGAIN_US
                    return
                what = counted(one.count, "message")
                _log.error("the broker refuses %s, now in %s/refused.jsonl: %s", what, outbox.folder, one.error)
            outbox.settle(one.number + one.count - 1)
            settled.popleft()

    def _keep(self, now: int) -> list[Parcel]:
        """Write what callers have handed over; the parcels that are on the disk now."""
        batches: list[Batch] = []
        size = 0
        if self._unsafe:
            return []
        with self._changed:
            while self._queue and size < _KEPT_AT_ONCE_BYTES:
                batch = self._queue.popleft()
                batches.append(batch)
                size += batch.size
        if not batches:
            return []
        parcels = [Parcel(0, one.count, one.codec, one.columns, one.payload, one.topic) for one in batches]
        self._unsafe.extend(zip(parcels, batches, strict=True))
        taken = self._outbox.keep(parcels, now)
        with self._changed:
            while len(self._unsafe) > taken:
                self._queue.appendleft(self._unsafe.pop()[1])
        return self._safe()

    def _safe(self) -> list[Parcel]:
        """Tell those whose messages are on the disk now."""
        safe: list[Parcel] = []
        while self._unsafe and self._unsafe[0][0].number <= self._outbox.safe:
            parcel, batch = self._unsafe.popleft()
            safe.append(parcel)
            self._pour(batch)
        return safe

    def _pour(self, batch: Batch) -> None:
        with self._changed:
            self._queue_bytes -= batch.size
        batch.payload = batch.columns = b""
        self._poured.append(batch)

    def _renew(self, now: int) -> None:
        try:
            self._sender = self._outbox.renew()
        except StorageFull:
            self._again_at = now + _AGAIN_US
        else:
            self._is_estranged = False

    def _hand_out(self, fresh: list[Parcel], now: int) -> None:
        if not self._may_hand_out(now):
            return
        found = self._outbox.hand_out(fresh, _HELD_BYTES_MAX - self._engine.unconfirmed_bytes)
        if not found:
            self._again_at = now + _AGAIN_US  # no file can be opened at present
        for one in found:
            if isinstance(one, Unsendable):
                batch = Batch(one.count, Codec.RAW, b"", b"", error=one.error)
                batch.sequence = one.number
            else:
                batch = batch_of_parcel(one)
            self._sendable.append(batch)


def check_journal(journal: object, name: str) -> None:
    """Raises BadArgument."""
    if not isinstance(journal, Outbox):
        raise BadArgument(f"journal={journal!r}: what zbroker.store.open_journal(DIR) returns")
    if name:
        raise BadArgument(f"name={name!r} with a journal: that has a name of its own, which must not change")
