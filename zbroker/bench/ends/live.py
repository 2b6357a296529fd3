"""Live publish-subscribe: a sender and a receiver for each way, the same loop around all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
import zmq

from patterns.sync import Publisher, Subscriber
from zbroker.bench.bodies import END, END_RECORD, PROBE, TOPIC, raw_bodies, records
from zbroker.bench.figures import steady_rate
from zbroker.bench.window import TIMEOUT_MS, ReceiverWindow, SenderWindow, Stalled, window_of

Say = Callable[[dict[str, Any]], None]
_START_MS: Final = 10_000
_PROBE_MS: Final = 5
_IDLE_S: Final = TIMEOUT_MS / 1_000
_WHOLE_EVERY: Final = 16  # of the dicts, one in so many is compared whole; of each the number


def pool_of(body: str, size: int) -> tuple[list[Any], Any, int]:
    """(bodies, what ends the stream, bytes of one on the wire)."""
    if body == "dict":
        pool = records()
        return pool, END_RECORD, sum(len(msgspec.msgpack.encode(one)) for one in pool) // len(pool)
    return raw_bodies(size), END, size


# -- sending -----------------------------------------------------------------------------------------------------


def send_native(say: Say, *, address: str, body: str, size: int, seconds: float) -> None:
    """Publisher.publish() for each message."""
    pool, end, wire_size = pool_of(body, size)
    with Publisher(address, codec="raw" if body == "raw" else "msgpack", timeout_s=_IDLE_S) as publisher:
        ahead, every = window_of(wire_size)
        window = SenderWindow(ahead)
        say({"address": publisher.address, "window": window.address})
        started = window.wait_for_start(_START_MS)
        publisher.wait_for_subscribers(1, timeout_s=_IDLE_S)
        sent = _pace(pool, every, window, seconds, _native_step(publisher)) if started else 0
        publisher.publish(TOPIC, end)
        publisher.flush()
        say({"sent": sent, "batches": publisher.batches})
    window.close()


def _native_step(publisher: Publisher) -> Callable[[Sequence[Any]], None]:
    publish = publisher.publish

    def step(bodies: Sequence[Any]) -> None:
        for body in bodies:
            publish(TOPIC, body)

    return step


def send_bare(say: Say, *, kind: str, address: str, binds: bool, size: int, seconds: float) -> None:
    """Socket.send() for each message, one frame each."""
    pool, end, _ = pool_of("raw", size)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PUB if kind == "pub" else zmq.PUSH)
    socket.sndhwm = 0  # the window bounds what is under way; a mark of PUB would drop
    socket.linger = TIMEOUT_MS
    socket.sndtimeo = TIMEOUT_MS
    if binds:
        socket.bind(address)
    else:
        socket.connect(address)
    ahead, every = window_of(size)
    window = SenderWindow(ahead)
    say({"address": socket.getsockopt_string(zmq.LAST_ENDPOINT), "window": window.address})
    begin = time.monotonic_ns()
    started = False
    while not started and time.monotonic_ns() - begin < _START_MS * 1_000_000:
        socket.send(PROBE)
        started = window.wait_for_start(_PROBE_MS)
    sent = _pace(pool, every, window, seconds, _bare_step(socket)) if started else 0
    socket.send(end)
    say({"sent": sent})
    socket.close()
    context.term()
    window.close()


def _bare_step(socket: zmq.Socket[bytes]) -> Callable[[Sequence[Any]], None]:
    send = socket.send

    def step(bodies: Sequence[Any]) -> None:
        for body in bodies:
            send(body)

    return step


def _pace(
    pool: list[Any], every: int, window: SenderWindow, seconds: float, step: Callable[[Sequence[Any]], None]
) -> int:
    """Send the pool over and over, never further ahead than the window, until the time is up; how many were sent."""
    parts = [pool[at : at + every] for at in range(0, len(pool), every)]
    until = time.monotonic_ns() + int(seconds * 1e9)
    sent = 0
    try:
        while time.monotonic_ns() < until:
            part = parts[sent // every % len(parts)]
            step(part)
            sent += every
            window.keep(sent)
    except Stalled:
        pass  # the receiver's account tells how much is missing
    return sent


# -- receiving ---------------------------------------------------------------------------------------------------


def receive_native(say: Say, *, address: str, window: str, body: str, size: int, warm_up_s: float) -> None:
    """Iteration over a Subscriber; a Message for each."""
    codec = "raw" if body == "raw" else "msgpack"
    with Subscriber(address, "bench.>", codec=codec, idle_timeout_s=_IDLE_S) as subscriber:
        subscriber.ready(timeout_s=_START_MS / 1_000)

        def take(count: int) -> list[Any]:
            return [message.body for message in islice(subscriber, count)]

        _receive(say, ReceiverWindow(window), take, [], body, size, warm_up_s)


def receive_bare(say: Say, *, kind: str, address: str, window: str, size: int, warm_up_s: float) -> None:
    """Socket.recv() for each message."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.SUB if kind == "sub" else zmq.PULL)
    socket.rcvhwm = 0
    socket.linger = 0
    socket.rcvtimeo = _START_MS
    if kind == "sub":
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(address)
    first = socket.recv()  # a probe: the subscription has arrived
    told = ReceiverWindow(window)
    told.tell(0)
    while first == PROBE:
        first = socket.recv()
    socket.rcvtimeo = TIMEOUT_MS

    def take(count: int) -> list[Any]:
        got: list[Any] = []
        recv, append = socket.recv, got.append
        try:
            for _ in range(count):
                append(recv())
        except zmq.Again:
            pass  # the rest is lost
        return got

    _receive(say, told, take, [first], "raw", size, warm_up_s)
    socket.close()
    context.term()


