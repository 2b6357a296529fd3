"""Who produces: identities that outlive sessions, the order of their batches, and what makes a retry harmless."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from patterns.wire.errors import (
    Fenced,
    OutcomeUnknown,
    SequenceGap,
    SequenceReused,
    UnknownProducer,
    ZbrokerError,
)
from patterns.wire.limits import PRODUCER_BATCHES_REMEMBERED
from patterns.wire.messages import Append, Hello, ProducerIdentity

ID_SHIFT: Final = (
    32  # ids are epoch * 2^32 + a counter: never given twice, though the record that names one may be lost
)
_PAST_NONCES: Final = 16  # lives of a named producer that are told FENCED; still older ones count as new


class Accepted(msgspec.Struct, gc=False):
    """A batch that the producer may send again.

    Attributes:
        index: the journal's; the batch is confirmed once that is durable. 0: it was refused.
        error: the refusal, told again, as it was before it was raised; None when it was stored.
        repeats: places of messages that were not stored, since their message_id was known, and the offsets that they have.
    """

    sequence: int
    offset: int
    crc: int
    index: int
    error: ZbrokerError | None = None
    repeats: list[tuple[int, int]] | None = None


class Producer:
    """One identity: `id` for ever, `epoch` for one life of the program that has it."""

    __slots__ = ("batches", "epoch", "id", "journaled", "name", "nonces", "sequence", "stored")

    def __init__(self, id: int, name: str, nonce: bytes, epoch: int = 1) -> None:
        self.id = id
        self.name = name
        self.epoch = epoch
        self.sequence = 0
        self.stored = 0  # of the last batch that a record tells of; a refused one may have come after it
        self.journaled = False  # whether a CATALOG record names this (id, epoch)
        self.nonces: deque[bytes] = deque([nonce], _PAST_NONCES)  # the last one is whose it is
        self.batches: deque[Accepted] = deque(maxlen=PRODUCER_BATCHES_REMEMBERED)

    @property
    def nonce(self) -> bytes:
        return self.nonces[-1]

    def identity(self) -> ProducerIdentity:
        """As READY tells it."""
        return ProducerIdentity(self.id, self.epoch, self.sequence)

    def admit(self, header: Append, crc: int) -> Accepted | None:
        """None: this batch is the next one. Else what became of it the first time.

        Raises:
            UnknownProducer, Fenced: not this producer's batch, or of an epoch that is over.
            SequenceGap: something before it is missing; the caller must not count it as accepted.
            SequenceReused: other bytes under a known sequence.
            OutcomeUnknown: it was accepted, longer ago than we remember.
        """
        if header.producer != self.id or header.producer_epoch > self.epoch:
            raise UnknownProducer(
                f"producer {header.producer} epoch {header.producer_epoch} is not this session's; say HELLO"
            )
        if header.producer_epoch < self.epoch:
            raise Fenced(f"producer {self.id} is at epoch {self.epoch}, this batch is of {header.producer_epoch}")
        if header.previous == self.sequence and header.sequence > self.sequence:
            return None
        known = self._known(header.sequence)
        if known is not None:
            return self._again(known, header, crc)
        if 0 < header.sequence <= self.sequence:
            raise OutcomeUnknown(
                f"batch {header.sequence} was accepted or refused; only the last {PRODUCER_BATCHES_REMEMBERED} are remembered"
            )
        raise SequenceGap(
            f"batch {header.sequence} follows {header.previous}; the last accepted one is {self.sequence}"
        )

    def _again(self, known: Accepted, header: Append, crc: int) -> Accepted:
        if known.crc != crc:
            raise SequenceReused(f"batch {header.sequence} was sent before with other bytes")
        return known

    def _known(self, sequence: int) -> Accepted | None:
        for batch in reversed(self.batches):
            if batch.sequence == sequence:
                return batch
        return None

    def accept(self, batch: Accepted) -> None:
        """The batch counts, stored or refused: the next one's `previous` is its sequence."""
        self.sequence = batch.sequence
        if batch.index:
            self.stored = batch.sequence
        self.batches.append(batch)


