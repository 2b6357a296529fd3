"""A device's working process: libzmq's own proxy between two sockets, what it counts, and an orderly end.

The proxy forwards in C, in a thread of its own. The main thread asks it for its counters and listens to the supervisor
(device.py) on standard input; what it has to say goes to standard output, one JSON object a line. No message is looked at.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Final

import msgspec
import zmq
from zmq.backend import zmq_poll

from patterns.io import sockets, turn
from patterns.wire.address import parse_address
from patterns.wire.errors import BadAddress, Unavailable
from zbroker.processes.capture import Capture

KINDS: Final = {
    "forwarder": (int(zmq.XSUB), int(zmq.XPUB)),
    "queue": (int(zmq.ROUTER), int(zmq.DEALER)),
    "streamer": (int(zmq.PULL), int(zmq.PUSH)),
}
COUNT: Final = b"count"  # the supervisor's words
STOP: Final = b"stop"

_STATISTICS: Final = b"STATISTICS"  # with TERMINATE the only words sent: PAUSE and RESUME are swapped in libzmq 4.3.5
_STATISTICS_FRAMES: Final = 8
_TERMINATE: Final = b"TERMINATE"
_CONTROL: Final = "inproc://zbroker-proxy-control"
_ANSWER_MS: Final = 200  # the proxy answers between two bursts of 1,000 messages; later means that it waits in a send
_TICK_MS: Final = 500  # so much of the count may die with the process
_BUSY_SHARE: Final = 0.1  # of a core, while nothing moves: it turns round and round, see _wait_for_room()
_DRAIN_S: Final = 1.0
_QUIET_S: Final = 0.02  # between two looks at the end: what libzmq's I/O thread was reading has been forwarded
_JOIN_S: Final = 0.5
_LINGER_MS: Final = 1_000
_BACKLOG: Final = 1_024  # everybody comes back at once after a restart
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What to run; addresses as a user writes them, `@` or nothing binds, `>` connects."""

    kind: str
    frontend: str
    backend: str
    capture: str | None = None


class Traffic(msgspec.Struct, frozen=True):
    """What went one way: frames as libzmq counts them, and the bytes in them, without ZMTP's own."""

    frames: int = 0
    bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.frames + other.frames, self.bytes + other.bytes)


class Counts(msgspec.Struct, frozen=True, tag=True):
    """What a process has forwarded.

    Attributes:
        captured: frames that the capture's reader was given.
        missed: frames forwarded and not captured; those on their way to the reader count until they are there.
        blocked: nothing moves since the side that it must go to takes nothing.
    """

    to_backend: Traffic = Traffic()
    to_frontend: Traffic = Traffic()
    captured: int = 0
    missed: int = 0
    blocked: bool = False

    def __add__(self, other: Counts) -> Counts:
        """Both lives; whether it is blocked is the later one's to say."""
        return Counts(
            self.to_backend + other.to_backend,
            self.to_frontend + other.to_frontend,
            self.captured + other.captured,
            self.missed + other.missed,
            other.blocked,
        )


class Ready(msgspec.Struct, frozen=True, tag=True):
    """It serves there."""

    frontend: str
    backend: str
    capture: str | None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """It cannot serve."""

    text: str
    is_unavailable: bool


Said = Ready | Failed | Counts


def attach(socket: zmq.Socket[bytes], address: str) -> str:
    """Bind or connect as the address says; returns where, in a form that does the same again. Raises as sockets.bind()."""
    parsed = parse_address(address)
    if parsed.binds is False:
        sockets.connect(socket, parsed.endpoint)
        return f">{parsed.endpoint}"
    return sockets.bind(socket, parsed.endpoint)


def parse_statistics(frames: list[bytes]) -> tuple[Traffic, Traffic]:
    """To the backend, and to the frontend, from what libzmq answers: eight numbers in the machine's own byte order,
    frames and bytes received and sent by the frontend, then by the backend."""
    numbers = [int.from_bytes(frame, sys.byteorder) for frame in frames]
    return Traffic(numbers[0], numbers[1]), Traffic(numbers[4], numbers[5])


