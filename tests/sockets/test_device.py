"""`zbroker device` as users run it: plain ZeroMQ through each kind, captures that never stall, deaths, and an orderly end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import zmq

from patterns.sync import Publisher, Subscriber
from tests.processes import DEADLINE_S, Program, until

ANY = "tcp://127.0.0.1:0"
PATIENCE_MS = int(DEADLINE_S * 1_000)


class Device:
    """A running `zbroker device --json`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ready: dict[str, Any] = json.loads(program.line())
        self.frontend: str = self.ready["frontend"]
        self.backend: str = self.ready["backend"]
        self.capture: str = self.ready["capture"]

    def statistics(self) -> dict[str, Any]:
        self.program.signal(signal.SIGUSR1)
        return json.loads(self.program.line())

    def child(self) -> int:
        """The process id of its working process."""
        pid = self.program.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def end(self) -> dict[str, Any]:
        """SIGTERM; the last statistics."""
        self.program.signal(signal.SIGTERM)
        assert self.program.wait() == 0, self.program.errors
        return json.loads(self.program.lines()[-1])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Program] = []

    def call(kind: str, *options: str, frontend: str = ANY, backend: str = ANY) -> Device:
        arguments = ["-m", "zbroker", "device", kind, "--frontend", frontend, "--backend", backend, "--json", *options]
        started.append(Program(arguments, tmp_path / f"device-{len(started)}.err"))
        return Device(started[-1])

    yield call
    for program in started:
        program.kill()


@contextmanager
def plain(*ends: tuple[int, str]) -> Iterator[list[zmq.Socket[bytes]]]:
    """Connected sockets, as any program has them."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets = []
    for kind, address in ends:
        socket = context.socket(kind)
        socket.rcvtimeo = socket.sndtimeo = PATIENCE_MS
        socket.linger = 0
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(address)
        sockets.append(socket)
    try:
        yield sockets
    finally:
        context.destroy(0)


def until_heard(publisher: zmq.Socket[bytes], subscriber: zmq.Socket[bytes]) -> None:
    """Publish until one arrives, then take what else there is: a slow joiner is no fault of a device's."""

    def heard() -> bool:
        publisher.send(b"probe")
        return bool(subscriber.poll(50))

    until(heard, what="a message through the forwarder")
    while subscriber.poll(200):
        subscriber.recv_multipart()


def test_forwarder_carries_pub_to_sub_and_filters(start):
    device = start("forwarder")
    with plain((zmq.PUB, device.frontend), (zmq.SUB, device.backend)) as (publisher, subscriber):
        until_heard(publisher, subscriber)
        subscriber.setsockopt(zmq.UNSUBSCRIBE, b"")
        subscriber.setsockopt(zmq.SUBSCRIBE, b"a")

        def filtered() -> bool:
            publisher.send_multipart([b"b", b"unwanted"])
            publisher.send_multipart([b"a", b"wanted"])
            return subscriber.recv_multipart() == [b"a", b"wanted"]

        until(filtered, what="the new subscription")
    assert device.end()["to_frontend"]["frames"] >= 3  # subscriptions


def test_forwarder_carries_thousands_of_subscriptions(start):
    device = start("forwarder")
    count = 5_000
    with plain((zmq.XPUB, device.frontend)) as (publisher,):
        publisher.rcvhwm = 0
        context = publisher.context
        subscriber = context.socket(zmq.SUB)
        subscriber.sndhwm = 0
        for number in range(count):
            subscriber.setsockopt(zmq.SUBSCRIBE, b"topic-%d" % number)
        subscriber.connect(device.backend)
        assert len({publisher.recv() for _ in range(count)}) == count


def test_queue_carries_requests_and_replies(start):
    device = start("queue")
    with plain((zmq.REQ, device.frontend), (zmq.REP, device.backend)) as (requester, replier):
        for number in range(50):
            requester.send(b"%d" % number)
            replier.send(replier.recv() * 2)
            assert requester.recv() == b"%d" % number * 2
    last = device.end()
    assert last["to_backend"]["frames"] == last["to_frontend"]["frames"] == 150  # routing id, empty, body


def test_streamer_carries_everything_in_order_and_counts_it(start):
    device = start("streamer")
    with plain((zmq.PUSH, device.frontend), (zmq.PULL, device.backend)) as (pusher, puller):
        for number in range(5_000):
            pusher.send(b"%06d" % number)
            if number % 500 == 499:
                assert [puller.recv() for _ in range(500)][-1] == b"%06d" % number
        until(lambda: device.statistics()["to_backend"] == {"frames": 5_000, "bytes": 30_000}, what="all counted")
    last = device.end()
    assert last["final"] is True
    assert last["capture"] is None
    assert last["to_backend"] == {"frames": 5_000, "bytes": 30_000}


