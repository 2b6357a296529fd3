"""The same ends with bare pyzmq sockets, one message a frame, and libzmq's own proxies in C."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import zmq

from zbroker.bench.ends.bodies import PROBE, STAMP
from zbroker.bench.ends.feed import Sending, run
from zbroker.bench.ends.starting import stay
from zbroker.bench.ends.tally import Expected, SortingTally, Tally, tally_of
from zbroker.bench.ends.window import START_MS, TIMEOUT_MS

Say = Callable[[dict[str, Any]], None]
_PROBE_MS: Final = 5
_Socket = zmq.Socket[bytes]


def send_bare(say: Say, *, kind: str, address: str, binds: bool, **told: Any) -> None:
    """Socket.send() for each message, one frame each."""
    sending = msgspec.convert(told, Sending)
    window, feed_now, end = sending.prepare()
    context: zmq.Context[_Socket] = zmq.Context()
    socket = context.socket(zmq.PUB if kind == "pub" else zmq.PUSH)
    socket.sndhwm = 0  # the window bounds what is under way; a mark of PUB would drop
    socket.sndtimeo = TIMEOUT_MS
    if binds:
        socket.bind(address)
    else:
        socket.connect(address)
    say({"address": socket.getsockopt_string(zmq.LAST_ENDPOINT), "window": window.address})
    begin = time.monotonic_ns()
    started = False
    while not started and time.monotonic_ns() - begin < START_MS * 1_000_000:
        socket.send(PROBE + bytes((sending.sender,)))
        started = window.wait_for_start(_PROBE_MS)
    say({"begun": started})
    sent = run(feed_now(), _step(socket)) if started else 0
    socket.send(end)
    say({"sent": sent})
    stay()


def _step(socket: _Socket) -> Callable[[Sequence[Any]], None]:
    send = socket.send

    def step(bodies: Sequence[Any]) -> None:
        for body in bodies:
            send(body)

    return step


def receive_bare(say: Say, *, kind: str, address: str, **told: Any) -> None:
    """Socket.recv() for each message. `address`: one, or several with commas."""
    expected = msgspec.convert(told, Expected)
    tally = tally_of(expected)
    context: zmq.Context[_Socket] = zmq.Context()
    socket = context.socket(zmq.SUB if kind == "sub" else zmq.PULL)
    socket.rcvhwm = 0
    socket.linger = 0
    socket.rcvtimeo = START_MS
    if kind == "sub":
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    for one in address.split(","):
        socket.connect(one)
    heard: set[bytes] = set()
    while len(heard) < len(expected.windows):  # a probe of each: the subscription has arrived everywhere
        heard.add(socket.recv())
    tally.start()
    first = socket.recv()
    while first.startswith(PROBE):
        first = socket.recv()
    socket.rcvtimeo = TIMEOUT_MS
    tally.add([first])
    _receive(socket, tally)
    say(tally.said())
    socket.close()
    context.term()
    tally.close()


def _receive(socket: _Socket, tally: Tally) -> None:
    take = _mixed if isinstance(tally, SortingTally) else _one_stream
    while not tally.ended:
        got: list[bytes] = []
        try:
            take(socket.recv, got, tally.wanted)
        except zmq.Again:
            pass  # the rest is lost
        tally.add(got)


def _one_stream(recv: Callable[[], bytes], got: list[bytes], count: int) -> None:
    append = got.append
    for _ in range(count):
        append(recv())


def _mixed(recv: Callable[[], bytes], got: list[bytes], count: int) -> None:
    """Of several senders: nobody knows how many are to come, so it stops at each end of a stream."""
    append = got.append
    for _ in range(count):
        body = recv()
        append(body)
        if len(body) < STAMP.size:
            return


def stop_pulling(say: Say, *, address: str) -> None:
    """A PULL that is connected and takes nothing: what a device's capture must not wait for. Runs until the process ends."""
    context: zmq.Context[_Socket] = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.connect(address)
    say({"address": address})
    stay()


def serve_proxy(say: Say, *, kind: str, addresses: list[str]) -> None:
    """zmq.proxy() in C: `forwarder` is XSUB-XPUB, `queue` ROUTER-DEALER. Runs until the process ends."""
    context: zmq.Context[_Socket] = zmq.Context()
    kinds = (zmq.XSUB, zmq.XPUB) if kind == "forwarder" else (zmq.ROUTER, zmq.DEALER)
    bound = []
    pair = []
    for one, address in zip(kinds, addresses, strict=True):
        socket = context.socket(one)
        socket.sndhwm = socket.rcvhwm = 0
        socket.bind(address)
        bound.append(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        pair.append(socket)
    say({"frontend": bound[0], "backend": bound[1]})
    zmq.proxy(*pair)