class Producers:
    """All identities, by id, by name and by nonce."""

    def __init__(self) -> None:
        self._by_id: dict[int, Producer] = {}
        self._by_name: dict[str, Producer] = {}
        self._by_nonce: dict[bytes, Producer] = {}
        self._left: list[int] = []
        self._epoch = 0
        self._count = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Producer]:
        return iter(self._by_id.values())

    def clear(self) -> None:
        """Forget everybody; only before opened()."""
        for table in (self._by_id, self._by_name, self._by_nonce):
            table.clear()

    def restore(self, id: int, name: str, nonces: list[bytes], epoch: int) -> Producer:
        """As a checkpoint says; the last nonce is whose it is."""
        producer = Producer(id, name, nonces[-1], epoch)
        producer.nonces.extendleft(reversed(nonces[:-1]))
        for nonce in nonces:
            self._by_nonce[nonce] = producer
        return self._add(producer)

    def opened(self, epoch: int) -> None:
        """The broker's epoch makes new ids."""
        self._epoch = epoch

    def recover_entry(self, index: int, entry: list[Any]) -> None:
        """What a CATALOG record says of producers. Raises msgspec.ValidationError."""
        match entry:
            case ["producer", int(id), str(name), bytes(nonce), int(epoch)]:
                self.recover(id, name, nonce, epoch)
            case ["repeated", int(id), int(epoch), int(sequence), int(offset), int(crc), list(rows)]:
                repeats = msgspec.convert(rows, list[tuple[int, int]])
                self.recover_batch(id, epoch, Accepted(sequence, offset, crc, index, None, repeats))
            case ["left", list(ids)] if all(type(id) is int for id in ids):
                self.recover_left(ids)
            case _:
                pass  # of a later version

    def recover(self, id: int, name: str, nonce: bytes, epoch: int) -> Producer:
        """As a CATALOG record says."""
        producer = self._by_id.get(id)
        if producer is None:
            producer = self._add(Producer(id, name, nonce, epoch))
        elif epoch > producer.epoch:
            self._own(producer, nonce, epoch)
        producer.journaled = True
        return producer

    def recover_batch(self, id: int, epoch: int, batch: Accepted) -> None:
        """As a record says; its CATALOG record may have been damaged, then nobody can be this producer again."""
        producer = self._by_id.get(id)
        if producer is not None:
            if epoch > producer.epoch:
                producer.epoch = epoch
            if batch.sequence > producer.sequence:
                producer.accept(batch)

    def hello(self, hello: Hello) -> tuple[Producer, bool]:
        """The identity that a HELLO asks for, and whether it resumes one it already had.

        Raises:
            Fenced: a newer life of this named producer exists.
        """
        known = self._by_nonce.get(hello.nonce)
        if known is not None and known.name == hello.name and hello.resume is not None:
            if known.nonce != hello.nonce:
                raise Fenced(f"producer {hello.name!r} was started again somewhere else, as epoch {known.epoch}")
            return known, True
        named = self._by_name.get(hello.name) if hello.name else None
        if named is not None:
            self._own(named, hello.nonce, named.epoch + 1)
            return named, False
        self._count += 1
        return self._add(Producer((self._epoch << ID_SHIFT) + self._count, hello.name, hello.nonce)), False

    def _add(self, producer: Producer) -> Producer:
        self._by_id[producer.id] = producer
        self._by_nonce[producer.nonce] = producer
        if producer.name:
            self._by_name[producer.name] = producer
        return producer

    def _own(self, producer: Producer, nonce: bytes, epoch: int) -> None:
        """The next life; a sequence goes on, so what an older one stored is known to the newer."""
        if len(producer.nonces) == _PAST_NONCES:
            self._by_nonce.pop(producer.nonces[0], None)
        if nonce in producer.nonces:
            producer.nonces.remove(nonce)
        producer.nonces.append(nonce)
        producer.epoch, producer.journaled = epoch, False
        producer.batches.clear()  # retries are of the life that sent the original
        self._by_nonce[nonce] = producer

    def forget(self, producer: Producer, *, has_left: bool) -> None:
        """An unnamed producer is gone with its session if it never stored anything, or has said goodbye: it never comes back."""
        is_known = producer.journaled or producer.sequence > 0
        if not producer.name and (has_left or not is_known):
            self._drop(producer)
            if producer.journaled:
                self._left.append(producer.id)

    def take_left(self) -> list[int]:
        """Ids that records name and that are gone for good, each once: for a record, or they come back with the next start."""
        left, self._left = self._left, []
        return left

    def recover_left(self, ids: list[int]) -> None:
        """As a CATALOG record says."""
        for id in ids:
            producer = self._by_id.get(id)
            if producer is not None and not producer.name:
                self._drop(producer)

    def _drop(self, producer: Producer) -> None:
        self._by_id.pop(producer.id, None)
        for nonce in producer.nonces:
            self._by_nonce.pop(nonce, None)
