"""A peer in JavaScript, written from SPEC.md: with a broker, with our own roles, and directly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber
from patterns.wire.errors import ApplicationError, BadArgument, HandlerFailed, TimedOut
from patterns.wire.limits import PARTS_WINDOW
from tests.interop import node
from tests.processes import Broker, Program, until
from tests.sockets.places import serving

MESSAGES = 1_000
Peer = Callable[..., Program]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the JavaScript is. Without Node.js this fails, and says how to get it."""
    try:
        node.executable()
        return node.lay_out(tmp_path_factory.mktemp("node"))
    except node.NodeMissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def peer(programs: Path, tmp_path: Path) -> Iterator[Peer]:
    """Starts peer.mjs with a verb; the program says JSON lines."""
    started: list[Program] = []

    def start(*arguments: object) -> Program:
        command = [os.fspath(programs / "peer.mjs"), *map(str, arguments)]
        started.append(Program(command, tmp_path / f"node-{len(started)}.err", interpreter=(node.executable(),)))
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


class Serving:
    """A Replier of ours whose handler runs in a thread."""

    def __init__(self, address: str) -> None:
        self.replier = Replier(address, "double", self._double)
        self._thread = threading.Thread(target=self.replier.serve_forever, daemon=True)

    def _double(self, body: Any) -> Any:
        if body["n"] == 3:
            raise ApplicationError("three is too much", code="no_three")
        return {"twice": body["n"] * 2}

    def __enter__(self) -> Replier:
        self.replier.ready()
        self._thread.start()
        return self.replier

    def __exit__(self, *_: object) -> None:
        self.replier.close()
        self._thread.join(10)


def check_doubled(program: Program) -> None:
    assert said(program) == {"ready": True}
    replies = said(program)["replies"]
    refused = replies.pop(3)
    assert (refused["number"], refused["code"]) == (700, "no_three")
    assert [reply["twice"] for reply in replies] == [n * 2 for n in range(50) if n != 3]


def test_node_asks_our_replier_through_the_broker(broker: Broker, peer: Peer) -> None:
    with Serving(broker.url):
        check_doubled(peer("request", broker.url, "double", 50))


def test_node_asks_our_replier_directly(peer: Peer) -> None:
    with Serving("tcp://127.0.0.1:0") as replier:
        check_doubled(peer("request", replier.address, "double", 50))


def test_nobody_offers_what_node_asks_for(broker: Broker, peer: Peer) -> None:
    asking = peer("request", broker.url, "nothing", 1)
    said(asking)
    assert said(asking)["replies"][0]["error"] == "NO_REPLIER"


def test_our_requester_asks_node(broker: Broker, peer: Peer) -> None:
    serving = peer("reply", broker.url, "js")
    assert said(serving) == {"ready": True}
    with Requester(broker.url) as requester:
        assert requester.request("js", {"n": 7}, headers={"a": "b"}) == {"n": 7, "by": "node", "headers": {"a": "b"}}
        with pytest.raises(ApplicationError) as refused:
            requester.request("js", {"n": "fail"})
        assert refused.value.code == "no_such_sku"
        with pytest.raises(HandlerFailed, match="not foreseen"):
            requester.request("js", {"n": "break"})
        with pytest.raises(TimedOut):
            requester.request("js", {"n": "wait"}, timeout_s=0.2)
        assert said(serving) == {"waiting": True}
        assert said(serving) == {"cancelled": True}
        assert requester.request("js", {"n": 8})["n"] == 8
    serving.tell("enough")
    assert said(serving) == {"served": 5}


def _rows(body: dict[str, Any]) -> Iterator[dict[str, int]]:
    for row in range(body["n"]):
        yield {"row": row}
    if body["fail"]:
        raise ApplicationError("there are no more", code=body["fail"])


@pytest.mark.parametrize("is_brokered", [True, False])
def test_node_takes_our_parts(broker: Broker, peer: Peer, is_brokered: bool) -> None:
    with serving(broker.url if is_brokered else "tcp://127.0.0.1:0", "rows", _rows) as replier:
        url = broker.url if is_brokered else replier.address
        for arguments, expected, code in ((("1000", "-1"), 1_000, None), (("300", "-1", "no_more"), 300, "no_more")):
            asking = peer("stream", url, "rows", *arguments)
            said(asking)
            found = said(asking)
            assert (found["parts"], found["inOrder"]) == (expected, True)
            assert (found["error"] or {}).get("code") == code
            asking.tell("enough")


def test_we_take_the_parts_of_node_and_stop_it(broker: Broker, peer: Peer) -> None:
    replying = peer("rows", broker.url, "js")
    said(replying)
    with Requester(broker.url) as requester:
        parts = list(requester.stream("js", {"n": 1_000, "fail": ""}))
        assert parts == [{"row": row} for row in range(1_000)]
        assert said(replying) == {"made": 1_000}
        with requester.stream("js", {"n": 100_000, "fail": ""}) as rows:
            assert next(rows) == {"row": 0}
        assert said(replying)["made"] <= 1 + PARTS_WINDOW
        with pytest.raises(BadArgument, match="ask for a stream"):
            requester.request("js", {"n": 1, "fail": ""})


