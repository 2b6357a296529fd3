"""A named producer under random batches, gaps, retries, refusals, fences, lost connections and restarts, against a model of lists."""

from __future__ import annotations

import os
from random import Random
from typing import Any, NamedTuple

import pytest

from patterns.wire.limits import PRODUCER_BATCHES_REMEMBERED
from patterns.wire.messages import Append, ErrorHeader, NoSessionHeader, Ready, Resume, Role
from tests.unit.core.durable import Client, Durable

SEEDS = 400 if os.environ.get("ZBROKER_TEST_LONG") else 60
STEPS = 80
NAME = "till"


class Batch(NamedTuple):
    """One that the broker has accepted; `error` is why it was refused for good."""

    sequence: int
    bodies: tuple[Any, ...]
    offset: int
    error: str


class Model:
    """What must be true of the producer, and the random life that tries to make it false."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.rig = Durable()
        self.stored: list[Any] = []  # bodies by offset
        self.history: list[Batch] = []  # of this life of the producer
        self.sequence = self.last_stored = self.number = self.lives = self.peers = 0
        self.epoch = 0
        self.is_full = False
        self.hello()

    # -- steps ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        steps = (
            self.send, self.send, self.send, self.send, self.retry, self.retry, self.gap, self.reuse, self.bad,
            self.forgotten, self.fence, self.resume, self.restart, self.fill,
        )  # fmt: skip
        self.random.choice(steps)()

    def hello(self, *, resumes: bool = False) -> None:
        """A connection; of a new life of the program unless it resumes."""
        self.peers += 1
        self.peer = b"p%d" % self.peers
        self.lives += not resumes
        nonce = (b"life%d" % self.lives).ljust(16, b".")
        resume = Resume(self.rig.epoch, self.sequence) if resumes else None
        ready = self.rig.hello(self.peer, Role.PRODUCER, name=NAME, nonce=nonce, resume=resume)
        self.rig.turn()
        assert isinstance(ready, Ready)
        assert ready.producer is not None
        assert ready.resumed is resumes
        if not resumes:
            self.history.clear()  # retries are of the life that sent the original
            self.epoch += 1
        assert (ready.producer.epoch, ready.producer.sequence) == (self.epoch, self.sequence)
        self.client = Client(self.rig, self.peer, ready)

    def append(self, sequence: int, previous: int, bodies: tuple[Any, ...], **fields: Any) -> str:
        """One batch and its answer: "" for a CONFIRM, or the name of the ERROR."""
        self.client.append(*bodies, sequence=sequence, previous=previous, **fields)
        self.rig.turn()
        confirms = self.rig.confirms(self.peer)
        errors = self.rig.take(self.peer, ErrorHeader)
        assert len(confirms) + len(errors) == 1, "one answer to each batch"
        if errors:
            assert (errors[0].scope, errors[0].id) == ("append", sequence)
            return errors[0].name
        self.offset, self.is_duplicate = confirms[0][1][0], bool(confirms[0][2])
        assert confirms[0][0] == sequence
        return ""

    def bodies(self) -> tuple[Any, ...]:
        self.number += 1
        return tuple((self.number, at) for at in range(self.random.randrange(1, 4)))

    def send(self) -> None:
        sequence, bodies = self.sequence + self.random.choice([1, 1, 1, 5]), self.bodies()
        said = self.append(sequence, self.sequence, bodies)
        if self.is_full:
            assert said == "STORAGE_FULL", "it may be sent again, so it does not count"
            assert self.append(sequence + 1, sequence, bodies) == "SEQUENCE_GAP", "what follows must not overtake it"
            return
        assert (said, self.offset, self.is_duplicate) == ("", len(self.stored), False)
        self.history.append(Batch(sequence, bodies, len(self.stored), ""))
        self.stored += bodies
        self.sequence = self.last_stored = sequence

    @property
    def remembered(self) -> list[Batch]:
        return self.history[-PRODUCER_BATCHES_REMEMBERED:]

    def retry(self) -> None:
        if self.remembered:
            batch = self.random.choice(self.remembered)
            fields = {"payload": b"\xc1"} if batch.error else {}
            said = self.append(batch.sequence, self.random.randrange(batch.sequence), batch.bodies, **fields)
            assert said == batch.error
            assert batch.error or (self.offset, self.is_duplicate) == (batch.offset, True)

    def reuse(self) -> None:
        if self.remembered:
            sequence = self.random.choice(self.remembered).sequence
            assert self.append(sequence, sequence - 1, self.bodies()) == "SEQUENCE_REUSED"

    def gap(self) -> None:
        assert self.append(self.sequence + 2, self.sequence + 1, self.bodies()) == "SEQUENCE_GAP"

    def bad(self) -> None:
        """What is refused for good counts, so what follows is not held up."""
        if self.is_full:
            return  # nobody looks into it then
        sequence, bodies = self.sequence + 1, self.bodies()
        assert self.append(sequence, self.sequence, bodies, payload=b"\xc1") == "BAD_BODY"
        self.history.append(Batch(sequence, bodies, 0, "BAD_BODY"))
        self.sequence = sequence

    def forgotten(self) -> None:
        known = [batch.sequence for batch in self.remembered]
        older = [one for one in range(1, self.sequence + 1) if one not in known]
        if older:
            sequence = self.random.choice(older)
            assert self.append(sequence, sequence - 1, self.bodies()) == "OUTCOME_UNKNOWN"

    def fence(self) -> None:
        """Another program has the name from now on."""
        older, identity = self.peer, self.client.identity
        self.hello()
        assert [error.name for error in self.rig.take(older, ErrorHeader) if error.scope == "session"] == ["FENCED"]
        header = Append(
            stream="s", producer=identity.id, producer_epoch=identity.epoch, sequence=self.sequence + 1,
            previous=self.sequence, count=1,
        )  # fmt: skip
        self.rig.send(older, header, payload=b"\x91\x01")
        self.rig.turn()
        assert self.rig.take(older, NoSessionHeader)
        wrong = {"producer_epoch": identity.epoch}
        assert self.append_as_another(wrong) in ("FENCED", "NO_SESSION")

    def append_as_another(self, fields: dict[str, Any]) -> str:
        """A batch of the older epoch in the newer session ends that; the program says HELLO again."""
        self.client.append("stolen", sequence=self.sequence + 1, previous=self.sequence, **fields)
        self.rig.turn()
        [error] = self.rig.take(self.peer, ErrorHeader)
        assert not self.rig.confirms(self.peer)
        if error.scope == "session":
            self.hello(resumes=True)
        return error.name

    def resume(self) -> None:
        if self.random.random() < 0.5:
            self.rig.disconnect(self.peer)
        self.hello(resumes=True)

    def fill(self) -> None:
        self.is_full = not self.is_full
        self.rig.streams.storage(full=self.is_full, failed=False)

    def restart(self) -> None:
        """What was not on disk is gone, and what was refused is known to nobody."""
        if self.random.random() < 0.5 and not self.is_full:
            self.client.append(*self.bodies(), sequence=self.sequence + 1, previous=self.sequence)
            self.rig.turn(sync=False)
            assert self.rig.confirms(self.peer) == [], "nothing is confirmed before it is durable"
        self.rig, self.is_full = self.rig.crash(), False
        self.history = [batch for batch in self.history if not batch.error]
        self.sequence = self.last_stored
        self.hello(resumes=True)
        self.check()

    # -- what must be true ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Everything is there once, in order."""
        self.peers += 1
        reader = self.rig.consumer(b"r%d" % self.peers, group="", mode="batches", credit=1 << 20)
        self.rig.turn()
        found = [tuple(body) for delivery in self.rig.deliveries(reader) for body in delivery.bodies]
        assert found == self.stored


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_producer_agrees_with_its_model(seed: int) -> None:
    model = Model(seed)
    for _ in range(STEPS):
        model.step()
    model.check()
