"""Forwarding: the engine of a Producer whose batches lie on its own disk, numbered there, until the broker has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from patterns.core.backoff import Jitter
from patterns.core.client import ClientSession
from patterns.core.produce import Batch, ProducerEngine
from patterns.wire.address import Address
from patterns.wire.errors import SequenceReused, UnknownProducer, ZbrokerError
from patterns.wire.messages import Codec, Hello, ProducerIdentity, Ready, Resume, Role
from patterns.wire.parcel import Parcel, Sender
from patterns.wire.session import ClientEvent

# OUTCOME_UNKNOWN is not among them: so a broker that was started again answers for a batch that it had refused before. It would
# know each one that it has stored, for no more are under way than it remembers.
_ANOTHER: Final = (SequenceReused, UnknownProducer)


class Estranged(msgspec.Struct, gc=False):
    """The broker knows batches under our name that we do not: nothing is sent until renew()."""

    detail: str


class ClusterChanged(msgspec.Struct, gc=False):
    """The broker is another one than the batches without a confirm were sent to first."""

    cluster: str
    batches: int


def batch_of_parcel(parcel: Parcel) -> Batch:
    """As the engine holds it: under the number that it has for ever."""
    batch = Batch(parcel.count, parcel.codec, parcel.payload, parcel.columns, parcel.topic)
    batch.sequence = parcel.number
    return batch


class ForwardingEngine(ProducerEngine):
    """A ProducerEngine whose batches have their sequence from the disk, and are given up for nothing but a broker's refusal of them.

    Attributes:
        last_number: of the newest batch on the disk.
    """

    def __init__(
        self, addresses: Sequence[Address], stream: str, sender: Sender, codec: Codec, jitter: Jitter, last_number: int
    ) -> None:
        super().__init__(addresses, stream, sender.nonce, codec, jitter, sender.name)
        self.last_number = last_number
        self._is_estranged = False

    def _hello(self, session: ClientSession) -> Hello:
        """Always the same session that comes back: else the broker would forget the batches that we send again."""
        resume = Resume(session.ready.epoch if session.ready is not None else 0)
        return Hello(role=Role.PRODUCER, nonce=self._nonce, codec=self._codec, name=self._name, resume=resume)

    def on_ready(self, session: ClientSession, ready: Ready, now: int) -> None:
        """See ProducerEngine; a broker that knows more of us than we do must not take new batches for old ones."""
        identity = ready.producer
        if self._is_estranged:
            return
        if identity is not None and identity.sequence > self.last_number:
            self._estrange(f"it knows our batch {identity.sequence}, and {self.last_number} is the newest here")
            return
        super().on_ready(session, ready, now)

    def _estrange(self, detail: str) -> None:
        if not self._is_estranged:
            self.news.append(Estranged(detail))
        self._identity, self._is_estranged = None, True

    def renew(self, sender: Sender, now: int) -> None:
        """Be somebody else from the next HELLO on, and send all again that has no confirm."""
        self._nonce, self._name = sender.nonce, sender.name
        self._identity, self._is_estranged = None, False
        self._take_back()
        for batch in self._unsent:
            batch.sent = False
        session = self.sessions[0]
        if session.is_ready:
            self._lose(session, ClientEvent.NO_SESSION, "this producer has another name from now on", now, retry_us=0)

    def _forsake(self) -> None:
        """Another cluster has none of it, whatever became of the one before: all is sent to it."""
        self._take_back()
        again = [batch for batch in self._unsent if batch.sent]
        for batch in again:
            batch.sent = False
        self.news.append(ClusterChanged(self._cluster, len(again)))

    def _renumber(self, identity: ProducerIdentity) -> None:
        """Numbers are those of the disk, so that a later life of the program sends the same batch under the same one."""

    def _batch_refused(self, sequence: int, error: ZbrokerError, now: int) -> None:
        if isinstance(error, _ANOTHER):
            self._estrange(error.detail)
            return
        super()._batch_refused(sequence, error, now)

    def shed(self, error: ZbrokerError) -> None:
        """Forget what is unconfirmed: it is on the disk."""
        self._unconfirmed.clear()
        self._unsent.clear()
        self.unconfirmed_bytes = 0
