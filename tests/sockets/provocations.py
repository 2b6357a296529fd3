"""One way to make a broker refuse something, for each thing that it refuses; and what it counts without refusing. No test lives here.

A refusal takes a Scene, does it `TIMES` times, and returns the answers that it got.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import zmq

from patterns.wire.identity import publisher_of
from patterns.wire.limits import BODY_BYTES_MAX, COLUMNS_BYTES_MAX, CREDIT_BYTES, HEADER_BYTES_MAX, REPLIES_UNREAD_CUT
from patterns.wire.names import channel_of
from tests.sockets.flood import ENDLESS_MULTIPART, frame, raw_peer
from tests.sockets.hostile import MIB, Peer, hello_of

TIMES: Final = 3
ONE: Final = b"\x91\x01"
NAN: Final = msgspec.msgpack.encode([math.nan])
HALF: Final = MIB // 2
HELD_BYTES: Final = 8 * MIB  # what a broker holds for a peer without credit
ENDLESS_BYTES_MAX: Final = 2_000 * MIB  # a guard that looks once in a quarter of a second lets some hundred MiB pass
OVERSIZED: Final = 8 * MIB  # above MAXMSGSIZE, so libzmq ends the connection
Answers = list[dict[str, Any]]


class Scene:
    """A broker's address, and peers that live as long as the scene."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.port = int(endpoint.rpartition(":")[2])
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._peers: list[Peer] = []

    def stranger(self) -> Peer:
        self._peers.append(Peer(self.context, self.endpoint))
        return self._peers[-1]

    def peer(self, role: str, **hello: Any) -> Peer:
        return self.stranger().hello(role, **hello)

    def replier(self, service: str, **hello: Any) -> Peer:
        replier = self.peer("replier", **hello)
        replier.send("O", {"id": 1, "service": service})
        replier.receive("o")
        return replier

    def consumer(self, stream: str, group: str = "g", **hello: Any) -> Peer:
        consumer = self.peer("consumer", **hello)
        consumer.send("J", {"id": 1, "stream": stream, "group": group, "mode": "batches"})
        consumer.receive("j")
        return consumer

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        for peer in self._peers:
            peer.socket.close()
        self.context.destroy(linger=0)


def ask(peer: Peer, id: int, payload: bytes = ONE, service: str = "nobody", **more: Any) -> None:
    peer.send("Q", {"id": id, "service": service, "timeout_ms": 60_000, "wait_ms": 60_000, **more}, b"", payload)


def publish(peer: Peer, sequence: int, payload: bytes = ONE, topic: str = "a", **more: Any) -> None:
    """A batch, and a PING behind it: when this returns, the broker has taken it."""
    header = {"publisher": publisher_of(peer.nonce), "sequence": sequence, "count": 1, "topic": topic, **more}
    peer.send("P", header, b"", payload, key=bytes([channel_of(topic)]))
    peer.send("I", {"token": sequence + 1})
    peer.receive("i")


def heard(peer: Peer, kinds: str = "E") -> Answers:
    return [peer.receive(kinds) for _ in range(TIMES)]


def said(role: str, kind: str, header: object, *frames: bytes, key: bytes = b"") -> Callable[[Scene], Answers]:
    """The same, TIMES times, by a peer of a role; "" for one without a session."""

    def run(scene: Scene) -> Answers:
        peer = scene.peer(role) if role else scene.stranger()
        for _ in range(TIMES):
            peer.send(kind, header, *frames, key=key)
        return heard(peer, "EN")

    return run


def refused_hello(**more: Any) -> Callable[[Scene], Answers]:
    def run(scene: Scene) -> Answers:
        peer = scene.stranger()
        for _ in range(TIMES):
            peer.send("H", hello_of("requester", peer.nonce, **more))
        return heard(peer)

    return run


def appended(*steps: tuple[int, dict[str, Any]], last: tuple[int, bytes, dict[str, Any]]) -> Callable[[Scene], Answers]:
    """A producer that sends good batches, and then TIMES the last one."""

    def run(scene: Scene) -> Answers:
        peer = scene.peer("producer")
        for sequence, more in steps:
            peer.append(sequence, **more)
            assert peer.receive("aE")["kind"] == "a"
        sequence, payload, more = last
        for _ in range(TIMES):
            peer.append(sequence, payload, **more)
        return heard(peer)

    return run