def test_node_leaves_a_stream_of_ours(broker: Broker, peer: Peer) -> None:
    made: list[int] = []

    def rows(body: dict[str, Any]) -> Iterator[dict[str, int]]:
        try:
            for row in range(body["n"]):
                made.append(row)
                yield {"row": row}
        finally:
            made.append(-1)

    with serving(broker.url, "rows", rows):
        asking = peer("stream", broker.url, "rows", "100000", "3")
        said(asking)
        assert said(asking)["parts"] == 3
        until(lambda: made[-1:] == [-1], what="the end of the generator")
        assert len(made) <= 3 + PARTS_WINDOW + 1


def test_node_publishes_to_our_subscriber(broker: Broker, peer: Peer) -> None:
    publishing = peer("publish", broker.url, "js.topics", MESSAGES)
    with Subscriber(broker.url, "js.>") as subscriber:
        subscriber.ready()
        got = [subscriber.receive(10) for _ in range(MESSAGES)]
        assert subscriber.lost == 0
    assert [message.body for message in got] == [{"n": n, "text": "ä"} for n in range(MESSAGES)]
    assert [message.topic for message in got] == [f"js.topics.{n % 3}" for n in range(MESSAGES)]
    assert [message.headers for message in got[:2]] == [None, {"odd": "yes"}]
    assert said(publishing)["audience"] == 1
    assert said(publishing) == {"published": MESSAGES, "left": 0}


def test_our_publisher_reaches_node(broker: Broker, peer: Peer) -> None:
    listening = peer("subscribe", broker.url, "py.*.created", MESSAGES)
    assert said(listening) == {"ready": True}
    with Publisher(broker.url) as publisher:
        publisher.wait_for_subscribers(1)
        for n in range(MESSAGES):
            publisher.publish("py.eu.created", {"n": n, "text": "ä"}, {"n": str(n)})
            publisher.publish("py.eu.deleted", None)
        found = said(listening)
    assert found["lost"] == 0
    assert found["seen"] == [["py.eu.created", {"n": n, "text": "ä"}, {"n": str(n)}] for n in range(MESSAGES)]


def read_all(url: str, stream: str, count: int) -> list[Any]:
    with Consumer(url, stream, idle_timeout_s=5) as consumer:
        return [consumer.receive(10) for _ in range(count)]


def test_node_produces_for_our_consumer(broker: Broker, peer: Peer) -> None:
    lines = all_said(peer("produce", broker.url, "from-node", 200))
    assert [offset for line in lines[:-1] for offset in line["offsets"]] == list(range(200))
    got = read_all(broker.url, "from-node", 200)
    assert [delivery.body["n"] for delivery in got] == list(range(200))
    assert (got[1].key, got[1].headers) == ("k1", None)
    assert (got[49].key, got[49].headers) == (None, {"from": "node"})


def test_node_stores_a_message_once_by_its_id(broker: Broker, peer: Peer) -> None:
    places = said(peer("identify", broker.url, "ids-of-node", "a", "b", "a", "c", "b", "", "a", "d"))["places"]
    assert places == [0, 1, 0, 2, 1, 3, 0, 4]
    assert [one.message_id for one in read_all(broker.url, "ids-of-node", 5)] == ["a", "b", "c", None, "d"]


def test_our_producer_reaches_node(broker: Broker, peer: Peer) -> None:
    with Producer(broker.url, "from-python") as producer:
        producer.send_many([{"n": n} for n in range(200)])
        producer.send({"n": 200}, key="k", headers={"h": "v"})
    reading = said(peer("read", broker.url, "from-python", 150, 51))["seen"]
    assert [one["offset"] for one in reading] == [one["body"]["n"] for one in reading] == list(range(150, 201))
    assert (reading[-1]["key"], reading[-1]["headers"]) == ("k", {"h": "v"})
    consuming = peer("consume", broker.url, "from-python", "workers", 201)
    done = all_said(consuming)[-1]
    assert (done["done"], done["twice"], done["stale"]) == (list(range(201)), 0, 0)


def test_node_settles_in_every_way(broker: Broker, peer: Peer) -> None:
    with Producer(broker.url, "settled") as producer:
        producer.send_many(range(10))
    found = said(peer("settle", broker.url, "settled", "workers"))
    assert found == {"answers": True, "again": {"0": 2, "2": 1}, "twice": False}


def test_what_json_cannot_hold_is_rejected_by_node(broker: Broker, peer: Peer) -> None:
    with Producer(broker.url, "bytes") as producer:
        producer.send({"n": b"\xff"})
        producer.send({"n": 1})
    done = all_said(peer("consume", broker.url, "bytes", "workers", 1))[-1]
    assert (done["done"], done["unreadable"]) == ([1], 1)


