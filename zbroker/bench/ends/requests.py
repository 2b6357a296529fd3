"""Request-reply: round trips, every reply compared with its request; roles of zbroker and bare sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
import zmq

from patterns import aio
from patterns.sync import Replier, Requester
from zbroker.bench.ends.asking import Asking, Series
from zbroker.bench.ends.starting import go

Say = Callable[[dict[str, Any]], None]
SERVICE: Final = "bench.echo"
_TIMEOUT_MS: Final = 5_000


def _echo(body: Any) -> Any:
    return body


def serve_native(say: Say, *, api: str, address: str) -> None:
    """A Replier that echoes."""
    if api == "aio":
        asyncio.run(_serve_awaited(say, address))
    with Replier(address, SERVICE, _echo, codec="raw") as replier:
        replier.ready(timeout_s=_TIMEOUT_MS / 1_000)
        say({"address": replier.address})
        replier.serve_forever()


async def _serve_awaited(say: Say, address: str) -> None:
    async with aio.Replier(address, SERVICE, _echo, codec="raw") as replier:
        await replier.ready(timeout_s=_TIMEOUT_MS / 1_000)
        say({"address": replier.address})
        await replier.serve_forever()


def ask_native(say: Say, *, api: str, address: str, waits: bool = False, **told: Any) -> None:
    """Requester.request() for each; with `waits`, it is ready first, and begins when it is told to."""
    asking = msgspec.convert(told, Asking)
    if waits:
        say({"ready": True})
        go.wait()
    if api == "aio":
        say(asyncio.run(_ask_awaited(address, asking)))
        return
    with Requester(address, codec="raw") as requester:
        request = requester.request
        say(asking.each(lambda body: request(SERVICE, body)))


async def _ask_awaited(address: str, asking: Asking) -> dict[str, Any]:
    async with aio.Requester(address, codec="raw") as requester:
        series = Series(asking)
        while (body := series.next()) is not None:
            if (pause_s := series.pause_s()) > 0:
                await asyncio.sleep(pause_s)
            series.begin()
            series.done(await requester.request(SERVICE, body) == body)
        return series.said()


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


def ask_bare(say: Say, *, kind: str, address: str, **told: Any) -> None:
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

    say(msgspec.convert(told, Asking).each(ask))
    socket.close()
    context.term()
