"""Request-reply, one after the other: round trips in microseconds, every reply compared with its request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import zmq

from patterns.sync import Replier, Requester
from zbroker.bench.bodies import raw_bodies
from zbroker.bench.figures import percentile

Say = Callable[[dict[str, Any]], None]
SERVICE: Final = "bench.echo"
_TIMEOUT_MS: Final = 5_000


def serve_native(say: Say, *, address: str) -> None:
    """A Replier that echoes."""
    with Replier(address, SERVICE, lambda body: body, codec="raw") as replier:
        replier.ready(timeout_s=_TIMEOUT_MS / 1_000)
        say({"address": replier.address})
        replier.serve_forever()


def serve_bare(say: Say, *, kind: str, address: str, binds: bool) -> None:
    """A REP, or a ROUTER, that echoes."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.REP if kind == "rep" else zmq.ROUTER)
    if binds:
        socket.bind(address)
    else:
        socket.connect(address)
    say({"address": socket.getsockopt_string(zmq.LAST_ENDPOINT)})
    if kind == "rep":
        while True:
            socket.send(socket.recv())
    while True:
        socket.send_multipart(socket.recv_multipart())


def ask_native(say: Say, *, address: str, size: int, seconds: float, warm_up_s: float) -> None:
    """Requester.request() for each."""
    with Requester(address, codec="raw") as requester:
        request = requester.request
        _ask(say, lambda body: request(SERVICE, body), size, seconds, warm_up_s)


def ask_bare(say: Say, *, kind: str, address: str, size: int, seconds: float, warm_up_s: float) -> None:
    """REQ, or DEALER, send() and recv() for each."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.REQ if kind == "req" else zmq.DEALER)
    socket.rcvtimeo = socket.sndtimeo = _TIMEOUT_MS
    socket.linger = 0
    socket.connect(address)
    send, recv = socket.send, socket.recv

    def ask(body: bytes) -> bytes:
        send(body)
        return recv()

    _ask(say, ask, size, seconds, warm_up_s)
    socket.close()
    context.term()


def _ask(say: Say, ask: Callable[[bytes], Any], size: int, seconds: float, warm_up_s: float) -> None:
    pool = raw_bodies(size)
    clock = time.perf_counter_ns
    warm = clock() + int(warm_up_s * 1e9)
    until = clock() + int(seconds * 1e9)
    times: list[int] = []
    asked = damaged = 0
    end = clock()
    while end < until or not times:
        body = pool[asked % len(pool)]
        begin = clock()
        reply = ask(body)
        end = clock()
        asked += 1
        if reply != body:
            damaged += 1
        if begin >= warm:
            times.append(end - begin)
    say(latency(times, asked, damaged))


def latency(times_ns: list[int], messages: int, damaged: int) -> dict[str, Any]:
    """What a worker says of operations that were made one after the other."""
    return {
        "received": messages,
        "damaged": damaged,
        "rate": len(times_ns) * 1e9 / sum(times_ns),
        "p50_us": percentile(times_ns, 50) / 1_000,
        "p99_us": percentile(times_ns, 99) / 1_000,
    }
