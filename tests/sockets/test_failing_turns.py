"""A turn that raises what none may: nobody waits for ever, everybody is told, and what is beside it goes on."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from patterns.sync import Producer, Publisher, Subscriber
from patterns.wire.errors import LocalProtocolError
from tests.processes import Broker, until
from tests.sockets.places import Place


def boom(*_: object) -> Any:
    raise RuntimeError("boom")


def test_a_producer_whose_keeper_fails_says_so_in_every_call(
    broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Producer(broker.url, "s") as producer, Producer(broker.url, "s") as other:
        producer.send(1)
        monkeypatch.setattr(producer._engine, "append", boom)
        posted = producer.post(2)
        until(lambda: producer._engine.error is not None, what="the keeper's turn")
        for call in (lambda: posted.result(30), lambda: producer.send(3), lambda: producer.post(4), producer.flush):
            with pytest.raises(LocalProtocolError, match=r"this Producer has failed, .* RuntimeError: boom") as told:
                call()
            assert isinstance(told.value.__cause__, RuntimeError)
        assert producer._driver._keeper._thread.is_alive()
        monkeypatch.undo()
        assert other.send(2).offset == 1
    said = [record for record in caplog.records if record.name == "zbroker" and record.levelno == logging.ERROR]
    assert len(said) == 1
    assert said[0].exc_info is not None


def test_a_callback_that_calls_exit_ends_nothing_in_a_thread_of_ours(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(_: object) -> None:
        raise SystemExit(3)

    with Producer(broker.url, "s") as producer:
        producer.post(1).add_done_callback(leave)
        until(lambda: "a callback has raised SystemExit: 3" in caplog.text, 30, "the callback")
        posted = producer.post(2)
        until(posted.done, 30, "a confirm, though nobody waits")
        assert posted.result(30).offset == 1


def test_a_publisher_whose_keeper_fails_says_so_in_every_call(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with Publisher(place.bind) as publisher, Subscriber(place.of(publisher), ">") as subscriber:
        subscriber.ready(30)
        monkeypatch.setattr(publisher._lanes, "drain_all", boom)
        publisher.publish("a", 1)
        until(lambda: publisher._engine.error is not None, what="the keeper's turn")
        for call in (publisher.flush, publisher.wait_for_subscribers):
            with pytest.raises(LocalProtocolError, match="this Publisher has failed"):
                call()
        monkeypatch.undo()


def test_a_thread_that_waits_is_told_when_a_deferred_call_fails(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Producer(broker.url, "s") as producer:
        producer.send(1)
        with producer._driver.lock:
            producer._driver.defer(boom)
        producer._driver.kick()
        until(lambda: producer._engine.error is not None, what="the keeper's turn")
        with pytest.raises(LocalProtocolError, match="boom"):
            producer.send(2)
