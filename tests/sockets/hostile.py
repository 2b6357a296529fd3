"""A port under attack, and beside it a healthy program that must not notice. No test lives here."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import zmq

from patterns.sync import Admin
from tests.processes import READY_S, Program, program, until
from tests.sockets.flood import GREETING, frame, ready

MIB: Final = 1 << 20
BUDGET: Final = 256 * MIB  # what these brokers are told to stay under
CALM_S: Final = 15.0  # memory falls back in steps, the last trim comes 16 s after a cut

HEALTHY = """
import json, sys, threading, time
from patterns.sync import Consumer, Producer, Publisher, Replier, Requester, Subscriber

url, said, over = sys.argv[1], [], threading.Event()
account = {"rounds": 0, "worst_ms": 0.0, "lost": 0, "error": ""}

def listen():
    for line in sys.stdin:
        said.append(line)
    over.set()

threading.Thread(target=listen, daemon=True).start()

def round_of(number):
    assert requester.request("healthy", number, timeout_s=10) == number
    publisher.publish("healthy.live", number)
    heard = subscriber.receive(10)
    assert heard is not None and heard.body == number, (heard, number)
    receipt = producer.send(number)
    assert receipt.offset == number, (receipt, number)
    delivery = consumer.receive(10)
    assert delivery is not None and (delivery.offset, delivery.body) == (number, number), (delivery, number)
    delivery.ack(confirm=True)

with (
    Replier(url, "healthy", lambda body: body) as replier,
    Requester(url) as requester,
    Publisher(url) as publisher,
    Subscriber(url, "healthy.>") as subscriber,
    Producer(url, "healthy", timeout_s=10) as producer,
    Consumer(url, "healthy", group="healthy") as consumer,
):
    replier.ready(10)
    subscriber.ready(10)
    threading.Thread(target=replier.serve_forever, daemon=True).start()
    print("ready")
    while not over.is_set():
        began = time.monotonic()
        try:
            round_of(account["rounds"])
        except BaseException as error:
            account["error"] = repr(error)
            print(json.dumps(account))
            raise
        account["rounds"] += 1
        account["worst_ms"] = max(account["worst_ms"], (time.monotonic() - began) * 1_000)
        if said:
            said.pop()
            account["lost"] = subscriber.lost + subscriber.interruptions + consumer.stale
            print(json.dumps(account))
            account["worst_ms"] = 0.0
        time.sleep(0.002)
"""


class Target:
    """A `zbroker run` process with a journal, and a healthy program in another process that uses all of it."""

    def __init__(self, folder: Path) -> None:
        arguments = ["-m", "zbroker", "run", "--bind", "tcp://127.0.0.1:0", "--json", "--data", str(folder / "data")]
        self.broker = Program(arguments, folder / "broker.err", {"ZBROKER_MEMORY_BYTES": str(BUDGET)})
        self.endpoint: str = json.loads(self.broker.line(READY_S))["addresses"]["native"]
        self.url = self.endpoint.replace("tcp://", "zb://")
        self.port = int(self.endpoint.rpartition(":")[2])
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.healthy = program(HEALTHY, folder, self.url)
        assert self.healthy.line() == "ready"
        self._rounds = 0

    def ask_healthy(self) -> dict[str, Any]:
        """Its account since it was asked last; it has lost nothing, and goes on."""
        self.healthy.tell("report")
        account: dict[str, Any] = json.loads(self.healthy.line())
        assert (account["lost"], account["error"]) == (0, ""), account
        assert account["rounds"] > self._rounds
        self._rounds = account["rounds"]
        return account

    def status(self) -> dict[str, Any]:
        with Admin(self.url, timeout_s=15) as admin:
            return admin.status()

    def counters(self) -> dict[str, int]:
        return self.status()["counters"]

    def refused(self) -> dict[str, int]:
        return self.status()["refused"]

    def cuts(self) -> int:
        return sum(self.status()["guard"]["cuts"].values())

    def resident(self, what: str = "VmRSS") -> int:
        """Of the broker, in bytes; VmHWM is the peak."""
        lines = Path(f"/proc/{self.broker.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.broker.process.pid}/clear_refs").write_text("5")

    def calm(self) -> None:
        """It serves, its memory is back under the budget, and the healthy ones have noticed nothing."""
        assert self.broker.process.poll() is None, self.broker.errors
        self.ask_healthy()
        until(lambda: self.resident() < BUDGET, CALM_S, "falling back under the memory budget")

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.healthy.kill()
        self.broker.kill()
        assert "Traceback" not in self.broker.errors, self.broker.errors


class Peer:
    """A DEALER that says what it likes; headers are dicts."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndhwm = 0
        self.socket.rcvhwm = 1  # who never reads shall hold nothing for us either
        self.socket.connect(endpoint)
        self.nonce = os.urandom(16)
        self.ready: dict[str, Any] = {}
        self.answers_pings = True  # a PONG behind the end of its session would be one more that is refused

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, kind: str, header: object, *frames: bytes, key: bytes = b"") -> None:
        encoded = header if isinstance(header, bytes) else msgspec.msgpack.encode(header)
        self.socket.send_multipart([b"ZB1" + kind.encode() + key, encoded, *frames])

    def receive(self, kinds: str, timeout_s: float = 10.0) -> dict[str, Any]:
        """The next header of one of these kinds; PINGs are answered, others passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = int((deadline - time.monotonic()) * 1_000)
            assert left_ms > 0 and self.socket.poll(left_ms), f"none of {kinds!r} came"  # noqa: PT018
            first, encoded, *_ = self.socket.recv_multipart()
            kind = first[3:4].decode()
            header = (msgspec.json if encoded[:1] == b"{" else msgspec.msgpack).decode(encoded)
            if kind in kinds:
                return header | {"kind": kind}
            if kind == "I" and self.answers_pings:
                self.send("i", header)

    def hello(self, role: str, credit: tuple[int, int] = (1_000, MIB), **more: Any) -> Self:
        """READY, or an AssertionError with what came instead."""
        self.send("H", hello_of(role, self.nonce, credit, **more))
        self.ready = self.receive("hEN")
        assert self.ready["kind"] == "h", self.ready
        return self

    def append(self, sequence: int, payload: bytes = b"\x91\x01", columns: bytes = b"", **more: Any) -> None:
        identity = self.ready["producer"]
        header = {
            "stream": "attacked", "producer": identity["id"], "producer_epoch": identity.get("epoch", 0),
            "sequence": sequence, "previous": sequence - 1, "count": 1, **more,
        }  # fmt: skip
        self.send("A", header, columns, payload)


def hello_of(role: str, nonce: bytes, credit: tuple[int, int] = (1_000, MIB), **more: Any) -> dict[str, Any]:
    return {"role": role, "nonce": nonce, "credit_messages": credit[0], "credit_bytes": credit[1], **more}


def hello_frames(role: str) -> bytes:
    """The same as bytes on the wire, for a raw peer."""
    return frame(b"ZB1H", more=True) + frame(msgspec.msgpack.encode(hello_of(role, os.urandom(16))), more=False)


def half_open(port: int, sent: int) -> socket.socket:
    """A connection that stops after so many bytes of its handshake."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=5)
    peer.sendall((GREETING + ready(b"DEALER"))[:sent])
    return peer