def stream_full(scene: Scene) -> Answers:
    _made(scene, name="bounded", retention="work", messages_max=1)
    more = {"stream": "bounded"}
    return appended((1, more), last=(2, ONE, more))(scene)


def unwanted(verb: str, **arguments: Any) -> Callable[[Scene], Answers]:
    """A verb that is refused where there is a stream `made`, as it is made by default."""

    def run(scene: Scene) -> Answers:
        _made(scene, name="made")
        admin = scene.peer("admin")
        for _ in range(TIMES):
            admin.send("M", {"id": 2, "verb": verb, "arguments": arguments})
        return heard(admin)

    return run


def no_frames(scene: Scene) -> Answers:
    peer = scene.stranger()
    for frames in ([b"\0"], [b"GET / HTTP/1.1", b"\x80"], [b"ZB1P\0\0", b"\x80"]):
        peer.socket.send_multipart(frames)
    return heard(peer)


def too_much_header(scene: Scene) -> Answers:
    peer = scene.peer("requester")
    peer.send("Q", bytes(HEADER_BYTES_MAX + 1))
    peer.send("Q", {"id": 1, "service": "s", "timeout_ms": 1}, bytes(COLUMNS_BYTES_MAX + 1))
    peer.send("Z", b"{" * (HEADER_BYTES_MAX + 1))  # of a kind that nobody knows: that is said first
    peer.send("I", b" " * (HEADER_BYTES_MAX + 1))
    return [answer for answer in (peer.receive("E") for _ in range(4)) if answer["number"] != 104]


def not_our_header(scene: Scene) -> Answers:
    peer = scene.stranger()
    for header in (b'{"jsonrpc": "2.0", "method": "hello"}', b"\xc1", b"[" * 40):
        peer.send("H", header)
    return heard(peer)


def bad_columns(scene: Scene) -> Answers:
    peer = scene.peer("requester")
    for number, columns in enumerate((b"\xc1", {"keys": ["a", "b"]}, {"topics": ["a"], "topic": [7]})):
        encoded = columns if isinstance(columns, bytes) else msgspec.msgpack.encode(columns)
        peer.send("Q", {"id": number, "service": "s", "timeout_ms": 9_000}, encoded, ONE)
    return heard(peer)


def used_id(scene: Scene) -> Answers:
    peer = scene.peer("subscriber")
    for _ in range(TIMES + 1):
        peer.send("S", {"id": 1, "pattern": "a.>"})
    return heard(peer)


def fenced(scene: Scene) -> Answers:
    lives = [scene.peer("producer", name="twin") for _ in range(TIMES + 1)]
    return _last_words(lives[:-1])


def forgotten(scene: Scene) -> Answers:
    peer = scene.peer("producer")
    for sequence in range(1, 67):
        peer.append(sequence)
        peer.receive("a")
    for _ in range(TIMES):
        peer.append(1)
    return heard(peer)


def no_replier(scene: Scene) -> Answers:
    peer = scene.peer("requester")
    for number in range(TIMES):
        ask(peer, number, wait_ms=1)
    return heard(peer)


def replier_lost(scene: Scene) -> Answers:
    replier, peer = scene.replier("lost"), scene.peer("requester")
    for number in range(TIMES):
        ask(peer, number, service="lost")
        replier.receive("Q")
    replier.send("G", {})
    return heard(peer)


def untranslatable(scene: Scene) -> Answers:
    scene.replier("json", codec="json")
    peer = scene.peer("requester")
    for number in range(TIMES):
        ask(peer, number, NAN, service="json")
    return heard(peer)


