"""Forwarding: numbers are the disk's, and nothing is given up that the broker has not refused."""

from __future__ import annotations

import pytest

from patterns.core.forward import ClusterChanged, Estranged, ForwardingEngine, batch_of_parcel
from patterns.core.produce import Confirmed
from patterns.wire.errors import Fenced, OutcomeUnknown, SequenceReused, StorageFull, TooLarge, UnknownProducer
from patterns.wire.messages import Append, Codec, Confirm, ErrorHeader, Hello, ProducerIdentity
from patterns.wire.parcel import Parcel, Sender
from tests.unit.core_clients.wire import BROKER, NONCE, Wire, calm

ME = ProducerIdentity(9, 1, 0)
SENDER = Sender("journal-1", NONCE)
OTHER = Sender("journal-2", bytes(16))


def wired(last_number: int = 100) -> Wire:
    return Wire(ForwardingEngine(BROKER, "orders", SENDER, Codec.MSGPACK, calm, last_number))


@pytest.fixture
def wire() -> Wire:
    wire = wired()
    wire.greet(producer=ME, cluster="a")
    return wire


def forward(wire: Wire, *numbers: int) -> None:
    parcels = [Parcel(number, 10, Codec.MSGPACK, b"", b"payload") for number in numbers]
    wire.engine.append([batch_of_parcel(parcel) for parcel in parcels], wire.now)
    wire.settle()


def sent(wire: Wire) -> list[tuple[int, int]]:
    return [(header.previous, header.sequence) for header in wire.sent(Append)]


def refuse(wire: Wire, error: type[Exception], sequence: int, **more: object) -> None:
    wire.say(ErrorHeader(number=error.number, scope="append", id=sequence, **more))  # type: ignore[attr-defined]


def test_the_first_hello_of_a_program_resumes_the_session_of_the_one_before() -> None:
    wire = wired()
    wire.greet(producer=ME)
    hello = wire.sent(Hello)[0]
    assert (hello.name, hello.nonce, hello.resume is not None) == ("journal-1", NONCE, True)


def test_batches_keep_the_numbers_of_the_disk_whoever_the_broker_takes_us_for(wire: Wire) -> None:
    forward(wire, 41, 51)
    wire.back(producer=ProducerIdentity(12, 3, 0), cluster="a")
    assert sent(wire) == [(0, 41), (41, 51), (0, 41), (41, 51)]


def test_what_the_broker_has_is_sent_again_and_named_by_its_own_number(wire: Wire) -> None:
    wire = wired()
    forward(wire, 41, 51, 61)
    wire.greet(producer=ProducerIdentity(9, 1, 51))
    assert sent(wire) == [(0, 41), (0, 51), (51, 61)]


def test_in_another_cluster_all_is_sent_again_and_nothing_is_given_up(wire: Wire) -> None:
    forward(wire, 41, 51)
    wire.say(Confirm(41, [0]))
    wire.back(producer=ProducerIdentity(1, 1, 0), cluster="b")
    assert [event.batches for event in wire.heard(ClusterChanged)] == [1]
    assert sent(wire)[-1] == (0, 51)
    assert [batch.error for event in wire.heard(Confirmed) for batch in event.batches] == [None]


def test_who_is_known_for_batches_that_we_never_had_sends_nothing_until_renewed() -> None:
    wire = wired(last_number=60)
    forward(wire, 41, 51)
    wire.greet(producer=ProducerIdentity(9, 1, 61))
    assert sent(wire) == []
    assert len(wire.heard(Estranged)) == 1
    wire.engine.renew(OTHER, wire.now)
    wire.settle()
    wire.back(producer=ProducerIdentity(10, 1, 0))
    assert wire.sent(Hello)[-1].name == "journal-2"
    assert sent(wire) == [(0, 41), (41, 51)]


@pytest.mark.parametrize("error", [SequenceReused, UnknownProducer])
def test_a_broker_that_knows_other_bytes_under_our_numbers_is_told_of_once(wire: Wire, error: type[Exception]) -> None:
    forward(wire, 41, 51)
    refuse(wire, error, 41)
    refuse(wire, error, 51)
    assert len(wire.heard(Estranged)) == 1
    assert wire.heard(Confirmed) == []


@pytest.mark.parametrize("error", [TooLarge, OutcomeUnknown])
def test_a_refusal_for_good_is_told_in_its_turn(wire: Wire, error: type[Exception]) -> None:
    forward(wire, 41, 51)
    refuse(wire, error, 41)
    wire.say(Confirm(51, [0]))
    done = [batch for event in wire.heard(Confirmed) for batch in event.batches]
    assert [(batch.sequence, type(batch.error)) for batch in done] == [(41, error), (51, type(None))]


def test_a_refusal_that_passes_is_waited_for(wire: Wire) -> None:
    forward(wire, 41)
    refuse(wire, StorageFull, 41, retryable=True, retry_after_ms=1_000)
    assert isinstance(wire.engine.hindrance, StorageFull)
    wire.wait(1_000)
    assert sent(wire) == [(0, 41), (0, 41)]


def test_a_refused_session_gives_up_nothing(wire: Wire) -> None:
    forward(wire, 41)
    wire.say(ErrorHeader(number=Fenced.number, scope="session"))
    wire.engine.shed(wire.engine.error)
    wire.settle()
    assert isinstance(wire.engine.error, Fenced)
    assert wire.heard(Confirmed) == []