def test_device_connects_where_told(start):
    with plain() as _:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        puller = context.socket(zmq.PULL)
        puller.rcvtimeo = PATIENCE_MS
        port = puller.bind_to_random_port("tcp://127.0.0.1")
        device = start("streamer", backend=f">tcp://127.0.0.1:{port}")
        assert device.backend == f">tcp://127.0.0.1:{port}"
        with plain((zmq.PUSH, device.frontend)) as (pusher,):
            pusher.send(b"there")
            assert puller.recv() == b"there"
        context.destroy(0)


def test_our_roles_through_a_forwarder_are_ready_and_account_for_everything(start):
    device = start("forwarder")
    with (
        Publisher(f">{device.frontend}", codec="raw") as publisher,
        Subscriber(device.backend, "orders.>", codec="raw", idle_timeout_s=DEADLINE_S) as subscriber,
    ):
        subscriber.ready(DEADLINE_S)
        for number in range(1_000):
            publisher.publish("orders.new", b"%d" % number)
        publisher.flush(DEADLINE_S)
        got = [message.body for message in islice(subscriber, 1_000)]
        assert [bytes(body) for body in got] == [b"%d" % number for number in range(1_000)]
        assert subscriber.lost == 0
        killed = device.child()
        os.kill(killed, signal.SIGSTOP)
        for _ in range(200):
            publisher.publish("orders.new", b"into the void")
            publisher.flush(DEADLINE_S)
        time.sleep(0.2)  # they are in the kernel by now, and nothing tells when
        os.kill(killed, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{killed}").exists(), what="the child's end")
        published, received = 200, 0

        def resumed() -> bool:
            nonlocal published, received
            publisher.publish("orders.new", b"again")
            publisher.flush(DEADLINE_S)
            published += 1
            message = subscriber.receive(0.05)
            received += message is not None
            return message is not None and message.body == b"again"  # a stopped process may still pass some on

        until(resumed, what="our messages through the next process")
        while subscriber.receive(0.5) is not None:
            received += 1
        assert subscriber.lost == published - received > 0


@pytest.mark.parametrize("address", [ANY, ">tcp://127.0.0.1:1"])  # where nobody connects, or listens
def test_capture_without_a_reader_never_stalls_and_counts_what_it_missed(start, address):
    device = start("streamer", "--capture", address)
    with plain((zmq.PUSH, device.frontend), (zmq.PULL, device.backend)) as (pusher, puller):
        for _ in range(40):
            for _ in range(500):
                pusher.send_multipart([b"a", b"b"])
            assert [puller.recv_multipart() for _ in range(500)] == [[b"a", b"b"]] * 500
    assert device.end()["capture"] == {"frames": 0, "missed_frames": 40_000}


def test_capture_whose_reader_stops_never_stalls_and_every_frame_is_accounted_for(start):
    device = start("streamer", "--capture", ANY)
    with plain((zmq.PUSH, device.frontend), (zmq.PULL, device.backend), (zmq.PULL, device.capture)) as ends:
        pusher, puller, reader = ends
        until_captured(pusher, puller, reader)
        for _ in range(60):
            for _ in range(500):
                pusher.send(b"x" * 1_000)
            assert len([puller.recv() for _ in range(500)]) == 500
        found = 0
        while reader.poll(1_000):
            reader.recv()
            found += 1
        last = device.statistics()
        assert 1_000 <= found < 30_000
        assert last["capture"]["missed_frames"] > 0
        assert last["capture"]["frames"] + last["capture"]["missed_frames"] == last["to_backend"]["frames"]


def until_captured(pusher: zmq.Socket[bytes], puller: zmq.Socket[bytes], reader: zmq.Socket[bytes]) -> None:
    """The reader's connection stands."""

    def captured() -> bool:
        pusher.send(b"probe")
        puller.recv()
        return bool(reader.poll(50))

    until(captured, what="a capture")


def test_capture_reads_what_is_forwarded_both_ways(start):
    device = start("queue", "--capture", ANY)
    ends = (zmq.REQ, device.frontend), (zmq.REP, device.backend), (zmq.PULL, device.capture)
    with plain(*ends) as (requester, replier, reader):

        def captured() -> bool:
            requester.send(b"question")
            replier.recv()
            replier.send(b"answer")
            requester.recv()
            return bool(reader.poll(50))

        until(captured, what="a capture")
        messages = [reader.recv_multipart() for _ in range(2)]
        assert [frames[-1] for frames in messages] == [b"question", b"answer"]
        frame_count = sum(map(len, messages))  # the routing id and the delimiter are frames too
        until(lambda: device.statistics()["capture"]["frames"] >= frame_count, what="all of its frames counted")


def test_killed_child_is_replaced_at_the_same_addresses_and_counted(start):
    device = start("streamer")
    with plain((zmq.PUSH, device.frontend), (zmq.PULL, device.backend)) as (pusher, puller):
        pusher.send(b"before")
        assert puller.recv() == b"before"
        until(lambda: device.statistics()["to_backend"]["frames"] == 1, what="it counted, which is after it left")
        os.kill(device.child(), signal.SIGKILL)

        def resumed() -> bool:
            pusher.send(b"after")
            return bool(puller.poll(50))

        until(resumed, what="traffic through the next process")
        last = device.end()
    assert last["restarts"] == 1
    assert last["to_backend"]["frames"] >= 2


def test_what_is_in_flight_leaves_before_it_ends(start):
    device = start("streamer")
    with plain((zmq.PUSH, device.frontend), (zmq.PULL, device.backend)) as (pusher, puller):
        pusher.send(b"first")
        assert puller.recv() == b"first"
        for number in range(900):
            pusher.send(b"%d" % number)
        last = device.end()
        assert [puller.recv() for _ in range(last["to_backend"]["frames"] - 1)][-1] == b"899"


def test_device_that_nobody_reads_from_burns_no_core_and_goes_on_by_itself(start):
    device = start("streamer")
    with plain((zmq.PUSH, device.frontend)) as (pusher,):
        for _ in range(500):
            pusher.send(b"waits")
        until(lambda: device.statistics()["blocked"], what="the proxy stepping aside")
        child = device.child()
        before = cpu_ticks(child)
        time.sleep(0.5)  # what is claimed is that nothing happens meanwhile
        assert cpu_ticks(child) - before <= 10
        puller = pusher.context.socket(zmq.PULL)
        puller.rcvtimeo = PATIENCE_MS
        puller.connect(device.backend)
        assert [puller.recv() for _ in range(500)] == [b"waits"] * 500
        until(lambda: not device.statistics()["blocked"], what="the proxy going on")
        until(lambda: device.statistics()["to_backend"]["frames"] == 500, what="all counted")


def test_device_stuck_in_a_send_still_ends(start):
    device = start("streamer")
    with plain((zmq.PUSH, device.frontend), (zmq.PULL, device.backend)) as (pusher, puller):
        pusher.send(b"first")
        assert puller.recv() == b"first"
        pusher.sndtimeo = 300
        body = b"x" * 20_000
        with suppress(zmq.Again):  # full
            for _ in range(20_000):
                pusher.send(body)
        device.end()  # raises when it does not


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_in_order_and_takes_the_child_with_it(start, number):
    device = start("queue")
    child = device.child()
    device.program.signal(number)
    assert device.program.wait() == 0
    assert json.loads(device.program.lines()[-1])["final"] is True
    assert not Path(f"/proc/{child}").exists()


def test_second_signal_ends_both_at_once(start):
    device = start("queue")
    child = device.child()
    os.kill(child, signal.SIGSTOP)  # it cannot end in order
    device.program.signal(signal.SIGTERM)
    assert device.program.process.poll() is None
    device.program.signal(signal.SIGINT)
    assert device.program.wait() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    until(lambda: not Path(f"/proc/{child}").exists(), what="the child's end")


def test_child_of_a_killed_device_ends_by_itself(start):
    device = start("queue")
    child = device.child()
    device.program.kill()
    until(lambda: not Path(f"/proc/{child}").exists(), what="the child's end")


def run_to_end(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    with Program(["-m", "zbroker", "device", *arguments], tmp_path / "device.err") as program:
        return program.wait(), program.errors


def test_address_in_use_ends_with_69_and_a_text(start, tmp_path):
    device = start("queue")
    status, words = run_to_end(tmp_path, "streamer", "--frontend", device.frontend, "--backend", ANY)
    assert status == 69
    assert device.frontend in words
    assert "in use" in words


@pytest.mark.parametrize("option", ["--frontend", "--backend", "--capture"])
def test_address_for_everybody_needs_insecure(tmp_path, option):
    addresses = {"--frontend": ANY, "--backend": ANY, "--capture": ANY, option: "tcp://0.0.0.0:0"}
    status, words = run_to_end(tmp_path, "queue", *(word for pair in addresses.items() for word in pair))
    assert status == 78
    assert "--insecure" in words


@pytest.mark.parametrize("address", ["zb://localhost", "inproc://here", "tcp://127.0.0.1", "nonsense"])
def test_address_that_no_device_can_have_is_wrong_usage(tmp_path, address):
    assert run_to_end(tmp_path, "queue", "--frontend", address, "--backend", ANY)[0] == 2


def test_lines_for_people(tmp_path):
    arguments = ["-m", "zbroker", "device", "forwarder", "--frontend", ANY, "--backend", f"ipc://{tmp_path}/b"]
    with Program(arguments, tmp_path / "device.err") as program:
        ready = program.line()
        assert ready.startswith("ready frontend tcp://127.0.0.1:")
        assert ready.endswith(f"backend ipc://{tmp_path}/b")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert "forwarder: to the backend 0 frames of 0 bytes" in program.errors