def overloaded(scene: Scene) -> Answers:
    """Replies for a requester that gives no credit are held, 8 MiB of them."""
    replier, peer = scene.replier("large", codec="raw"), scene.peer("requester", credit=(0, 0), codec="raw")
    for number in range(HELD_BYTES // HALF - 1 + TIMES):
        ask(peer, number, b"x", service="large", codec="raw")
        replier.send("q", {"id": replier.receive("Q")["id"], "codec": "raw"}, b"", b"x" * HALF)
    return heard(peer)


def credit_exceeded(scene: Scene) -> Answers:
    peers = [scene.peer("requester") for _ in range(TIMES)]
    for peer in peers:
        for number in range(CREDIT_BYTES // MIB + 1):
            ask(peer, number, b"x" * MIB, codec="raw")
    return _last_words(peers)


def slow(scene: Scene, **hello: Any) -> list[Peer]:
    """Subscribers without credit, and more than is held for them published."""
    peers = [scene.peer("subscriber", credit=(0, 0), **hello) for _ in range(TIMES)]
    for peer in peers:
        peer.send("S", {"id": 1, "pattern": "slow.>"})
        peer.receive("s")
    publisher = scene.peer("publisher")
    for sequence in range(HELD_BYTES // HALF + 2):
        publish(publisher, sequence, b"x" * HALF, "slow.a", codec="raw")
    return peers


def slow_subscriber(scene: Scene) -> Answers:
    return _last_words(slow(scene, overflow="disconnect"))


def _last_words(peers: list[Peer]) -> Answers:
    """Errors that end a session."""
    for peer in peers:
        peer.answers_pings = False
    return [peer.receive("E") for peer in peers]


# By the name that `status` counts it under: the number on the wire, and how it is provoked.
REFUSALS: Final[dict[str, tuple[int, Callable[[Scene], Answers]]]] = {
    "PROTOCOL_ERROR": (100, used_id),
    "PROTOCOL_ERROR.frames": (100, no_frames),
    "PROTOCOL_ERROR.size": (100, too_much_header),
    "PROTOCOL_ERROR.header": (100, not_our_header),
    "PROTOCOL_ERROR.columns": (100, bad_columns),
    "VERSION_UNSUPPORTED": (101, refused_hello(versions=[7, 9])),
    "FEATURE_UNSUPPORTED": (102, refused_hello(require=["telepathy"])),
    "NO_SESSION": (103, said("", "I", {"token": 1})),
    "UNKNOWN_COMMAND": (104, said("requester", "Z", {})),
    "WRONG_ROLE": (105, said("subscriber", "Q", {"id": 1, "service": "s", "timeout_ms": 1_000}, b"", ONE)),
    "FENCED": (106, fenced),
    "UNKNOWN_PRODUCER": (107, appended(last=(1, ONE, {"producer": 12_345}))),
    "SEQUENCE_GAP": (108, appended(last=(7, ONE, {}))),
    "SEQUENCE_REUSED": (109, appended((1, {}), last=(1, b"\x91\x02", {}))),
    "STALE_LEASE": (110, said("consumer", "K", {"lease": 77, "action": "ack"})),
    "BAD_NAME": (200, said("replier", "O", {"id": 1, "service": "a/b"})),
    "NO_REPLIER": (202, no_replier),
    "NO_SUCH_STREAM": (203, unwanted("show_stream", stream="nowhere")),
    "NO_SUCH_GROUP": (204, unwanted("show_group", stream="made", group="nobody")),
    "ALREADY_EXISTS": (205, unwanted("create_stream", config={"name": "made", "bytes_max": 7})),
    "BAD_BODY": (300, appended((1, {}), last=(2, b"\xc1", {}))),
    "TOO_LARGE": (301, appended((1, {}), last=(2, bytes(3 * BODY_BYTES_MAX), {"codec": "raw"}))),
    "UNTRANSLATABLE": (302, untranslatable),
    "BAD_ARGUMENT": (304, said("admin", "M", {"id": 1, "verb": "obey"})),
    "OVERLOADED": (400, overloaded),
    "CREDIT_EXCEEDED": (402, credit_exceeded),
    "SLOW_SUBSCRIBER": (404, slow_subscriber),
    "STREAM_FULL": (405, stream_full),
    "OUTCOME_UNKNOWN": (600, forgotten),
    "REPLIER_LOST": (601, replier_lost),
}

# Beside what they count, some refusals are other things that happened, too.
BESIDE: Final[dict[str, dict[str, int]]] = {"PROTOCOL_ERROR.size": {"UNKNOWN_COMMAND": 1}}


# -- what is counted and not refused ---------------------------------------------------------------------------------


def never_reads(scene: Scene) -> int:
    peer = scene.peer("requester")
    for _ in range(REPLIES_UNREAD_CUT + TIMES):
        peer.send("I", {"token": 1})
    return TIMES


def dropped(scene: Scene) -> int:
    """What it is told in LOST when it gives credit at last."""
    peers = slow(scene)
    for peer in peers:
        peer.send("C", {"messages": 1 << 20, "bytes": 1 << 30})
    return sum(peer.receive("l")["messages"] for peer in peers)


def untranslated_live(scene: Scene) -> int:
    subscriber, publisher = scene.peer("subscriber", codec="json"), scene.peer("publisher")
    subscriber.send("S", {"id": 1, "pattern": "nan"})
    subscriber.receive("s")
    for sequence in range(TIMES):
        publish(publisher, sequence, NAN, "nan")
        assert subscriber.receive("P")["count"] == 1
    return TIMES


def untranslated_stored(scene: Scene) -> int:
    consumer, producer = scene.consumer("nan", codec="json"), scene.peer("producer")
    for sequence in range(1, TIMES + 1):
        producer.append(sequence, NAN, stream="nan")
        assert consumer.receive("D")["count"] == 1
    return TIMES


def stale_settles(scene: Scene) -> int:
    consumer = scene.consumer("settled")
    for _ in range(TIMES):
        consumer.send("K", {"id": 5, "lease": 99, "action": "ack", "ranges": [[0, 5]]})
        assert consumer.receive("k")["stale"] == 6
    return TIMES


def _made(scene: Scene, **config: Any) -> None:
    admin = scene.peer("admin")
    admin.send("M", {"id": 1, "verb": "create_stream", "arguments": {"config": config}})
    assert admin.receive("mE")["kind"] == "m"


def captured(scene: Scene) -> int:
    _made(scene, name="heard", topics=["heard.>"])
    publisher = scene.peer("publisher")
    for sequence in range(TIMES):
        publish(publisher, sequence, topic="heard.a")
    return TIMES


def not_captured(scene: Scene) -> int:
    """One is stored, and then the stream is full."""
    _made(scene, name="narrow", topics=["narrow.>"], retention="work", messages_max=1)
    publisher = scene.peer("publisher")
    for sequence in range(1 + TIMES):
        publish(publisher, sequence, topic="narrow.a")
    return TIMES


def duplicates(scene: Scene) -> int:
    producer = scene.peer("producer")
    for sequence in range(1, 2 + TIMES):
        producer.append(sequence, columns=msgspec.msgpack.encode({"ids": ["the same"]}), stream="identified")
        assert producer.receive("aE")["kind"] == "a"
    return TIMES


def gaps(scene: Scene) -> int:
    publisher = scene.peer("publisher")
    for number in range(TIMES + 1):
        publish(publisher, number * 10)
    return TIMES


def late_replies(scene: Scene) -> int:
    replier = scene.peer("replier")
    for number in range(TIMES):
        replier.send("q", {"id": 900 + number}, b"", ONE)
    return TIMES


def timed_out(scene: Scene) -> int:
    peer = scene.peer("requester")
    for number in range(TIMES):
        ask(peer, number, timeout_ms=5)
    return TIMES


def cancelled(scene: Scene) -> int:
    peer = scene.peer("requester")
    for number in range(TIMES):
        ask(peer, number)
        peer.send("X", {"id": number})
    return TIMES


def redispatched(scene: Scene) -> int:
    first, peer = scene.replier("twice"), scene.peer("requester")
    for number in range(TIMES):
        ask(peer, number, service="twice", idempotent=True)
        first.receive("Q")
    second = scene.replier("twice")
    first.send("G", {})
    for _ in range(TIMES):
        second.send("q", {"id": second.receive("Q")["id"]}, b"", ONE)
        peer.receive("q")
    return TIMES


def errors_received(scene: Scene) -> int:
    peer = scene.peer("subscriber")
    for _ in range(TIMES):
        peer.send("E", {"number": 100})
    return TIMES


def goodbyes(scene: Scene) -> int:
    for _ in range(TIMES):
        peer = scene.peer("subscriber")
        peer.send("G", {})
        peer.receive("G")
    return TIMES


def replaced(scene: Scene) -> int:
    peer = scene.peer("publisher")
    for _ in range(TIMES):
        peer.hello("publisher")
    return TIMES


def refused_sessions(scene: Scene) -> int:
    for _ in range(TIMES):
        peer = scene.peer("requester")
        peer.send("H", hello_of("requester", peer.nonce, require=["telepathy"]))
        peer.receive("E")
    return TIMES


def oversized(scene: Scene) -> int:
    """A frame above MAXMSGSIZE, in a session: libzmq ends the connection, and tells nobody why."""
    for _ in range(TIMES):
        with _connected(scene, "requester") as peer:
            peer.sendall(frame(bytes(OVERSIZED), more=False)[:64])
            _read_to_the_end(peer)
    return TIMES


def expired(scene: Scene) -> int:
    for _ in range(TIMES):
        with _connected(scene, "consumer"):
            pass
    return TIMES


COUNTERS: Final[dict[str, Callable[[Scene], int]]] = {
    "answers_withheld": never_reads,
    "live_dropped": dropped,
    "live_untranslated": untranslated_live,
    "stored_untranslated": untranslated_stored,
    "stale_settles": stale_settles,
    "upstream_gaps": gaps,
    "captured": captured,
    "capture_dropped": not_captured,
    "duplicates": duplicates,
    "late_replies": late_replies,
    "timed_out": timed_out,
    "cancelled": cancelled,
    "redispatched": redispatched,
    "errors_received": errors_received,
    "sessions_goodbye": goodbyes,
    "sessions_replaced": replaced,
    "sessions_refused": refused_sessions,
    "sessions_disconnected": oversized,
    "sessions_expired": expired,
}


# -- connections -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _connected(scene: Scene, role: str) -> Iterator[socket.socket]:
    """A raw TCP peer whose session is there."""
    with raw_peer(scene.port) as peer:
        peer.settimeout(30)
        hello = msgspec.msgpack.encode(hello_of(role, os.urandom(16)))
        peer.sendall(frame(b"ZB1H", more=True) + frame(hello, more=False))
        assert b"ZB1h" in peer.recv(4_096)
        yield peer


def _read_to_the_end(peer: socket.socket) -> None:
    try:
        while peer.recv(65_536):
            pass
    except ConnectionResetError:
        pass


def endless(scene: Scene) -> None:
    """A message that never ends, from who has not said HELLO."""
    for _ in range(TIMES):
        with raw_peer(scene.port) as peer:
            peer.settimeout(30)
            _pour(peer)


def endless_in_a_session(scene: Scene) -> None:
    for _ in range(TIMES):
        with _connected(scene, "subscriber") as peer:
            _pour(peer)


def _pour(peer: socket.socket) -> None:
    """Until it is cut."""
    try:
        for _ in range(ENDLESS_BYTES_MAX // len(ENDLESS_MULTIPART)):
            peer.sendall(ENDLESS_MULTIPART)
    except (ConnectionResetError, BrokenPipeError):
        return
    raise AssertionError(f"not cut after {ENDLESS_BYTES_MAX} bytes")


def no_zmtp(scene: Scene) -> None:
    for _ in range(TIMES):
        with socket.create_connection(("127.0.0.1", scene.port), timeout=30) as peer:
            peer.sendall(b"\xff" + b"a" * 100)
            _read_to_the_end(peer)


def broken_off(scene: Scene) -> None:
    for said_first in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
        with socket.create_connection(("127.0.0.1", scene.port), timeout=30) as peer:
            peer.sendall(said_first)


def wrong_socket(scene: Scene) -> None:
    for _ in range(TIMES):
        with contextlib.suppress(ConnectionResetError), raw_peer(scene.port, b"PUB") as peer:
            peer.settimeout(30)
            _read_to_the_end(peer)