class Proxy:
    """The proxy's thread, which owns the two sockets; the methods are for one other thread.

    Args:
        frontend, backend: bound or connected, not used by anybody else from now on.
        capture: gets a copy of each frame; must never block.
    """

    def __init__(
        self, frontend: zmq.Socket[bytes], backend: zmq.Socket[bytes], capture: zmq.Socket[bytes] | None
    ) -> None:
        self._frontend = frontend
        self._backend = backend
        self._capture = capture
        self._inner: zmq.Socket[bytes] = frontend.context.socket(zmq.PAIR)
        self._control: zmq.Socket[bytes] = frontend.context.socket(zmq.PAIR)
        for pair in (self._inner, self._control):
            pair.linger = 0
        self._inner.bind(_CONTROL)
        self._control.connect(_CONTROL)
        self._before = (Traffic(), Traffic())  # of runs that ended: libzmq forgets its counters with each
        self._latest = (Traffic(), Traffic())
        self._is_asked = False
        self._is_aside = False
        self._is_stopping = False
        self._look: tuple[float, float, tuple[Traffic, Traffic]] | None = None  # when, processor time, traffic
        self.is_blocked = False
        self._thread = threading.Thread(target=self._run, name="zbroker-proxy", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                zmq.proxy_steerable(self._frontend, self._backend, self._capture, self._inner)
                if self._is_aside:
                    self._wait_for_room()
        except zmq.ContextTerminated:
            pass  # it stood in a send that nobody takes
        finally:
            for socket in (self._frontend, self._backend, self._inner, self._capture):
                if socket is not None:
                    socket.close()

    def _wait_for_room(self) -> None:
        """Instead of the proxy while its backend takes nothing: it would ask again and again, with a whole core.

        What comes from the backend is a reason to go on too.
        """
        while not self._is_stopping:
            ready = dict(zmq_poll([(self._backend, _POLLIN | _POLLOUT), (self._inner, _POLLIN)], -1))
            if self._inner in ready:
                turn.receive(self._inner)
            if self._backend in ready:
                break
        self._is_aside = False

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs; it ends by itself only by a fault."""
        return self._thread.is_alive()

    def traffic(self) -> tuple[Traffic, Traffic]:
        """To the backend and to the frontend, as of now; what is known of before, when the proxy does not answer."""
        answer = None if self._is_aside else self._ask()
        if answer is not None:
            to_backend, to_frontend = parse_statistics(answer)
            if to_backend.frames < self._latest[0].frames or to_frontend.frames < self._latest[1].frames:
                self._begin_again()  # interrupted by a signal, pyzmq has called the proxy anew
            self._latest = (to_backend, to_frontend)
        return self._before[0] + self._latest[0], self._before[1] + self._latest[1]

    def _ask(self) -> list[bytes] | None:
        """The answer, if it comes in time. A question that was not answered yet is not asked again."""
        if not self._is_asked:
            self._is_asked = turn.send(self._control, [_STATISTICS])
        while self._control.poll(_ANSWER_MS):
            answer = turn.receive(self._control)
            if answer is not None and len(answer) == _STATISTICS_FRAMES:  # libzmq answers TERMINATE too, with nothing
                self._is_asked = self.is_blocked = False
                return answer
        self.is_blocked = True
        return None

    def _begin_again(self) -> None:
        self._before = (self._before[0] + self._latest[0], self._before[1] + self._latest[1])
        self._latest = (Traffic(), Traffic())

    def step_aside_if_it_spins(self) -> None:
        """Stop the proxy while it burns a core and forwards nothing; it goes on by itself when its backend takes something."""
        if self._is_aside:
            self.is_blocked = True
            return
        now = (time.monotonic(), self._processor_s(), self.traffic())
        before, self._look = self._look, now
        if before is None or self.is_blocked or now[2] != before[2]:
            return
        if now[1] - before[1] > _BUSY_SHARE * (now[0] - before[0]):
            self._begin_again()
            self._is_aside = self.is_blocked = True
            self._look = None
            turn.send(self._control, [_TERMINATE])

    def _processor_s(self) -> float:
        if self._thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
            return time.process_time()
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident)) if self.is_alive else 0.0

    def drain(self) -> None:
        """Return when nothing moves any more; a second at most."""
        deadline = time.monotonic() + _DRAIN_S
        before = None
        while (now := self.traffic()) != before and not self.is_blocked and time.monotonic() < deadline:
            before = now
            time.sleep(_QUIET_S)

    def stop(self) -> None:
        """End the proxy and close its sockets, what they hold lingers. One that stands in a send ends with the context."""
        self._is_stopping = True
        turn.send(self._control, [_TERMINATE])
        self._thread.join(_JOIN_S)
        self._control.close()


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    """Plain, with libzmq's high-water mark of 1,000 messages a peer; subscriptions have none, they would be lost in silence."""
    socket: zmq.Socket[bytes] = context.socket(kind)
    socket.linger = _LINGER_MS
    socket.backlog = _BACKLOG
    sockets.keep_alive(socket)
    if kind == zmq.XSUB:
        socket.sndhwm = 0
    if kind == zmq.XPUB:
        socket.rcvhwm = 0
    return socket


class Worker:
    """The process: a proxy, its capture, and the conversation with the supervisor."""

    def __init__(self, device: Device) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        frontend_kind, backend_kind = KINDS[device.kind]
        frontend = _socket(self._context, frontend_kind)
        backend = _socket(self._context, backend_kind)
        where_capture = None
        self._capture: Capture | None = None
        if device.capture is not None:
            reader = _socket(self._context, int(zmq.PUSH))
            reader.immediate = True  # who is not there misses it: no queue for a reader that may never come
            where_capture = attach(reader, device.capture)
            self._capture = Capture(reader)
        where_backend = attach(backend, device.backend)  # the frontend last: what comes in has somewhere to go
        where_frontend = attach(frontend, device.frontend)
        self.ready = Ready(where_frontend, where_backend, where_capture)
        self._proxy = Proxy(frontend, backend, self._capture.entrance if self._capture else None)

    def run(self) -> None:
        """Say how things stand, twice a second and when asked, until the supervisor says stop or is gone."""
        os.set_blocking(0, False)
        due = time.monotonic()
        while self._proxy.is_alive:
            wait_s = due - time.monotonic()
            if wait_s <= 0:
                due = time.monotonic() + _TICK_MS / 1_000
                self._proxy.step_aside_if_it_spins()
                say(self.counts())
                continue
            if zmq_poll([(0, _POLLIN)], int(wait_s * 1_000) + 1):
                words = os.read(0, 4_096)
                if not words or STOP in words:
                    return
                say(self.counts())

    def counts(self) -> Counts:
        to_backend, to_frontend = self._proxy.traffic()
        captured = missed = 0
        if self._capture is not None:
            captured = self._capture.frame_count
            missed = max(0, to_backend.frames + to_frontend.frames - captured)
        return Counts(to_backend, to_frontend, captured, missed, self._proxy.is_blocked)

    def close(self) -> None:
        """Forward what is under way, and say what it came to."""
        self._proxy.drain()
        counts = self.counts()
        self._proxy.stop()
        if self._capture is not None:
            self._capture.close()
            missed = max(0, counts.to_backend.frames + counts.to_frontend.frames - self._capture.frame_count)
            counts = msgspec.structs.replace(counts, captured=self._capture.frame_count, missed=missed)
        say(counts)
        self._context.term()  # returns when what lingers has left, or its second is over


def say(what: Said) -> None:
    """One line to the supervisor; when it is gone, our standard input ends too."""
    try:
        os.write(1, msgspec.json.encode(what) + b"\n")
    except BrokenPipeError:
        pass


def main(text: str) -> None:
    """Serve the device that is described. The supervisor alone hears signals: a terminal sends them to both."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    try:
        worker = Worker(msgspec.json.decode(text, type=Device))
    except (Unavailable, BadAddress) as error:
        say(Failed(str(error), isinstance(error, Unavailable)))
        os._exit(1)  # nothing of value is open
    say(worker.ready)
    worker.run()
    worker.close()


if __name__ == "__main__":
    main(sys.argv[1])