def _receive(
    say: Say,
    window: ReceiverWindow,
    take: Callable[[int], list[Any]],
    begun: list[Any],
    body: str,
    size: int,
    warm_up_s: float,
) -> None:
    """Take all that comes, check each body, tell how far we are; ends with the stream or with silence."""
    pool, end, wire_size = pool_of(body, size)
    every = window_of(wire_size)[1]
    expected = [pool[at : at + every] for at in range(0, len(pool), every)]
    differing = differing_records if body == "dict" else differing_bytes
    if not begun:
        window.tell(0)
    points: list[tuple[int, int]] = []
    received = damaged = 0
    while True:
        got = begun or take(1)
        begun = []
        if not got or got[0] == end:
            break
        if not points:
            points.append((time.monotonic_ns(), 0))
        got += take(every - 1)
        is_last = len(got) < every
        if end in got[-1:]:
            got.pop()
        damaged += differing(got, expected[received // every % len(expected)])
        received += len(got)
        if is_last:
            break
        window.tell(received)
        points.append((time.monotonic_ns(), received))
    rate = steady_rate(points, int(warm_up_s * 1e9))
    say({"received": received, "damaged": damaged, "rate": rate, "bytes_rate": rate * wire_size})
    window.close()


def differing_bytes(got: list[Any], expected: list[Any]) -> int:
    """How many bodies are not what they should be: all bytes of all, compared as lists since that costs least."""
    if got == expected:
        return 0
    return sum(a != b for a, b in zip(got, expected, strict=False))


def differing_records(got: list[Any], expected: list[Any]) -> int:
    """The number of each; one in _WHOLE_EVERY whole."""
    wrong = [a["number"] for a in got] != [b["number"] for b in expected[: len(got)]]
    if not wrong and got[::_WHOLE_EVERY] == expected[: len(got) : _WHOLE_EVERY]:
        return 0
    return sum(a != b for a, b in zip(got, expected, strict=False))


def stop_reading(say: Say, *, address: str) -> None:
    """A PULL that is connected and takes nothing: what a device's capture must not wait for. Runs until the process ends."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.connect(address)
    say({"address": address})
    threading.Event().wait()


# -- libzmq's own proxies ----------------------------------------------------------------------------------------


def serve_proxy(say: Say, *, kind: str) -> None:
    """zmq.proxy() in C: `forwarder` is XSUB-XPUB, `queue` ROUTER-DEALER. Runs until the process ends."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    kinds = (zmq.XSUB, zmq.XPUB) if kind == "forwarder" else (zmq.ROUTER, zmq.DEALER)
    addresses = []
    pair = []
    for one in kinds:
        socket = context.socket(one)
        socket.sndhwm = socket.rcvhwm = 0
        socket.bind("tcp://127.0.0.1:*")
        addresses.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        pair.append(socket)
    say({"frontend": addresses[0], "backend": addresses[1]})
    zmq.proxy(*pair)
