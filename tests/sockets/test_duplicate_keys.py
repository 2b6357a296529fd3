"""`duplicate_keys = "refuse"`: on each of the three ways through a broker, beside the default."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from patterns.sync import Admin, Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import Untranslatable
from tests.processes import DEADLINE_S, Broker

TWICE = msgspec.Raw(b'{"a":1,"a":2}')


@pytest.fixture
def strict(tmp_path) -> Iterator[str]:
    with Broker(tmp_path, "--duplicate-keys", "refuse") as broker:
        yield broker.url


@pytest.fixture
def lenient(tmp_path) -> Iterator[str]:
    with Broker(tmp_path) as broker:
        yield broker.url


def asked(url: str) -> Any:
    """What a requester in JSON hears of a body that a replier in msgpack echoes."""
    with Replier(url, "echo", lambda body: body) as replier:
        threading.Thread(target=replier.serve_forever, daemon=True).start()
        with Requester(url, codec="json") as requester:
            return requester.request("echo", TWICE, timeout_s=DEADLINE_S, wait_s=DEADLINE_S / 2)


def published(url: str) -> Any:
    """A live message as a subscriber reads it that wants msgpack."""
    with Subscriber(url, "t.>") as subscriber, Publisher(url, codec="json") as publisher:
        subscriber.ready(DEADLINE_S)
        publisher.publish("t.a", TWICE)
        publisher.flush(DEADLINE_S)
        message = subscriber.receive(DEADLINE_S)
        assert message is not None
        return message.body


def stored(url: str) -> bytes:
    """A stored message as it reaches a consumer that wants msgpack."""
    with Producer(url, "s", codec="json") as producer:
        producer.send(TWICE)
    with Consumer(url, "s", group="g") as consumer:
        delivery = consumer.receive(DEADLINE_S)
        assert delivery is not None
        return delivery.raw


def status_of(url: str) -> dict[str, Any]:
    with Admin(url) as admin:
        found: dict[str, Any] = admin.status()
    return found


def test_a_key_twice_is_refused_everywhere_when_the_broker_is_told_so(strict):
    with pytest.raises(Untranslatable, match=r'\[0\].* the key "a" twice'):
        asked(strict)
    assert published(strict) == {"a": 2}  # as it came, labelled so, and the last wins in Python
    assert stored(strict) == bytes(TWICE)
    status = status_of(strict)
    assert status["refused"]["UNTRANSLATABLE"] == 1
    assert (status["counters"]["live_untranslated"], status["counters"]["stored_untranslated"]) == (1, 1)


def test_the_last_of_a_key_that_comes_twice_wins_otherwise(lenient):
    assert asked(lenient) == {"a": 2}
    assert published(lenient) == {"a": 2}
    assert stored(lenient) == msgspec.msgpack.encode({"a": 2})
    assert not {"live_untranslated", "stored_untranslated"} & set(status_of(lenient)["counters"])