def test_sessions_and_strangers(broker: Broker, peer: Peer) -> None:
    refused, resumed, rest = all_said(peer("strangers", broker.url))
    assert refused == {"refused": ["ZB1N", {"epoch": broker.epochs[-1]}]}
    assert resumed == {"resumed": True, "offsets": [0, 1], "sessions": 2, "refusals": 1}
    assert rest["unknown"][1]["name"] == "UNKNOWN_COMMAND"
    assert (rest["pong"], rest["goodbye"]) == (["ZB1i", {"token": 7}], ["ZB1G", {}])


def test_node_keeps_an_idle_session_by_pings(broker: Broker, peer: Peer) -> None:
    assert said(peer("idle", broker.url)) == {"pongs": 2, "sessions": 1}


def test_node_reads_the_status(broker: Broker, peer: Peer) -> None:
    assert said(peer("status", broker.url))["epoch"] == broker.epochs[-1]


def test_kill_while_node_produces(tmp_path: Path, peer: Peer) -> None:
    with Broker(tmp_path) as broker:
        producing = peer("produce", broker.url, "orders", MESSAGES, "till-1")
        lines = []
        for _kill in range(2):
            lines += [said(producing) for _ in range(5)]
            broker.restart()
        lines += all_said(producing)
        assert lines[-1]["sessions"] == 3
        offsets = [offset for line in lines[:-1] for offset in line["offsets"]]
        assert offsets == list(range(MESSAGES))
        assert [delivery.body["n"] for delivery in read_all(broker.url, "orders", MESSAGES)] == list(range(MESSAGES))


def test_kill_and_goodbye_while_node_consumes(tmp_path: Path, peer: Peer) -> None:
    with Broker(tmp_path) as broker:
        with Producer(broker.url, "orders") as producer:
            producer.send_many([{"n": n} for n in range(MESSAGES)])
        consuming = peer("consume", broker.url, "orders", "workers", MESSAGES)
        for _ in range(4):
            said(consuming)
        broker.restart()
        for _ in range(4):
            said(consuming)
        assert broker.terminate() == 0
        broker.start()
        done = all_said(consuming)[-1]
        assert done["done"] == list(range(MESSAGES))
        assert (done["twice"], done["sessions"]) == (0, 3)
        group = said(peer("status", broker.url))["groups"]["orders/workers"]
        assert (group["acked"], group["lag"]) == (MESSAGES, 0)


def test_what_is_idempotent_outlives_a_broker(tmp_path: Path, peer: Peer) -> None:
    with Broker(tmp_path) as broker:
        serving = peer("reply", broker.url, "js")
        said(serving)
        asking = peer("request", broker.url, "slow", 3, "idempotent")
        said(asking)
        broker.restart()
        with Serving(broker.url), Replier(broker.url, "slow", lambda body: body) as slow:
            thread = threading.Thread(target=slow.serve_forever, daemon=True)
            thread.start()
            replies = said(asking)["replies"]
        thread.join(10)
        assert [reply.get("n", reply.get("error")) for reply in replies] == [0, 1, 2]
        with Requester(broker.url) as requester:
            assert requester.request("js", {"n": 1}, wait_s=5)["by"] == "node"


# -- the programs that people copy -----------------------------------------------------------------------------------


@pytest.fixture
def example(programs: Path, broker: Broker, tmp_path: Path) -> Iterator[Peer]:
    started: list[Program] = []

    def start(name: str, *arguments: object) -> Program:
        command = [os.fspath(programs / f"{name}.mjs"), *map(str, arguments)]
        errors = tmp_path / f"{name}.err"
        environment = {"ZBROKER_URL": broker.url}
        started.append(Program(command, errors, environment, interpreter=(node.executable(),)))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def test_example_request_reply(example: Peer) -> None:
    replying = example("reply")
    replying.line()
    assert example("request", 7).line() == '{"sku":7,"price":42}'
    refused = example("request", 8)
    assert refused.wait() == 1
    assert refused.errors == "APPLICATION_ERROR no_such_sku: no article 8\n"
    replying.signal(signal.SIGINT)
    assert replying.wait() == 0


def test_example_publish_subscribe(example: Peer) -> None:
    listening = example("subscribe", "orders.>", 2)
    assert listening.line() == "listening"
    assert example("publish").wait() == 0
    assert listening.lines() == ['orders.eu.created {"order":1}', 'orders.us.created {"order":2}', "lost: 0"]
    assert listening.wait() == 0


def test_example_produce_consume(example: Peer) -> None:
    assert example("produce", 3).lines() == [f"on disk at {offset}" for offset in range(3)]
    assert example("consume", 3).lines() == [f'{n} {{"invoice":{n}}}' for n in range(3)]


def test_without_node_the_failure_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.shutil, "which", lambda *_, **__: None)
    with pytest.raises(node.NodeMissingError, match="make test"):
        node.executable()


def test_the_node_client_speaks_json_alone(programs: Path) -> None:
    text = (programs / "zb1.mjs").read_text()
    assert "msgpack" not in text.replace("speak msgpack", "")
    assert subprocess.run([node.executable(), "--check", programs / "zb1.mjs"], check=False).returncode == 0
