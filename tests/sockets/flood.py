"""Raw TCP peers that break every rule of credit, written from ZMTP 3.0's wire facts (rfc.zeromq.org/spec/23).

Not a test: the sockets tests import it. Every flood is bounded in bytes and in time.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field

MIB = 1024 * 1024

GREETING = b"\xff" + b"\0" * 8 + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" * 32
"""Signature, version 3.0, mechanism, as-server 0, filler: 64 bytes."""


def ready(socket_type: bytes) -> bytes:
    """Return the NULL mechanism's READY command: flag 0x04, length, name, one property."""
    body = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type
    return b"\x04" + bytes([len(body)]) + body


def frame(body: bytes, *, more: bool) -> bytes:
    """Return a message frame; bit 0 of the flags is MORE, bit 1 a length of 8 bytes."""
    if len(body) > 255:
        return bytes([2 | more]) + struct.pack(">Q", len(body)) + body
    return bytes([more, len(body)]) + body


ENDLESS_MULTIPART = frame(b"x" * 65_536, more=True)
ENDLESS_SHORT_FRAMES = frame(b"x" * 500, more=True) * 128
ENDLESS_TINY_FRAMES = frame(b"", more=True) * 32_768
WHOLE_MESSAGES = frame(b"x" * MIB, more=False)


def raw_peer(port: int, socket_type: bytes = b"DEALER") -> socket.socket:
    """Return a connected peer that has finished the NULL handshake."""
    peer = socket.create_connection(("127.0.0.1", port), timeout=5)
    peer.sendall(GREETING + ready(socket_type))
    answer = b""
    while len(answer) < 66 or len(answer) < 66 + answer[65]:  # greeting, then a short READY
        received = peer.recv(4096)
        if not received:
            raise ConnectionResetError("cut during the handshake")
        answer += received
    return peer


@dataclass
class Flood:
    """Connections that send one chunk over and over, from one thread, until cut or out of bytes or time.

    Attributes:
        openings: what each connection sends first, in turn; none: the chunk at once.
        socket_type: what each connection says that it is.
        cut_after_s: seconds from the start of the flood to the cut, one per connection that was cut.
    """

    port: int
    chunk: bytes
    connection_count: int = 1
    bytes_max: int = 2048 * MIB
    duration_s: float = 5.0
    openings: list[bytes] = field(default_factory=list)
    socket_type: bytes = b"DEALER"
    sent_bytes: int = 0
    cut_after_s: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Flood:
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        assert self._thread is not None
        self._thread.join(self.duration_s + 10)
        assert not self._thread.is_alive()

    def run(self) -> None:
        peers: list[socket.socket] = []
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            for number in range(self.connection_count):
                with contextlib.suppress(OSError):
                    peers.append(stack.enter_context(raw_peer(self.port, self.socket_type)))
                    if self.openings:
                        peers[-1].sendall(self.openings[number % len(self.openings)])
            for peer in peers:
                peer.setblocking(False)
                selector.register(peer, selectors.EVENT_WRITE, [0])
            self._pour(selector)

    def _pour(self, selector: selectors.BaseSelector) -> None:
        view = memoryview(self.chunk)
        started = time.monotonic()
        while selector.get_map() and not self._stop.is_set():
            if time.monotonic() > started + self.duration_s or self.sent_bytes > self.bytes_max:
                return
            for key, _ in selector.select(0.05):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    count = key.fileobj.send(view[key.data[0] :])
                except BlockingIOError:
                    continue
                except OSError:
                    self.cut_after_s.append(time.monotonic() - started)
                    selector.unregister(key.fileobj)
                    continue
                self.sent_bytes += count
                key.data[0] = (key.data[0] + count) % len(view)


def main() -> None:
    """Flood from a process of its own: PORT KIND CONNECTIONS SECONDS; prints what was sent and when it was cut."""
    chunk = {"multipart": ENDLESS_MULTIPART, "tiny": ENDLESS_TINY_FRAMES, "whole": WHOLE_MESSAGES}[sys.argv[2]]
    flood = Flood(int(sys.argv[1]), chunk, int(sys.argv[3]), duration_s=float(sys.argv[4]), bytes_max=3000 * MIB)
    flood.run()
    last = f"{max(flood.cut_after_s):.3f}" if flood.cut_after_s else "-"
    print(f"sent {flood.sent_bytes / MIB:.0f} MiB, {len(flood.cut_after_s)} cut, last after {last} s")


if __name__ == "__main__":
    main()
