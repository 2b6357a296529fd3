"""A real broker process, and peers that speak ZB1 by hand: bare pyzmq, headers written as dicts."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager

import msgspec
import pytest
import zmq

from patterns.wire.identity import publisher_of
from patterns.wire.names import channel_of


class Broker:
    """`python -m zbroker run` on a free port."""

    def __init__(self, *arguments: str, bind: str = "tcp://127.0.0.1:0") -> None:
        quiet = ["--log-level", "error"]
        command = [sys.executable, "-m", "zbroker", "run", "--bind", bind, "--json", *quiet, *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)

    def ready(self) -> dict:
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def end(self) -> tuple[int, str]:
        _, complaint = self.process.communicate(timeout=20)
        return self.process.returncode, complaint


@contextmanager
def running(*arguments: str):
    broker = Broker(*arguments)
    try:
        broker.url = broker.ready()["addresses"]["native"]
        yield broker
    finally:
        broker.process.kill()
        broker.process.communicate()


class Peer:
    """A DEALER that writes headers in one form."""

    def __init__(self, context, url: str, form: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(url)
        self.form = form
        self.nonce = os.urandom(16)

    def send(self, kind: str, header: dict, *frames: bytes, key: bytes = b"") -> None:
        encode = msgspec.json.encode if self.form == "json" else msgspec.msgpack.encode
        self.socket.send_multipart([b"ZB1" + kind.encode() + key, encode(header), *frames])

    def receive(self, kind: str) -> tuple[dict, list[bytes]]:
        """The next message of that kind; PINGs, CREDITs and AUDIENCEs in front of it are passed over."""
        while True:
            assert self.socket.poll(10_000), f"no {kind!r} came"
            first, header, *rest = self.socket.recv_multipart()
            decode = msgspec.json.decode if header[:1] == b"{" else msgspec.msgpack.decode
            if first[3:4].decode() == kind:
                return decode(header), rest
            assert first[3:4] in (b"I", b"C", b"w"), (first, header)

    def hello(self, role: str) -> dict:
        nonce = base64.b64encode(self.nonce).decode() if self.form == "json" else self.nonce
        codec = "json" if self.form == "json" else "msgpack"
        credit = {"credit_messages": 1000, "credit_bytes": 1 << 20}
        self.send("H", {"role": role, "nonce": nonce, "codec": codec, **credit})
        return self.receive("h")[0]


@pytest.fixture
def peers():
    context = zmq.Context()
    yield lambda broker, form="msgpack": Peer(context, broker.url, form)
    context.destroy(linger=0)


@pytest.fixture(scope="module")
def broker():
    with running("--no-data") as broker:
        yield broker


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_request_by_hand_gets_its_reply(broker, peers, form):
    replier, requester = peers(broker, form), peers(broker)
    replier.hello("replier")
    replier.send("O", {"id": 1, "service": f"echo-{form}"})
    replier.receive("o")
    requester.hello("requester")
    requester.send("Q", {"id": 9, "service": f"echo-{form}", "timeout_ms": 5000}, b"", b"\x91\x07")
    asked, (_, payload) = replier.receive("Q")
    assert payload == (b"[7]" if form == "json" else b"\x91\x07")
    codec = "json" if form == "json" else "msgpack"
    replier.send("q", {"id": asked["id"], "codec": codec}, b"", payload)
    reply, (_, body) = requester.receive("q")
    assert (reply["id"], body) == (9, b"\x91\x07")


def test_a_batch_by_hand_reaches_a_subscriber(broker, peers):
    subscriber, publisher = peers(broker), peers(broker)
    subscriber.hello("subscriber")
    subscriber.send("S", {"id": 1, "pattern": "a.>"})
    subscriber.receive("s")
    publisher.hello("publisher")
    header = {"publisher": publisher_of(publisher.nonce), "sequence": 0, "count": 1, "codec": "raw", "topic": "a.b"}
    publisher.send("P", header, b"", b"body", key=bytes([channel_of("a.b")]))
    _, (_, body) = subscriber.receive("P")
    assert body == b"body"


def test_a_lost_replier_is_noticed_by_its_connection_alone(broker, peers):
    replier, requester = peers(broker), peers(broker)
    replier.hello("replier")
    replier.send("O", {"id": 1, "service": "mortal"})
    replier.receive("o")
    requester.hello("requester")
    requester.send("Q", {"id": 1, "service": "mortal", "timeout_ms": 60_000}, b"", b"\x91\x07")
    replier.receive("Q")
    replier.socket.close()
    assert requester.receive("E")[0]["name"] == "REPLIER_LOST"


def test_status_by_hand(broker, peers):
    admin = peers(broker, "json")
    admin.hello("admin")
    admin.send("M", {"id": 1, "verb": "status"})
    _, (_, payload) = admin.receive("m")
    (status,) = json.loads(payload)
    assert status["sessions"]["admin"] == 1
    assert status["guard"]["connections"] >= 0


def test_garbage_at_the_port_leaves_it_serving(broker, peers):
    chance = random.Random(7)
    vandal = peers(broker)
    for _ in range(300):
        vandal.socket.send_multipart([chance.randbytes(chance.randrange(40)) for _ in range(chance.randrange(1, 7))])
    vandal.receive("E")
    with_tcp = zmq.Context()
    stream = with_tcp.socket(zmq.STREAM)
    stream.connect(broker.url)
    peer_id = stream.recv_multipart()[0]
    stream.send_multipart([peer_id, chance.randbytes(5_000)])
    assert peers(broker).hello("requester")["limits"]["body_bytes_max"] == 1 << 20
    with_tcp.destroy(linger=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_goodbye_to_peers_and_exits_0(peers, number):
    with running("--no-data") as broker:
        requester = peers(broker)
        requester.hello("requester")
        broker.process.send_signal(number)
        assert requester.receive("G")[0]["reason"]
        assert broker.end() == (0, "")


def test_a_second_broker_on_the_same_address_exits_69(broker):
    second = Broker("--no-data", bind=broker.url)
    status, complaint = second.end()
    assert status == 69
    assert "in use" in complaint


def test_a_second_broker_on_the_same_data_exits_69_and_the_epoch_grows_with_each_start(tmp_path):
    folder = ["--data", str(tmp_path / "data")]
    with running(*folder) as first:
        status, complaint = Broker(*folder).end()
        assert status == 69
        assert "locked" in complaint
        assert "journal_locked" not in complaint, "it waits, though a broker lives there"
        first.process.terminate()
        assert first.end() == (0, "")
    again = Broker(*folder)
    assert again.ready()["epoch"] == 2
    again.process.terminate()
    assert again.end() == (0, "")


@pytest.mark.parametrize(
    "arguments", [["--bind", "tcp://0.0.0.0:0"], ["--mdp", "tcp://127.0.0.1:0"], ["--config", "/nonexistent"]]
)
def test_bad_configuration_exits_78_with_a_text(arguments):
    command = [sys.executable, "-m", "zbroker", "run", "--no-data", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("zbroker: ")
    assert done.stdout == ""
