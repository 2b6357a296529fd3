"""A peer of nothing but pyzmq and json, and one that packs msgpack by hand: with a broker, with our own roles, and directly."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import ApplicationError
from tests.processes import Broker, Program

MESSAGES = 300
Peer = Callable[..., Program]
BARE = os.fspath(Path(__file__).with_name("bare_peer.py"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    started: list[Program] = []

    def start(*arguments: object) -> Program:
        started.append(Program([BARE, *map(str, arguments)], tmp_path / f"bare-{len(started)}.err"))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        if one.errors:
            print(one.errors)


def said(program: Program) -> Any:
    return json.loads(program.line())


def all_said(program: Program) -> list[Any]:
    return [json.loads(line) for line in program.lines()]


def double(body: Any) -> Any:
    if body["n"] == 3:
        raise ApplicationError("three is too much", code="no_three")
    return {"twice": body["n"] * 2}


@contextmanager
def doubling(address: str) -> Iterator[Replier]:
    with Replier(address, "double", double) as replier:
        replier.ready()
        thread = threading.Thread(target=replier.serve_forever, daemon=True)
        thread.start()
        yield replier
    thread.join(10)


@pytest.mark.parametrize("place", ["broker", "peer"])
def test_it_asks_our_replier(broker: Broker, peer: Peer, place: str) -> None:
    with doubling(broker.url if place == "broker" else "tcp://127.0.0.1:0") as replier:
        asked = said(peer("request", broker.url if place == "broker" else replier.address, "double", 4))
    refused = {"error": "APPLICATION_ERROR", "code": "no_three"}
    assert asked["replies"] == [{"twice": 2}, {"twice": 4}, refused, {"twice": 8}]


@pytest.mark.parametrize("place", ["broker", "peer"])
def test_msgpack_packed_by_hand(broker: Broker, peer: Peer, place: str) -> None:
    with doubling(broker.url if place == "broker" else "tcp://127.0.0.1:0") as replier:
        packing = peer("packed", broker.url if place == "broker" else replier.address)
        assert said(packing) == {"kind": "ZB1q", "same": True, "payload": b"\x91\x81\xa5twice\x2a".hex()}
        assert said(packing) == {"goodbye": "ZB1G"}


def test_it_answers_our_requester(broker: Broker, peer: Peer) -> None:
    serving = peer("reply", broker.url, "bare", 3)
    said(serving)
    with Requester(broker.url) as requester:
        assert requester.request("bare", {"n": 1}) == {"twice": 2}
        with pytest.raises(ApplicationError) as refused:
            requester.request("bare", {"n": 3})
        assert refused.value.code == "no_three"
        assert requester.request("bare", {"n": 5}) == {"twice": 10}
    assert serving.wait() == 0


def test_it_publishes_to_our_subscriber(broker: Broker, peer: Peer) -> None:
    publishing = peer("publish", broker.url, "bare.topic", MESSAGES)
    with Subscriber(broker.url, "bare.*") as subscriber:
        subscriber.ready()
        got = [subscriber.receive(10) for _ in range(MESSAGES)]
        assert subscriber.lost == 0
    assert [message.body["n"] for message in got] == list(range(MESSAGES))
    assert publishing.wait() == 0


def test_it_hears_our_publisher(broker: Broker, peer: Peer) -> None:
    listening = peer("subscribe", broker.url, "ours.>", MESSAGES)
    said(listening)
    with Publisher(broker.url) as publisher:
        publisher.wait_for_subscribers(1)
        for n in range(MESSAGES):
            publisher.publish("ours.topic", n)
        assert said(listening) == {"seen": list(range(MESSAGES)), "lost": 0}


def test_status_and_pings(broker: Broker, peer: Peer) -> None:
    asking = peer("status", broker.url)
    assert said(asking)["status"]["epoch"] == broker.epochs[-1]
    assert said(asking)["pongs"] >= 2


def test_kill_while_it_produces(tmp_path: Path, peer: Peer) -> None:
    with Broker(tmp_path) as broker:
        producing = peer("produce", broker.url, "orders", MESSAGES)
        offsets = []
        for _kill in range(2):
            offsets += [said(producing)["offset"] for _ in range(20)]
            broker.restart()
        *lines, summary = all_said(producing)
        offsets += [line["offset"] for line in lines]
        assert offsets == list(range(MESSAGES))
        assert (summary["sessions"], summary["refusals"]) == (3, 2)
        with Consumer(broker.url, "orders", idle_timeout_s=5) as consumer:
            got = [consumer.receive(10) for _ in range(MESSAGES)]
        assert [(one.body["n"], one.key) for one in got] == [(n, f"k{n}") for n in range(MESSAGES)]


def test_it_stores_a_message_once_by_its_id(tmp_path: Path, peer: Peer) -> None:
    batches = [["a", "b"], ["c", "b", None, "a"], ["a", "b"], ["d", "d", None]]
    with Broker(tmp_path) as broker:
        told = said(peer("identify", broker.url, "ids", *map(json.dumps, batches)))
        assert told == {"places": [[0, 1], [2, 1, 3, 0], [0, 1], [4, 4, 5]], "duplicates": [3]}
        broker.restart()
        told = said(peer("identify", broker.url, "ids", json.dumps(["x", "d", "c"])))
        assert told == {"places": [[6, 4, 2]], "duplicates": []}
        with Consumer(broker.url, "ids", idle_timeout_s=5) as consumer:
            got = [consumer.receive(10) for _ in range(7)]
    assert [(one.message_id, one.body["id"]) for one in got] == [
        (one, one) for one in ["a", "b", "c", None, "d", None, "x"]
    ]


def test_more_exceptions_than_one_confirm_holds(broker: Broker, peer: Peer) -> None:
    known = [f"k{number}" for number in range(1_500)]
    mixed = [one for number, name in enumerate(known) for one in (name, f"n{number}")]
    told = said(peer("identify", broker.url, "many-ids", json.dumps(known), json.dumps(mixed)))
    assert told["places"][0] == list(range(1_500))
    assert told["places"][1] == [one for number in range(1_500) for one in (number, 1_500 + number)]


def test_kill_while_it_consumes(tmp_path: Path, peer: Peer) -> None:
    count = 10 * MESSAGES  # so many that it is not done before it stands still
    with Broker(tmp_path) as broker:
        with Producer(broker.url, "orders") as producer:
            producer.send_many([{"n": n} for n in range(count)])
        consuming = peer("consume", broker.url, "orders", "workers", count)
        for _ in range(5):
            said(consuming)
        consuming.signal(signal.SIGSTOP)
        broker.kill()
        consuming.signal(signal.SIGCONT)
        broker.start()
        done = all_said(consuming)[-1]
        assert done["done"] == list(range(count))
        assert done["sessions"] == 2
        group = said(peer("status", broker.url))["status"]["groups"]["orders/workers"]
        assert (group["acked"], group["lag"]) == (count, 0)
